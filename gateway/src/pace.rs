//! How far a client is behind the slowest pace at which it may send or take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far one who is waited for is behind, in milliseconds. Time counts only while it is waited for, so a slow target costs its
/// clients nothing. Of one thread, and atomic as all of [`crate::connection::Watch`]. What is `now_ms` is [`crate::timer::now_ms`].
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Since when it is waited for; 0 if it is not.
    since_ms: AtomicU64,
    behind_ms: AtomicU64,
}

impl Pace {
    /// It is waited for.
    pub(crate) fn waits(&self, now_ms: u64) {
        if self.since_ms.load(Relaxed) == 0 {
            self.since_ms.store(now_ms, Relaxed);
        }
    }

    /// It has sent or taken so many bytes, and should so many a second; with 0 any of them make up for all.
    pub(crate) fn moved(&self, now_ms: u64, bytes: usize, rate_min: u64) {
        let (since, behind) = (self.since_ms.load(Relaxed), self.behind_ms.load(Relaxed));
        if since == 0 && behind == 0 {
            return;
        }
        self.since_ms.store(0, Relaxed);
        let waited = if since == 0 { 0 } else { now_ms.saturating_sub(since) };
        let made_up = (bytes as u64).saturating_mul(1_000).checked_div(rate_min).unwrap_or(u64::MAX);
        self.behind_ms.store(behind.saturating_add(waited).saturating_sub(made_up), Relaxed);
    }

    /// How long it has been waited for, and how far it is behind in all, in milliseconds.
    pub(crate) fn behind_ms(&self, now_ms: u64) -> (u64, u64) {
        let since = self.since_ms.load(Relaxed);
        let waiting = if since == 0 { 0 } else { now_ms.saturating_sub(since) };
        (waiting, self.behind_ms.load(Relaxed).saturating_add(waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_by_drop_falls_behind() {
        let pace = Pace::default();
        let mut now_ms = 1_000;
        let mut wait = |ms, bytes| {
            pace.waits(now_ms);
            now_ms += ms;
            pace.moved(now_ms, bytes, 100);
            pace.behind_ms(now_ms)
        };
        for seconds in 1..=50 {
            assert_eq!(wait(1_000, 1), (0, seconds * 990));
        }
        assert_eq!(wait(0, 100_000), (0, 0), "what it is too fast is not saved up");
        assert_eq!(wait(5_000, 499), (0, 10));
    }

    #[test]
    fn without_a_rate_any_progress_will_do() {
        let pace = Pace::default();
        pace.waits(1);
        assert_eq!(pace.behind_ms(50_001), (50_000, 50_000));
        pace.moved(50_001, 1, 0);
        assert_eq!(pace.behind_ms(50_001), (0, 0));
    }
}
