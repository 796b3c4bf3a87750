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
        needs: &[],
        bars: BARS,
        strike: |stage| {
            let follower = stage.nodes.follower();
            alone(stage, follower);
        },
    },
    Fault {
        name: "partition: the leader alone",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            stage.expects_elections(1);
            let leader = stage.nodes.leader();
            alone(stage, leader);
        },
    },
    Fault {
        name: "partition: the leader is heard, and hears nobody",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            stage.expects_elections(1);
            let leader = stage.nodes.leader();
            let others = stage.nodes.others(leader);
            others.iter().for_each(|other| stage.nodes.cut(*other, leader));
            stage.nodes.leader_among(&others);
            heal(stage);
        },
    },
    Fault {
        name: "partition: a bridge between the leader and a follower",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            let leader = stage.nodes.leader();
            let follower = stage.nodes.others(leader)[0];
            stage.nodes.cut(leader, follower);
            stage.nodes.cut(follower, leader);
            heal(stage);
        },
    },
];

/// Cuts the node at this place off from all others.
fn alone(stage: &mut Stage, place: usize) {
    let others = stage.nodes.others(place);
    stage.nodes.isolate(place);
    stage.bears(place, Burden::Apart);
    stage.nodes.leader_among(&others);
    let admin = stage.nodes.admin(place).clone();
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
    stage.nodes.places().into_iter().for_each(|place| stage.is_free(place));
    let healed = Instant::now();
    stage.nodes.heal();
    stage.converges(healed);
}
