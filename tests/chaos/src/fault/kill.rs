//! A node is killed.

use std::time::Instant;

use phalanx_tests::invariant::Burden;

use super::Fault;
use crate::{
    figures::Figure::{CaughtUp, Elections, Failed, Lost, NewLeader},
    stage::Stage,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "kill -9 of a follower",
        needs: &[],
        bars: &[(Failed, 0.0), (CaughtUp, 5.0), (Lost, 0.0), (Elections, 0.0)],
        strike: |stage| {
            let follower = stage.nodes.follower();
            kill(stage, follower);
            stage.goes_on();
            stage.comes_back(follower);
        },
    },
    Fault {
        name: "kill -9 of the leader",
        needs: &[],
        bars: &[(Failed, 0.0), (NewLeader, 5.0), (CaughtUp, 5.0), (Lost, 0.0)],
        strike: |stage| {
            let leader = stage.nodes.leader();
            let others = stage.nodes.others(leader);
            stage.expects_elections(1);
            kill(stage, leader);
            stage.elects_among(&others, Instant::now());
            stage.goes_on();
            stage.comes_back(leader);
        },
    },
];

fn kill(stage: &mut Stage, place: usize) {
    stage.bears(place, Burden::Down);
    stage.nodes.kill(&[place]);
}
