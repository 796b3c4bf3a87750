//! Histories of concurrent clients, recorded on real clusters while things go wrong, and judged.

use phalanx_tests::{
    Cluster, alone,
    history::{self, Pace, Plant, Recording},
};

/// Operations enough for what goes wrong to show.
const OPERATIONS: usize = 1_500;

#[test]
fn a_history_of_clients_on_all_nodes_is_linearizable_while_the_leader_is_killed_and_paused() {
    let _alone = alone();
    let mut cluster = Cluster::form(3);
    let recording = Recording::start(&cluster.members(), "r", 1, &Pace::BUSY);
    recording.goes_on(100);
    let killed = cluster.leader();
    cluster.nodes[killed].kill();
    recording.goes_on(100);
    cluster.nodes[killed].start();
    recording.goes_on(100);
    let paused = cluster.leader();
    cluster.nodes[paused].pause();
    recording.goes_on(100);
    cluster.nodes[paused].resume();
    recording.reaches(OPERATIONS);
    let history = recording.stop();
    let violations = history::judge(&history);
    assert!(violations.is_empty(), "{} violations: {:#?}", violations.len(), &violations[..1]);
}

/// What is found to be wrong when clients have this fault while a follower is cut off.
fn found(plant: Plant) -> Vec<history::Violation> {
    let cluster = Cluster::form_linked(3);
    let recording = Recording::start_with(plant, &cluster.members(), "r", 1, &Pace::BUSY);
    recording.goes_on(30);
    cluster.isolate((cluster.leader() + 1) % 3);
    recording.goes_on(30);
    cluster.heal();
    recording.goes_on(30);
    history::judge(&recording.stop())
}

#[test]
fn a_stale_read_and_a_lost_acknowledgement_planted_on_purpose_are_found() {
    let _alone = alone();
    assert_eq!(found(Plant::Nothing), []);
    for plant in [Plant::StaleRead, Plant::LostAcknowledgement] {
        assert!(!found(plant).is_empty(), "{plant:?} is not found");
    }
}
