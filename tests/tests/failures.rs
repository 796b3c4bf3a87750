//! Nodes that are killed, stopped or damaged under traffic.

use std::thread;

use phalanx_tests::{Cluster, Load, Node, Origin, Writers, Written, alone, http, origin, until};
use serde_json::{Value, json};

#[test]
fn killing_the_leader_fails_no_request_loses_no_acknowledged_write_and_makes_none_twice() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let load = Load::start(&cluster.proxies(&others), 4, 2_000, "/load");
    let writers = Writers::start(&[cluster.admin(others[0]).clone(), cluster.admin(others[1]).clone()]);
    writers.go_on(20);
    cluster.nodes[leader].kill();
    let new = cluster.leader_among(&others);
    writers.go_on(40);
    load.goes_on(1_000);
    load.stop_without_failure();
    writers.stop_and_check(cluster.admin(new));
    // The one that was killed catches up.
    assert_eq!(cluster.admin(new).put_route("after", "10s").status, 200);
    cluster.nodes[leader].start();
    until("it has the newest route", || cluster.admin(leader).has_route("after").then_some(()));
}

#[test]
fn a_leader_that_was_paused_gives_no_stale_read_and_follows_the_new_one() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let load = Load::start(&cluster.proxies(&others), 2, 500, "/load");
    cluster.nodes[leader].pause();
    let new = cluster.leader_among(&others);
    assert_eq!(cluster.admin(new).put_route("newer", "10s").status, 200);
    // It is asked while it is paused, and so before it can have heard of anything.
    let paused = cluster.admin(leader).clone();
    let ask = || paused.ask("GET", "/v1/routes/newer?consistency=linearizable", &Value::Null).unwrap();
    let read = thread::scope(|scope| {
        let reading = scope.spawn(ask);
        load.goes_on(100);
        cluster.nodes[leader].resume();
        reading.join().unwrap()
    });
    assert!(matches!(read.status, 200 | 503), "{} {}", read.status, read.json());
    until("it follows the new leader", || (ask().status == 200).then_some(()));
    until("it takes writes again", || {
        (cluster.admin(leader).put_route("newest", "10s").status == 200).then_some(())
    });
    load.stop_without_failure();
}

#[test]
fn one_of_three_that_were_all_killed_serves_alone_and_refuses_writes() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    cluster.admin(0).must(
        "PUT",
        "/v1/routes/last?wait=all",
        &json!({
            "match": [{"path": {"exact": "/last"}}], "respond": {"status": 418},
        }),
    );
    let mut written = Written::default();
    for n in 0..9 {
        assert!(written.write(cluster.admin(n % 3), format!("before-{n}"), "10s"));
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[1].start();
    assert_eq!(http::get(cluster.nodes[1].proxy, "/x", &[]).unwrap().status, 200);
    assert_eq!(http::get(cluster.nodes[1].proxy, "/last", &[]).unwrap().status, 418);
    until("it has taken up its part in the cluster", || cluster.admin(1).status()["node_id"].as_u64());
    let refused = cluster.admin(1).put_route("new", "2s");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("no_quorum")));
    written.unchanged.push("new".to_owned());
    cluster.nodes[0].start();
    cluster.leader_among(&[0, 1]);
    written.check(cluster.admin(1));
    assert_eq!(cluster.admin(1).put_route("newer", "10s").status, 200);
}

#[test]
fn a_node_that_stops_serves_on_while_balancers_learn_that_it_is_not_ready() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(1), Origin::start());
    cluster.route_to(&origin, 0);
    let node = &mut cluster.nodes[0];
    assert!(node.stop().success());
    // So long that it is ended by hand.
    node.environment.insert("PHALANX_SHUTDOWN_DELAY".to_owned(), "10m".to_owned());
    node.start();
    until("it is ready", || node.admin.is_ready().then_some(()));
    node.terminate();
    until("it says that it is not ready", || (!node.admin.is_ready()).then_some(()));
    assert_eq!(http::get(node.proxy, "/new", &[]).unwrap().status, 200);
    node.terminate();
    assert!(node.ended().success());
}

#[test]
fn a_rolling_restart_behind_a_balancer_fails_no_request() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    let load = Load::start_balanced(&cluster.members(), 6, 600, "/load");
    for place in 0..3 {
        let proxy = cluster.nodes[place].proxy;
        let in_flight = thread::spawn(move || http::get(proxy, origin::HELD, &[]));
        until("the request is in flight", || (origin.held() == 1).then_some(()));
        cluster.nodes[place].terminate();
        until("the node says that it is not ready", || {
            let answer = cluster.admin(place).ask("GET", "/readyz", &Value::Null).unwrap();
            (answer.status == 503).then_some(())
        });
        load.goes_on(100);
        origin.release();
        assert_eq!(in_flight.join().unwrap().unwrap().status, 200);
        assert!(cluster.nodes[place].ended().success());
        let (other, name) = ((place + 1) % 3, format!("while-{place}-is-away"));
        assert_eq!(cluster.admin(other).put_route(&name, "10s").status, 200);
        load.goes_on(100);
        cluster.nodes[place].start();
        until("it is ready and up to date", || {
            (cluster.admin(place).is_ready() && cluster.admin(place).has_route(&name)).then_some(())
        });
        load.goes_on(100);
    }
    load.stop_without_failure();
}

#[test]
fn a_node_with_a_damaged_log_does_not_start_and_rejoins_as_it_says() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    for n in 0..20 {
        assert_eq!(cluster.admin(0).put_route(&format!("route-{n}"), "10s").status, 200);
    }
    let id = cluster.admin(2).id();
    cluster.nodes[2].kill();
    let file = cluster.nodes[2].data.join("log/00000000000000000000.log");
    flip_the_middle(&file);
    assert_eq!(cluster.nodes[2].start_in_vain().code(), Some(78));
    let log = cluster.nodes[2].log_text();
    assert!(log.contains(file.to_str().unwrap()), "the file is not named: {log}");
    for step in
        ["gwctl cluster remove ID", "move the data folder away", "gwctl cluster join HOST:PORT --token"]
    {
        assert!(log.contains(step), "{step:?} is not said: {log}");
    }
    // As it says.
    let (healthy, data) = (cluster.nodes[0].data.join("admin.sock"), cluster.nodes[2].data.clone());
    let (healthy, here) = (healthy.to_str().unwrap(), data.to_str().unwrap());
    cluster.gwctl(&["--socket", healthy, "cluster", "remove", &id.to_string()]);
    std::fs::rename(&data, data.with_extension("damaged")).unwrap();
    cluster.nodes[2].start();
    let (address, token) = (cluster.nodes[1].peer.to_string(), cluster.token());
    cluster.gwctl(&["cluster", "join", &address, "--token", &token, "--data", here]);
    let status = cluster.admin(2).status();
    assert!(status["node_id"].as_u64().unwrap() > id, "{status}");
    assert_eq!(status["members"].as_array().unwrap().len(), 3);
    assert_eq!(cluster.admin(2).routes().1.len(), 20);
    until("the cluster tolerates a failure again", || {
        (cluster.admin(0).status()["tolerates"] == 1).then_some(())
    });
}

/// Flips every bit in the middle third of what the file holds; it may end in zeros that were never used.
fn flip_the_middle(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).expect("the file is there");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("it is in use");
    bytes[used / 3..used * 2 / 3].iter_mut().for_each(|byte| *byte = !*byte);
    std::fs::write(file, bytes).expect("it can be written");
}

#[test]
fn a_store_that_is_gone_is_made_anew_from_the_log() {
    let _alone = alone();
    let mut cluster = Cluster::form(1);
    assert_eq!(cluster.admin(0).put_route("a", "10s").status, 200);
    cluster.nodes[0].kill();
    std::fs::remove_dir_all(cluster.nodes[0].data.join("store")).unwrap();
    cluster.nodes[0].start();
    until("the node leads itself again", || cluster.admin(0).is_ready().then_some(()));
    assert_eq!(cluster.admin(0).routes().1.len(), 1);
    assert_eq!(cluster.admin(0).put_route("b", "10s").status, 200);
}

#[test]
fn a_damaged_high_water_file_is_named_and_the_node_does_not_start() {
    let _alone = alone();
    let mut cluster = Cluster::form(1);
    assert_eq!(cluster.admin(0).put_route("a", "10s").status, 200);
    cluster.nodes[0].kill();
    let file = cluster.nodes[0].data.join("high-water");
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x55; usize::try_from(length).unwrap()]).unwrap();
    assert_eq!(cluster.nodes[0].start_in_vain().code(), Some(78));
    let log = cluster.nodes[0].log_text();
    assert!(log.contains("high-water") && log.contains("gwctl cluster join"), "{log}");
}
