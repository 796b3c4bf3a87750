//! What is left of a run once all nodes were left in peace.

use super::{PREFIX, Stage};
use crate::figures::{Figure, Figures, quantile};
use phalanx_tests::{
    Member,
    cluster::kept_and_restored,
    history::{Operation, Told},
    invariant::{Observed, Violation},
    watch,
};

/// What came of a run.
pub struct Ended {
    /// What was measured.
    pub figures: Figures,
    /// What was observed.
    pub observed: Observed,
    /// How it breaks promises.
    pub violations: Vec<Violation>,
    /// The logs of the nodes, by their names.
    pub logs: Vec<(String, String)>,
}

impl Stage {
    /// Ends everything, reads what is there, and judges.
    pub fn end(mut self) -> Ended {
        let now_us = self.recording.now_us();
        self.spells.iter_mut().for_each(|spell| spell.to_us = spell.to_us.min(now_us));
        let extra = self.nodes.term().saturating_sub(self.term.0 + self.term.1);
        let elapsed = self.recording.elapsed();
        let began = std::time::Instant::now() - elapsed;
        let mut history = self.recording.stop();
        let served = self.traffic.stop();
        let seen = self.watch.stop();
        let status = |member: &Member| member.admin.status();
        let is_in = |member: &Member| {
            let status = status(member);
            status["node_id"].is_u64() && status["removed"] != true
        };
        let members: Vec<Member> = self.nodes.members().into_iter().filter(is_in).collect();
        let kept = self.keys.stop(&members);
        history.operations.extend(kept.operations);
        history.operations.sort_by_key(|operation| (operation.called_us, operation.returned_us));
        let finals = members.iter().map(|member| watch::last_read(member, began, PREFIX)).collect();
        let restored = members.first().map(|member| kept_and_restored(&member.admin));
        let log = |place| (self.nodes.member(place).name, self.nodes.log(place));
        let logs = self.nodes.places().into_iter().map(log).collect();
        let observed = Observed {
            history,
            seen,
            finals,
            spells: self.spells,
            failures: served.failures,
            retried: self.retried,
            damaged: self.damaged,
            revoked: kept.revoked,
            restored,
        };
        let mut writes: Vec<u64> = took(&observed.history.operations).collect();
        writes.sort_unstable();
        let mut figures = self.figures;
        figures.add(Figure::Failed, count(observed.failures_of_healthy().count()));
        figures.add(Figure::Lost, count(observed.lost()));
        figures.add(Figure::Elections, count(usize::try_from(extra).unwrap_or(usize::MAX)));
        if let Some(us) = quantile(&writes, 99, 100) {
            figures.add(Figure::WriteP99, std::time::Duration::from_micros(us).as_secs_f64() * 1_000.0);
        }
        if let Some(us) = observed.slowest_revocation_us() {
            figures.add(Figure::Revoked, std::time::Duration::from_micros(us).as_secs_f64() * 1_000.0);
        }
        let violations = observed.violations();
        Ended { figures, observed, violations, logs }
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}

/// How long writes took in microseconds: until they were acknowledged, or at least, where they were given up.
fn took(operations: &[Operation]) -> impl Iterator<Item = u64> {
    let writes = operations.iter().filter(|it| it.is_open() || matches!(it.told, Told::Made(_)));
    writes.map(|operation| operation.returned_us - operation.called_us)
}
