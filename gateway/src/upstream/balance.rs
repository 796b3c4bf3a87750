//! Which target is next: each in turn, in proportion to its weight, the ejected ones passed over.

use std::sync::atomic::Ordering::Relaxed;

use crate::plan::upstream::CompiledUpstream;

use super::health;

/// Steps through any number of shares without a pattern that favours a target: a prime divides no smaller total.
const STRIDE: u64 = 2_654_435_761;

/// The index of the next target that is in use and not among `tried` (a bit each, of the first 64); if there is none,
/// one that was not tried; then any. None without targets.
pub(crate) fn next(upstream: &CompiledUpstream, tried: u64) -> Option<usize> {
    let targets = &upstream.targets;
    if targets.len() <= 1 {
        return targets.len().checked_sub(1);
    }
    let turn = upstream.state.turn.fetch_add(1, Relaxed);
    let first = choose(turn, targets.iter().map(|target| target.weight));
    let around = || (first..targets.len()).chain(0..first);
    // A target of weight 0 gets nothing, a retry or when all others are ejected included.
    let untried = |at: &usize| targets[*at].weight > 0 && (*at >= 64 || tried & (1 << at) == 0);
    around()
        .find(|at| untried(at) && !health::is_ejected(&targets[*at].state))
        .or_else(|| around().find(untried))
        .or(Some(first))
}

/// Whose turn it is: in each run of as many turns as there are shares, everyone has exactly its own.
pub(crate) fn choose(turn: u64, weights: impl Iterator<Item = u16> + Clone) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return 0;
    }
    let first = weights.clone().next();
    if weights.clone().all(|weight| Some(weight) == first) {
        let count = weights.count() as u64;
        return usize::try_from(turn % count).unwrap_or(0);
    }
    let mut share = (turn % total) * (STRIDE % total) % total;
    for (at, weight) in weights.enumerate() {
        match share.checked_sub(u64::from(weight)) {
            Some(left) => share = left,
            None => return at,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        for weights in [&[1, 1, 1][..], &[100, 50], &[1, 0, 2], &[65_535, 1], &[7]] {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let mut counts = vec![0_u64; weights.len()];
            for turn in 0..total * 2 {
                counts[choose(turn, weights.iter().copied())] += 1;
            }
            let want: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * 2).collect();
            assert_eq!(counts, want);
        }
    }
}
