//! Where each key's slot is: a table of fixed size, in which a key may be in either of two buckets.
//!
//! Two choices, of which the emptier is taken, fill a table evenly (Azar, Broder, Karlin and Upfal, "Balanced allocations",
//! 1999), so that nearly all of it is used before a key finds no place.

use std::{
    num::NonZeroU64,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::{
    slot::{BUSY, Slot},
    time::Tick,
};

/// Slots in a bucket.
const BUCKET: usize = 8;
/// How often a slot is looked for while other threads take some.
const TRIES_MAX: usize = 300;
const SPINS_MAX: usize = 100;

/// What came of taking a slot.
enum Taken {
    Is(u32),
    /// All are of keys that must keep them.
    None,
    /// Others are being taken: look again.
    Again,
}

/// The slots.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Box<[Slot]>,
    buckets: u64,
}

impl Table {
    /// For so many keys, and some more, since buckets don't fill evenly.
    pub(crate) fn new(keys: usize) -> Self {
        let buckets = (keys + keys / 4).div_ceil(BUCKET).max(2);
        let slots = (0..buckets * BUCKET).map(|_| Slot::default()).collect();
        Self { slots, buckets: buckets as u64 }
    }

    /// Every slot, in the order of their places.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot at this place.
    pub(crate) fn at(&self, place: u32) -> &Slot {
        &self.slots[place as usize]
    }

    /// The slot of this key, if it has one.
    pub(crate) fn find(&self, key: NonZeroU64) -> Option<u32> {
        self.choices(key.get()).into_iter().find_map(|bucket| self.find_in(bucket, key.get()))
    }

    /// The slot of this key, which takes one if it has none; none if all it could have are of keys that must keep them.
    pub(crate) fn find_or_take(&self, key: NonZeroU64, now: Tick) -> Option<u32> {
        for tries in 0..TRIES_MAX {
            match self.find(key).map_or_else(|| self.take(key.get(), now), Taken::Is) {
                Taken::Is(place) => return Some(place),
                Taken::None => return None,
                // Another thread was quicker, maybe for this very key.
                Taken::Again if tries < SPINS_MAX => std::hint::spin_loop(),
                // It was held in the middle of it.
                Taken::Again => std::thread::yield_now(),
            }
        }
        None
    }

    /// Takes a free slot for the key, or that of the key of which the least is lost.
    fn take(&self, key: u64, now: Tick) -> Taken {
        let [one, other] = self.choices(key);
        let emptier = if self.free(other) > self.free(one) { [other, one] } else { [one, other] };
        let places = || emptier.into_iter().flat_map(|bucket| bucket..bucket + BUCKET);
        let keys = || places().map(|place| (self.slots[place].key.load(Acquire), place));
        if keys().any(|(key, _)| key == BUSY) {
            return Taken::Again;
        }
        let free = keys().find(|(key, _)| *key == 0);
        let least = || {
            let worth =
                keys().filter_map(|(before, place)| Some((self.slots[place].worth(now)?, before, place)));
            worth.min().map(|(_, before, place)| (before, place))
        };
        let Some((before, place)) = free.or_else(least) else { return Taken::None };
        let slot = &self.slots[place];
        if slot.key.compare_exchange(before, BUSY, AcqRel, Relaxed).is_err() {
            return Taken::Again;
        }
        if keys().any(|(key, other)| key == BUSY && other != place) {
            // Maybe it is for the same key: whoever comes second gives way. That both do is no harm.
            slot.key.store(before, Release);
            return Taken::Again;
        }
        // Nobody counts in it before it is empty.
        slot.empty(now);
        let first = self.choices(key).into_iter().find_map(|bucket| self.find_in(bucket, key));
        slot.key.store(if first.is_some() { 0 } else { key }, Release);
        first.or(u32::try_from(place).ok()).map_or(Taken::None, Taken::Is)
    }

    fn find_in(&self, bucket: usize, key: u64) -> Option<u32> {
        let slots = &self.slots[bucket..bucket + BUCKET];
        let place = slots.iter().position(|slot| slot.key.load(Acquire) == key)?;
        u32::try_from(bucket + place).ok()
    }

    fn free(&self, bucket: usize) -> usize {
        self.slots[bucket..bucket + BUCKET].iter().filter(|slot| slot.key.load(Relaxed) == 0).count()
    }

    /// The first slots of the key's two buckets.
    fn choices(&self, key: u64) -> [usize; 2] {
        let bucket = |hash: u64| {
            let bucket = (u128::from(hash) * u128::from(self.buckets)) >> 64;
            usize::try_from(bucket).unwrap_or_default() * BUCKET
        };
        // The key is a digest already; the other choice is another mixture of its bits.
        [bucket(key), bucket((key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_slot_and_nearly_as_many_fit_as_were_asked_for() {
        let table = Table::new(10_000);
        let key = |number: u64| NonZeroU64::new(number.wrapping_mul(0xD1B5_4A32_D192_ED03) | 1).unwrap();
        let now = Tick::at(1_000_000);
        let taken: Vec<_> = (1..=10_000).map(|number| table.find_or_take(key(number), now)).collect();
        let kept = (1..=10_000).zip(taken).filter(|(number, place)| {
            let found = table.find(key(*number));
            found.is_some() && found == *place
        });
        assert!(kept.count() > 9_990);
    }

    #[test]
    fn threads_that_take_one_for_the_same_key_take_the_same() {
        let table = Table::new(64);
        for round in 1..2_000_u64 {
            let key = NonZeroU64::new(round.wrapping_mul(0xD1B5_4A32_D192_ED03)).unwrap();
            let now = Tick::at(round * 10_000_000_000);
            let count = || {
                for _ in 0..3 {
                    // However long the other is held in the middle of it.
                    let place =
                        std::iter::repeat_with(|| table.find_or_take(key, now)).find_map(|place| place);
                    table.at(place.unwrap()).add(1);
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(count);
                count();
            });
            let place = table.find(key).expect("there is room");
            assert_eq!(table.at(place).count().admitted, 6, "round {round}");
        }
    }
}
