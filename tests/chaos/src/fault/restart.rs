//! One node after the other is stopped and started.

use std::path::PathBuf;

use phalanx_tests::{Load, invariant::Burden, until};

use super::Fault;
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Failed, Lost},
    },
    stage::Stage,
};

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0)];

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "rolling restart",
    nodes: 3,
    disks: false,
    bars: BARS,
    strike: |stage| roll(stage, &[None]),
}];

pub(super) const UPGRADES: &[Fault] = &[Fault {
    name: "rolling upgrade N → N−1 → N → N−1",
    nodes: 3,
    disks: false,
    bars: BARS,
    strike: |stage| {
        let (now, before) = (stage.cluster.nodes[0].program.clone(), before().expect("there is one"));
        roll(stage, &[Some(before.clone()), Some(now), Some(before)]);
    },
}];

/// The gwnode of the release before.
pub(super) fn before() -> Option<PathBuf> {
    std::env::var_os("PHALANX_GWNODE_BEFORE").map(PathBuf::from)
}

/// Stops and starts each node under traffic through a balancer, once for each of these programs.
fn roll(stage: &mut Stage, programs: &[Option<PathBuf>]) {
    let load = Load::start_balanced(&stage.cluster.nodes, 6, 600, "/load");
    for program in programs {
        for place in 0..3 {
            stage.expects_elections(u64::from(stage.cluster.leader() == place));
            stage.bears(place, Burden::Down);
            assert!(stage.cluster.nodes[place].stop().success());
            load.goes_on(100);
            let node = &mut stage.cluster.nodes[place];
            node.program = program.clone().unwrap_or_else(|| node.program.clone());
            stage.comes_back(place);
            until("the node is ready", || stage.cluster.admin(place).is_ready().then_some(()));
            load.goes_on(100);
        }
    }
    let (_, failures) = load.stop();
    stage.figures.add(Failed, u32::try_from(failures.len()).unwrap_or(u32::MAX).into());
}
