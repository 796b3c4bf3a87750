//! One limit of a cluster of processes: counted by all nodes together, by those that are cut off, and across starts and changes.

use phalanx_tests::{Cluster, alone, http, links::Carrier, until};
use serde_json::{Value, json};

/// So many a day, so that no test sees a window end.
const LIMIT: u32 = 90;

/// Has `/` be limited, and `/free` not.
fn limited(cluster: &Cluster, requests: u32, more: &Value) {
    let mut policy = json!({"type": "rate-limit", "limit": {"requests": requests, "per": "1d"}});
    for (field, value) in more.as_object().into_iter().flatten() {
        policy[field] = value.clone();
    }
    let document = json!({
        "version": 1,
        "policies": {"all": policy},
        "routes": {
            "all": {"policies": ["all"], "respond": {"status": 200}},
            "free": {"match": [{"path": {"exact": "/free"}}], "respond": {"status": 200}},
        },
    });
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
}

/// How many of so many requests the node at this place admits.
fn admits(cluster: &Cluster, place: usize, times: u32) -> u32 {
    let ask = || http::get(cluster.nodes[place].proxy, "/", &[]).expect("the node answers").status;
    (0..times)
        .map(|_| match ask() {
            200 => 1,
            429 => 0,
            status => panic!("status {status}"),
        })
        .sum()
}

/// Asks these nodes in turn until each refuses so many in a row; gives how many were admitted.
fn admitted_until_all_refuse(cluster: &Cluster, places: &[usize]) -> u32 {
    let (mut admitted, mut refused) = (0, 0);
    until("all refuse", || {
        let now: u32 = places.iter().map(|place| admits(cluster, *place, 1)).sum();
        admitted += now;
        refused = if now == 0 { refused + 1 } else { 0 };
        (refused >= 20).then_some(())
    });
    admitted
}

/// So many, give or take a request or two: of less than a whole one no node has a share, and two may take the last at once.
fn about(requests: u32) -> std::ops::RangeInclusive<u32> {
    requests - 2..=requests + 2
}

/// How many nodes share limits with the one at this place, and whether they are cut off; no nodes while it can't say.
fn reached(cluster: &Cluster, place: usize) -> (u64, bool) {
    let limits = cluster.admin(place).ask("GET", "/v1/limits", &Value::Null);
    let limits = limits.map(|answer| answer.json()).unwrap_or_default();
    (limits["nodes"].as_u64().unwrap_or_default(), limits["cut_off"] == true)
}

fn until_all_are_reached(cluster: &Cluster) {
    for place in 0..cluster.nodes.len() {
        until("all nodes are reached", || {
            (reached(cluster, place) == (cluster.nodes.len() as u64, false)).then_some(())
        });
    }
}

#[test]
fn three_nodes_keep_to_one_limit_and_show_it() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    limited(&cluster, LIMIT, &json!({}));
    until_all_are_reached(&cluster);
    let admitted = admitted_until_all_refuse(&cluster, &[0, 1, 2]);
    assert!(about(LIMIT).contains(&admitted), "{admitted}");
    let answer = http::get(cluster.nodes[1].proxy, "/", &[]).expect("the node answers");
    assert_eq!(answer.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(answer.json()["violated-policies"], json!(["all"]));
    assert_eq!(answer.header("ratelimit-policy"), Some(format!("\"all\";q={LIMIT};w=86400").as_str()));

    let socket = cluster.admin(1).socket().to_str().expect("a path of letters");
    let shown = cluster.gwctl(&["--socket", socket, "limits", "--policy", "all"]);
    assert!(shown.contains("90 in 1d") && shown.contains("shares limits with 2 others"), "{shown}");
    let used = cluster.admin(2).must("GET", "/v1/limits?top=1", &Value::Null);
    let item = &used["items"][0];
    assert_eq!((&item["policy"], &item["admitted"]), (&json!("all"), &json!(admitted)));
    assert_eq!(item["remaining"], json!(LIMIT.saturating_sub(admitted)));
    let by_node: Vec<u64> = (0..3).filter_map(|at| item["nodes"][at]["admitted"].as_u64()).collect();
    assert_eq!((by_node.len(), by_node.iter().sum::<u64>()), (3, u64::from(admitted)), "{used}");

    // A change of anything else, the route's among it, takes no count away; a larger limit adds just what it is larger by.
    cluster.admin(0).must("PUT", "/v1/policies/other?wait=all", &json!({"type": "ip", "deny": ["10.0.0.1"]}));
    assert!((0..3).map(|place| admits(&cluster, place, 3)).sum::<u32>() <= 2);
    limited(&cluster, LIMIT + 10, &json!({"refusal": {"detail": "more"}}));
    let more = admitted_until_all_refuse(&cluster, &[0, 1, 2]);
    assert!(about(10).contains(&more), "{more}");

    // A node that starts anew has the others tell it what they counted, and they have not forgotten what it did.
    cluster.nodes[1].kill();
    cluster.nodes[1].start();
    until("it has the others", || (reached(&cluster, 1) == (3, false)).then_some(()));
    assert!(admits(&cluster, 0, 5) + admits(&cluster, 2, 5) <= 2);
    let metrics = cluster.admin(0).ask("GET", "/metrics", &Value::Null).expect("the node answers").body;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    for line in [
        "phalanx_rate_limit_nodes 3",
        "phalanx_rate_limit_part 1",
        "phalanx_policy_requests_total{policy=\"all\",outcome=\"refused\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn who_is_cut_off_has_its_part_and_the_others_all() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    limited(&cluster, LIMIT, &json!({}));
    until_all_are_reached(&cluster);
    cluster.isolate(2);
    until("it knows that it is cut off", || (reached(&cluster, 2) == (1, true)).then_some(()));
    until("the others know it too", || (reached(&cluster, 0) == (2, false)).then_some(()));
    until("the others know it too", || (reached(&cluster, 1) == (2, false)).then_some(()));
    assert_eq!(admitted_until_all_refuse(&cluster, &[2]), LIMIT / 3);
    let by_others = admitted_until_all_refuse(&cluster, &[0, 1]);
    assert!(about(LIMIT).contains(&by_others), "{by_others}");
    cluster.heal();
    until_all_are_reached(&cluster);
    assert!(admitted_until_all_refuse(&cluster, &[0, 1, 2]) <= 2);
    // What is not limited was never touched by it.
    assert_eq!(http::get(cluster.nodes[2].proxy, "/free", &[]).expect("the node answers").status, 200);
}

#[test]
fn where_counters_are_cut_off_and_raft_is_not_each_has_its_part() {
    let _alone = alone();
    let cluster = Cluster::form_linked(3);
    limited(&cluster, LIMIT, &json!({}));
    until_all_are_reached(&cluster);
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        cluster.links().cut_carrier(Carrier::Udp, from, to);
    }
    for place in 0..3 {
        until("it is alone", || (reached(&cluster, place) == (1, true)).then_some(()));
        assert_eq!(admitted_until_all_refuse(&cluster, &[place]), LIMIT / 3);
    }
    // Raft goes on meanwhile.
    limited(&cluster, 2 * LIMIT, &json!({}));
    cluster.heal();
    until_all_are_reached(&cluster);
    let more = admitted_until_all_refuse(&cluster, &[0, 1, 2]);
    assert!(about(LIMIT).contains(&more), "{more}");
}

#[test]
fn a_node_that_is_left_alone_refuses_where_that_is_asked_for() {
    let _alone = alone();
    let cluster = Cluster::form(3);
    limited(&cluster, LIMIT, &json!({"on_partition": "deny"}));
    until_all_are_reached(&cluster);
    assert_eq!(admits(&cluster, 0, 1), 1);
    // Two nodes are gone: the one that is left can't know whether they go on.
    cluster.nodes[1].pause();
    cluster.nodes[2].pause();
    until("it is cut off", || (reached(&cluster, 0) == (1, true)).then_some(()));
    let answer = http::get(cluster.nodes[0].proxy, "/", &[]).expect("the node answers");
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("unavailable")));
    cluster.nodes[1].resume();
    cluster.nodes[2].resume();
    until_all_are_reached(&cluster);
    assert_eq!(admits(&cluster, 0, 1) + admits(&cluster, 1, 1) + admits(&cluster, 2, 1), 3);
}
