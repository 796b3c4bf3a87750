//! Passive health: a target that fails so many times in a row gets no traffic for a while, on every worker.

use std::sync::atomic::Ordering::Relaxed;

use model::upstream::Passive;

use crate::{state::TargetState, timer};

/// An ejection is doubled this many times at most: 16 times as long.
const DOUBLINGS_MAX: u32 = 4;

/// Whether the target gets no traffic now.
pub(crate) fn is_ejected(target: &TargetState) -> bool {
    match target.ejected_until_ms.load(Relaxed) {
        0 => false,
        until => timer::now_ms() < until,
    }
}

/// The target answered well.
pub(crate) fn succeeded(target: &TargetState) {
    // Looked at first: a line of memory that nobody writes is shared by all cores for nothing.
    if target.failures.load(Relaxed) != 0 {
        target.failures.store(0, Relaxed);
    }
    if target.ejections.load(Relaxed) != 0 && !is_ejected(target) {
        target.ejections.store(0, Relaxed);
        target.ejected_until_ms.store(0, Relaxed);
    }
}

/// The target failed; says whether that ejected it.
pub(crate) fn failed(target: &TargetState, rule: &Passive) -> bool {
    let failures = target.failures.fetch_add(1, Relaxed).saturating_add(1);
    if rule.failures == 0 || failures < rule.failures || is_ejected(target) {
        return false;
    }
    let ejections = target.ejections.fetch_add(1, Relaxed);
    let eject_ms = timer::millis(rule.eject).saturating_mul(1 << ejections.min(DOUBLINGS_MAX));
    let until_ms = timer::now_ms().saturating_add(eject_ms);
    target.ejected_until_ms.store(until_ms, Relaxed);
    target.in_use_since_ms.store(until_ms, Relaxed);
    // Back in use it is on probation: its next failure ejects it again, for longer.
    target.failures.store(rule.failures - 1, Relaxed);
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_a_success_forgives() {
        timer::refresh();
        let rule = Passive { failures: 3, eject: Duration::from_secs(10) };
        let target = TargetState::new();
        assert!(!failed(&target, &rule) && !failed(&target, &rule));
        succeeded(&target);
        assert!(!failed(&target, &rule) && !failed(&target, &rule) && !is_ejected(&target));
        assert!(failed(&target, &rule) && is_ejected(&target));
        assert!(!failed(&target, &rule), "it is out already");
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_a_bound() {
        timer::refresh();
        let rule = Passive { failures: 1, eject: Duration::from_secs(1) };
        let target = TargetState::new();
        for seconds in [1, 2, 4, 8, 16, 16] {
            assert!(failed(&target, &rule));
            let left = target.ejected_until_ms.swap(0, Relaxed) - timer::now_ms();
            assert_eq!(left, seconds * 1_000);
        }
        assert!(!failed(&target, &Passive { failures: 0, ..rule }), "0 never ejects");
    }
}
