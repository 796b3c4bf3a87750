//! Nodes do not hear each other.

use std::time::{Duration, Instant};

use phalanx_tests::{invariant::Burden, until};

use super::Fault;
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Elections, Failed, Lost},
    },
    stage::Stage,
};

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (Elections, 1.0)];

/// How long the nodes are left like that once they have found their parts.
const SPELL: Duration = Duration::from_secs(5);

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "partition: a follower alone",
        nodes: 3,
        disks: false,
        bars: BARS,
        strike: |stage| {
            let follower = (stage.cluster.leader() + 1) % 3;
            alone(stage, follower);
        },
    },
    Fault {
        name: "partition: the leader alone",
        nodes: 3,
        disks: false,
        bars: BARS,
        strike: |stage| {
            stage.expects_elections(1);
            let leader = stage.cluster.leader();
            alone(stage, leader);
        },
    },
    Fault {
        name: "partition: the leader is heard, and hears nobody",
        nodes: 3,
        disks: false,
        bars: BARS,
        strike: |stage| {
            stage.expects_elections(1);
            let leader = stage.cluster.leader();
            let others = stage.cluster.others(leader);
            others.iter().for_each(|other| stage.cluster.cut(*other, leader));
            stage.cluster.leader_among(&others);
            heal(stage);
        },
    },
    Fault {
        name: "partition: a bridge between the leader and a follower",
        nodes: 3,
        disks: false,
        bars: BARS,
        strike: |stage| {
            let leader = stage.cluster.leader();
            let follower = (leader + 1) % 3;
            stage.cluster.cut(leader, follower);
            stage.cluster.cut(follower, leader);
            heal(stage);
        },
    },
];

/// Cuts the node at this place off from all others.
fn alone(stage: &mut Stage, place: usize) {
    let others = stage.cluster.others(place);
    stage.cluster.isolate(place);
    stage.bears(place, Burden::Apart);
    stage.cluster.leader_among(&others);
    let admin = stage.cluster.admin(place).clone();
    until("it knows that it has no quorum", || (admin.status()["quorum"] == false).then_some(()));
    let refused = admin.put_route("apart", "1s");
    assert_eq!(refused.status, 503, "{}", refused.json());
    heal(stage);
    stage.is_free(place);
}

fn heal(stage: &mut Stage) {
    stage.goes_on();
    stage.lasts(SPELL);
    // What nodes bear ends before the first message can get through.
    (0..stage.cluster.nodes.len()).for_each(|place| stage.is_free(place));
    let healed = Instant::now();
    stage.cluster.heal();
    stage.converges(healed);
}
