//! Draws among places with weights: in turn, or by a number of chance.

use crate::chance;

/// Steps through any number of shares without a pattern that favours a place: a prime divides no smaller total.
const STRIDE: u64 = 2_654_435_761;

/// Places with weights, to be drawn from in time that hardly grows with their number.
#[derive(Debug, Default)]
pub(crate) struct Draw {
    count: usize,
    total: u64,
    /// The sums of the weights up to each place's own; none if all weights are the same.
    sums: Box<[u64]>,
}

impl Draw {
    /// Of places of these weights. One of weight 0 is never drawn, unless all are.
    pub(crate) fn new(weights: impl Iterator<Item = u32> + Clone) -> Self {
        let first = weights.clone().next().unwrap_or(0);
        let mut total = 0_u64;
        let sums: Vec<u64> = weights
            .clone()
            .map(|weight| {
                total += u64::from(weight);
                total
            })
            .collect();
        let count = sums.len();
        if weights.clone().all(|weight| weight == first) {
            return Self { count, total: count as u64, sums: Box::default() };
        }
        Self { count, total, sums: sums.into() }
    }

    /// How many places there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Whether all places have the same weight.
    pub(crate) fn is_even(&self) -> bool {
        self.sums.is_empty()
    }

    /// The place whose turn it is: in each run of as many turns as there are shares, each has exactly its own.
    pub(crate) fn in_turn(&self, turn: u64) -> usize {
        if self.total == 0 {
            return 0;
        }
        let turn = turn % self.total;
        let stride = if self.is_even() { 1 } else { STRIDE % self.total };
        let share = u128::from(turn) * u128::from(stride) % u128::from(self.total);
        self.holder(u64::try_from(share).unwrap_or(0))
    }

    /// The place that a number of 64 bits falls on.
    pub(crate) fn by(&self, number: u64) -> usize {
        self.holder(chance::scaled(number, self.total))
    }

    /// A place by chance.
    pub(crate) fn by_chance(&self) -> usize {
        self.by(chance::number())
    }

    /// Two places by chance. Where all weights are the same they differ if they can; else they may be the same, so that a place of a
    /// small weight is not one of two each time.
    pub(crate) fn two(&self) -> (usize, usize) {
        let first = self.by_chance();
        if !self.is_even() || self.count < 2 {
            return (first, self.by_chance());
        }
        let others = self.count as u64 - 1;
        let step = usize::try_from(chance::below(others)).unwrap_or(0) + 1;
        (first, (first + step) % self.count)
    }

    /// Who has this share.
    fn holder(&self, share: u64) -> usize {
        if self.is_even() {
            return usize::try_from(share).unwrap_or(0);
        }
        self.sums.partition_point(|sum| *sum <= share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(weights: &[u32], draws: u64, mut draw: impl FnMut(&Draw, u64) -> usize) -> Vec<u64> {
        let drawn = Draw::new(weights.iter().copied());
        let mut counts = vec![0_u64; weights.len()];
        for turn in 0..draws {
            counts[draw(&drawn, turn)] += 1;
        }
        counts
    }

    #[test]
    fn shares_in_turn_are_exact() {
        for weights in [&[1, 1, 1][..], &[100, 50], &[1, 0, 2], &[65_535, 1], &[7]] {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let want: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * 2).collect();
            assert_eq!(counts(weights, total * 2, Draw::in_turn), want);
        }
    }

    proptest! {
        #[test]
        fn shares_by_chance_are_close(weights in proptest::collection::vec(0_u32..100, 1..8)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let counts = counts(&weights, 20_000, |draw, _| draw.by_chance());
            for (count, weight) in counts.iter().zip(&weights) {
                let want = 20_000 * u64::from(*weight) / total;
                prop_assert!(count.abs_diff(want) < 900, "{count} of {want}");
                prop_assert!(*weight > 0 || *count == 0);
            }
        }

        #[test]
        fn two_of_the_same_weight_differ(count in 2_usize..20) {
            let draw = Draw::new(std::iter::repeat_n(3, count));
            for _ in 0..100 {
                let (one, other) = draw.two();
                prop_assert!(one != other && one < count && other < count);
            }
        }
    }
}
