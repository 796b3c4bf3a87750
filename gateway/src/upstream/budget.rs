//! How many requests may be sent again beside those that come, so that retries don't bring down what is weak already.
//!
//! A bucket of tokens as Finagle's RetryBudget (twitter.github.io/finagle, "Retries"): a request earns a part of a token, time
//! earns some too, a retry takes one, and what is not used is forgotten after ten seconds. Nobody writes to it but who
//! retries: what requests have earned is reckoned then, from how many there were.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::upstream::Budget as Rule;

/// How long what was earned is good.
const MEMORY_MS: u64 = 10_000;
/// What a retry takes. A request earns 10 for each percent, a millisecond 1 for each retry a second.
const RETRY: u64 = 1_000;
const LOW: u64 = u32::MAX as u64;

/// An upstream's budget on this node.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// What there is, and when that was so in milliseconds, in 32 bits each; 0 before the first retry.
    balance: AtomicU64,
    /// How many requests have earned.
    seen: AtomicU64,
}

impl Budget {
    /// Takes a retry's worth; false if there is not so much. `requests` is how many there ever were.
    pub(crate) fn take(&self, rule: &Rule, requests: u64, now_ms: u64) -> bool {
        let fresh = requests.saturating_sub(self.seen.fetch_max(requests, Relaxed));
        let now = now_ms & LOW;
        let mut taken = false;
        let reckon = |packed: u64| {
            let (had, at) = (packed >> 32, packed & LOW);
            let passed = match now.wrapping_sub(at) & LOW {
                _ if packed == 0 => MEMORY_MS,
                // Threads' clocks are some milliseconds apart.
                passed if passed > LOW / 2 => 0,
                passed => passed,
            };
            let recent = passed.min(MEMORY_MS);
            let kept = had * (MEMORY_MS - recent) / MEMORY_MS;
            let by_requests = fresh.saturating_mul(u64::from(rule.percent) * 10);
            let by_requests = by_requests.saturating_mul(MEMORY_MS) / passed.max(MEMORY_MS);
            let by_time = u64::from(rule.min_per_s) * recent;
            let have = kept.saturating_add(by_requests).saturating_add(by_time).min(LOW);
            let left = have.checked_sub(RETRY);
            taken = left.is_some();
            let at = if passed == 0 && packed != 0 { at } else { now };
            Some(left.unwrap_or(have) << 32 | at.max(1))
        };
        let _ = self.balance.fetch_update(Relaxed, Relaxed, reckon);
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_are_always_free_and_then_so_many_of_a_hundred() {
        let (budget, rule) = (Budget::default(), Rule { percent: 20, min_per_s: 1 });
        let free = (0..100).filter(|_| budget.take(&rule, 0, 5)).count();
        assert_eq!(free, 10, "ten seconds' worth");
        let of_requests = (1..=1_000).filter(|requests| budget.take(&rule, *requests, 5)).count();
        assert_eq!(of_requests, 200);
        assert!(budget.take(&rule, 1_000, 1_005), "another second has passed");
        assert!(!budget.take(&rule, 1_000, 1_005));
    }

    #[test]
    fn what_was_earned_is_forgotten() {
        let (budget, rule) = (Budget::default(), Rule { percent: 100, min_per_s: 0 });
        assert!(!budget.take(&rule, 0, 1));
        assert!(budget.take(&rule, 100, 1), "a hundred were earned, and one taken");
        let later = (0..1_000).filter(|_| budget.take(&rule, 100, 20_000)).count();
        assert_eq!(later, 0);
        // A million requests in a hundred seconds: those of ten seconds count.
        let recent = (0..1_000_000).filter(|_| budget.take(&rule, 1_000_100, 120_000)).count();
        assert_eq!(recent, 100_000);
    }

    #[test]
    fn nothing_is_free_without_a_minimum() {
        let (budget, rule) = (Budget::default(), Rule { percent: 0, min_per_s: 0 });
        assert!((0..100).all(|turn| !budget.take(&rule, turn * 100, turn * 1_000)));
    }

    proptest! {
        #[test]
        fn no_more_than_was_earned_is_ever_taken(
            percent in 0..=100_u32,
            min_per_s in 0..100_u32,
            steps in prop::collection::vec((0..50_u64, 0..400_u64, 0..20_usize), 1..100),
        ) {
            let (budget, rule) = (Budget::default(), Rule { percent, min_per_s });
            let (mut requests, mut now, mut taken) = (0, 1, 0);
            for (more, passed, tries) in steps {
                (requests, now) = (requests + more, now + passed);
                taken += (0..tries).filter(|_| budget.take(&rule, requests, now)).count() as u64;
            }
            let most = requests * u64::from(percent) * 10 + u64::from(min_per_s) * (MEMORY_MS + now);
            prop_assert!(taken * RETRY <= most, "{taken} of {most}");
        }
    }
}
