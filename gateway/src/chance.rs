//! Numbers of chance where nothing hangs on that nobody can guess them.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = Cell::new(ahash::RandomState::new().hash_one(0_u8));
}

/// A number of 64 bits (SplitMix64: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) fn number() -> u64 {
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut bits = state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A number from 0 to below `end`; 0 if that is 0.
pub(crate) fn below(end: u64) -> u64 {
    scaled(number(), end)
}

/// Where a number of 64 bits falls among `end` places, all of one size (D. Lemire, "Fast random integer generation in an interval",
/// 2019).
pub(crate) fn scaled(number: u64, end: u64) -> u64 {
    ((u128::from(number) * u128::from(end)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_drawn_and_none_beyond() {
        let mut seen = [0; 7];
        for _ in 0..7_000 {
            seen[usize::try_from(below(7)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (700..1_300).contains(count)), "{seen:?}");
        assert_eq!(below(0), 0);
    }
}
