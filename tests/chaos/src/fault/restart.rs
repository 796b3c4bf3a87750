//! One node after the other is stopped and started.

use phalanx_tests::{Load, invariant::Burden, until};

use super::{Fault, Need};
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Failed, Lost},
    },
    stage::Stage,
};

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0)];

pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "rolling restart", needs: &[], bars: BARS, strike: |stage| roll(stage, &[None]) },
    Fault {
        name: "rolling upgrade N → N−1 → N → N−1",
        needs: &[Need::BuildBefore],
        bars: BARS,
        strike: |stage| {
            let (now, before) = (stage.nodes.build(0), Need::build_before(stage.site).expect("there is one"));
            roll(stage, &[Some(before.clone()), Some(now), Some(before)]);
        },
    },
];

/// Stops and starts each node under traffic through a balancer, once for each of these builds.
fn roll(stage: &mut Stage, builds: &[Option<String>]) {
    let load = Load::start_balanced(&stage.nodes.members(), 6, 600, "/load");
    for build in builds {
        for place in stage.nodes.places() {
            stage.expects_elections(u64::from(stage.nodes.leader() == place));
            stage.bears(place, Burden::Down);
            assert_eq!(stage.nodes.stop(place), 0, "it stops in peace");
            load.goes_on(100);
            if let Some(build) = build {
                stage.nodes.set_build(place, build);
            }
            stage.comes_back(place);
            until("the node is ready", || stage.nodes.admin(place).is_ready().then_some(()));
            load.goes_on(100);
        }
    }
    let (_, failures) = load.stop();
    stage.failed(failures.iter());
}
