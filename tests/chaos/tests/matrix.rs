//! Faults of the matrix break no promise. How long things take is for `chaos matrix`, which measures.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chaos::{fault, stage::Stage};
use phalanx_tests::alone;

fn holds(name: &str) {
    let _alone = alone();
    let fault = fault::all().into_iter().find(|fault| fault.name == name).expect("there is such a fault");
    let mut stage = Stage::set(fault.nodes, fault.disks, 1).expect("a cluster");
    let struck = catch_unwind(AssertUnwindSafe(|| (fault.strike)(&mut stage)));
    let ended = stage.end();
    assert!(struck.is_ok(), "{:#?}", ended.logs);
    assert_eq!(ended.violations, []);
    assert_eq!(ended.observed.failures_of_healthy().collect::<Vec<_>>(), Vec::<&_>::new());
    assert!(!ended.observed.seen.samples.is_empty() && !ended.observed.seen.views.is_empty());
}

#[test]
fn killing_the_leader_breaks_no_promise() {
    holds("kill -9 of the leader");
}

#[test]
fn cutting_the_leader_off_breaks_no_promise() {
    holds("partition: the leader alone");
}

#[test]
fn wiping_a_node_breaks_no_promise() {
    holds("wiped disk, same address");
}
