//! Checks of targets, as nodes share them: processes, one of which dies, is cut off from the others, or from a target.

use std::{net::Ipv4Addr, sync::atomic::AtomicU32};

use phalanx_tests::{Cluster, Origin, alone, http, until};
use serde_json::{Value, json};

/// Routes everything to this target, which so many nodes check.
fn route_to(cluster: &Cluster, target: &str, checkers: u32) {
    let active = json!({
        "http": {"path": "/healthz"}, "interval": "250ms", "timeout": "250ms", "healthy": 2, "unhealthy": 3,
        "checkers": checkers,
    });
    let upstream = json!({
        "targets": [{"address": target}],
        "health": {"active": active, "passive": {"failures": 0}},
    });
    let document = json!({"version": 1, "upstreams": {"u": upstream}, "routes": {"all": {"upstream": "u"}}});
    let applied =
        cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    assert_eq!(applied["lagging"], Value::Null, "{applied}");
}

/// What the node at this place says under this name; 0 where it says nothing.
fn metric(cluster: &Cluster, place: usize, name: &str) -> f64 {
    let Ok(answer) = cluster.admin(place).ask("GET", "/metrics", &Value::Null) else { return 0.0 };
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
}

fn checks(cluster: &Cluster, place: usize) -> f64 {
    metric(cluster, place, "phalanx_upstream_checks_total{upstream=\"u\"}")
}

/// The places among these of the nodes that check the target now.
fn checkers(cluster: &Cluster, places: &[usize]) -> Vec<usize> {
    let here = "phalanx_upstream_checked_targets{upstream=\"u\",by=\"here\"}";
    places.iter().copied().filter(|place| metric(cluster, *place, here) == 1.0).collect()
}

/// The state of the target as the node at this place sees it, and which nodes' checks say what of it.
fn seen(cluster: &Cluster, place: usize) -> (String, Vec<(u64, bool)>) {
    let health = cluster.admin(place).must("GET", "/v1/health/targets", &Value::Null);
    let item = &health["items"][0];
    let found = item["found"].as_array().into_iter().flatten();
    let found = found.filter_map(|found| Some((found["node_id"].as_u64()?, found["well"].as_bool()?)));
    (item["state"].as_str().unwrap_or_default().to_owned(), found.collect())
}

#[test]
fn a_target_is_checked_by_as_many_nodes_as_are_told_and_by_another_when_one_dies() {
    let _alone = alone();
    let (mut cluster, origin) = (Cluster::form(3), Origin::start());
    let all = [0, 1, 2];
    route_to(&cluster, &origin.address.to_string(), 1);
    let only = until("one node checks, and all know what it found", || {
        let found = checkers(&cluster, &all);
        let [only] = found[..] else { return None };
        let told = [(cluster.admin(only).id(), true)];
        all.iter().all(|place| seen(&cluster, *place).1 == told).then_some(only)
    });
    let others = cluster.others(only);
    assert_eq!(seen(&cluster, others[0]), ("in_use".to_owned(), vec![(cluster.admin(only).id(), true)]));
    let before: Vec<f64> = others.iter().map(|place| checks(&cluster, *place)).collect();
    let (asked, served) = (checks(&cluster, only), origin.served());
    until("the target is checked 30 times more", || (origin.served() >= served + 30).then_some(()));
    // The others have left it alone; on a busy machine word may have been late now and then.
    let after = others.iter().zip(&before).map(|(place, before)| checks(&cluster, *place) - before);
    let (by_others, by_one) = (after.sum::<f64>(), checks(&cluster, only) - asked);
    assert!(by_one >= 20.0 && by_others <= by_one / 2.0, "{by_others} beside {by_one}");
    let told =
        cluster.gwctl(&["--socket", &cluster.admin(others[0]).socket().display().to_string(), "targets"]);
    assert!(told.contains(&format!("well by {}", cluster.admin(only).id())), "{told}");

    cluster.nodes[only].kill();
    // Which of them it is may change until both know of the death.
    let by_others = || others.iter().map(|place| checks(&cluster, *place)).sum::<f64>();
    let before = by_others();
    until("another checks it, and goes on to", || {
        (by_others() >= before + 10.0 && checkers(&cluster, &others).len() == 1).then_some(())
    });
    for place in &others {
        assert_eq!(http::get(cluster.nodes[*place].proxy, "/", &[]).expect("the node answers").status, 200);
    }
    cluster.nodes[only].start();
    until("it is left to one of three again", || (checkers(&cluster, &all).len() == 1).then_some(()));
}

#[test]
fn who_is_cut_off_from_the_others_checks_for_itself_and_from_a_target_takes_it_from_nobody() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form_linked(3), Origin::start());
    let all = [0, 1, 2];
    // A way to the target that can be cut for one node alone. It is the fourth place; nobody comes from there.
    let way = cluster.links().lead_to(
        (Ipv4Addr::LOCALHOST, 0).into(),
        origin.address,
        Some(AtomicU32::new(u32::MAX).into()),
    );
    route_to(&cluster, &way.to_string(), 1);
    let only = until("one node checks", || match checkers(&cluster, &all)[..] {
        [only] => Some(only),
        _ => None,
    });
    let others = cluster.others(only);

    cluster.cut(only, 3);
    until("the one that is cut off from the target does not use it", || {
        (seen(&cluster, only).0 == "unhealthy").then_some(())
    });
    let id = cluster.admin(only).id();
    until("the others have heard so, and look for themselves", || {
        let heard = |place: &usize| seen(&cluster, *place).1.contains(&(id, false));
        (others.iter().all(heard) && checkers(&cluster, &all).len() == 3).then_some(())
    });
    let before: Vec<f64> = others.iter().map(|place| checks(&cluster, *place)).collect();
    until("they have looked often", || {
        let often = |(place, before): (&usize, &f64)| checks(&cluster, *place) >= before + 10.0;
        others.iter().zip(&before).all(often).then_some(())
    });
    for place in &others {
        // What a busy machine answers late may count as a failure of its own for a moment.
        until("they use it, whatever they hear", || (seen(&cluster, *place).0 == "in_use").then_some(()));
        assert_eq!(http::get(cluster.nodes[*place].proxy, "/", &[]).expect("the node answers").status, 200);
    }
    cluster.links().mend(only, 3);
    until("one node checks for all again", || {
        let in_use = all.iter().all(|place| seen(&cluster, *place).0 == "in_use");
        (in_use && checkers(&cluster, &all).len() == 1).then_some(())
    });

    // Cut off from the other nodes, each side has the target checked.
    let apart = *others.first().expect("there are two");
    cluster.isolate(apart);
    until("the one that is alone checks", || (checkers(&cluster, &[apart]).len() == 1).then_some(()));
    let rest = cluster.others(apart);
    until("one of the others does", || (checkers(&cluster, &rest).len() == 1).then_some(()));
    cluster.heal();
    until("one node checks for all again", || (checkers(&cluster, &all).len() == 1).then_some(()));
}

#[test]
fn a_target_that_stops_answering_is_out_of_use_everywhere_until_it_answers_again() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(3), Origin::start());
    let all = [0, 1, 2];
    // Nothing listens behind the way while it is cut for all.
    let links = phalanx_tests::links::Links::new(0);
    for node in &cluster.nodes {
        let pid = AtomicU32::new(node.pid().expect("the node runs"));
        links.lead_to((Ipv4Addr::LOCALHOST, 0).into(), node.peer, Some(pid.into()));
    }
    let way =
        links.lead_to((Ipv4Addr::LOCALHOST, 0).into(), origin.address, Some(AtomicU32::new(u32::MAX).into()));
    route_to(&cluster, &way.to_string(), 2);
    until("two nodes check", || (checkers(&cluster, &all).len() == 2).then_some(()));
    all.iter().for_each(|place| links.cut(*place, 3));
    until("no node uses it", || {
        all.iter().all(|place| seen(&cluster, *place).0 == "unhealthy").then_some(())
    });
    links.heal();
    until("all use it again, and two check", || {
        let in_use = all.iter().all(|place| seen(&cluster, *place).0 == "in_use");
        (in_use && checkers(&cluster, &all).len() == 2).then_some(())
    });
}
