//! Quotas of calendar periods on a cluster of processes: shared, agreed on, and known after every node was killed.

use phalanx_tests::{Cluster, alone, http, until};
use serde_json::{Value, json};

const QUOTA: u64 = 60;

/// Has each tenant have a quota a month.
fn limited(cluster: &Cluster, requests: u64) {
    let document = json!({
        "version": 1,
        "policies": {"monthly": {
            "type": "quota",
            "by": {"header": "x-tenant"},
            "limit": {"requests": requests, "per": "month", "time_zone": "Europe/Berlin"},
        }},
        "routes": {"all": {"policies": ["monthly"], "respond": {"status": 200}}},
    });
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
}

/// How many of so many requests of this tenant the node at this place lets through.
fn admits(cluster: &Cluster, place: usize, tenant: &str, times: u64) -> u64 {
    let proxy = cluster.nodes[place].proxy;
    let ask = || http::get(proxy, "/", &[("x-tenant", tenant)]).expect("the node answers").status;
    (0..times).map(|_| u64::from(ask() == 200)).sum()
}

/// What the node at this place says of this tenant.
fn used(cluster: &Cluster, place: usize, tenant: &str) -> Option<Value> {
    let usage = cluster.admin(place).ask("GET", "/v1/usage?policy=monthly", &Value::Null).ok()?.json();
    let items = usage["items"].as_array()?;
    items.iter().find(|item| item["by"] == format!("x-tenant {tenant}")).cloned()
}

fn agreed(cluster: &Cluster, place: usize, tenant: &str) -> Option<u64> {
    used(cluster, place, tenant)?["agreed"].as_u64()
}

fn until_agreed(cluster: &Cluster, place: usize, tenant: &str, wanted: u64) {
    until("what was used is agreed on", || (agreed(cluster, place, tenant) == Some(wanted)).then_some(()));
}

fn until_others_are_reached(cluster: &Cluster, place: usize) {
    until("the others are reached", || {
        let limits = cluster.admin(place).ask("GET", "/v1/limits", &Value::Null).ok()?.json();
        (limits["nodes"] == 3).then_some(())
    });
}

#[test]
fn what_was_used_is_shared_and_outlives_every_node() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    limited(&cluster, QUOTA);
    (0..3).for_each(|place| until_others_are_reached(&cluster, place));
    for place in 0..3 {
        assert_eq!(admits(&cluster, place, "a", 10), 10);
    }
    assert_eq!(admits(&cluster, 1, "b", 5), 5);
    (0..3).for_each(|place| until_agreed(&cluster, place, "a", 30));
    let shown = used(&cluster, 1, "a").expect("it is there");
    assert_eq!((&shown["requests"], &shown["used"]), (&json!(QUOTA), &json!(30)));
    assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(3), "{shown}");

    // One node starts anew, and counts on.
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    until_agreed(&cluster, 2, "a", 30);
    until_others_are_reached(&cluster, 2);
    assert_eq!(admits(&cluster, 2, "a", 10), 10);
    (0..3).for_each(|place| until_agreed(&cluster, place, "a", 40));
    // All do, one of them told to stop before: what it had counted last is reported at its end.
    assert_eq!(admits(&cluster, 0, "b", 7), 7);
    cluster.nodes[0].stop();
    for place in 1..3 {
        until_agreed(&cluster, place, "b", 12);
        cluster.nodes[place].kill();
    }
    (0..3).for_each(|place| cluster.nodes[place].start());
    (0..3).for_each(|place| until_agreed(&cluster, place, "a", 40));
    (0..3).for_each(|place| until_others_are_reached(&cluster, place));
    let (mut left, mut refused) = (0, 0);
    until("all refuse", || {
        let now: u64 = (0..3).map(|place| admits(&cluster, place, "a", 1)).sum();
        left += now;
        refused = if now == 0 { refused + 1 } else { 0 };
        (refused >= 20).then_some(())
    });
    assert!((18..=22).contains(&left), "{left}");
    let answer = http::get(cluster.nodes[1].proxy, "/", &[("x-tenant", "a")]).expect("the node answers");
    let after = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok()).expect("a number");
    assert!(answer.status == 429 && after <= 31 * 86_400 + 3_600, "{answer:?}");

    // More is there at once when the quota is larger; the other tenant has the rest of his.
    limited(&cluster, QUOTA + 10);
    let more = admits(&cluster, 1, "a", 30) + admits(&cluster, 2, "a", 30);
    assert!((8..=12).contains(&more), "{more}");
    assert_eq!(admits(&cluster, 0, "b", 5), 5);
    let socket = cluster.admin(1).socket().to_str().expect("a path of letters");
    let shown = cluster.gwctl(&["--socket", socket, "usage", "--policy", "monthly"]);
    assert!(shown.contains("x-tenant b") && shown.contains("2 of 2 keys"), "{shown}");
}

#[test]
fn what_a_node_that_is_gone_had_counted_is_reported_by_those_that_heard_it() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    limited(&cluster, QUOTA);
    (0..3).for_each(|place| until_others_are_reached(&cluster, place));
    let admitted = admits(&cluster, 2, "a", 2 * QUOTA);
    until("another has heard it", || (admits(&cluster, 0, "a", 1) == 0).then_some(()));
    cluster.nodes[2].kill();
    let is_agreed =
        |cluster: &Cluster| agreed(cluster, 0, "a").filter(|agreed| *agreed >= admitted).map(drop);
    until("what it had counted is agreed on", || is_agreed(&cluster));
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    until("it is known after a start", || is_agreed(&cluster));
    until("and gone by", || (admits(&cluster, 0, "a", 1) == 0).then_some(()));
}
