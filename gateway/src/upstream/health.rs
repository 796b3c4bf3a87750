//! The health of targets: by what happens to their traffic, and by checks. One that is out of use gets no traffic, on every
//! worker.

pub(crate) mod active;
mod checked;
pub(crate) mod opinion;
mod probe;
pub(crate) mod view;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use model::upstream::{FailureRate, Passive};

use crate::{plan::CompiledUpstream, state::TargetState, timer};

/// An ejection is doubled this many times at most: 16 times as long.
const DOUBLINGS_MAX: u32 = 4;
/// What a window of requests is packed in: which it is, failures, requests.
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Whether the target gets no traffic now.
pub(crate) fn is_out(target: &TargetState) -> bool {
    target.unhealthy.load(Relaxed) || is_ejected(target)
}

/// Whether it is out of use for what happened to its traffic.
pub(crate) fn is_ejected(target: &TargetState) -> bool {
    match target.ejected_until_ms.load(Relaxed) {
        0 => false,
        until => timer::now_ms() < until,
    }
}

/// Whether one more of the upstream's targets may be ejected.
pub(crate) fn may_eject(upstream: &CompiledUpstream) -> bool {
    let all = upstream.endpoints.all();
    let out = all.iter().filter(|endpoint| is_out(&endpoint.state)).count();
    let percent = usize::try_from(upstream.spec.health.passive.max_ejected).unwrap_or(100);
    out < (all.len() * percent).div_ceil(100)
}

/// The target answered well.
pub(crate) fn succeeded(target: &TargetState, rule: &Passive) {
    // Looked at first: a line of memory that nobody writes is shared by all cores for nothing.
    if target.failures.load(Relaxed) != 0 {
        target.failures.store(0, Relaxed);
    }
    if target.ejections.load(Relaxed) != 0 && !is_ejected(target) {
        target.ejections.store(0, Relaxed);
        target.ejected_until_ms.store(0, Relaxed);
    }
    if rule.rate.percent > 0 {
        count(target, &rule.rate, false);
    }
}

/// The target failed for this reason; says whether that ejected it. `may` is asked only then.
pub(crate) fn failed(target: &TargetState, rule: &Passive, why: &str, may: impl FnOnce() -> bool) -> bool {
    let failures = target.failures.fetch_add(1, Relaxed).saturating_add(1);
    let too_often = rule.rate.percent > 0 && count(target, &rule.rate, true);
    let in_a_row = rule.failures > 0 && failures >= rule.failures;
    if !(too_often || in_a_row) || is_ejected(target) || !may() {
        return false;
    }
    let ejections = target.ejections.fetch_add(1, Relaxed);
    let eject_ms = timer::millis(rule.eject).saturating_mul(1 << ejections.min(DOUBLINGS_MAX));
    target.why.store(Some(Arc::new(why.to_owned())));
    let until_ms = timer::now_ms().saturating_add(eject_ms);
    target.ejected_until_ms.store(until_ms, Relaxed);
    target.in_use_since_ms.store(until_ms, Relaxed);
    // Back in use it is on probation: its next failure ejects it again, for longer.
    target.failures.store(rule.failures.saturating_sub(1), Relaxed);
    target.window.store(0, Relaxed);
    true
}

/// Counts a request in the present window; says whether too many have failed of enough.
fn count(target: &TargetState, rule: &FailureRate, failed: bool) -> bool {
    let window = (timer::now_ms() / timer::millis(rule.window).max(1)) & 0xFFFF;
    let add = |packed: u64| {
        let is_same = packed >> (2 * COUNT_BITS) == window;
        let (failures, requests) =
            if is_same { ((packed >> COUNT_BITS) & COUNT_MAX, packed & COUNT_MAX) } else { (0, 0) };
        let (failures, requests) =
            ((failures + u64::from(failed)).min(COUNT_MAX), (requests + 1).min(COUNT_MAX));
        Some((window << (2 * COUNT_BITS)) | (failures << COUNT_BITS) | requests)
    };
    let before = target.window.fetch_update(Relaxed, Relaxed, add).unwrap_or_default();
    let now = add(before).unwrap_or_default();
    let (failures, requests) = ((now >> COUNT_BITS) & COUNT_MAX, now & COUNT_MAX);
    requests >= u64::from(rule.requests) && failures * 100 >= requests * u64::from(rule.percent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fails(target: &TargetState, rule: &Passive) -> bool {
        failed(target, rule, "it was told to", || true)
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_forgives() {
        timer::refresh();
        let rule = Passive { failures: 3, ..Passive::default() };
        let target = TargetState::new();
        assert!(!fails(&target, &rule) && !fails(&target, &rule));
        succeeded(&target, &rule);
        assert!(!fails(&target, &rule) && !fails(&target, &rule) && !is_out(&target));
        assert!(fails(&target, &rule) && is_out(&target));
        assert!(!fails(&target, &rule), "it is out already");
    }

    #[test]
    fn each_ejection_in_a_row_is_longer_up_to_a_bound() {
        timer::refresh();
        let rule = Passive { failures: 1, eject: Duration::from_secs(1), ..Passive::default() };
        let target = TargetState::new();
        for seconds in [1, 2, 4, 8, 16, 16] {
            assert!(fails(&target, &rule));
            let left = target.ejected_until_ms.swap(0, Relaxed) - timer::now_ms();
            assert_eq!(left, seconds * 1_000);
        }
        assert!(!fails(&target, &Passive { failures: 0, ..rule }), "0 never ejects");
    }

    #[test]
    fn enough_failures_among_enough_requests_eject() {
        timer::refresh();
        let rate = FailureRate { percent: 50, requests: 10, window: Duration::from_secs(3_600) };
        let rule = Passive { failures: 0, rate, ..Passive::default() };
        let target = TargetState::new();
        for _ in 0..4 {
            assert!(!fails(&target, &rule));
            succeeded(&target, &rule);
        }
        assert!(!fails(&target, &rule), "there are nine");
        assert!(fails(&target, &rule), "six of ten");
        assert!(is_out(&target));
    }

    #[test]
    fn few_failures_among_many_requests_don_t() {
        timer::refresh();
        let rate = FailureRate { percent: 50, requests: 10, window: Duration::from_secs(3_600) };
        let rule = Passive { failures: 0, rate, ..Passive::default() };
        let target = TargetState::new();
        for _ in 0..100 {
            succeeded(&target, &rule);
            succeeded(&target, &rule);
            assert!(!fails(&target, &rule));
        }
    }

    #[test]
    fn no_more_are_ejected_than_may_be() {
        timer::refresh();
        let rule = Passive { failures: 1, ..Passive::default() };
        let target = TargetState::new();
        assert!(!failed(&target, &rule, "it was told to", || false) && !is_out(&target));
        assert!(fails(&target, &rule));
    }
}
