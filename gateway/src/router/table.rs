//! A hash table for many readers of one version: a clone shares everything with its original, a change copies a little of it (but for
//! the few with which it grows), and a look-up touches as few places in memory as there can be.
//!
//! Of a hash, the first bits choose a branch of the root and the next a leaf of that. A leaf holds what is left side by side in the
//! order of its hashes, which are evenly spread: where one must be is a matter of proportion (interpolation search, W. W. Peterson,
//! "Addressing for Random-Access Storage", 1957). In a persistent trie of the usual kind one of 100,000 is behind two nodes that no cache
//! of the processor has; here it is in one such place, and what leads there is small enough for a cache.

use std::{array, sync::Arc};

// Small in tests, which so see tables grow.
/// The leaves of a branch.
const LEAVES: usize = if cfg!(test) { 4 } else { 64 };
/// The fewest branches, a power of two: they are copied with every change.
const BRANCHES_MIN: usize = if cfg!(test) { 2 } else { 64 };
/// How many values a leaf may hold on average before there are twice as many branches. A change copies that many; for 100,000 values what
/// leads to the leaves takes 64 KiB.
const LEAF_MEAN_MAX: usize = if cfg!(test) { 2 } else { 32 };

/// Values by hash: nearly always one for each.
#[derive(Clone)]
pub(super) struct Table<T> {
    /// A power of two of them.
    root: Arc<[Option<Branch<T>>]>,
    len: usize,
}

type Branch<T> = Arc<[Option<Leaf<T>>; LEAVES]>;

/// Never empty.
type Leaf<T> = Arc<[Slot<T>]>;

#[derive(Clone)]
struct Slot<T> {
    hash: u64,
    value: T,
}

/// Which of so many parts of all hashes this one falls into, and where in that part it lies, as a hash of its own.
fn part(hash: u64, of: usize) -> (usize, u64) {
    let product = u128::from(hash) * of as u128;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half is below what it is a part of, the lower is what is asked for"
    )]
    let halves = ((product >> u64::BITS) as usize, product as u64);
    halves
}

impl<T: Clone> Table<T> {
    pub(super) fn new() -> Self {
        Self { root: vec![None; BRANCHES_MIN].into(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The values of this hash.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = &T> {
        let (leaf, begin) = self.find(hash);
        let slots = leaf[begin..].iter();
        slots.take_while(move |slot| slot.hash == hash).map(|slot| &slot.value)
    }

    /// The leaf of a hash, and where in it those of this hash begin, or would.
    fn find(&self, hash: u64) -> (&[Slot<T>], usize) {
        let (branch, rest) = part(hash, self.root.len());
        let (leaf, rest) = part(rest, LEAVES);
        let Some(leaf) = self.root[branch].as_ref().and_then(|branch| branch[leaf].as_ref()) else {
            return (&[], 0);
        };
        let (mut at, _) = part(rest, leaf.len());
        while at > 0 && leaf[at - 1].hash >= hash {
            at -= 1;
        }
        while at < leaf.len() && leaf[at].hash < hash {
            at += 1;
        }
        (leaf, at)
    }

    /// The value of this hash for which it is so, to be changed. What others share with this table is copied.
    pub(super) fn get_mut(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&mut T> {
        let (leaf, begin) = self.find(hash);
        let mut same = leaf[begin..].iter().take_while(|slot| slot.hash == hash);
        let at = begin + same.position(|slot| is(&slot.value))?;
        self.leaf_mut(hash).as_mut().map(|leaf| &mut Arc::make_mut(leaf)[at].value)
    }

    /// Puts a value in.
    pub(super) fn insert(&mut self, hash: u64, value: T) {
        if self.len >= self.root.len() * LEAVES * LEAF_MEAN_MAX {
            self.grow();
        }
        let (old, at) = self.find(hash);
        let (before, behind) = old.split_at(at);
        let new =
            before.iter().cloned().chain([Slot { hash, value }]).chain(behind.iter().cloned()).collect();
        *self.leaf_mut(hash) = Some(new);
        self.len += 1;
    }

    /// Takes out those of this hash for which it is so.
    pub(super) fn remove(&mut self, hash: u64, is_gone: impl Fn(&T) -> bool) {
        let (old, _) = self.find(hash);
        let goes = |slot: &Slot<T>| slot.hash == hash && is_gone(&slot.value);
        let gone = old.iter().filter(|slot| goes(slot)).count();
        if gone > 0 {
            let mut new = Vec::with_capacity(old.len() - gone);
            new.extend(old.iter().filter(|slot| !goes(slot)).cloned());
            *self.leaf_mut(hash) = Some(new.into()).filter(|new: &Leaf<T>| !new.is_empty());
            self.len -= gone;
        }
    }

    fn leaf_mut(&mut self, hash: u64) -> &mut Option<Leaf<T>> {
        let (branch, rest) = part(hash, self.root.len());
        let branch = &mut Arc::make_mut(&mut self.root)[branch];
        let leaves = branch.get_or_insert_with(|| Arc::new(array::from_fn(|_| None)));
        &mut Arc::make_mut(leaves)[part(rest, LEAVES).0]
    }

    /// Has twice as many branches: each has half of one's leaves, each of which is in two parts.
    fn grow(&mut self) {
        let half = |branch: &Branch<T>, half: usize| {
            let leaves = array::from_fn(|at| {
                let leaf = branch[(half * LEAVES + at) / 2].as_ref()?;
                let is_upper = |slot: &Slot<T>| part(part(slot.hash, 2 * self.root.len()).1, LEAVES).0 % 2;
                let part: Leaf<T> = leaf.iter().filter(|slot| is_upper(slot) == at % 2).cloned().collect();
                Some(part).filter(|part| !part.is_empty())
            });
            Arc::new(leaves)
        };
        let halves =
            |branch: &Option<Branch<T>>| [0, 1].map(|at| branch.as_ref().map(|branch| half(branch, at)));
        self.root = self.root.iter().flat_map(halves).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Many that share a leaf, some that share all bits, and both ends.
    fn hash() -> impl Strategy<Value = u64> {
        prop_oneof![
            0..4u64,
            any::<u64>(),
            (0..4u64).prop_map(|low| u64::MAX - low),
            (0..64u64).prop_map(|high| high << 46)
        ]
    }

    proptest! {
        #[test]
        fn as_a_list(changes in prop::collection::vec((any::<bool>(), hash(), 0..3u8), 0..200)) {
            let (mut table, mut list) = (Table::<(u8, u32)>::new(), BTreeMap::<(u64, u8), u32>::new());
            let mut versions = Vec::new();
            for (is_put, hash, name) in changes {
                versions.push((table.clone(), list.clone()));
                if is_put {
                    match table.get_mut(hash, |one| one.0 == name) {
                        Some((_, times)) => *times += 1,
                        None => table.insert(hash, (name, 1)),
                    }
                    *list.entry((hash, name)).or_default() += 1;
                } else {
                    table.remove(hash, |one| one.0 == name);
                    list.remove(&(hash, name));
                }
            }
            versions.push((table, list));
            // What was cloned is what it was.
            for (table, list) in versions {
                prop_assert_eq!(table.len(), list.len());
                for (hash, _) in list.keys() {
                    let mut have: Vec<_> = table.of(*hash).copied().collect();
                    have.sort_unstable();
                    let want = list.range((*hash, 0)..=(*hash, u8::MAX));
                    prop_assert_eq!(have, want.map(|((_, name), times)| (*name, *times)).collect::<Vec<_>>());
                    prop_assert_eq!(table.of(hash ^ 1 << 40).count(), 0);
                }
            }
        }
    }

    #[test]
    fn many_of_all_hashes_are_each_found() {
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut table = Table::new();
        let count = 20_000;
        for number in 0..count {
            table.insert(hash(number), number);
        }
        let mean = table.len().div_ceil(table.root.len() * LEAVES);
        assert!((1..=LEAF_MEAN_MAX).contains(&mean), "{mean}");
        for number in 0..count {
            assert_eq!(table.of(hash(number)).collect::<Vec<_>>(), [&number]);
            assert_eq!(table.of(hash(number + count)).count(), 0);
        }
        for number in 0..count {
            table.remove(hash(number), |_| true);
        }
        assert!(
            table.len() == 0 && table.root.iter().flatten().all(|branch| branch.iter().all(Option::is_none))
        );
    }
}
