//! How long the slowest answers of an upstream take, of late.
//!
//! A histogram whose buckets grow with the times that they are of, so that each time is known to an eighth (as in HdrHistogram, by
//! G. Tene), and of which each bucket loses half every ten seconds. A request that was given up counts with the time that it had been
//! under way: it would have taken longer, and since it is given up for being slower than the percentile, that is all that
//! a percentile needs to know.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Buckets for each doubling of the time, as a power of two.
const PARTS_LOG2: u32 = 3;
const PARTS: usize = 1 << PARTS_LOG2;
/// The longest time that is told from longer ones, some 67 s, as a power of two of microseconds.
const LONGEST_LOG2: u32 = 26;
const BUCKETS: usize = ((LONGEST_LOG2 - PARTS_LOG2 + 1) as usize) * PARTS;
/// After how long what was seen counts for half, in milliseconds.
const HALF_LIFE_MS: u64 = 10_000;
/// How old a percentile may be that is told, in milliseconds.
const STALE_MS: u64 = 100;
const LOW: u64 = u32::MAX as u64;

/// How long an upstream's answers took of late. Threads share it.
#[derive(Debug)]
pub(crate) struct Tail {
    /// How many took so long.
    counts: [AtomicU32; BUCKETS],
    /// When the counts were last halved; 0 before the first.
    halved_at_ms: AtomicU64,
    /// The percentile that was last told, in microseconds, and the low half of the milliseconds at which it was found, in 32 bits each; 0
    /// before the first.
    told: AtomicU64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; BUCKETS],
            halved_at_ms: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }
}

impl Tail {
    /// An answer took so long, or had not come after so long.
    pub(crate) fn saw(&self, took: Duration, now_ms: u64) {
        self.halve(now_ms);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)].fetch_add(1, Relaxed);
    }

    /// The time within which so many of a hundred answers came: no less, and an eighth more at the most. None while there are too few for one to
    /// be expected to take longer.
    pub(crate) fn percentile(&self, percent: u8, now_ms: u64) -> Option<Duration> {
        let told = self.told.load(Relaxed);
        let age_ms = now_ms.wrapping_sub(told) & LOW;
        if told != 0 && age_ms < STALE_MS {
            return Some(Duration::from_micros(told >> 32));
        }
        self.halve(now_ms);
        let us = self.find(percent)?;
        self.told.store(us << 32 | now_ms & LOW, Relaxed);
        Some(Duration::from_micros(us))
    }

    fn find(&self, percent: u8) -> Option<u64> {
        let count = |bucket: usize| u64::from(self.counts[bucket].load(Relaxed));
        let all: u64 = (0..BUCKETS).map(count).sum();
        let slower = all * u64::from(100_u8.saturating_sub(percent)) / 100;
        if slower == 0 {
            return None;
        }
        let mut above = 0;
        (0..BUCKETS).rev().find_map(|bucket| {
            above += count(bucket);
            (above > slower).then(|| upper(bucket))
        })
    }

    /// Halves the counts, once for each time that has passed.
    fn halve(&self, now_ms: u64) {
        let last = self.halved_at_ms.load(Relaxed);
        if last == 0 {
            // Whoever else is first has the same time.
            let _ = self.halved_at_ms.compare_exchange(0, now_ms, Relaxed, Relaxed);
            return;
        }
        let times = now_ms.saturating_sub(last) / HALF_LIFE_MS;
        let next = last + times * HALF_LIFE_MS;
        if times == 0 || self.halved_at_ms.compare_exchange(last, next, Relaxed, Relaxed).is_err() {
            return;
        }
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        for count in &self.counts {
            let had = count.load(Relaxed);
            // What others add meanwhile stays.
            count.fetch_sub(had - had.checked_shr(times).unwrap_or(0), Relaxed);
        }
    }
}

/// Below so many microseconds a bucket is of one, and above it of an eighth of the power of two below.
fn bucket(us: u64) -> usize {
    let us = us.min((1 << LONGEST_LOG2) - 1);
    let doublings = (us | (PARTS as u64 - 1)).ilog2() + 1 - PARTS_LOG2;
    if doublings == 0 {
        return usize::try_from(us).unwrap_or(0);
    }
    let part = usize::try_from(us >> (doublings - 1)).unwrap_or(0) - PARTS;
    (doublings as usize) * PARTS + part
}

/// The longest time of a bucket, in microseconds, rounded up.
fn upper(bucket: usize) -> u64 {
    let (doublings, part) = (bucket / PARTS, (bucket % PARTS) as u64);
    if doublings == 0 { part + 1 } else { (PARTS as u64 + part + 1) << (doublings - 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Tail {
        let tail = Tail::default();
        times.into_iter().for_each(|us| tail.saw(Duration::from_micros(us), 1));
        tail
    }

    fn percentile(tail: &Tail, percent: u8, now_ms: u64) -> Option<u64> {
        let time = tail.percentile(percent, now_ms)?;
        Some(u64::try_from(time.as_micros()).unwrap())
    }

    #[test]
    fn there_is_none_before_there_is_one_slower() {
        assert_eq!(percentile(&of([]), 50, 1), None);
        assert_eq!(percentile(&of([1_000; 19]), 95, 1), None);
        let tail = of([1_000; 20]);
        assert!((1_000..=1_125).contains(&percentile(&tail, 95, 1).unwrap()));
        assert_eq!(percentile(&of([1_000; 99]), 99, 1), None);
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_what_is_recent_counts_more() {
        let tail = of([1_000_000; 200]);
        assert!(percentile(&tail, 90, 1).unwrap() >= 1_000_000);
        for _ in 0..200 {
            tail.saw(Duration::from_micros(100), 40_001);
        }
        // Of the two hundred an eighth counts as much as a sixteenth of all.
        assert!(percentile(&tail, 90, 40_001).unwrap() < 200);
        assert!(percentile(&tail, 90, 100_000_000).is_none());
    }

    #[test]
    fn what_was_told_is_told_again_for_a_moment() {
        let tail = of([100; 100]);
        let before = percentile(&tail, 50, 1);
        for _ in 0..1_000 {
            tail.saw(Duration::from_millis(1), 1);
        }
        assert_eq!(percentile(&tail, 50, 100), before);
        assert!(percentile(&tail, 50, 101) > before);
    }

    #[test]
    fn the_longest_times_are_one() {
        let tail = of([u64::MAX; 100]);
        assert_eq!(percentile(&tail, 50, 1), Some(1 << LONGEST_LOG2));
    }

    proptest! {
        #[test]
        fn a_time_is_in_its_bucket(us in 0_u64..(1 << LONGEST_LOG2)) {
            let bucket = bucket(us);
            prop_assert!(bucket < BUCKETS);
            prop_assert!(us < upper(bucket));
            prop_assert!(bucket == 0 || upper(bucket - 1) <= us);
        }

        #[test]
        fn a_percentile_is_right_to_an_eighth(
            mut times in prop::collection::vec(prop_oneof![0..2_000_u64, 0..(1_u64 << LONGEST_LOG2)], 1..400),
            percent in 50..=99_u8,
        ) {
            let told = percentile(&of(times.clone()), percent, 1);
            times.sort_unstable();
            let slower = times.len() * usize::from(100 - percent) / 100;
            let Some(told) = told else {
                prop_assert_eq!(slower, 0);
                return Ok(());
            };
            let exact = times[times.len() - 1 - slower];
            prop_assert!(told > exact && told <= exact + exact / 8 + 1, "{} of {}", told, exact);
            let within = times.iter().filter(|time| **time < told).count();
            prop_assert!(within * 100 >= times.len() * usize::from(percent));
        }
    }
}
