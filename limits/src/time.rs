//! Moments in 32 bits.

/// A moment to 64 microseconds, in 32 bits that go round after three days: enough for what is compared with them, which is
/// younger than the longest window and its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(pub(crate) u32);

/// The microseconds of one tick, as a power of two.
const TICK_BITS: u32 = 6;

impl Tick {
    /// The moment so many microseconds after the Unix epoch.
    pub(crate) fn at(now_us: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
        Self((now_us >> TICK_BITS) as u32)
    }

    /// The microseconds from an earlier moment to this one. One that is up to a day later counts as the same.
    pub(crate) fn since_us(self, earlier: Self) -> u64 {
        const DAY: u64 = 86_400_000_000 >> TICK_BITS;
        let passed = u64::from(self.0.wrapping_sub(earlier.0));
        if passed > u64::from(u32::MAX) - DAY { 0 } else { passed << TICK_BITS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_compared_across_the_end_of_their_numbers() {
        let end = (u64::from(u32::MAX) << TICK_BITS) + 63;
        assert_eq!(Tick::at(end + 1_000).since_us(Tick::at(end - 1_000)), 1_984);
        assert_eq!(Tick::at(5_000).since_us(Tick::at(0)), 4_992);
        assert_eq!(Tick::at(0).since_us(Tick::at(5_000)), 0);
    }
}
