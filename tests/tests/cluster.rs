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
        let read = node.admin.must("GET", "/v1/routes/all?consistency=linearizable", &Value::Null);
        assert_eq!(read["spec"]["upstream"], "origin");
    }
    assert_eq!(origin.served(), 3);
    assert_eq!(cluster.admin(0).status()["tolerates"], 1);
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
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    let issued = cluster.admin(1).must("POST", "/v1/keys?wait=all", &json!({"consumer": "acme"}));
    let (id, key) = (issued["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    let with = |place: usize, key: &str| {
        http::get(cluster.nodes[place].proxy, "/", &[("x-api-key", key)]).unwrap().status
    };
    for place in 0..3 {
        assert_eq!(with(place, key), 200);
        assert_eq!(with(place, "gw_live_nonsense"), 401);
        assert_eq!(http::get(cluster.nodes[place].proxy, "/", &[]).unwrap().status, 401);
    }
    let shown = cluster.admin(2).must("GET", &format!("/v1/keys/{id}"), &Value::Null);
    assert!(!shown.to_string().contains("digest"), "{shown}");
    cluster.admin(2).must("DELETE", &format!("/v1/keys/{id}?wait=all"), &Value::Null);
    for place in 0..3 {
        assert_eq!(with(place, key), 401);
    }
}

#[test]
fn a_wiped_node_is_refused_in_its_old_place_and_comes_back_as_another() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    let gone = cluster.admin(2).id();
    cluster.nodes[2].kill();
    std::fs::remove_dir_all(&cluster.nodes[2].data).unwrap();
    cluster.nodes[2].start();
    assert_eq!(cluster.admin(2).ask("GET", "/readyz", &Value::Null).unwrap().status, 503);
    let body = json!({"address": cluster.nodes[1].peer.to_string(), "token": cluster.token()});
    let refused = cluster.admin(2).ask("POST", "/v1/cluster/join", &body).unwrap();
    assert_eq!(refused.status, 409, "{}", refused.json());
    assert!(refused.json()["detail"].as_str().unwrap().contains("remove it first"), "{}", refused.json());
    // Done twice, it is done once.
    for _ in 0..2 {
        cluster.admin(0).must("DELETE", &format!("/v1/cluster/members/{gone}"), &Value::Null);
    }
    let joined = cluster.admin(2).must("POST", "/v1/cluster/join", &body);
    assert!(joined["node_id"].as_u64().unwrap() > gone, "{joined} is not after {gone}");
    until("the cluster tolerates a failure again", || {
        (cluster.admin(0).status()["tolerates"] == 1).then_some(())
    });
}

#[test]
fn a_leader_that_leaves_hands_over_first_and_proxies_on() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    cluster.route_to(&origin, 0);
    let first = cluster.leader();
    cluster.admin((first + 1) % 3).must("POST", "/v1/cluster/transfer", &json!({}));
    let leader = until("another leads", || Some(cluster.leader()).filter(|leader| *leader != first));
    let load = Load::start(&cluster.proxies(&[0, 1, 2]), 2, 600, "/load");
    for _ in 0..2 {
        cluster.admin(leader).must("POST", "/v1/cluster/leave", &json!({}));
    }
    let others = cluster.others(leader);
    cluster.leader_among(&others);
    until("two are left", || {
        let left = |place: &usize| cluster.admin(*place).status()["members"].as_array().map(Vec::len);
        others.iter().all(|place| left(place) == Some(2)).then_some(())
    });
    assert_eq!(cluster.admin(others[0]).put_route("after", "10s").status, 200);
    until("a balancer is told to take the node out", || (!cluster.admin(leader).is_ready()).then_some(()));
    load.goes_on(100);
    load.stop_without_failure();
}

#[test]
fn a_join_token_is_good_once_and_a_wrong_one_changes_nothing() {
    let _alone = alone();
    let mut cluster = Cluster::form(1);
    let (token, address) = (cluster.token(), cluster.nodes[0].peer.to_string());
    cluster.add();
    let join = |cluster: &Cluster, place: usize, token: &str| {
        cluster
            .admin(place)
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
    let short = cluster.admin(0).must("POST", "/v1/cluster/tokens", &json!({"ttl": "1ms"}));
    let expired = join(&cluster, 2, short["token"].as_str().unwrap());
    assert_eq!(expired.status, 401, "{}", expired.json());
    assert!(expired.json()["detail"].as_str().unwrap().contains("expired"), "{}", expired.json());
    assert_eq!(cluster.admin(0).status()["members"].as_array().unwrap().len(), 2);
}

#[test]
fn a_join_by_way_of_a_wrong_ca_or_address_changes_nothing() {
    let _alone = alone();
    let (mut cluster, other) = (Cluster::form(1), Cluster::form(1));
    let (token, address) = (cluster.token(), cluster.nodes[0].peer.to_string());
    let (stranger, nobody) = (Origin::start().address.to_string(), "127.0.0.1:1");
    cluster.add();
    let join = |body: Value| cluster.admin(1).ask("POST", "/v1/cluster/join", &body).unwrap();
    for (what, body, status, said) in [
        (
            "the token of another cluster",
            json!({"address": address, "token": other.token()}),
            403,
            "is not the token's",
        ),
        ("nobody where a member should be", json!({"address": nobody, "token": token}), 503, nobody),
        (
            "an address where nobody answers",
            json!({"address": address, "token": token, "advertise": nobody}),
            400,
            "can't be dialled back",
        ),
        (
            "an address where another program answers",
            json!({"address": address, "token": token, "advertise": stranger}),
            400,
            "can't be dialled back",
        ),
        (
            "the member's own address",
            json!({"address": address, "token": token, "advertise": address}),
            409,
            "has the address",
        ),
    ] {
        let refused = join(body);
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (refused.status, detail.contains(said)),
            (status, true),
            "{what}: {} {detail}",
            refused.status
        );
    }
    assert_eq!(cluster.admin(0).status()["members"].as_array().unwrap().len(), 1);
    assert_eq!(other.admin(0).status()["members"].as_array().unwrap().len(), 1);
    // Neither the node nor the token has suffered.
    assert_eq!(join(json!({"address": address, "token": token})).status, 201);
}

#[test]
fn edits_that_cross_are_told_and_a_repeated_one_is_done_once() {
    let _alone = alone();
    let cluster = Cluster::form(1);
    let node = &cluster.nodes[0];
    let spec = |status: u16| json!({"respond": {"status": status}});
    let put = |headers: &[(&str, &str)], status: u16| {
        node.admin.ask_with("PUT", "/v1/routes/a", headers, &spec(status)).unwrap()
    };
    assert_eq!(put(&[("if-none-match", "*")], 200).status, 200);
    assert_eq!(put(&[("if-none-match", "*")], 201).status, 412);
    let etag =
        node.admin.ask("GET", "/v1/routes/a", &Value::Null).unwrap().header("etag").unwrap().to_owned();
    assert_eq!(put(&[("if-match", &etag)], 202).status, 200);
    assert_eq!(put(&[("if-match", &etag)], 203).status, 412);
    let first = put(&[("idempotency-key", "k")], 204).json();
    // Another change comes between: without its key the repeated one would undo it.
    assert_eq!(put(&[], 205).status, 200);
    let second = put(&[("idempotency-key", "k")], 204).json();
    assert_eq!(first["revision"], second["revision"]);
    let reused = put(&[("idempotency-key", "k")], 206);
    assert_eq!((reused.status, &reused.json()["code"]), (409, &json!("conflict")));
    assert_eq!(node.admin.must("GET", "/v1/routes/a", &Value::Null)["spec"]["respond"]["status"], 205);
    let invalid =
        node.admin.ask("PUT", "/v1/routes/a", &json!({"respond": {"status": 7}, "colour": 1})).unwrap();
    assert_eq!((invalid.status, &invalid.json()["code"]), (422, &json!("invalid")));
    let unknown = node.admin.ask("GET", "/v1/routes/b", &Value::Null).unwrap();
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
}
