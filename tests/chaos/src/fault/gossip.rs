//! Gossip gets through no more, while Raft does.

use std::time::{Duration, Instant};

use phalanx_tests::links::Carrier;

use super::Fault;
use crate::figures::Figure::{CaughtUp, Elections, Failed, Lost};

/// Longer than it takes nodes to miss each other.
const SPELL: Duration = Duration::from_secs(8);

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "gossip cut while Raft works",
    needs: &[],
    bars: &[(Failed, 0.0), (Lost, 0.0), (Elections, 0.0), (CaughtUp, 5.0)],
    strike: |stage| {
        for from in stage.nodes.places() {
            for to in stage.nodes.others(from) {
                stage.nodes.cut_carrier(Carrier::Udp, from, to);
            }
        }
        stage.lasts(SPELL);
        stage.goes_on();
        // Nothing has to be healed for the config to be the same everywhere.
        stage.converges(Instant::now());
        stage.nodes.heal();
    },
}];
