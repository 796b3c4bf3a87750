//! The counters of rate limits, as workers and the task that tells other nodes share them.

use std::{num::NonZeroU64, sync::Arc};

use crossbeam_queue::ArrayQueue;
use limits::{Acquired, Decision, GaugePusher, Gauges, InFlight, Limiter, Pusher, Rule};
use model::Name;
use tokio::sync::Notify;

/// Names of keys that wait to be fetched; more are lost, and come again if they matter.
const NAMES_MAX: usize = 4_096;
/// Keys of which requests are in flight at the same time: some for each connection that there may be.
const GAUGES_MAX: usize = 131_072;

/// The counters of rate limits. Workers count in them; one task, which has the [`Pushers`], tells other nodes.
#[derive(Debug)]
pub struct RateLimits {
    limiter: Arc<Limiter>,
    gauges: Arc<Gauges>,
    due: Notify,
    names: ArrayQueue<KeyName>,
}

/// Who tells other nodes, and hears them.
#[derive(Debug)]
pub struct Pushers {
    /// Of what was counted in windows.
    pub counts: Pusher,
    /// Of what is in flight.
    pub in_flight: GaugePusher,
}

/// What stands behind a key's digest, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// The digest.
    pub key: NonZeroU64,
    /// The policy that counts.
    pub policy: Name,
    /// Which of its limits, if it has several.
    pub limit: Option<Name>,
    /// Who or what is limited, as `consumer acme`; empty: everything under the policy together.
    pub by: String,
    /// The period that it is of, if it is of a quota.
    pub quota: Option<QuotaPeriod>,
}

/// A period of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaPeriod {
    /// Its number.
    pub number: u32,
    /// Seconds since the Unix epoch at which it ends.
    pub ends_at_s: u64,
    /// How many requests there may be in it.
    pub limit: u32,
}

impl RateLimits {
    /// Counters of so much, and who tells other nodes of them.
    pub fn new(settings: limits::Settings) -> (Arc<Self>, Pushers) {
        let (limiter, counts) = Limiter::new(settings);
        let (gauges, in_flight) = Gauges::new(settings.keys.min(GAUGES_MAX));
        let names = ArrayQueue::new(NAMES_MAX);
        (Arc::new(Self { limiter, gauges, due: Notify::new(), names }), Pushers { counts, in_flight })
    }

    /// Counters of a node that has no others.
    pub(crate) fn alone() -> Arc<Self> {
        Self::new(limits::Settings { keys: 10_000, shared_keys: 1, peers: 1, seed: 0 }).0
    }

    /// What is in flight.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// The counters themselves.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Becomes ready when the [`Pushers`] are to be polled before the time they asked for.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// The next name that a worker has left.
    pub fn next_name(&self) -> Option<KeyName> {
        self.names.pop()
    }

    /// Whether a name would be taken. Those of quotas, which are agreed on by name, are taken where others are not any more.
    pub(crate) fn wants_names(&self, is_quota: bool) -> bool {
        self.names.len() < if is_quota { NAMES_MAX } else { NAMES_MAX / 4 }
    }

    /// Leaves a name for whoever shows keys to people.
    pub(crate) fn name(&self, name: KeyName) {
        // There is no more room: it comes again if it matters.
        let _ = self.names.push(name);
    }

    pub(crate) fn acquire(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64) -> Decision {
        let mut is_due = false;
        let decision = self.limiter.acquire(key, rule, cost, now_us, &mut is_due);
        if is_due {
            self.due.notify_one();
        }
        decision
    }

    pub(crate) fn charge(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64) {
        let mut is_due = false;
        self.limiter.charge(key, rule, cost, now_us, &mut is_due);
        if is_due {
            self.due.notify_one();
        }
    }

    /// Counts a request in that is in flight; none if there are as many as there may be.
    pub(crate) fn enter(&self, key: NonZeroU64, limit: InFlight) -> Option<Acquired> {
        let mut is_due = false;
        let acquired = self.gauges.acquire(key, limit, &mut is_due);
        if is_due {
            self.due.notify_one();
        }
        acquired
    }

    pub(crate) fn take_back(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64) {
        self.limiter.take_back(key, rule, cost, now_us);
    }
}
