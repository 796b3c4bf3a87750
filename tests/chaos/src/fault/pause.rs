//! The leader is held, and goes on as if nothing had been.

use std::time::{Duration, Instant};

use phalanx_tests::{invariant::Burden, until};

use super::Fault;
use crate::figures::Figure::{Failed, Lost, NewLeader, SteppedDown};

/// For how long it is held.
const HELD: Duration = Duration::from_secs(10);

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "SIGSTOP of the leader for 10 s",
    needs: &[],
    bars: &[(Failed, 0.0), (SteppedDown, 1.0), (NewLeader, 5.0), (Lost, 0.0)],
    strike: |stage| {
        let leader = stage.nodes.leader();
        let others = stage.nodes.others(leader);
        stage.expects_elections(1);
        stage.bears(leader, Burden::Down);
        let held = Instant::now();
        stage.nodes.pause(leader);
        stage.elects_among(&others, held);
        stage.lasts(HELD.saturating_sub(held.elapsed()));
        let resumed = Instant::now();
        stage.nodes.resume(leader);
        until("it leads no more", || {
            let status = stage.nodes.admin(leader).status();
            (status.is_object() && status["leader"] != status["node_id"]).then_some(())
        });
        stage.measure(SteppedDown, resumed);
        stage.serves(leader);
        stage.is_free(leader);
        stage.catches_up(leader, resumed);
    },
}];
