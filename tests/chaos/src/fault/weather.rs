//! Packets are late and lost.

use std::time::{Duration, Instant};

use phalanx_tests::links::Weather;

use super::{Fault, Need};
use crate::figures::Figure::{CaughtUp, Failed, Lost};

/// How long it lasts: few writes get through.
const SPELL: Duration = Duration::from_secs(20);

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "30 % loss, 100 ± 50 ms delay",
    needs: &[Need::Relays],
    bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0)],
    strike: |stage| {
        stage.links().set_weather(&Weather { loss_percent: 30, delay_ms: 50..150 });
        stage.lasts(SPELL);
        stage.nodes.heal();
        stage.converges(Instant::now());
    },
}];
