//! How long ago a majority confirmed that what this node serves is the newest: for traffic that is rather refused than served
//! by rules that may have been taken back.
//!
//! The time counts from when the confirmation was *asked for*, since an answer may be held up on its way for as long as it likes
//! (C. Gray and D. Cheriton, "Leases", SOSP 1989). The clock is CLOCK_BOOTTIME, which goes on while the machine sleeps.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// A moment on CLOCK_BOOTTIME, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let (s, ns) =
            (u64::try_from(time.tv_sec).unwrap_or_default(), u64::try_from(time.tv_nsec).unwrap_or_default());
        Self(s * 1_000 + ns / 1_000_000)
    }
}

/// When what this node serves was last known to be the newest.
#[derive(Debug, Default)]
pub struct Lease {
    /// Milliseconds on the clock; 0 if it never was.
    confirmed_ms: AtomicU64,
}

impl Lease {
    /// A majority has answered what was asked at `sent`, and everything that was committed then is served here.
    pub fn confirm(&self, sent: Moment) {
        self.confirmed_ms.fetch_max(sent.0, Relaxed);
    }

    /// How long ago that was asked; none if it never was answered.
    pub fn age(&self) -> Option<Duration> {
        self.age_at(Moment::now())
    }

    fn age_at(&self, now: Moment) -> Option<Duration> {
        let confirmed_ms = self.confirmed_ms.load(Relaxed);
        (confirmed_ms != 0).then(|| Duration::from_millis(now.0.saturating_sub(confirmed_ms)))
    }

    /// Whether it was within this time.
    pub fn holds_for(&self, time: Duration) -> bool {
        self.age().is_some_and(|age| age <= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_when_it_was_asked_and_never_back() {
        let lease = Lease::default();
        assert_eq!(lease.age(), None);
        assert!(!lease.holds_for(Duration::MAX));
        lease.confirm(Moment(5_000));
        // An answer that was held up says nothing new.
        lease.confirm(Moment(4_000));
        assert_eq!(lease.age_at(Moment(35_000)), Some(Duration::from_secs(30)));
        assert_eq!(lease.age_at(Moment(1)), Some(Duration::ZERO));
        lease.confirm(Moment::now());
        assert!(lease.holds_for(Duration::from_secs(3_600)) && Moment::now() >= Moment(1));
    }
}
