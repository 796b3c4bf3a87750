//! What was used of quotas, as the nodes have agreed on it: for each key the counts of each start of each node, which only grow.
//!
//! Counts of a node's start are merged by their maximum, so that a report may come twice, late, or from another node that has heard it (a
//! grow-only counter: Shapiro, Preguiça, Baquero and Zawirski, "A comprehensive study of convergent and commutative replicated data
//! types", 2011).

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Keys that are kept, at the most. Of more, nothing outlives a restart of all nodes.
pub const KEYS_MAX: usize = 100_000;
/// For so long after its period, in seconds, what was used of a quota is kept.
pub const KEPT_S: u64 = 7 * 86_400;
/// What the numbers of periods count, in seconds: the hours at which they begin.
const PERIOD_UNIT_S: u64 = 3_600;
/// By so much, in seconds, a period may begin later than when it is reported.
const AHEAD_S_MAX: u64 = 7_200;
/// Starts of one node that are told apart; what earlier ones counted is added up.
pub const STARTS_MAX: usize = 4;
/// The longest text of a key, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;

/// A start of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Start {
    /// The node.
    pub node: NodeId,
    /// Milliseconds since the Unix epoch; 0 stands for all that are too long ago to be told apart.
    pub at_ms: u64,
}

/// What was used under one key in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The counter's key.
    pub key: u64,
    /// The period's number: when it begins, in hours since the Unix epoch.
    pub period: u32,
    /// Seconds since the Unix epoch at which the period ends.
    pub ends_at_s: u64,
    /// The policy.
    pub policy: String,
    /// Which of its quotas, if it has several.
    pub limit_name: String,
    /// Who or what is counted, as `consumer acme`.
    pub by: String,
    /// How much there may be in the period.
    pub limit: u64,
    /// What each start of a node counted.
    pub counts: BTreeMap<Start, u64>,
}

impl Used {
    /// What was used in all.
    pub fn sum(&self) -> u64 {
        self.counts.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Takes up what is said of the same period, or of a later one. Whether anything has changed.
    fn merge(&mut self, said: &Self) -> bool {
        if said.period < self.period {
            return false;
        }
        let before = self.clone();
        if said.period > self.period {
            self.counts.clear();
        }
        let counts = std::mem::take(&mut self.counts);
        *self = Self { counts, ..said.clone() };
        for (start, count) in &said.counts {
            if !self.is_added_up(*start) {
                let known = self.counts.entry(*start).or_default();
                *known = (*known).max(*count);
            }
        }
        self.add_up();
        *self != before
    }

    /// Whether this start is one of those that are too long ago to be told apart.
    pub fn is_added_up(&self, start: Start) -> bool {
        let of_node = Start { at_ms: 0, ..start }..=Start { at_ms: u64::MAX, ..start };
        let mut known = self.counts.range(of_node).map(|(start, _)| start.at_ms).peekable();
        let has_added_up = known.next_if_eq(&0).is_some();
        has_added_up && start.at_ms != 0 && known.next().is_some_and(|oldest| start.at_ms < oldest)
    }

    fn add_up(&mut self) {
        let nodes: Vec<NodeId> = self.counts.keys().map(|start| start.node).collect();
        for node in nodes {
            let of_node = Start { node, at_ms: 1 }..=Start { node, at_ms: u64::MAX };
            while self.counts.range(of_node.clone()).count() > STARTS_MAX {
                let Some((start, count)) =
                    self.counts.range(of_node.clone()).next().map(|(at, count)| (*at, *count))
                else {
                    break;
                };
                self.counts.remove(&start);
                let sum = self.counts.entry(Start { node, at_ms: 0 }).or_default();
                *sum = sum.saturating_add(count);
            }
        }
    }
}

/// What was used of all quotas. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    by_key: OrdMap<u64, Arc<Used>>,
    /// When periods end, with the keys.
    ends: OrdSet<(u64, u64)>,
}

impl Usage {
    /// Applies a report that was made at `at_ms`, milliseconds since the Unix epoch. Total and deterministic. Gives the keys of which
    /// something has changed, those that are gone among them.
    pub fn apply(&mut self, report: &[Used], at_ms: u64) -> Vec<u64> {
        let mut changed = Vec::new();
        while let Some((ends_at_s, key)) = self.ends.get_min().copied()
            && ends_at_s.saturating_add(KEPT_S) < at_ms / 1_000
        {
            self.remove(key);
            changed.push(key);
        }
        for said in report {
            // One of a node whose clock is ahead: it would take the place of the present one.
            if u64::from(said.period) * PERIOD_UNIT_S > at_ms / 1_000 + AHEAD_S_MAX {
                continue;
            }
            let text = [&said.policy, &said.limit_name, &said.by];
            if text.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
                continue;
            }
            let known = self.by_key.get(&said.key).map(|used| Used::clone(used));
            let mut used = match known {
                Some(used) => used,
                None if self.is_full() && !self.forget_one_that_is_over(at_ms, &mut changed) => continue,
                None => Used { counts: BTreeMap::new(), ..said.clone() },
            };
            if used.merge(said) {
                self.insert(used);
                changed.push(said.key);
            }
        }
        changed
    }

    /// Whether there is no room for another key.
    pub fn is_full(&self) -> bool {
        self.by_key.len() >= KEYS_MAX
    }

    /// Makes room, if a period is over.
    fn forget_one_that_is_over(&mut self, at_ms: u64, changed: &mut Vec<u64>) -> bool {
        let first = self.ends.get_min().copied().filter(|(ends_at_s, _)| *ends_at_s < at_ms / 1_000);
        let Some((_, key)) = first else { return false };
        self.remove(key);
        changed.push(key);
        true
    }

    /// Puts in what is known of a key, in the place of what was.
    pub fn insert(&mut self, used: Used) {
        self.remove(used.key);
        self.ends.insert((used.ends_at_s, used.key));
        self.by_key.insert(used.key, Arc::new(used));
    }

    fn remove(&mut self, key: u64) {
        if let Some(used) = self.by_key.remove(&key) {
            self.ends.remove(&(used.ends_at_s, key));
        }
    }

    /// What was used under this key.
    pub fn get(&self, key: u64) -> Option<&Arc<Used>> {
        self.by_key.get(&key)
    }

    /// What was used under each key, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Used>> {
        self.by_key.values()
    }

    /// Whether it is the very same, which is told without a look at what is in it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.by_key.ptr_eq(&other.by_key)
    }

    /// The keys of which something differs, in time proportional to that.
    pub fn changed_since(&self, before: &Self) -> Vec<u64> {
        use imbl::ordmap::DiffItem;
        let differing = before.by_key.diff(&self.by_key).map(|item| match item {
            DiffItem::Add(key, _) | DiffItem::Remove(key, _) => *key,
            DiffItem::Update { new, .. } => *new.0,
        });
        differing.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(node: u64, at_ms: u64) -> Start {
        Start { node: NodeId(node), at_ms }
    }

    /// A time at which all periods of these tests have begun and none is over.
    const NOW_MS: u64 = 730 * 3_600_000;

    fn used(key: u64, period: u32, counts: &[(u64, u64, u64)]) -> Used {
        Used {
            key,
            period,
            ends_at_s: u64::from(period) * 3_600 + 31 * 86_400,
            policy: "p".into(),
            limit_name: String::new(),
            by: String::new(),
            limit: 10,
            counts: counts.iter().map(|(node, at_ms, count)| (start(*node, *at_ms), *count)).collect(),
        }
    }

    #[test]
    fn counts_only_grow_and_a_new_period_begins_at_nothing() {
        let mut usage = Usage::default();
        assert_eq!(usage.apply(&[used(1, 24, &[(1, 5, 10), (2, 5, 3)])], NOW_MS), [1]);
        assert_eq!(usage.apply(&[used(1, 24, &[(1, 5, 8)])], NOW_MS), [] as [u64; 0]);
        assert_eq!(usage.apply(&[used(1, 24, &[(1, 6, 2), (2, 5, 4)])], NOW_MS), [1]);
        assert_eq!(usage.get(1).unwrap().sum(), 16);
        usage.apply(&[used(1, 48, &[(2, 5, 1)])], NOW_MS);
        usage.apply(&[used(1, 24, &[(1, 5, 99)])], NOW_MS);
        assert_eq!(usage.get(1).unwrap().sum(), 1);
    }

    #[test]
    fn what_early_starts_counted_is_added_up_once() {
        let mut usage = Usage::default();
        for at_ms in 1..=9 {
            usage.apply(&[used(1, 24, &[(1, at_ms, 10)])], NOW_MS);
        }
        let known = usage.get(1).unwrap().clone();
        assert_eq!((known.sum(), known.counts.len()), (90, STARTS_MAX + 1));
        // One that comes late says nothing new; neither does all of it once more.
        usage.apply(&[used(1, 24, &[(1, 2, 50)]), Used::clone(&known)], NOW_MS);
        assert_eq!(usage.get(1).unwrap().sum(), 90);
    }

    #[test]
    fn what_is_long_over_goes_and_there_is_an_end_to_keys() {
        let mut usage = Usage::default();
        usage.apply(&[used(1, 24, &[(1, 1, 1)])], NOW_MS);
        let over_ms = (24 * 3_600 + 31 * 86_400 + KEPT_S + 1) * 1_000;
        let before = usage.clone();
        assert_eq!(usage.apply(&[used(2, 700, &[(1, 1, 1)])], over_ms), [1, 2]);
        assert_eq!(usage.changed_since(&before), [1, 2]);
        assert!(usage.get(1).is_none() && usage.is_same(&usage.clone()) && !usage.is_same(&before));
        let many: Vec<Used> = (10..10 + KEYS_MAX as u64).map(|key| used(key, 700, &[(1, 1, 1)])).collect();
        usage.apply(&many, over_ms);
        assert_eq!(usage.iter().count(), KEYS_MAX);
        assert_eq!(usage.apply(&[used(3, 700, &[(1, 1, 1)])], over_ms), [] as [u64; 0], "there is no room");
        let all_over_ms = (700 * 3_600 + 31 * 86_400 + 1) * 1_000;
        assert_eq!(
            usage.apply(&[used(3, 1_400, &[(1, 1, 1)])], all_over_ms).len(),
            2,
            "one that is over gives way"
        );
        assert_eq!(
            usage.apply(&[used(4, 9_000, &[(1, 1, 1)])], all_over_ms),
            [] as [u64; 0],
            "it has not begun"
        );
        let long = Used { by: "x".repeat(TEXT_BYTES_MAX + 1), ..used(2, 700, &[(1, 1, 9)]) };
        assert_eq!(usage.apply(&[long], over_ms), [] as [u64; 0]);
    }

    proptest! {
        #[test]
        fn the_order_of_reports_does_not_matter(
            reports in prop::collection::vec((1_u64..3, 1_u32..3, 1_u64..3, 1_u64..4, 0_u64..9), 0..20),
            seed in any::<u64>(),
        ) {
            let reports: Vec<Used> = reports.iter().map(|(key, period, node, at_ms, count)| used(*key, *period, &[(*node, *at_ms, *count)])).collect();
            let mut shuffled = reports.clone();
            let mut dice = seed;
            for at in (1..shuffled.len()).rev() {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(at, usize::try_from((dice >> 33) % (at as u64 + 1)).unwrap());
            }
            let (mut one, mut other) = (Usage::default(), Usage::default());
            one.apply(&reports, NOW_MS);
            shuffled.iter().for_each(|report| drop(other.apply(std::slice::from_ref(report), NOW_MS)));
            prop_assert!(one.iter().eq(other.iter()));
        }
    }
}
