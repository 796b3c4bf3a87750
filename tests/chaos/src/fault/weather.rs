//! Packets are late and lost.

use std::time::Instant;

use phalanx_tests::links::Weather;

use super::Fault;
use crate::figures::Figure::{CaughtUp, Failed, Lost};

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "30 % loss, 100 ± 50 ms delay",
    nodes: 3,
    disks: false,
    bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0)],
    strike: |stage| {
        stage.cluster.links().set_weather(&Weather { loss_percent: 30, delay_ms: 50..150 });
        stage.goes_on();
        stage.cluster.heal();
        stage.converges(Instant::now());
    },
}];
