//! Faults of the matrix break no promise. How long things take is for `chaos matrix`, which measures.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chaos::{compose::Ways, fault, nodes::Site, stage::Stage};
use phalanx_tests::alone;

fn holds(site: Site, name: &str) {
    let _alone = alone();
    let fault = fault::all().find(|fault| fault.name == name).expect("there is such a fault");
    let mut stage = Stage::set(site, 3, fault.needs_disks(), 1).expect("a cluster");
    let struck = catch_unwind(AssertUnwindSafe(|| (fault.strike)(&mut stage)));
    let ended = stage.end();
    assert!(struck.is_ok(), "{:#?}", ended.logs);
    assert_eq!(ended.violations, []);
    assert_eq!(ended.observed.failures_of_healthy().collect::<Vec<_>>(), Vec::<&_>::new());
    assert!(!ended.observed.seen.samples.is_empty() && !ended.observed.seen.views.is_empty());
    assert!(!ended.observed.revoked.is_empty() && ended.observed.restored.is_some());
}

#[test]
fn killing_the_leader_breaks_no_promise() {
    holds(Site::Processes, "kill -9 of the leader");
}

#[test]
fn cutting_the_leader_off_breaks_no_promise() {
    holds(Site::Processes, "partition: the leader alone");
}

#[test]
fn wiping_a_node_breaks_no_promise() {
    holds(Site::Processes, "wiped disk, same address");
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn stopping_one_container_after_the_other_breaks_no_promise() {
    holds(Site::Containers(Ways::Relayed), "rolling restart");
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn dropping_the_packets_of_the_leaders_container_breaks_no_promise() {
    holds(Site::Containers(Ways::Direct), "partition: the leader alone");
}
