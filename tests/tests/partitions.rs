//! Nodes that are cut off from each other, and come together again.

use phalanx_tests::{Cluster, Load, Origin, alone, http::Answer, until};
use serde_json::json;

/// What became of writes, by the names of their routes.
#[derive(Default)]
struct Written {
    acknowledged: Vec<String>,
    unchanged: Vec<String>,
}

impl Written {
    /// Has the node at this place make a route; gives whether that was acknowledged.
    fn write(&mut self, cluster: &Cluster, place: usize, name: String) -> bool {
        self.write_within(cluster, place, name, "10s")
    }

    fn write_within(&mut self, cluster: &Cluster, place: usize, name: String, timeout: &str) -> bool {
        let answer = cluster.nodes[place].put_route(&name, timeout);
        match (answer.status, answer.json()["code"].as_str()) {
            (200, _) => self.acknowledged.push(name),
            (503, Some("no_quorum")) => self.unchanged.push(name),
            // It may have happened or may yet: nothing is promised of it.
            (504, Some("unknown_outcome")) => {}
            _ => panic!("{} {}", answer.status, answer.json()),
        }
        answer.status == 200
    }

    /// Asserts that the cluster, asked through the node at this place, holds what was acknowledged and not what was refused.
    fn check(&self, cluster: &Cluster, place: usize) {
        let has = |name: &String| cluster.nodes[place].cluster_has_route(name);
        let lost: Vec<_> = self.acknowledged.iter().filter(|name| !has(name)).collect();
        assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
        let there: Vec<_> = self.unchanged.iter().filter(|name| has(name)).collect();
        assert!(there.is_empty(), "said to have changed nothing, and there: {there:?}");
    }
}

/// Writes through the node at this place until it says that there is no quorum; none may be acknowledged.
fn writes_are_refused(cluster: &Cluster, written: &mut Written, place: usize) {
    let mut n = 0;
    until("a write is refused for want of a quorum", || {
        n += 1;
        let name = format!("cut-off-{place}-{n}");
        assert!(!written.write_within(cluster, place, name, "1s"), "acknowledged by one alone");
        (!written.unchanged.is_empty()).then_some(())
    });
}

fn serves(cluster: &Cluster, place: usize, route: &str) -> Option<Answer> {
    let answer = phalanx_tests::http::get(cluster.nodes[place].proxy, &format!("/{route}"), &[]).ok()?;
    (answer.status == 200 && answer.body.is_empty()).then_some(answer)
}

/// Isolates the node at this place under traffic through all nodes, has both sides write, heals, and checks.
fn isolate_one(cluster: &Cluster, place: usize, origin: &Origin) {
    cluster.route_to(origin, 0);
    let load = Load::start(&cluster.proxies(&[0, 1, 2]), 2, 600, "/load");
    let (others, mut written) = (cluster.others(place), Written::default());
    assert!(written.write(cluster, place, "before".to_owned()));
    cluster.isolate(place);
    writes_are_refused(cluster, &mut written, place);
    cluster.leader_among(&others);
    for n in 0..5 {
        assert!(written.write(cluster, others[n % 2], format!("meanwhile-{n}")));
    }
    assert!(!cluster.nodes[place].has_route("meanwhile-4"));
    load.goes_on(300);
    cluster.heal();
    until("the node that was cut off serves the newest route", || serves(cluster, place, "meanwhile-4"));
    until("it takes writes again", || written.write(cluster, place, "after".to_owned()).then_some(()));
    load.goes_on(300);
    load.stop_without_failure();
    for place in 0..3 {
        written.check(cluster, place);
    }
}

#[test]
fn an_isolated_leader_proxies_on_acknowledges_nothing_and_catches_up() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form_linked(3), Origin::start());
    let leader = cluster.leader();
    isolate_one(&cluster, leader, &origin);
}

#[test]
fn an_isolated_follower_proxies_on_and_the_leader_stays() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form_linked(3), Origin::start());
    let leader = cluster.leader();
    let term = cluster.nodes[leader].status()["term"].clone();
    isolate_one(&cluster, (leader + 1) % 3, &origin);
    // It asks before it stands for election, so its coming back disturbs nobody.
    assert_eq!(cluster.nodes[leader].status()["term"], term);
    assert_eq!(cluster.leader(), leader);
}

#[test]
fn nodes_that_are_all_alone_proxy_and_refuse_writes() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form_linked(3), Origin::start());
    cluster.route_to(&origin, 0);
    let load = Load::start(&cluster.proxies(&[0, 1, 2]), 2, 600, "/load");
    (0..3).for_each(|place| cluster.isolate(place));
    let mut refused: [Written; 3] = Default::default();
    for (place, written) in refused.iter_mut().enumerate() {
        writes_are_refused(&cluster, written, place);
    }
    until("each says that it has no quorum and hears nobody", || {
        let alone = |place: usize| {
            let status = cluster.nodes[place].status();
            let members = status["members"].as_array()?;
            let unheard = members.iter().filter(|member| member["health"] != "healthy").count();
            (status["quorum"] == json!(false) && unheard == 2).then_some(())
        };
        (0..3).map(alone).collect::<Option<Vec<()>>>()
    });
    load.goes_on(300);
    cluster.heal();
    let leader = cluster.leader();
    let mut written = Written::default();
    until("writes are taken again", || {
        written.write(&cluster, (leader + 1) % 3, "after".to_owned()).then_some(())
    });
    load.stop_without_failure();
    for written in [&refused[0], &refused[1], &refused[2], &written] {
        written.check(&cluster, leader);
    }
}
