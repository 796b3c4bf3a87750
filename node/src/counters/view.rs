//! What people may look at: the keys that have used most of their limits, by name, and what each node admitted.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gateway::{KeyName, RateLimits};
use limits::{GaugeUsage, Usage};
use model::NodeId;

/// Names that are kept; where there are more, those go of which the key is not used any more.
const NAMES_MAX: usize = 16_384;

/// What people may look at.
pub(crate) struct View {
    me: AtomicU64,
    rates: Arc<RateLimits>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    names: HashMap<NonZeroU64, KeyName>,
    /// The node of each number that the limiter knows.
    nodes: Vec<NodeId>,
}

/// A key that has used some of its limit.
pub(crate) struct Used {
    pub(crate) usage: Usage,
    /// What it is; none if no worker has said so yet.
    pub(crate) name: Option<KeyName>,
    /// What each node admitted in this window, in the order of their ids.
    pub(crate) by_node: Vec<(NodeId, u64)>,
}

impl View {
    pub(super) fn new(rates: Arc<RateLimits>) -> Self {
        Self { me: AtomicU64::new(0), rates, seen: Mutex::default() }
    }

    /// This node; 0 before it is known.
    pub(crate) fn me(&self) -> NodeId {
        NodeId(self.me.load(Relaxed))
    }

    /// Says which node this is.
    pub(crate) fn set_me(&self, me: NodeId) {
        self.me.store(me.0, Relaxed);
    }

    /// How many nodes share limits with this one, itself among them, and whether these have but a part of the limits.
    pub(crate) fn reached(&self) -> (u32, bool) {
        let limiter = self.rates.limiter();
        (limiter.nodes(), limiter.is_cut_off())
    }

    /// Takes the names that workers have left.
    pub(super) fn look(&self, nodes: impl Iterator<Item = NodeId>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.nodes.clear();
        seen.nodes.extend(nodes);
        while let Some(name) = self.rates.next_name() {
            seen.names.insert(name.key, name);
        }
        if seen.names.len() > NAMES_MAX {
            let limiter = self.rates.limiter();
            let counted = limiter.usage(super::now_us()).map(|usage| usage.key);
            let in_flight = self.rates.gauges().usage().map(|usage| usage.key);
            let used: HashSet<_> = counted.chain(in_flight).collect();
            seen.names.retain(|key, _| used.contains(key));
            let surplus = seen.names.len().saturating_sub(NAMES_MAX);
            let any: Vec<_> = seen.names.keys().copied().take(surplus).collect();
            any.iter().for_each(|key| drop(seen.names.remove(key)));
        }
    }

    /// The keys of which most is in flight, so many of them, with their names.
    pub(crate) fn in_flight(&self, many: usize, policy: Option<&str>) -> Vec<(GaugeUsage, Option<KeyName>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let named = self.rates.gauges().usage().map(|usage| (usage, seen.names.get(&usage.key)));
        let is_wanted = |name: Option<&KeyName>| {
            policy.is_none_or(|policy| name.is_some_and(|name| name.policy.as_str() == policy))
        };
        let mut all: Vec<_> = named.filter(|(_, name)| is_wanted(*name)).collect();
        let full = |usage: &GaugeUsage| {
            (f64::from(usage.in_flight) + f64::from(usage.others)) / f64::from(usage.limit.limit())
        };
        all.sort_by(|(one, _), (other, _)| {
            let by_use = full(other).total_cmp(&full(one));
            by_use.then(other.refused.cmp(&one.refused)).then(one.key.cmp(&other.key))
        });
        all.into_iter().take(many).map(|(usage, name)| (usage, name.cloned())).collect()
    }

    /// The keys that have used most of their limits, so many of them, those that are refused most first among equals; and how many keys
    /// there are. With a policy's name, its keys alone, as far as they are known by name.
    pub(crate) fn most_used(&self, many: usize, policy: Option<&str>) -> (Vec<Used>, usize) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |usage: &Usage| match policy {
            None => true,
            Some(policy) => seen.names.get(&usage.key).is_some_and(|name| name.policy.as_str() == policy),
        };
        let limiter = self.rates.limiter();
        let mut all: Vec<Usage> = limiter.usage(super::now_us()).filter(is_wanted).collect();
        let keys = all.len();
        let order = |one: &Usage, other: &Usage| {
            let by_use = other.used().total_cmp(&one.used());
            by_use.then(other.refused.cmp(&one.refused)).then(one.key.cmp(&other.key))
        };
        if keys > many && many > 0 {
            all.select_nth_unstable_by(many - 1, order);
        }
        all.truncate(many);
        all.sort_by(order);
        let used = all.into_iter().map(|usage| {
            let mut by_node = std::collections::BTreeMap::from([(self.me(), u64::from(usage.admitted))]);
            for peer in &usage.peers {
                if let Some(node) = seen.nodes.get(peer.number) {
                    *by_node.entry(*node).or_default() += u64::from(peer.admitted);
                }
            }
            Used { name: seen.names.get(&usage.key).cloned(), by_node: by_node.into_iter().collect(), usage }
        });
        (used.collect(), keys)
    }
}
