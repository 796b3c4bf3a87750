//! What users are promised of a cluster, shown on real processes.

use phalanx_tests::{Cluster, Load, Origin, alone, http, until};
use serde_json::{Value, json};

#[test]
fn a_write_on_a_follower_is_served_by_all() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    let follower = (cluster.leader() + 1) % 3;
    cluster.route_to(&origin, follower);
    for node in &cluster.nodes {
        assert_eq!(http::get(node.proxy, "/x", &[]).unwrap().status, 200);
        let read = node.must("GET", "/v1/routes/all?consistency=linearizable", &Value::Null);
        assert_eq!(read["spec"]["upstream"], "origin");
    }
    assert_eq!(origin.served(), 3);
    assert_eq!(cluster.nodes[0].status()["tolerates"], 1);
}

#[test]
fn killing_the_leader_under_traffic_fails_no_request_and_loses_no_acknowledged_write() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    let proxies: Vec<_> = others.iter().map(|place| cluster.nodes[*place].proxy).collect();
    let load = Load::start(&proxies, 4, 2_000, "/load");
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        if cluster.nodes[others[0]].put_route(&format!("before-{n}"), "10s").status == 200 {
            acknowledged.push(format!("before-{n}"));
        }
    }
    assert_eq!(acknowledged.len(), 20);
    cluster.nodes[leader].kill();
    let new = cluster.leader_among(&others);
    assert_ne!(new, leader);
    assert_eq!(cluster.nodes[others[0]].put_route("after", "10s").status, 200);
    acknowledged.push("after".to_owned());
    let so_far = load.done();
    until("the traffic goes on", || (load.done() > so_far + 1_000).then_some(()));
    let (done, failures) = load.stop();
    assert!(
        failures.is_empty(),
        "{} of {done} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    for name in &acknowledged {
        cluster.nodes[others[1]].must(
            "GET",
            &format!("/v1/routes/{name}?consistency=linearizable"),
            &Value::Null,
        );
    }
    // The one that was killed catches up.
    cluster.nodes[leader].start();
    until("it has the newest route", || {
        cluster.nodes[leader]
            .ask("GET", "/v1/routes/after", &Value::Null)
            .ok()
            .filter(|answer| answer.status == 200)
    });
}

#[test]
fn one_of_three_that_were_all_killed_serves_alone_and_refuses_writes() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    cluster.nodes.iter_mut().for_each(phalanx_tests::Node::kill);
    cluster.nodes[1].start();
    assert_eq!(http::get(cluster.nodes[1].proxy, "/x", &[]).unwrap().status, 200);
    until("it has taken up its part in the cluster", || cluster.nodes[1].status()["node_id"].as_u64());
    let spec = json!({"respond": {"status": 200}});
    let refused = cluster.nodes[1].ask("PUT", "/v1/routes/new?timeout=2s", &spec).unwrap();
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("no_quorum")));
    cluster.nodes[0].start();
    cluster.leader_among(&[0, 1]);
    assert_eq!(cluster.nodes[1].put_route("new", "10s").status, 200);
}

#[test]
fn a_rolling_restart_fails_no_request_of_those_who_ask_a_ready_node() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    for place in 0..3 {
        let others: Vec<usize> = (0..3).filter(|other| *other != place).collect();
        let proxies: Vec<_> = others.iter().map(|other| cluster.nodes[*other].proxy).collect();
        let load = Load::start(&proxies, 2, 500, "/load");
        assert!(cluster.nodes[place].stop().success());
        assert_eq!(cluster.nodes[others[0]].put_route(&format!("while-{place}-is-away"), "10s").status, 200);
        cluster.nodes[place].start();
        until("it is ready and up to date", || {
            let answer =
                cluster.nodes[place].ask("GET", &format!("/v1/routes/while-{place}-is-away"), &Value::Null);
            answer.ok().filter(|answer| answer.status == 200)
        });
        let (done, failures) = load.stop();
        assert!(failures.is_empty(), "{} of {done} failed: {:?}", failures.len(), failures.first());
    }
}

#[test]
fn a_key_is_good_until_it_is_revoked_and_then_on_no_node() {
    let _alone = alone();
    let cluster = Cluster::form(3);
    let document = json!({
        "version": 1,
        "policies": {"keys": {"type": "api-key", "in": {"header": "x-api-key"}}},
        "consumers": {"acme": {}},
        "routes": {"private": {"policies": ["keys"], "respond": {"status": 200}}},
    });
    cluster.nodes[0].must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    let issued = cluster.nodes[1].must("POST", "/v1/keys?wait=all", &json!({"consumer": "acme"}));
    let (id, key) = (issued["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    let with = |place: usize, key: &str| {
        http::get(cluster.nodes[place].proxy, "/", &[("x-api-key", key)]).unwrap().status
    };
    for place in 0..3 {
        assert_eq!(with(place, key), 200);
        assert_eq!(with(place, "gw_live_nonsense"), 401);
        assert_eq!(http::get(cluster.nodes[place].proxy, "/", &[]).unwrap().status, 401);
    }
    let shown = cluster.nodes[2].must("GET", &format!("/v1/keys/{id}"), &Value::Null);
    assert!(!shown.to_string().contains("digest"), "{shown}");
    cluster.nodes[2].must("DELETE", &format!("/v1/keys/{id}?wait=all"), &Value::Null);
    for place in 0..3 {
        assert_eq!(with(place, key), 401);
    }
}

#[test]
fn a_node_is_removed_wiped_and_comes_back_as_another() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    let gone = cluster.nodes[2].id();
    cluster.nodes[2].kill();
    cluster.nodes[0].must("DELETE", &format!("/v1/cluster/members/{gone}"), &Value::Null);
    cluster.nodes[0].must("DELETE", &format!("/v1/cluster/members/{gone}"), &Value::Null);
    until("two are left", || {
        let status = cluster.nodes[0].status();
        (status["members"].as_array()?.len() == 2).then_some(())
    });
    std::fs::remove_dir_all(&cluster.nodes[2].data).unwrap();
    let mut removed = cluster.nodes.remove(2);
    removed.start();
    assert_eq!(removed.ask("GET", "/readyz", &Value::Null).unwrap().status, 503);
    drop(removed);
    let id = cluster.join();
    assert!(id > gone, "{id} is not after {gone}");
}

#[test]
fn a_join_token_is_good_once_and_a_wrong_one_changes_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::form(1);
    let (token, address) = (cluster.token(), cluster.nodes[0].peer.to_string());
    cluster.add();
    let join = |cluster: &Cluster, place: usize, token: &str| {
        cluster.nodes[place]
            .ask("POST", "/v1/cluster/join", &json!({"address": address, "token": token}))
            .unwrap()
    };
    assert_eq!(join(&cluster, 1, "gwj1.nonsense").status, 400);
    assert_eq!(join(&cluster, 1, &token).status, 201);
    // A retry is the same node's.
    assert_eq!(join(&cluster, 1, &token).status, 201);
    cluster.add();
    let used_up = join(&cluster, 2, &token);
    assert_eq!(used_up.status, 401, "{}", used_up.json());
    assert!(used_up.json()["detail"].as_str().unwrap().contains("used up"));
    let short = cluster.nodes[0].must("POST", "/v1/cluster/tokens", &json!({"ttl": "1ms"}));
    let expired = join(&cluster, 2, short["token"].as_str().unwrap());
    assert_eq!(expired.status, 401, "{}", expired.json());
    assert!(expired.json()["detail"].as_str().unwrap().contains("expired"), "{}", expired.json());
    assert_eq!(cluster.nodes[0].status()["members"].as_array().unwrap().len(), 2);
}

#[test]
fn a_damaged_store_is_named_and_the_node_does_not_start() {
    let _alone = alone();
    let mut cluster = Cluster::form(1);
    assert_eq!(cluster.nodes[0].put_route("a", "10s").status, 200);
    cluster.nodes[0].kill();
    let file = cluster.nodes[0].data.join("high-water");
    let length = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x55; usize::try_from(length).unwrap()]).unwrap();
    assert_eq!(cluster.nodes[0].start_in_vain().code(), Some(78));
    let log = cluster.nodes[0].log_text();
    assert!(log.contains("high-water") && log.contains("gwctl cluster join"), "{log}");
}

#[test]
fn edits_that_cross_are_told_and_a_repeated_one_is_done_once() {
    let _alone = alone();
    let cluster = Cluster::form(1);
    let node = &cluster.nodes[0];
    let spec = |status: u16| json!({"respond": {"status": status}});
    let put = |headers: &[(&str, &str)], status: u16| {
        node.ask_with("PUT", "/v1/routes/a", headers, &spec(status)).unwrap()
    };
    assert_eq!(put(&[("if-none-match", "*")], 200).status, 200);
    assert_eq!(put(&[("if-none-match", "*")], 201).status, 412);
    let etag = node.ask("GET", "/v1/routes/a", &Value::Null).unwrap().header("etag").unwrap().to_owned();
    assert_eq!(put(&[("if-match", &etag)], 202).status, 200);
    assert_eq!(put(&[("if-match", &etag)], 203).status, 412);
    let first = put(&[("idempotency-key", "k")], 204).json();
    // Another change comes between: without its key the repeated one would undo it.
    assert_eq!(put(&[], 205).status, 200);
    let second = put(&[("idempotency-key", "k")], 204).json();
    assert_eq!(first["revision"], second["revision"]);
    assert_eq!(node.must("GET", "/v1/routes/a", &Value::Null)["spec"]["respond"]["status"], 205);
    let invalid = node.ask("PUT", "/v1/routes/a", &json!({"respond": {"status": 7}, "colour": 1})).unwrap();
    assert_eq!((invalid.status, &invalid.json()["code"]), (422, &json!("invalid")));
    let unknown = node.ask("GET", "/v1/routes/b", &Value::Null).unwrap();
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
}
