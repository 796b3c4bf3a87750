//! Levels of endpoints: those of a lower priority, and of other zones, get what the ones before them can't bear.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::{chance, timer};

/// All of the requests.
pub(crate) const WHOLE: u64 = 1 << 16;
/// What a level that is well can bear of all requests, in percent: so it bears all until some 29 % of it are out of use (Envoy's
/// overprovisioning factor).
const BEARS_PERCENT: u64 = 140;
/// How long shares are good, in milliseconds.
const FRESH_MS: u64 = 100;

/// What there is of one level, by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) in_use: u64,
    pub(crate) all: u64,
}

/// What one level gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Share {
    /// Of [`WHOLE`].
    pub(crate) part: u32,
    /// Whether so much of it is out of use that requests go to all of it.
    pub(crate) is_in_panic: bool,
}

/// How requests are shared between levels, found out anew now and then by whoever needs it.
#[derive(Debug)]
pub(crate) struct Shares {
    found_ms: AtomicU64,
    /// For each level twice the sum of the parts up to its own, and 1 if it is in panic.
    levels: Box<[AtomicU32]>,
}

impl Shares {
    pub(crate) fn new(levels: usize) -> Self {
        Self { found_ms: AtomicU64::new(0), levels: (0..levels).map(|_| AtomicU32::default()).collect() }
    }

    /// Finds them out anew if they are old; `health` gives that of each level.
    pub(crate) fn refresh(&self, panic_percent: u32, health: impl Iterator<Item = Health>) {
        let now_ms = timer::now_ms();
        let found_ms = self.found_ms.load(Relaxed);
        if found_ms != 0 && now_ms.saturating_sub(found_ms) < FRESH_MS {
            return;
        }
        self.found_ms.store(now_ms, Relaxed);
        let mut sum = 0;
        let health: Vec<Health> = health.collect();
        for (level, share) in self.levels.iter().zip(split(&health, panic_percent)) {
            sum += share.part;
            level.store(sum << 1 | u32::from(share.is_in_panic), Relaxed);
        }
    }

    /// The level that a number of 64 bits falls on.
    pub(crate) fn by(&self, number: u64) -> usize {
        let place = chance::scaled(number, WHOLE);
        let is_it = |level: &AtomicU32| place < u64::from(level.load(Relaxed) >> 1);
        self.levels.iter().position(is_it).unwrap_or(0)
    }

    /// Whether requests go to all of this level, in use or not.
    pub(crate) fn is_in_panic(&self, level: usize) -> bool {
        self.levels.get(level).is_some_and(|level| level.load(Relaxed) & 1 == 1)
    }
}

/// How requests are shared between levels, the first first (Envoy's "Priority levels" and "Panic threshold"): each bears as much as
/// is in use of it, and 40 % more; what it can't bear goes to the next. Only where all together can't bear it is a level in panic of which
/// less than so much is in use; if nothing at all is in use, each gets a part by its size.
fn split(levels: &[Health], panic_percent: u32) -> Vec<Share> {
    let part = |of: u64, whole: u64, percent: u64| {
        let part = (u128::from(of) * u128::from(WHOLE * percent)).checked_div(u128::from(whole) * 100);
        part.map(|part| u64::try_from(part).unwrap_or(WHOLE).min(WHOLE))
    };
    let bears = |level: &Health| part(level.in_use, level.all, BEARS_PERCENT).unwrap_or(0);
    let together = levels.iter().map(bears).sum::<u64>().min(WHOLE);
    let all: u64 = levels.iter().map(|level| level.all).sum();
    let last = levels.iter().rposition(|level| level.all > 0).unwrap_or(0);
    let mut left = WHOLE;
    let shares = levels.iter().enumerate().map(|(at, level)| {
        let wanted = match (bears(level) * WHOLE).checked_div(together) {
            Some(part) => part,
            None => part(level.all, all, 100).unwrap_or(0),
        };
        let part = if at == last { left } else { wanted.min(left) };
        left -= part;
        let is_in_panic = together < WHOLE && level.in_use * 100 < level.all * u64::from(panic_percent);
        Share { part: u32::try_from(part).unwrap_or(0), is_in_panic }
    });
    shares.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts in percent of levels of 100, of which so many are in use, and which of them are in panic.
    fn of(in_use: &[u64], panic_percent: u32) -> Vec<(u32, bool)> {
        let levels: Vec<Health> = in_use.iter().map(|in_use| Health { in_use: *in_use, all: 100 }).collect();
        let shares = split(&levels, panic_percent);
        assert_eq!(shares.iter().map(|share| u64::from(share.part)).sum::<u64>(), WHOLE);
        shares.iter().map(|share| ((share.part * 100 + (1 << 15)) >> 16, share.is_in_panic)).collect()
    }

    fn parts(in_use: &[u64]) -> Vec<u32> {
        of(in_use, 0).into_iter().map(|(part, _)| part).collect()
    }

    #[test]
    fn a_level_bears_all_until_too_much_of_it_is_out_of_use() {
        // The tables of Envoy's documentation.
        assert_eq!(parts(&[100, 100]), [100, 0]);
        assert_eq!(parts(&[72, 100]), [100, 0]);
        assert_eq!(parts(&[71, 100]), [99, 1]);
        assert_eq!(parts(&[50, 100]), [70, 30]);
        assert_eq!(parts(&[25, 100]), [35, 65]);
        assert_eq!(parts(&[25, 25]), [50, 50]);
        assert_eq!(parts(&[0, 100]), [0, 100]);
        assert_eq!(parts(&[25, 0, 100]), [35, 0, 65]);
    }

    #[test]
    fn with_nothing_in_use_each_level_gets_its_part() {
        assert_eq!(parts(&[0, 0]), [50, 50]);
        assert_eq!(parts(&[0]), [100]);
    }

    #[test]
    fn a_level_panics_only_where_all_together_can_not_bear_it() {
        assert_eq!(of(&[40], 50), [(100, true)]);
        assert_eq!(of(&[50], 50), [(100, false)]);
        assert_eq!(of(&[40], 0), [(100, false)]);
        assert_eq!(of(&[5, 100], 50), [(7, false), (93, false)]);
        assert_eq!(of(&[25, 30], 50), [(45, true), (55, true)]);
    }

    #[test]
    fn shares_are_found_out_anew_once_they_are_old() {
        timer::refresh();
        let shares = Shares::new(2);
        let health = |in_use| [in_use, 100].map(|in_use| Health { in_use, all: 100 }).into_iter();
        shares.refresh(0, health(100));
        assert_eq!((shares.by(0), shares.by(u64::MAX)), (0, 0));
        shares.refresh(0, health(0));
        assert_eq!((shares.by(0), shares.by(u64::MAX)), (0, 0), "they are fresh");
        shares.found_ms.store(0, Relaxed);
        shares.refresh(0, health(0));
        assert_eq!((shares.by(0), shares.by(u64::MAX)), (1, 1));
    }
}
