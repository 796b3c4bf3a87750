//! One node after the other is stopped and started.

use phalanx_tests::{Load, invariant::Burden, until};

use super::Fault;
use crate::figures::Figure::{CaughtUp, Failed, Lost};

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "rolling restart",
    nodes: 3,
    disks: false,
    bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0)],
    strike: |stage| {
        let load = Load::start_balanced(&stage.cluster.nodes, 6, 600, "/load");
        for place in 0..3 {
            stage.expects_elections(u64::from(stage.cluster.leader() == place));
            stage.bears(place, Burden::Down);
            assert!(stage.cluster.nodes[place].stop().success());
            load.goes_on(100);
            stage.comes_back(place);
            until("the node is ready", || stage.cluster.admin(place).is_ready().then_some(()));
            load.goes_on(100);
        }
        let (_, failures) = load.stop();
        stage.figures.add(Failed, u32::try_from(failures.len()).unwrap_or(u32::MAX).into());
    },
}];
