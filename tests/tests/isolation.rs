//! Promise 6: a revoked key is refused by every node that can be reached, and where a policy closes on isolation, by every other
//! one too once its lease has run out.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use phalanx_tests::{Cluster, Origin, alone, http, until};
use serde_json::{Value, json};

/// The shortest that may be asked for.
const LEASE: Duration = Duration::from_secs(5);

/// Routes below `/closed` and `/open`, which want keys, and everything else, which does not; gives a key and its id.
fn keyed(cluster: &Cluster, origin: &Origin) -> (String, String) {
    let keyed = |policy: &str, prefix: &str| json!({"match": [{"path": {"prefix": prefix}}], "upstream": "origin", "policies": [policy]});
    let document = json!({
        "version": 1,
        "upstreams": {"origin": {"targets": [{"address": origin.address.to_string()}]}},
        "policies": {
            "closed": {"type": "api-key", "on_isolation": "closed", "isolation_after": "5s"},
            "open": {"type": "api-key"},
        },
        "consumers": {"ann": {}},
        "routes": {
            "closed": keyed("closed", "/closed"),
            "open": keyed("open", "/open"),
            "other": {"upstream": "origin"},
        },
    });
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    let key = cluster.admin(0).must("POST", "/v1/keys?wait=all", &json!({"consumer": "ann"}));
    let text = |field: &str| key[field].as_str().expect("a text").to_owned();
    (text("key"), text("id"))
}

fn status(proxy: SocketAddr, path: &str, key: &str) -> u16 {
    http::get(proxy, path, &[("x-api-key", key)]).expect("the node answers").status
}

fn revoke(cluster: &Cluster, place: usize, id: &str) {
    cluster.admin(place).must("DELETE", &format!("/v1/keys/{id}"), &Value::Null);
}

#[test]
fn an_isolated_node_closes_what_is_to_be_closed_and_serves_the_rest() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form_linked(3), Origin::start());
    let (key, id) = keyed(&cluster, &origin);
    let apart = cluster.leader();
    let others = cluster.others(apart);
    let proxy = cluster.nodes[apart].proxy;
    assert_eq!(status(proxy, "/closed", &key), 200);
    cluster.isolate(apart);
    cluster.leader_among(&others);
    revoke(&cluster, others[0], &id);
    for other in &others {
        let refused = || (status(cluster.nodes[*other].proxy, "/closed", &key) == 401).then_some(());
        until("those that are reached refuse the key", refused);
    }
    until("the isolated one has no lease any more", || (status(proxy, "/closed", &key) == 503).then_some(()));
    // What does not close goes on, as promise 5 has it.
    assert_eq!([status(proxy, "/open", &key), status(proxy, "/other", "")], [200, 200]);
    let told = cluster.admin(apart).status();
    assert!(told["confirmed_ms"].as_u64().is_some_and(|ms| ms >= 5_000), "{told}");

    // Nor has it one after a start: it may have been away for long.
    cluster.nodes[apart].kill();
    cluster.nodes[apart].start();
    let proxy = cluster.nodes[apart].proxy;
    assert_eq!([status(proxy, "/closed", &key), status(proxy, "/open", &key)], [503, 200]);
    // A balancer may send it the rest, as long as it stays alone.
    until("it is ready", || cluster.admin(apart).is_ready().then_some(()));
    cluster.heal();
    let met =
        until("it has met the others", || Some(status(proxy, "/closed", &key)).filter(|met| *met != 503));
    assert_eq!(met, 401, "the first that it says to the key is that it is revoked");
    assert_eq!(status(proxy, "/open", &key), 401);
}

#[test]
fn a_node_that_was_held_looks_at_its_lease_before_it_serves() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    let (key, id) = keyed(&cluster, &origin);
    let held = (cluster.leader() + 1) % 3;
    let proxy = cluster.nodes[held].proxy;
    assert_eq!(status(proxy, "/closed", &key), 200);
    cluster.nodes[held].pause();
    let since = Instant::now();
    revoke(&cluster, cluster.others(held)[0], &id);
    until("its lease has run out", || (since.elapsed() > LEASE).then_some(()));
    // It is there, in the socket's buffer, when the process goes on: before anything that the others have to say.
    let asking = thread::spawn(move || status(proxy, "/closed", &key));
    until("the request is sent", || (since.elapsed() > LEASE + Duration::from_millis(300)).then_some(()));
    cluster.nodes[held].resume();
    let met = asking.join().expect("it does not panic");
    assert!([401, 503].contains(&met), "{met}");
}
