//! What people may look at: the keys that have used most of their limits, by name, and what each node admitted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gateway::{KeyName, RateLimits};
use limits::{GaugeUsage, PeriodCount, Usage};
use model::{
    NodeId, Usage as AllAgreed,
    usage::{Start, Used as Agreed},
};

/// Names that are kept; where there are more, those go of which the key is not used any more.
const NAMES_MAX: usize = 131_072;
/// The most characters of a name that nodes agree on.
const TEXT_CHARS_MAX: usize = 100;
/// So long after its end, in seconds, a period is over on all nodes, whatever their clocks say.
const OVER_S: u64 = 3_600;
const MONTH_HOURS: u64 = 31 * 24;

/// What people may look at.
pub(crate) struct View {
    me: AtomicU64,
    started_ms: AtomicU64,
    rates: Arc<RateLimits>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    names: HashMap<NonZeroU64, KeyName>,
    /// The start of a node that each number of the limiter stands for, and whether it was heard lately.
    starts: Vec<(Start, bool)>,
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
        Self { me: AtomicU64::new(0), started_ms: AtomicU64::new(0), rates, seen: Mutex::default() }
    }

    /// This node; 0 before it is known.
    pub(crate) fn me(&self) -> NodeId {
        NodeId(self.me.load(Relaxed))
    }

    /// This start of this node.
    pub(crate) fn start(&self) -> Start {
        Start { node: self.me(), at_ms: self.started_ms.load(Relaxed) }
    }

    /// Says which start of which node this is.
    pub(crate) fn set_start(&self, start: Start) {
        self.me.store(start.node.0, Relaxed);
        self.started_ms.store(start.at_ms, Relaxed);
    }

    /// How many nodes share limits with this one, itself among them, and whether these have but a part of the limits.
    pub(crate) fn reached(&self) -> (u32, bool) {
        let limiter = self.rates.limiter();
        (limiter.nodes(), limiter.is_cut_off())
    }

    /// Takes the names that workers have left.
    pub(super) fn look(&self, starts: impl Iterator<Item = (Start, bool)>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.starts.clear();
        seen.starts.extend(starts);
        self.take_names(&mut seen);
        if seen.names.len() > NAMES_MAX {
            let limiter = self.rates.limiter();
            let counted = limiter.usage(super::now_us()).map(|usage| usage.key);
            let in_flight = self.rates.gauges().usage().map(|usage| usage.key);
            let periods = limiter.periods(super::now_us()).map(|known| known.key);
            let used: HashSet<_> = counted.chain(in_flight).chain(periods).collect();
            seen.names.retain(|key, _| used.contains(key));
            // Some more, so that this is not done again for the next.
            let surplus = seen.names.len().saturating_sub(NAMES_MAX / 4 * 3);
            let any: Vec<_> = seen.names.keys().copied().take(surplus).collect();
            any.iter().for_each(|key| drop(seen.names.remove(key)));
        }
    }

    fn take_names(&self, seen: &mut Seen) {
        while let Some(name) = self.rates.next_name() {
            seen.names.insert(name.key, name);
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
            let mut by_node = BTreeMap::from([(self.me(), u64::from(usage.admitted))]);
            for peer in &usage.peers {
                if let Some((start, _)) = seen.starts.get(peer.number) {
                    *by_node.entry(start.node).or_default() += u64::from(peer.admitted);
                }
            }
            Used { name: seen.names.get(&usage.key).cloned(), by_node: by_node.into_iter().collect(), usage }
        });
        (used.collect(), keys)
    }

    /// What is to be agreed on of quotas besides what was: this node's own counts, and those it has heard of nodes that are not there to
    /// report them.
    pub(crate) fn unreported(&self, agreed: &AllAgreed) -> Vec<Agreed> {
        // Before the lock, which whoever hears other nodes waits for: it looks at the whole table.
        let known: Vec<PeriodCount> = self.rates.limiter().periods(super::now_us()).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_names(&mut seen);
        let known = known.into_iter();
        // Of more keys than are agreed on, nothing is told again and again.
        let may_be = |known: &PeriodCount| !agreed.is_full() || agreed.get(known.key.get()).is_some();
        let known = known.filter(may_be);
        known.filter_map(|known| self.unreported_of(&known, &seen, agreed.get(known.key.get()))).collect()
    }

    fn unreported_of(
        &self,
        known: &PeriodCount,
        seen: &Seen,
        agreed: Option<&Arc<Agreed>>,
    ) -> Option<Agreed> {
        if agreed.is_some_and(|agreed| agreed.period > known.period) {
            return None;
        }
        let agreed = agreed.filter(|agreed| agreed.period == known.period);
        let own = (self.start(), known.admitted);
        let heard = known.peers.iter().filter_map(|peer| {
            let (start, is_there) = seen.starts.get(peer.number)?;
            (!is_there).then_some((*start, peer.admitted))
        });
        let before = |start: &Start| agreed.and_then(|agreed| agreed.counts.get(start).copied()).unwrap_or(0);
        let is_added_up = |start: &Start| agreed.is_some_and(|agreed| agreed.is_added_up(*start));
        let counts: BTreeMap<Start, u64> = [own]
            .into_iter()
            .chain(heard)
            .map(|(start, count)| (start, u64::from(count)))
            .filter(|(start, count)| *count > before(start) && !is_added_up(start))
            .collect();
        if counts.is_empty() {
            return None;
        }
        let named = seen.names.get(&known.key).and_then(|name| Some((name, name.quota?)));
        if let Some((name, quota)) = named.filter(|(_, quota)| quota.number == known.period) {
            return Some(Agreed {
                key: known.key.get(),
                period: known.period,
                ends_at_s: quota.ends_at_s,
                policy: name.policy.to_string(),
                limit_name: name.limit.as_ref().map(ToString::to_string).unwrap_or_default(),
                by: name.by.chars().take(TEXT_CHARS_MAX).collect(),
                limit: quota.limit.into(),
                counts,
            });
        }
        // Another node has named it.
        agreed.map(|agreed| Agreed { counts, ..Agreed::clone(agreed) })
    }

    /// Lets go of the keys of quotas' periods that are over.
    pub(crate) fn end_periods(&self) {
        let now_s = super::now_us() / 1_000_000;
        let quotas: HashMap<_, _> = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.names.values().filter_map(|name| Some((name.key, name.quota?))).collect()
        };
        self.rates.limiter().end_periods(|key, number| {
            let quota = quotas.get(&key);
            match quota.filter(|quota| quota.number == number) {
                Some(quota) => quota.ends_at_s + OVER_S < now_s,
                // No period is longer than a month.
                None => (u64::from(number) + MONTH_HOURS) * 3_600 + OVER_S < now_s,
            }
        });
    }

    /// What is used of each key of quotas' periods now, as far as this node knows.
    pub(crate) fn used_of_periods(&self) -> HashMap<u64, (u32, u64)> {
        let known = self.rates.limiter().periods(super::now_us());
        known.map(|known| (known.key.get(), (known.period, known.sum()))).collect()
    }
}
