//! How long a target takes to answer, of late: a peak-sensitive moving average.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The time after which what was seen counts for a third, in milliseconds (Finagle's default).
const DECAY_MS: f32 = 10_000.0;
/// The least that a failure counts for, in microseconds.
const FAILURE_US: u32 = 10_000;

/// How long a target takes to answer, of late: a moving average that goes up to a worse value at once and comes down with time
/// (peak EWMA: Finagle's `PeakEwma` and tower's `load::PeakEwma`). Threads share it.
#[derive(Debug, Default)]
pub struct Latency(
    /// Microseconds, and the milliseconds at which they were seen, 32 bits each; 0 if nothing was seen.
    AtomicU64,
);

impl Latency {
    /// An answer, or the lack of one, took so many microseconds.
    pub(crate) fn saw(&self, took_us: u32, now_ms: u64) {
        self.update(now_ms, |before| {
            let Some((before_us, passed_ms)) = before else { return took_us };
            if took_us >= before_us {
                return took_us;
            }
            let kept = (-(passed_ms as f32) / DECAY_MS).exp();
            to_us(before_us as f32 * kept + took_us as f32 * (1.0 - kept))
        });
    }

    /// An answer that nobody waited for any longer would have taken more than so many microseconds: what is expected is not less.
    pub(crate) fn would_exceed(&self, took_us: u32, now_ms: u64) {
        if self.expected_us(now_ms).is_none_or(|expected| took_us as f32 > expected) {
            self.saw(took_us, now_ms);
        }
    }

    /// An attempt failed. It counts as twice what was seen before: else a target that fails at once would look like the fastest.
    pub(crate) fn failed(&self, took_us: u32, now_ms: u64) {
        self.update(now_ms, |before| {
            let before_us = before.map_or(0, |(before_us, _)| before_us);
            before_us.saturating_mul(2).max(took_us).max(FAILURE_US)
        });
    }

    /// What to expect now, in microseconds: what was seen, less with the time since, so that a target that looked bad is tried again.
    /// None if nothing was seen.
    pub(crate) fn expected_us(&self, now_ms: u64) -> Option<f32> {
        let (us, passed_ms) = unpack(self.0.load(Relaxed), now_ms)?;
        Some(us as f32 * (-(passed_ms as f32) / DECAY_MS).exp())
    }

    fn update(&self, now_ms: u64, next: impl Fn(Option<(u32, u32)>) -> u32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |packed| {
            // At least 1, so that it is never taken for nothing.
            let us = next(unpack(packed, now_ms)).max(1);
            Some(u64::from(us) << 32 | now_ms & u64::from(u32::MAX))
        });
    }
}

/// The microseconds, and how many milliseconds ago they were seen.
fn unpack(packed: u64, now_ms: u64) -> Option<(u32, u32)> {
    let us = u32::try_from(packed >> 32).unwrap_or(u32::MAX);
    let seen_ms = packed & u64::from(u32::MAX);
    // Threads read their clocks at different times, so that what was seen may be later than now.
    let passed_ms = u32::try_from(now_ms.wrapping_sub(seen_ms) & u64::from(u32::MAX)).unwrap_or(0);
    let passed_ms = if passed_ms > u32::MAX / 2 { 0 } else { passed_ms };
    (us != 0).then_some((us, passed_ms))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn to_us(us: f32) -> u32 {
    us as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(latency: &Latency, now_ms: u64) -> f32 {
        latency.expected_us(now_ms).unwrap()
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        assert_eq!(latency.expected_us(5), None);
        latency.saw(1_000, 1_000);
        latency.saw(50_000, 1_000);
        assert_eq!(expected(&latency, 1_000), 50_000.0);
        latency.saw(1_000, 1_000);
        assert_eq!(expected(&latency, 1_000), 50_000.0, "no time has passed");
        latency.saw(1_000, 11_000);
        let third = expected(&latency, 11_000);
        assert!((18_000.0..20_000.0).contains(&third), "{third}");
        assert!(expected(&latency, 61_000) < third / 100.0);
        latency.saw(1_000, 10_000_000);
        assert_eq!(expected(&latency, 10_000_000), 1_000.0);
    }

    #[test]
    fn who_was_given_up_early_does_not_look_fast() {
        let latency = Latency::default();
        latency.would_exceed(7, 1_000);
        assert_eq!(expected(&latency, 1_000), 7.0, "it is all that is known");
        latency.saw(50_000, 1_000);
        latency.would_exceed(1_000, 11_000);
        let faded = expected(&latency, 11_000);
        assert!((18_000.0..19_000.0).contains(&faded), "{faded}");
        latency.would_exceed(60_000, 11_000);
        assert_eq!(expected(&latency, 11_000), 60_000.0);
    }

    #[test]
    fn a_failure_never_looks_fast() {
        let latency = Latency::default();
        latency.failed(3, 1_000);
        assert_eq!(expected(&latency, 1_000), 10_000.0);
        latency.failed(3, 1_000);
        assert_eq!(expected(&latency, 1_000), 20_000.0);
    }

    #[test]
    fn a_clock_that_is_behind_or_has_gone_round_is_no_age() {
        let latency = Latency::default();
        latency.saw(1_000, 1_005);
        assert_eq!(expected(&latency, 1_000), 1_000.0);
        let round = u64::from(u32::MAX);
        latency.saw(2_000, round);
        assert!(expected(&latency, round + 1) > 1_900.0);
    }
}
