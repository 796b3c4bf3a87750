//! How many requests are in flight under each key, on this node.
//!
//! Workers count up and down without a lock. How many this node may have, [`crate::GaugePusher`] says, by what the others have.

use std::{
    num::NonZeroU64,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use crossbeam_queue::ArrayQueue;

use crate::{
    Scope,
    gauge_pusher::{FIRST_DIVISOR, GaugePusher},
};

/// How often a slot is looked for that is just being let go of or taken.
const TRIES_MAX: usize = 64;
/// Slots in a bucket; a key may be in either of two.
const BUCKET: usize = 8;

/// So many requests at once, and who shares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    limit: u32,
    scope: Scope,
}

impl InFlight {
    /// The most that there may be at once.
    pub const LIMIT_MAX: u32 = (1 << 30) - 1;

    /// So many; none if that is 0 or too large.
    pub fn new(limit: u32, scope: Scope) -> Option<Self> {
        (1..=Self::LIMIT_MAX).contains(&limit).then_some(Self { limit, scope })
    }

    /// How many there may be at once.
    pub fn limit(self) -> u32 {
        self.limit
    }

    /// Who shares them.
    pub fn scope(self) -> Scope {
        self.scope
    }

    fn pack(self) -> u32 {
        let scope = match self.scope {
            Scope::Cluster => 0,
            Scope::Reachable => 1,
            Scope::Node => 2,
        };
        self.limit << 2 | scope
    }

    fn unpack(word: u32) -> Option<Self> {
        let scope = match word & 3 {
            0 => Scope::Cluster,
            1 => Scope::Reachable,
            2 => Scope::Node,
            _ => return None,
        };
        Self::new(word >> 2, scope)
    }
}

/// The requests in flight of a node. Threads share it.
#[derive(Debug)]
pub struct Gauges {
    keys: usize,
    /// Made with the first request that is counted.
    held: OnceLock<Held>,
}

#[derive(Debug)]
pub(crate) struct Held {
    slots: Box<[Slot]>,
    /// Slots that the pusher is to look at.
    pub(crate) due: ArrayQueue<u32>,
}

/// One key.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    key: AtomicU64,
    /// Bits of the key, and in the lower half how many are in flight: so that nobody counts in a slot that another key has got.
    state: AtomicU64,
    in_flight: AtomicU32,
    /// How many this node may have.
    pub(crate) allowed: AtomicU32,
    /// At how many the others are to be told.
    pub(crate) tell_at: AtomicU32,
    /// Requests that were refused; goes round.
    pub(crate) refused: AtomicU32,
    /// How many the others have.
    pub(crate) others: AtomicU32,
    /// The pusher is going to look at it.
    is_due: AtomicBool,
    /// A request was refused since it looked.
    is_wanted: AtomicBool,
}

/// A request that is counted as in flight until this is dropped.
#[derive(Debug)]
pub struct Permit {
    gauges: Arc<Gauges>,
    place: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauges.held().slots[self.place as usize].state.fetch_sub(1, Release);
    }
}

impl Gauges {
    /// One that counts so many keys at the same time, and who tells peers of it.
    pub fn new(keys: usize) -> (Arc<Self>, GaugePusher) {
        let gauges = Arc::new(Self { keys, held: OnceLock::new() });
        let pusher = GaugePusher::new(gauges.clone());
        (gauges, pusher)
    }

    /// Counts a request in; none if there are as many under its key as there may be. `is_due` becomes true if the pusher is to be
    /// polled now.
    ///
    /// The key is a digest under a secret, the same on all nodes. Where there are more keys at once than there is room for, those that
    /// find none are not limited.
    pub fn acquire(
        self: &Arc<Self>,
        key: NonZeroU64,
        limit: InFlight,
        is_due: &mut bool,
    ) -> Option<Acquired> {
        let held = self.held();
        for _ in 0..TRIES_MAX {
            let Some((place, is_new)) = held.find_or_take(key.get()) else { break };
            let slot = &held.slots[place as usize];
            if is_new || slot.in_flight.load(Relaxed) != limit.pack() {
                slot.in_flight.store(limit.pack(), Relaxed);
                let untold = match limit.scope {
                    Scope::Node => limit.limit,
                    Scope::Cluster | Scope::Reachable => limit.limit.div_ceil(FIRST_DIVISOR),
                };
                // Of another limit for a key that was looked at, no more may be had than before until it is looked at again.
                let before = if is_new { u32::MAX } else { slot.allowed.load(Relaxed) };
                slot.allowed.store(untold.min(before), Relaxed);
                slot.tell_at.store(1, Relaxed);
                *is_due |= held.have_looked_at(place);
            }
            let (allowed, tag) = (slot.allowed.load(Relaxed), tag(key.get()));
            let add = |state: u64| (state >> 32 == tag && count(state) < allowed).then(|| state + 1);
            match slot.state.fetch_update(AcqRel, Relaxed, add) {
                Ok(before) => {
                    if count(before) + 1 >= slot.tell_at.load(Relaxed) {
                        *is_due |= held.have_looked_at(place);
                    }
                    return Some(Acquired::Counted(Permit { gauges: self.clone(), place }));
                }
                Err(state) if state >> 32 == tag => {
                    slot.refused.fetch_add(1, Relaxed);
                    if !slot.is_wanted.swap(true, AcqRel) {
                        *is_due |= held.have_looked_at(place);
                    }
                    return None;
                }
                // The slot is just being let go of, or taken.
                Err(_) => std::hint::spin_loop(),
            }
        }
        Some(Acquired::Uncounted)
    }

    /// Every key of which requests are in flight, on this node or on others as far as it has heard, in no order.
    pub fn usage(&self) -> impl Iterator<Item = GaugeUsage> + '_ {
        let slots = self.held.get().map(|held| &*held.slots).unwrap_or_default();
        slots.iter().filter_map(|slot| {
            let key = NonZeroU64::new(slot.key.load(Relaxed))?;
            let limit = slot.limit()?;
            let (in_flight, others) = (slot.count(), slot.others.load(Relaxed));
            let refused = slot.refused.load(Relaxed);
            (in_flight > 0 || others > 0).then_some(GaugeUsage { key, limit, in_flight, others, refused })
        })
    }

    pub(crate) fn held(&self) -> &Held {
        self.held.get_or_init(|| {
            let buckets = self.keys.div_ceil(BUCKET).max(2);
            let slots = (0..buckets * BUCKET).map(|_| Slot::default()).collect();
            Held { slots, due: ArrayQueue::new(self.keys.max(1)) }
        })
    }

    pub(crate) fn held_if_any(&self) -> Option<&Held> {
        self.held.get()
    }
}

/// What came of a request that is let through.
#[derive(Debug)]
pub enum Acquired {
    /// It is counted until the permit is dropped.
    Counted(Permit),
    /// It is not counted, since there was no room.
    Uncounted,
}

/// What is in flight under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaugeUsage {
    /// The key's digest.
    pub key: NonZeroU64,
    /// How many there may be.
    pub limit: InFlight,
    /// How many this node has.
    pub in_flight: u32,
    /// How many the others have, as far as this node has heard.
    pub others: u32,
    /// How many this node refused for as long as it has known the key; goes round.
    pub refused: u32,
}

impl Held {
    pub(crate) fn at(&self, place: u32) -> &Slot {
        &self.slots[place as usize]
    }

    /// The slot of this key.
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        self.places(key)
            .find(|place| self.slots[*place].key.load(Acquire) == key)
            .and_then(|place| place.try_into().ok())
    }

    /// The slot of this key, and whether it has just got it; none if all it could have are taken.
    fn find_or_take(&self, key: u64) -> Option<(u32, bool)> {
        if let Some(place) = self.find(key) {
            return Some((place, false));
        }
        let place = self.places(key).find(|place| {
            let slot = &self.slots[*place];
            slot.key.load(Relaxed) == 0 && slot.key.compare_exchange(0, key, AcqRel, Relaxed).is_ok()
        })?;
        let slot = &self.slots[place];
        for word in [&slot.in_flight, &slot.allowed, &slot.tell_at, &slot.refused, &slot.others] {
            word.store(0, Relaxed);
        }
        slot.state.store(tag(key) << 32, Release);
        // Another thread may have taken one for the same key: the first is the one that is found from now on. Whoever has found the other
        // meanwhile counts there, until the pusher can let go of it.
        let (first, place) = (self.find(key)?, u32::try_from(place).ok()?);
        if first != place && !self.free(place) {
            self.have_looked_at(place);
        }
        Some((first, first == place))
    }

    /// Lets go of a slot in which nothing is in flight. Whether there is nothing.
    pub(crate) fn free(&self, place: u32) -> bool {
        let slot = self.at(place);
        let empty = tag(slot.key.load(Relaxed)) << 32;
        let is_free = slot.state.compare_exchange(empty, 0, AcqRel, Relaxed).is_ok();
        if is_free {
            slot.key.store(0, Release);
        }
        is_free
    }

    /// Has the pusher look at this slot. Whether it must be woken.
    fn have_looked_at(&self, place: u32) -> bool {
        let slot = self.at(place);
        !slot.is_due.swap(true, AcqRel)
            && self.due.push(place).inspect_err(|_| slot.is_due.store(false, Relaxed)).is_ok()
    }

    fn places(&self, key: u64) -> impl Iterator<Item = usize> {
        let buckets = (self.slots.len() / BUCKET) as u64;
        let bucket = |hash: u64| {
            let bucket = (u128::from(hash) * u128::from(buckets)) >> 64;
            usize::try_from(bucket).unwrap_or_default() * BUCKET
        };
        let other = (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        [bucket(key), bucket(other)].into_iter().flat_map(|first| first..first + BUCKET)
    }
}

impl Slot {
    pub(crate) fn key(&self) -> u64 {
        self.key.load(Relaxed)
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> u32 {
        count(self.state.load(Relaxed))
    }

    pub(crate) fn limit(&self) -> Option<InFlight> {
        InFlight::unpack(self.in_flight.load(Relaxed))
    }

    /// Whether a request was refused since this was asked.
    pub(crate) fn take_wanted(&self) -> bool {
        self.is_wanted.swap(false, AcqRel)
    }

    /// The pusher looks at it now.
    pub(crate) fn is_looked_at(&self) {
        self.is_due.store(false, Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
fn count(state: u64) -> u32 {
    state as u32
}

/// Bits of a key, never 0.
fn tag(key: u64) -> u64 {
    key >> 32 | 1
}
