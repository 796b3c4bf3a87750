//! Nodes that are cut off from each other, and come together again.

use std::thread;

use phalanx_tests::{Cluster, Load, Origin, Written, alone, http, until};
use serde_json::{Value, json};

/// Writes through the node at this place until it says that there is no quorum; none may be acknowledged.
fn writes_are_refused(cluster: &Cluster, written: &mut Written, place: usize) {
    let mut n = 0;
    until("a write is refused for want of a quorum", || {
        n += 1;
        let name = format!("cut-off-{place}-{n}");
        assert!(!written.write(cluster.admin(place), name, "1s"), "acknowledged by one alone");
        (!written.unchanged.is_empty()).then_some(())
    });
}

fn takes_writes_again(cluster: &Cluster, written: &mut Written, place: usize) {
    let mut n = 0;
    until("a write is taken again", || {
        n += 1;
        written.write(cluster.admin(place), format!("after-{n}"), "10s").then_some(())
    });
}

fn serves(cluster: &Cluster, place: usize, route: &str) -> Option<http::Answer> {
    let answer = http::get(cluster.nodes[place].proxy, &format!("/{route}"), &[]).ok()?;
    (answer.status == 200 && answer.body.is_empty()).then_some(answer)
}

/// Has `cut` part the node at this place from the majority, under traffic through all nodes; has both sides write,
/// heals, and checks.
fn part(cluster: &Cluster, place: usize, cut: impl FnOnce()) {
    let origin = Origin::start();
    cluster.route_to(&origin, 0);
    let load = Load::start(&cluster.proxies(&[0, 1, 2]), 2, 600, "/load");
    let (others, mut written) = (cluster.others(place), Written::default());
    assert!(written.write(cluster.admin(place), "before".to_owned(), "10s"));
    cut();
    let alone = cluster.admin(place).clone();
    let reading =
        thread::spawn(move || alone.ask("GET", "/v1/routes/before?consistency=linearizable", &Value::Null));
    writes_are_refused(cluster, &mut written, place);
    cluster.leader_among(&others);
    for n in 0..5 {
        assert!(written.write(cluster.admin(others[n % 2]), format!("meanwhile-{n}"), "10s"));
    }
    assert!(!cluster.admin(place).has_route("meanwhile-4"));
    let read = reading.join().expect("it does not panic").expect("the node answers");
    assert_eq!(
        (read.status, &read.json()["code"]),
        (503, &json!("no_quorum")),
        "nobody can say what is newest"
    );
    load.goes_on(300);
    cluster.heal();
    until("the node that was cut off serves the newest route", || serves(cluster, place, "meanwhile-4"));
    takes_writes_again(cluster, &mut written, place);
    load.goes_on(300);
    load.stop_without_failure();
    for place in 0..3 {
        written.check(cluster.admin(place));
    }
}

#[test]
fn an_isolated_leader_proxies_on_acknowledges_nothing_and_catches_up() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    let leader = cluster.leader();
    part(&cluster, leader, || cluster.isolate(leader));
}

#[test]
fn an_isolated_follower_proxies_on_and_disturbs_nobody() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    let (leader, term) = (cluster.leader(), cluster.term());
    let follower = (leader + 1) % 3;
    part(&cluster, follower, || cluster.isolate(follower));
    // It asks before it stands for election. promises.md allows one election for what else may come.
    assert!(cluster.term() <= term + 1);
}

#[test]
fn a_follower_that_hears_the_other_follower_alone_disturbs_nobody() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    let (leader, term) = (cluster.leader(), cluster.term());
    let follower = (leader + 1) % 3;
    part(&cluster, follower, || {
        cluster.cut(leader, follower);
        cluster.cut(follower, leader);
    });
    assert!(cluster.term() <= term + 1);
}

#[test]
fn a_leader_that_is_heard_and_hears_nobody_is_replaced() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    let leader = cluster.leader();
    part(&cluster, leader, || {
        cluster.others(leader).into_iter().for_each(|other| cluster.cut(other, leader))
    });
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
            let status = cluster.admin(place).status();
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
    takes_writes_again(&cluster, &mut written, (leader + 1) % 3);
    load.stop_without_failure();
    for written in [&refused[0], &refused[1], &refused[2], &written] {
        written.check(cluster.admin(leader));
    }
}
