//! A hash table for many readers of one version: a clone shares everything with its original, a change copies a little of it, and a
//! look-up touches as few places in memory as there can be.
//!
//! Of a hash, the first bits choose a branch of the root and the next a leaf of that. A leaf holds what is left side by side in the
//! order of its hashes, which are evenly spread: where one must be is a matter of proportion (interpolation search, W. W. Peterson,
//! "Addressing for Random-Access Storage", 1957). A persistent trie of the usual kind takes some five steps to one of 100,000, each to a
//! place that no cache of the processor has; this takes two steps to places that are few enough for a cache, and one to one that is not.

use std::{array, sync::Arc};

/// How many bits of a hash choose a branch, and how many a leaf of it: leaves of 100,000 hold some 25 each, so that a change copies that
/// many, and what leads to them takes 64 KiB.
const BITS: u32 = 6;
const WIDTH: usize = 1 << BITS;

/// Values by hash: nearly always one for each.
#[derive(Clone)]
pub(super) struct Table<T> {
    root: Arc<[Option<Branch<T>>; WIDTH]>,
    len: usize,
}

type Branch<T> = Arc<[Option<Leaf<T>>; WIDTH]>;

/// Never empty.
type Leaf<T> = Arc<[Slot<T>]>;

#[derive(Clone)]
struct Slot<T> {
    hash: u64,
    value: T,
}

/// The branch of a hash, and its leaf there.
fn places(hash: u64) -> (usize, usize) {
    (part(hash, WIDTH), part(hash << BITS, WIDTH))
}

/// Which of so many parts of all hashes this one falls into.
fn part(hash: u64, of: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "it is below what it is a part of")]
    let part = ((u128::from(hash) * of as u128) >> u64::BITS) as usize;
    part
}

/// Where in a leaf those of this hash begin, or would.
fn begin<T>(leaf: &[Slot<T>], hash: u64) -> usize {
    let mut at = part(hash << (2 * BITS), leaf.len());
    while at > 0 && leaf[at - 1].hash >= hash {
        at -= 1;
    }
    while at < leaf.len() && leaf[at].hash < hash {
        at += 1;
    }
    at
}

impl<T: Clone> Table<T> {
    pub(super) fn new() -> Self {
        Self { root: Arc::new(array::from_fn(|_| None)), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The values of this hash.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = &T> {
        let leaf = self.leaf(hash);
        let slots = leaf[begin(leaf, hash)..].iter();
        slots.take_while(move |slot| slot.hash == hash).map(|slot| &slot.value)
    }

    fn leaf(&self, hash: u64) -> &[Slot<T>] {
        let (branch, leaf) = places(hash);
        let branch = self.root[branch].as_ref();
        branch.and_then(|branch| branch[leaf].as_ref()).map_or(&[], |leaf| leaf)
    }

    /// The value of this hash for which it is so, to be changed. What others share with this table is copied.
    pub(super) fn get_mut(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&mut T> {
        let leaf = self.leaf(hash);
        let begin = begin(leaf, hash);
        let mut same = leaf[begin..].iter().take_while(|slot| slot.hash == hash);
        let at = begin + same.position(|slot| is(&slot.value))?;
        self.leaf_mut(hash).as_mut().map(|leaf| &mut Arc::make_mut(leaf)[at].value)
    }

    /// Puts a value in.
    pub(super) fn insert(&mut self, hash: u64, value: T) {
        let old = self.leaf(hash);
        let (before, behind) = old.split_at(begin(old, hash));
        let new =
            before.iter().cloned().chain([Slot { hash, value }]).chain(behind.iter().cloned()).collect();
        *self.leaf_mut(hash) = Some(new);
        self.len += 1;
    }

    /// Takes out those of this hash for which it is so.
    pub(super) fn remove(&mut self, hash: u64, is_gone: impl Fn(&T) -> bool) {
        let old = self.leaf(hash);
        let stays = |slot: &&Slot<T>| slot.hash != hash || !is_gone(&slot.value);
        let new: Leaf<T> = old.iter().filter(stays).cloned().collect();
        let gone = old.len() - new.len();
        if gone > 0 {
            self.len -= gone;
            *self.leaf_mut(hash) = Some(new).filter(|new| !new.is_empty());
        }
    }

    fn leaf_mut(&mut self, hash: u64) -> &mut Option<Leaf<T>> {
        let (branch, leaf) = places(hash);
        let branch = &mut Arc::make_mut(&mut self.root)[branch];
        let leaves = branch.get_or_insert_with(|| Arc::new(array::from_fn(|_| None)));
        &mut Arc::make_mut(leaves)[leaf]
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
        for number in 0..20_000 {
            table.insert(hash(number), number);
        }
        for number in 0..20_000 {
            assert_eq!(table.of(hash(number)).collect::<Vec<_>>(), [&number]);
            assert_eq!(table.of(hash(number + 20_000)).count(), 0);
        }
        for number in 0..20_000 {
            table.remove(hash(number), |_| true);
        }
        assert!(
            table.len() == 0 && table.root.iter().flatten().all(|branch| branch.iter().all(Option::is_none))
        );
    }
}
