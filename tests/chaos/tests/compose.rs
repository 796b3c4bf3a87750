//! A cluster in containers does what it is told: `docker/test` builds the image and runs this.

use chaos::compose::{Compose, NodeOptions, Options, Ways};
use phalanx_tests::{alone, http, links::Weather, until};
use serde_json::Value;

/// How the node at one place sees that at another.
fn health(compose: &Compose, at: usize, of: usize) -> String {
    let (name, status) = (&compose.member(of).name, compose.member(at).admin.status());
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let member = members.iter().find(|member| member["name"] == **name);
    member.and_then(|member| member["health"].as_str()).unwrap_or_default().to_owned()
}

fn ok(compose: &Compose, place: usize) -> bool {
    http::get(compose.member(place).proxy, "/", &[]).is_ok_and(|answer| answer.status == 200)
}

/// Writes by the node at this place; gives the status of the answer.
fn write(compose: &Compose, place: usize, name: &str) -> u16 {
    compose.member(place).admin.put_route(name, "2s").status
}

/// The two followers, and the leader.
fn roles(compose: &Compose) -> (usize, usize, usize) {
    let leader = compose.leader();
    let followers = compose.others(&[leader]);
    (followers[0], followers[1], leader)
}

/// Cuts ways one by one and all of them, and heals them.
fn cuts_and_heals(compose: &Compose) {
    // Gossip goes around a way that is cut: a node that nobody hears is the one that is missed.
    let (one, other, leader) = roles(compose);
    compose.cut_datagrams(one, other);
    compose.cut_datagrams(one, leader);
    until("nobody hears its gossip, and it hears the others", || {
        let missed = health(compose, other, one) != "healthy" && health(compose, leader, one) != "healthy";
        (missed && health(compose, one, leader) == "healthy").then_some(())
    });
    assert_eq!(write(compose, one, "gossip-cut"), 200);
    compose.heal();
    compose.wait_until_whole();

    compose.part(&[compose.leader()]);
    until("the others elect one", || compose.leader_of(&[one, other]));
    until("the one that is alone refuses writes", || (write(compose, leader, "alone") == 503).then_some(()));
    assert!(ok(compose, leader));
    compose.heal();
    compose.wait_until_whole();
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn a_cluster_does_what_it_is_told() {
    let _alone = alone();
    let mut compose = Compose::up(3, Options { seed: 1, ..Options::default() });
    compose.route_to_origins();
    assert!((0..3).all(|place| ok(&compose, place)));
    cuts_and_heals(&compose);

    let links = compose.links().expect("the ways are relayed");
    links.set_weather(&Weather { loss_percent: 10, delay_ms: 10..50 });
    until("a write gets through bad weather", || (write(&compose, 0, "weather") < 300).then_some(()));
    compose.heal();
    compose.wait_until_whole();

    let (follower, _, leader) = roles(&compose);
    let (id, pid) = (compose.member(leader).admin.id(), compose.pid(leader));
    compose.kill(leader);
    assert_eq!((compose.exit_code(leader), compose.pid(leader)), (Some(137), None));
    until("the others elect one", || compose.leader_of(&compose.others(&[leader])));
    compose.start(leader);
    compose.wait_until_whole();
    assert_eq!(compose.member(leader).admin.id(), id);
    assert_ne!(compose.pid(leader), pid);
    assert!(ok(&compose, leader));

    let leader = compose.leader();
    compose.freeze(leader);
    until("the others elect one", || compose.leader_of(&compose.others(&[leader])));
    compose.thaw(leader);
    compose.wait_until_whole();

    assert_eq!(compose.stop(follower), 0);
    compose.change(follower, |options| {
        options.environment.insert("PHALANX_LOG_FORMAT".to_owned(), "json".to_owned());
    });
    compose.start(follower);
    compose.wait_until_whole();
    let log = compose.logs(follower);
    assert!(log.contains("in the cluster") && log.lines().last().is_some_and(|line| line.starts_with('{')));

    // The first node too, which has formed the cluster: it joins now.
    let old = compose.member(0).admin.id();
    compose.kill(0);
    compose.wipe(0);
    compose.remove_id(old, &[0]);
    compose.start(0);
    compose.wait_until_whole();
    assert!(compose.member(0).admin.id() > old);
    until("it has caught up", || ok(&compose, 0).then_some(()));

    let added = compose.add_node(NodeOptions::default());
    compose.wait_until_whole();
    assert!(ok(&compose, added));
    compose.part(&[added]);
    until("the new one has no quorum", || {
        (compose.member(added).admin.status()["quorum"] == false).then_some(())
    });
    compose.heal();
    compose.wait_until_whole();
    compose.remove(added);
    compose.wait_until_whole();

    let all = compose.places();
    compose.kill_all(&all);
    compose.start_all(&all);
    compose.wait_until_whole();
    let told = compose.gwctl(1, &["-o", "json", "cluster", "status"]);
    assert_eq!(serde_json::from_str::<Value>(&told.out).unwrap()["quorum"], true, "{told:?}");
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn nodes_without_relays_are_cut_off_by_packets_that_are_dropped() {
    let _alone = alone();
    let compose = Compose::up(3, Options { ways: Ways::Direct, ..Options::default() });
    compose.route_to_origins();
    cuts_and_heals(&compose);

    // A cut outlives a restart of either end.
    let (follower, _, leader) = roles(&compose);
    compose.part(&[follower]);
    for place in [follower, leader] {
        compose.kill(place);
        compose.start(place);
    }
    until("the others go on", || compose.leader_of(&compose.others(&[follower])));
    until("it refuses writes", || (write(&compose, follower, "refused") == 503).then_some(()));
    compose.heal();
    compose.wait_until_whole();

    let leader = compose.leader();
    compose.disconnect(leader);
    until("the others elect one", || compose.leader_of(&compose.others(&[leader])));
    compose.connect(leader);
    compose.wait_until_whole();
}
