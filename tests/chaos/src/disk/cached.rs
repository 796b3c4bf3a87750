//! A thing as its users see it, as it is on the disk, and the changes between the two.

use std::collections::VecDeque;

use phalanx_tests::dice::Dice;

use super::Loss;

/// What is cached: the bytes of a file, or the names in a folder.
pub(super) trait Content: Clone + Default {
    /// One change of it.
    type Change;
    /// Whether a disk may write changes in an order of its own. Those of names go through a journal, which keeps it.
    const REORDERED: bool;

    /// Makes a change.
    fn apply(&mut self, change: &Self::Change);
    /// What is there of a change that was cut short; none where it is made whole or not at all.
    fn torn(change: &Self::Change, dice: &mut Dice) -> Option<Self::Change>;
}

/// Content, and how much of it is durable.
pub(super) struct Cached<T: Content> {
    now: T,
    durable: T,
    /// Changes that are not durable, oldest first, each with its time.
    pending: VecDeque<(u64, T::Change)>,
}

impl<T: Content> Default for Cached<T> {
    fn default() -> Self {
        Self { now: T::default(), durable: T::default(), pending: VecDeque::new() }
    }
}

impl<T: Content> Cached<T> {
    /// As its users see it.
    pub(super) fn now(&self) -> &T {
        &self.now
    }

    /// As it is on the disk.
    pub(super) fn durable(&self) -> &T {
        &self.durable
    }

    /// The changes that are not durable.
    pub(super) fn pending(&self) -> impl Iterator<Item = &T::Change> {
        self.pending.iter().map(|(_, change)| change)
    }

    /// Makes a change at this time, for its users to see.
    pub(super) fn change(&mut self, time: u64, change: T::Change) {
        self.now.apply(&change);
        self.pending.push_back((time, change));
    }

    /// Makes durable what was changed until this time.
    pub(super) fn sync(&mut self, until: u64) {
        while let Some((_, change)) = self.pending.pop_front_if(|(time, _)| *time <= until) {
            self.durable.apply(&change);
        }
    }

    /// Gives up what was changed until this time: its users see it, and no later sync makes it durable.
    pub(super) fn give_up(&mut self, until: u64) {
        while self.pending.pop_front_if(|(time, _)| *time <= until).is_some() {}
    }

    /// From now on it is what is durable, and what else the disk had written.
    pub(super) fn lose(&mut self, loss: Loss, dice: &mut Dice) {
        let changes = std::mem::take(&mut self.pending);
        let whole = match loss {
            Loss::All => 0,
            Loss::Tail(_) | Loss::Any(_) => dice.below(changes.len() as u64 + 1),
        };
        for (place, (_, change)) in (0..).zip(&changes) {
            let made = match loss {
                Loss::All => false,
                Loss::Any(_) if T::REORDERED => dice.percent(50),
                Loss::Tail(_) | Loss::Any(_) => place < whole,
            };
            let torn = match loss {
                Loss::All => false,
                Loss::Any(_) if T::REORDERED => dice.percent(50),
                Loss::Tail(_) | Loss::Any(_) => place == whole && dice.percent(50),
            };
            match made {
                true => self.durable.apply(change),
                false if torn => {
                    if let Some(part) = T::torn(change, dice) {
                        self.durable.apply(&part);
                    }
                }
                false => {}
            }
        }
        self.now = self.durable.clone();
    }
}
