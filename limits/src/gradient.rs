//! How many requests may be in flight at once, found out by how long they take.
//!
//! The gradient of Netflix' concurrency-limits (`Gradient2Limit`): as long as requests take no longer than they do over a long time, there
//! may be more; as they take longer, which is when they queue somewhere, there may be fewer in the same proportion.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Samples are gathered for so long at least, and so many.
const WINDOW_US: u64 = 100_000;
const SAMPLES_MIN: u64 = 10;
/// A window that never gets enough samples is judged after so long by what it has.
const WINDOW_MAX_US: u64 = 1_000_000;
/// Of a lower limit, so much is taken at once.
const SMOOTHING: f64 = 0.2;
/// Over so many windows the long time is.
const LONG_WINDOWS: f64 = 100.0;
/// The lowest that the limit goes at once.
const GRADIENT_MIN: f64 = 0.5;

/// Between which limits there may be, and when there may be fewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The fewest, with which it begins; 1 or more.
    pub min: u32,
    /// The most, no less than the fewest.
    pub max: u32,
    /// How much longer than usual requests may take, before there may be fewer: 1.5 is half as long again. 1 or more.
    pub tolerance: f64,
}

/// How many requests may be in flight at once. Threads share it.
#[derive(Debug, Default)]
pub struct Gradient {
    /// As the bits of f64; 0: nothing was found out yet.
    limit: AtomicU64,
    /// What requests take over a long time, in microseconds, as the bits of f64; 0: not known yet.
    long_us: AtomicU64,
    began_us: AtomicU64,
    samples: AtomicU64,
    sum_us: AtomicU64,
    /// The most that were in flight in the window.
    peak: AtomicU32,
}

impl Gradient {
    /// How many may be in flight now.
    pub fn limit(&self, bounds: Bounds) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two u32")]
        let limit = self.found(bounds) as u32;
        limit
    }

    fn found(&self, bounds: Bounds) -> f64 {
        let min = bounds.min.max(1);
        f64::from_bits(self.limit.load(Relaxed)).clamp(min.into(), bounds.max.max(min).into())
    }

    /// A request took so long, while so many were in flight.
    pub fn sample(&self, bounds: Bounds, took_us: u64, in_flight: u32, now_us: u64) {
        self.sum_us.fetch_add(took_us, Relaxed);
        self.peak.fetch_max(in_flight, Relaxed);
        let samples = self.samples.fetch_add(1, AcqRel) + 1;
        let began_us = self.began_us.load(Acquire);
        let age_us = now_us.abs_diff(began_us);
        let is_over = age_us >= WINDOW_US && samples >= SAMPLES_MIN || age_us >= WINDOW_MAX_US;
        // One thread ends the window.
        if is_over && self.began_us.compare_exchange(began_us, now_us, AcqRel, Relaxed).is_ok() {
            let (samples, sum_us) = (self.samples.swap(0, AcqRel), self.sum_us.swap(0, AcqRel));
            let peak = self.peak.swap(0, Relaxed);
            if samples > 0 {
                self.judge(bounds, sum_us as f64 / samples as f64, peak);
            }
        }
    }

    fn judge(&self, bounds: Bounds, short_us: f64, peak: u32) {
        let short_us = short_us.max(1.0);
        let before = f64::from_bits(self.long_us.load(Relaxed));
        let mut long_us = if before == 0.0 { short_us } else { before + (short_us - before) / LONG_WINDOWS };
        if long_us > 2.0 * short_us {
            // What was slow is fast again: it need not take as long to be believed.
            long_us *= 0.95;
        }
        self.long_us.store(long_us.to_bits(), Relaxed);
        let limit = self.found(bounds);
        let gradient = (bounds.tolerance.max(1.0) * long_us / short_us).clamp(GRADIENT_MIN, 1.0);
        // Room for those that come at the same time.
        let room = limit.sqrt().max(4.0);
        if gradient >= 1.0 && f64::from(peak) < limit / 2.0 {
            // It was not used: nothing was learnt of whether more would do.
            return;
        }
        let wanted = limit * gradient + room;
        // Up at once, for it is by trying more that anything is learnt; down with more than one window's word.
        let next = if wanted > limit { wanted } else { limit + (wanted - limit) * SMOOTHING };
        // Looking clamps it; here it must only not run away.
        self.limit.store(next.clamp(1.0, f64::from(bounds.max.max(1))).to_bits(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 4, max: 1_000, tolerance: 1.5 };

    /// A service that works on so many at once, each of which takes 10 ms, and has the others wait.
    fn run(gradient: &Gradient, workers: u32, windows: u32, from_us: u64) -> u64 {
        let mut now_us = from_us;
        for _ in 0..windows {
            let in_flight = gradient.limit(BOUNDS);
            let took_us = 10_000 * u64::from(in_flight.max(workers)) / u64::from(workers);
            for _ in 0..20 {
                now_us += 6_000;
                gradient.sample(BOUNDS, took_us, in_flight, now_us);
            }
        }
        now_us
    }

    #[test]
    fn it_finds_about_as_many_as_the_service_works_on() {
        let gradient = Gradient::default();
        let end_us = run(&gradient, 40, 60, 1_000_000);
        let found = gradient.limit(BOUNDS);
        assert!((40..=110).contains(&found), "{found}");
        // The service becomes smaller, and then as large again.
        let end_us = run(&gradient, 10, 40, end_us);
        let fewer = gradient.limit(BOUNDS);
        assert!(fewer < found / 2, "{fewer}");
        run(&gradient, 40, 200, end_us);
        assert!(gradient.limit(BOUNDS) > fewer + 10, "{}", gradient.limit(BOUNDS));
    }

    #[test]
    fn it_keeps_between_its_bounds_and_grows_by_use_alone() {
        let gradient = Gradient::default();
        let bounds = Bounds { min: 5, max: 20, tolerance: 1.0 };
        assert_eq!(gradient.limit(bounds), 5);
        (1..200).for_each(|at| gradient.sample(bounds, 1_000, 1, at * 20_000));
        assert_eq!(gradient.limit(bounds), 5, "one in flight says nothing of more");
        (200..2_000).for_each(|at| gradient.sample(bounds, 1_000, 20, at * 20_000));
        assert_eq!(gradient.limit(bounds), 20);
        (2_000..4_000).for_each(|at| gradient.sample(bounds, 1_000 * at, 20, at * 20_000));
        assert!(gradient.limit(bounds) < 20);
    }
}
