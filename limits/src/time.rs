//! Moments in 32 bits.

/// A moment to 128 microseconds, in 32 bits that go round after six days: two moments are told apart rightly up to three, which is more
/// than two of the longest windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick(pub(crate) u32);

/// The microseconds of one tick, as a power of two.
const TICK_BITS: u32 = 7;

impl Tick {
    /// The moment so many microseconds after the Unix epoch.
    pub(crate) fn at(now_us: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
        Self((now_us >> TICK_BITS) as u32)
    }

    /// The microseconds from another moment to this one; less than 0 if that is later.
    pub(crate) fn after_us(self, other: Self) -> i64 {
        i64::from(self.0.wrapping_sub(other.0).cast_signed()) << TICK_BITS
    }

    /// The microseconds from an earlier moment to this one. A later one counts as the same.
    pub(crate) fn since_us(self, earlier: Self) -> u64 {
        u64::try_from(self.after_us(earlier)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_compared_across_the_end_of_their_numbers() {
        let end = (u64::from(u32::MAX) << TICK_BITS) + 127;
        assert_eq!(Tick::at(end + 1_000).since_us(Tick::at(end - 1_000)), 1_920);
        assert_eq!(Tick::at(5_000).since_us(Tick::at(0)), 4_992);
        assert_eq!(Tick::at(0).since_us(Tick::at(5_000)), 0);
        assert_eq!(Tick::at(0).after_us(Tick::at(5_000)), -4_992);
        let two_days = 2 * 86_400_000_000;
        assert_eq!(Tick::at(end + two_days).since_us(Tick::at(end)) >> 20, two_days >> 20);
    }
}
