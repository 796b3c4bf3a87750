//! One key's counters, in a cache line.
//!
//! Threads read and write them without a lock. What must agree is in one word: the window's number with its count, which is
//! what decides. The rest may be of two moments for an instant, when one thread has begun a new epoch: then a request is
//! judged by the old ceiling or the new one, either of which is right.

use std::{
    num::NonZeroU64,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use crate::{rule::Rule, time::Tick};

/// Peers can't be told of it, since there is no block for it: in this window this node has its even part of the limit.
pub(crate) const UNSHARED: u32 = 1 << 28;
/// It waits for its push.
pub(crate) const PENDING: u32 = 1 << 29;
/// A peer has spoken since the epoch began.
pub(crate) const STALE: u32 = 1 << 30;
/// The pusher looks after it.
pub(crate) const TENDED: u32 = 1 << 31;
const FLAGS: u32 = UNSHARED | PENDING | STALE | TENDED;

const _: () = assert!(size_of::<Slot>() == 64 && Rule::FREE_BITS == FLAGS);

/// By so much a thread may be behind others that was held since it read the clock. One that is behind by more tells of a clock that was
/// set back.
pub(crate) const LATE_US_MAX: u64 = 10_000_000;
/// The key of a slot that is being emptied for another.
pub(crate) const BUSY: u64 = u64::MAX;
/// For how long a key keeps a slot of which nothing is known yet.
const JUST_COME_US: u64 = 1_000_000;

/// One key's counters.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    /// The key's digest; 0: nobody has it.
    pub(crate) key: AtomicU64,
    /// The window's number, and in the lower half what was admitted in it.
    state: AtomicU64,
    /// Up to which count may be admitted in this epoch, as the bits of an f64.
    ceiling: AtomicU64,
    /// By how much the ceiling rises a microsecond, as the bits of an f32.
    slope: AtomicU32,
    /// When the epoch began.
    pub(crate) began: AtomicU32,
    /// What was admitted in the window before; of a period, what was used of it that nobody tells of any more.
    pub(crate) previous: AtomicU32,
    /// Requests that were refused; goes round.
    pub(crate) refused: AtomicU32,
    /// The count that peers were told.
    pub(crate) told: AtomicU32,
    /// The count at which they are to be told again.
    pub(crate) tell_at: AtomicU32,
    /// When the first request was admitted that they were not told of.
    pub(crate) first_untold: AtomicU32,
    /// Where what peers have said of it is; 0: they have not.
    pub(crate) block: AtomicU32,
    /// The first word of the rule.
    limit: AtomicU32,
    /// The second word of the rule, and the flags.
    window_and_flags: AtomicU32,
}

/// A window's number and the count in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) window: u32,
    pub(crate) admitted: u32,
}

impl Count {
    fn of(state: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        Self { window: (state >> 32) as u32, admitted: state as u32 }
    }

    fn state(self) -> u64 {
        u64::from(self.window) << 32 | u64::from(self.admitted)
    }
}

impl Slot {
    /// The present count.
    pub(crate) fn count(&self) -> Count {
        Count::of(self.state.load(Relaxed))
    }

    /// Counts so many, if that keeps to the ceiling; gives what the count was before. What is refused is never in the count, not
    /// even for a moment, in which the window could end.
    pub(crate) fn reserve(&self, cost: u32, ceiling: f64) -> Option<Count> {
        let add = |state: u64| {
            let admitted = u64::from(Count::of(state).admitted) + u64::from(cost);
            (admitted as f64 <= ceiling && admitted <= u64::from(u32::MAX)).then(|| state + u64::from(cost))
        };
        self.state.fetch_update(AcqRel, Relaxed, add).ok().map(Count::of)
    }

    /// Counts so many, whatever the ceiling says; gives what the count was before.
    pub(crate) fn add(&self, cost: u32) -> Count {
        let add = |state: u64| {
            let count = Count::of(state);
            Some(Count { admitted: count.admitted.saturating_add(cost), ..count }.state())
        };
        Count::of(self.state.fetch_update(AcqRel, Relaxed, add).unwrap_or_default())
    }

    /// Takes so many back, if they are in the count of this window.
    pub(crate) fn take_back(&self, window: u32, cost: u32) {
        let _ = self.state.fetch_update(AcqRel, Relaxed, |state| {
            let count = Count::of(state);
            (count.window == window && count.admitted >= cost).then(|| state - u64::from(cost))
        });
    }

    /// Begins this rule's window, if the slot is in an earlier one; whoever does so keeps the count of the one before. Gives the window that
    /// the slot is in now: it may be the one after already, since other threads' clocks may be a little ahead. A period never gives way to
    /// an earlier one.
    pub(crate) fn roll(&self, rule: Rule, now_us: u64) -> u32 {
        let (window, _) = rule.window(now_us);
        let before = self.state.load(Acquire);
        let count = Count::of(before);
        match window.wrapping_sub(count.window).cast_signed() {
            0 => return window,
            ..0 if rule.period().is_some() => return count.window,
            -1 => return count.window,
            behind @ ..0
                if u64::from(behind.unsigned_abs()).saturating_mul(rule.window_us()) < LATE_US_MAX =>
            {
                return count.window;
            }
            // A clock that was set back by more begins anew.
            _ => {}
        }
        let next = Count { window, admitted: 0 }.state();
        if self.state.compare_exchange(before, next, AcqRel, Relaxed).is_ok() {
            // Where nothing was counted yet, all is as it was made, or as it was said since.
            if count.window != 0 {
                let is_next = window == count.window.wrapping_add(1) && rule.period().is_none();
                self.previous.store(if is_next { count.admitted } else { 0 }, Relaxed);
                self.told.store(0, Relaxed);
                self.lower(UNSHARED);
            }
        }
        window
    }

    /// Up to which count may be admitted at this time.
    pub(crate) fn ceiling(&self, now: Tick) -> f64 {
        let slope = f32::from_bits(self.slope.load(Relaxed));
        let passed = now.since_us(Tick(self.began.load(Relaxed)));
        f64::from_bits(self.ceiling.load(Relaxed)) + f64::from(slope) * passed as f64
    }

    /// How fast the ceiling rises a microsecond.
    pub(crate) fn slope(&self) -> f32 {
        f32::from_bits(self.slope.load(Relaxed))
    }

    /// Sets up to which count may be admitted, and by how much that rises a microsecond.
    pub(crate) fn set_ceiling(&self, ceiling: f64, slope: f64) {
        self.ceiling.store(ceiling.to_bits(), Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
        self.slope.store((slope as f32).to_bits(), Relaxed);
    }

    /// What it is limited to; none while it is being taken by a key.
    pub(crate) fn rule(&self) -> Option<Rule> {
        Rule::unpack([self.limit.load(Relaxed), self.window_and_flags.load(Relaxed)])
    }

    /// Says what it is limited to.
    pub(crate) fn set_rule(&self, rule: Rule) {
        let [limit, window] = rule.pack();
        self.limit.store(limit, Relaxed);
        let _ = self.window_and_flags.fetch_update(AcqRel, Relaxed, |word| Some(word & FLAGS | window));
    }

    /// How much is lost if another key takes the slot, in hundredths of the limit; none if the key must keep it: half or more of its
    /// limit is used up, other nodes are told of it, or it has only just come.
    pub(crate) fn worth(&self, now: Tick) -> Option<u64> {
        if self.has(TENDED | PENDING) || self.block.load(Relaxed) != 0 {
            return None;
        }
        let age_us = now.after_us(Tick(self.began.load(Relaxed)));
        let Some(rule) = self.rule() else {
            return (age_us.unsigned_abs() > JUST_COME_US).then_some(0);
        };
        if rule.period().is_some() {
            return None;
        }
        if age_us.unsigned_abs() > 2 * rule.window_us() {
            return Some(0);
        }
        let counted = u64::from(self.count().admitted) + u64::from(self.previous.load(Relaxed));
        Some(counted * 100 / u64::from(rule.limit())).filter(|used| *used < 50)
    }

    /// The key, if one has it; none while it is being taken.
    pub(crate) fn its_key(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.key.load(Relaxed)).filter(|key| key.get() != BUSY)
    }

    /// The number of the period that it is limited in.
    pub(crate) fn period(&self) -> Option<u32> {
        self.rule()?.period()
    }

    /// Lets go of the key, if it is this one and nobody looks after it. Whether it did.
    pub(crate) fn let_go(&self, key: u64) -> bool {
        !self.has(TENDED | PENDING)
            && self.block.load(Relaxed) == 0
            && self.key.compare_exchange(key, 0, AcqRel, Relaxed).is_ok()
    }

    /// What was used up of a period and is told by nobody any more.
    pub(crate) fn set_base(&self, used: u32) {
        self.previous.store(used, Relaxed);
    }

    /// Forgets what the key before it has counted.
    pub(crate) fn empty(&self, now: Tick) {
        self.began.store(now.0, Relaxed);
        self.state.store(0, Relaxed);
        self.set_ceiling(0.0, 0.0);
        let words =
            [&self.previous, &self.refused, &self.told, &self.tell_at, &self.limit, &self.window_and_flags];
        words.into_iter().for_each(|word| word.store(0, Relaxed));
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.window_and_flags.load(Relaxed) & flag != 0
    }

    /// Raises a flag; whether it was down.
    pub(crate) fn raise(&self, flag: u32) -> bool {
        self.window_and_flags.fetch_or(flag, AcqRel) & flag == 0
    }

    pub(crate) fn lower(&self, flag: u32) {
        self.window_and_flags.fetch_and(!flag, AcqRel);
    }
}
