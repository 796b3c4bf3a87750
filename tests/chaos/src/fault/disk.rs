//! Disks that are full or slow.

use std::time::{Duration, Instant};

use phalanx_tests::{invariant::Burden, until};

use super::{Fault, Need};
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Elections, Failed, Lost, NewLeader, Slowdown},
    },
    stage::Stage,
};

/// Traffic before and under slow syncs that is compared.
const COMPARED: Duration = Duration::from_secs(5);
const SLOW: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (Elections, 0.0), (Slowdown, 2.0)];

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "disk full, of a follower",
        needs: &[Need::Disks],
        bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (Elections, 0.0)],
        strike: |stage| {
            let follower = stage.nodes.follower();
            fill(stage, follower);
            free(stage, follower);
        },
    },
    Fault {
        name: "disk full, of the leader",
        needs: &[Need::Disks],
        bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (NewLeader, 10.0)],
        strike: |stage| {
            let leader = stage.nodes.leader();
            let (others, full) = (stage.nodes.others(leader), Instant::now());
            stage.expects_elections(1);
            fill(stage, leader);
            stage.elects_among(&others, full);
            free(stage, leader);
        },
    },
    Fault { name: "syncs take 100 ms", needs: &[Need::Disks], bars: SLOW, strike: |stage| slow(stage, 100) },
    Fault { name: "syncs take 500 ms", needs: &[Need::Disks], bars: SLOW, strike: |stage| slow(stage, 500) },
    Fault {
        name: "syncs take 2,000 ms",
        needs: &[Need::Disks],
        bars: SLOW,
        strike: |stage| slow(stage, 2_000),
    },
];

fn fill(stage: &mut Stage, place: usize) {
    stage.bears(place, Burden::Full);
    stage.disks().of(place).set_room(Some(0));
    until("it shows", || (stage.disks().of(place).figures().full > 0).then_some(()));
}

/// Makes room; the node ends then, and whoever supervises it starts it again.
fn free(stage: &mut Stage, place: usize) {
    stage.goes_on();
    stage.is_free(place);
    stage.bears(place, Burden::Down);
    stage.disks().of(place).set_room(None);
    let ended = stage.nodes.ended(place);
    assert_ne!(ended, 0, "a node whose disk was full ends with an error");
    stage.comes_back(place);
}

fn slow(stage: &mut Stage, ms: u64) {
    let delay = |stage: &Stage, ms| {
        stage.disks().iter().for_each(|disk| disk.set_fsync_delay(Duration::from_millis(ms)));
    };
    let median = |stage: &Stage| {
        let from_us = stage.recording.now_us();
        stage.lasts(COMPARED);
        let median =
            stage.traffic.median_us(None, from_us, stage.recording.now_us()).expect("requests are served");
        u32::try_from(median).map_or(f64::INFINITY, f64::from)
    };
    let before = median(stage);
    delay(stage, ms);
    let under = median(stage) / before;
    stage.figures.add(Slowdown, under);
    stage.lasts(COMPARED);
    delay(stage, 0);
    stage.goes_on();
}
