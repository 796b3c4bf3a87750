//! Requests in flight under one limit of a cluster of processes.

use std::thread::{self, JoinHandle};

use phalanx_tests::{Cluster, Origin, alone, http, origin::HELD, until};
use serde_json::{Value, json};

const LIMIT: u32 = 6;

fn limited(cluster: &Cluster, origin: &Origin) {
    let document = json!({
        "version": 1,
        "upstreams": {"origin": {"targets": [{"address": origin.address.to_string()}], "timeout": {"response": "60s"}}},
        "policies": {
            "few": {"type": "concurrency", "by": "address", "limit": LIMIT},
            "fewer": {"type": "concurrency", "scope": "node", "limit": 1},
        },
        "routes": {
            "all": {"policies": ["few"], "upstream": "origin"},
            "each": {"match": [{"path": {"exact": "/each"}}], "policies": ["fewer"], "upstream": "origin"},
        },
    });
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
}

/// A request through the node at this place that the origin holds back, unless it is refused.
fn held(cluster: &Cluster, place: usize) -> JoinHandle<u16> {
    let proxy = cluster.nodes[place].proxy;
    thread::spawn(move || http::get(proxy, HELD, &[]).expect("the node answers").status)
}

fn status(cluster: &Cluster, place: usize) -> u16 {
    http::get(cluster.nodes[place].proxy, "/", &[]).expect("the node answers").status
}

#[test]
fn three_nodes_share_what_may_be_in_flight() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    limited(&cluster, &origin);
    let limits = |place: usize| cluster.admin(place).ask("GET", "/v1/limits", &Value::Null);
    for place in 0..3 {
        until("the others are reached", || (limits(place).ok()?.json()["nodes"] == 3).then_some(()));
    }
    let clients = (0..LIMIT).map(|at| {
        let client = held(&cluster, at as usize % 3);
        until("the origin has it", || (origin.held() == at as usize + 1).then_some(()));
        client
    });
    let clients: Vec<_> = clients.collect();
    for place in 0..3 {
        until("this node knows that there are as many as there may be", || {
            (status(&cluster, place) == 429).then_some(())
        });
    }
    let answer = http::get(cluster.nodes[1].proxy, "/", &[]).expect("the node answers");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.json()["violated-policies"], json!(["few"]));
    // Each node by itself has one more.
    assert_eq!(http::get(cluster.nodes[1].proxy, "/each", &[]).expect("the node answers").status, 200);
    let shown = until("its name is known", || {
        let shown = limits(1).ok()?.json();
        (shown["in_flight"][0]["policy"] == "few").then_some(shown)
    });
    let shown = &shown["in_flight"][0];
    assert_eq!((&shown["limit"], &shown["here"], &shown["elsewhere"]), (&json!(LIMIT), &json!(2), &json!(4)));
    assert_eq!(shown["by"], "address 127.0.0.1");

    origin.release();
    for client in clients {
        assert_eq!(client.join().expect("it does not panic"), 200);
    }
    for place in 0..3 {
        until("this node knows that there is room", || (status(&cluster, place) == 200).then_some(()));
    }
}

#[test]
fn what_a_node_had_in_flight_is_forgotten_with_it() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    limited(&cluster, &origin);
    let clients: Vec<_> = (0..LIMIT as usize)
        .map(|at| {
            let proxy = cluster.nodes[2].proxy;
            let client = thread::spawn(move || http::get(proxy, HELD, &[]).map(|answer| answer.status));
            until("the origin has it", || (origin.held() == at + 1).then_some(()));
            client
        })
        .collect();
    until("another knows it", || (status(&cluster, 0) == 429).then_some(()));
    cluster.nodes[2].kill();
    until("another knows that it is gone", || (status(&cluster, 0) == 200).then_some(()));
    origin.release();
    clients.into_iter().for_each(|client| drop(client.join()));
}
