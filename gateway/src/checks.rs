//! Active checks, as those who check the same targets share them: who checks which, and what each has found.
//!
//! Each target is checked by some of them, chosen by rendezvous hashing (D. G. Thaler and C. V. Ravishankar, "Using name-based mappings to
//! increase hit rates", 1998): whoever knows the same others comes to the same choice, and when one goes its targets alone are
//! given to others. What is found is left here for whoever carries it, as what others have found is.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

/// Findings that wait to be carried, in each direction; more are lost, and come again with the next check.
const WAITING_MAX: usize = 16_384;

/// What a check of a target has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// A digest of the target and of how it is checked, the same for all who check it alike.
    pub target: u64,
    /// Whether it is well, by as many checks in a row as that takes.
    pub is_well: bool,
}

/// Who shares the checks of targets.
#[derive(Debug, Default)]
pub(crate) struct Sharers {
    /// This one's number.
    pub(crate) me: u64,
    /// The others'.
    others: Box<[u64]>,
}

impl Sharers {
    /// Whether there is nobody to share with.
    pub(crate) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether this one is among so many that are to check a target.
    pub(crate) fn is_mine(&self, target: u64, checkers: u32) -> bool {
        let mine = score(self.me, target);
        let before = self.others.iter().filter(|other| (score(**other, target), **other) > (mine, self.me));
        before.take(checkers as usize).count() < checkers as usize
    }
}

/// How a target likes one who may check it: the most liked do.
fn score(sharer: u64, target: u64) -> u64 {
    // SplitMix64's last step: neighbouring numbers come out as if by chance.
    let mut bits = target ^ sharer.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Active checks that are shared with others, if there are any. One task carries what is found.
#[derive(Debug)]
pub struct Checks {
    sharers: ArcSwap<Sharers>,
    found: ArrayQueue<Finding>,
    heard: ArrayQueue<(u64, Finding)>,
    is_urgent: Notify,
    is_running: AtomicBool,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            sharers: ArcSwap::default(),
            found: ArrayQueue::new(WAITING_MAX),
            heard: ArrayQueue::new(WAITING_MAX),
            is_urgent: Notify::new(),
            is_running: AtomicBool::new(false),
        }
    }
}

impl Checks {
    /// Shares checks with these others from now on, as the one of this number.
    pub fn share(&self, me: u64, others: &[u64]) {
        let others = others.iter().copied().filter(|other| *other != me).collect();
        self.sharers.store(Arc::new(Sharers { me, others }));
    }

    /// Whether targets are checked here now: others count on it.
    pub fn is_running(&self) -> bool {
        self.is_running.load(Relaxed)
    }

    /// The next finding that the others are to hear.
    pub fn next(&self) -> Option<Finding> {
        self.found.pop()
    }

    /// Becomes ready when the others are to hear something at once.
    pub async fn is_urgent(&self) {
        self.is_urgent.notified().await;
    }

    /// Hears what another has found.
    pub fn hear(&self, from: u64, finding: Finding) {
        // Where there is no room it comes again with the next check.
        let _ = self.heard.push((from, finding));
    }

    /// Says that targets are checked here, until what it gives is dropped.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        self.is_running.store(true, Relaxed);
        Running(self.clone())
    }

    pub(crate) fn sharers(&self) -> arc_swap::Guard<Arc<Sharers>> {
        self.sharers.load()
    }

    pub(crate) fn next_heard(&self) -> Option<(u64, Finding)> {
        self.heard.pop()
    }

    /// Leaves a finding for the others; at once, if it is another than before.
    pub(crate) fn tell(&self, finding: Finding, is_new: bool) {
        // Where there is no room it comes again with the next check.
        let _ = self.found.push(finding);
        if is_new {
            self.is_urgent.notify_one();
        }
    }
}

/// Targets are checked here, until this is dropped.
pub(crate) struct Running(Arc<Checks>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkers(sharers: &[u64], target: u64, count: u32) -> Vec<u64> {
        let is_one = |me: u64| {
            let others = sharers.iter().copied().filter(|other| *other != me).collect();
            Sharers { me, others }.is_mine(target, count)
        };
        sharers.iter().copied().filter(|me| is_one(*me)).collect()
    }

    proptest! {
        #[test]
        fn all_come_to_the_same_choice_and_one_that_goes_moves_its_targets_alone(
            sharers in proptest::collection::btree_set(any::<u64>(), 1..12),
            target: u64,
            count in 1_u32..5,
        ) {
            let sharers: Vec<u64> = sharers.into_iter().collect();
            let chosen = checkers(&sharers, target, count);
            prop_assert_eq!(chosen.len(), sharers.len().min(count as usize));
            for gone in &sharers {
                let left: Vec<u64> = sharers.iter().copied().filter(|one| one != gone).collect();
                let then = checkers(&left, target, count);
                prop_assert!(chosen.iter().all(|one| one == gone || then.contains(one)));
            }
        }
    }

    #[test]
    fn each_has_its_part_of_the_targets() {
        let sharers = [1, 2, 3, 4];
        let mut counts = [0; 4];
        for target in 0..4_000_u64 {
            checkers(&sharers, target.wrapping_mul(0xD134_2543_DE82_EF95), 2)
                .iter()
                .for_each(|one| counts[usize::try_from(*one).unwrap() - 1] += 1);
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn one_that_is_alone_checks_everything() {
        let alone = Sharers::default();
        assert!(alone.is_alone() && (0..100).all(|target| alone.is_mine(target, 1)));
    }

    #[test]
    fn what_does_not_fit_is_lost() {
        let checks = Checks::default();
        for target in 0..WAITING_MAX as u64 + 5 {
            checks.tell(Finding { target, is_well: true }, false);
            checks.hear(1, Finding { target, is_well: true });
        }
        assert_eq!(std::iter::from_fn(|| checks.next()).count(), WAITING_MAX);
        assert_eq!(std::iter::from_fn(|| checks.next_heard()).count(), WAITING_MAX);
    }
}
