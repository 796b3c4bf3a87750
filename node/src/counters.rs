//! What nodes tell each other of rate limits: when, in which datagrams, and who is there to hear it.
//!
//! The arithmetic is the crate `limits`. Here its records become datagrams for all other members, at no more bytes a second than there
//! may be; a member that is not heard for a second is cut off, and so this node may be: then it has its part of the limits.

mod metrics;
mod numbers;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use gateway::{Pushers, RateLimits};
use limits::{Settled, wire};
use model::{
    NodeId, Usage,
    usage::{Start, Used as Agreed},
};
use tokio::sync::watch;

use self::{metrics::Metrics, numbers::Numbers};
pub(crate) use self::{
    numbers::NUMBERS_MAX,
    view::{Used, View},
};

/// A member that was not heard for so long is cut off, or down.
const HEARD_FOR: Duration = Duration::from_secs(1);
/// After so long without anything to tell, a node says that it is there.
const HELLO_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks at who is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The most bytes that a node sends a second, over time. What there is more of waits, and goes together in fewer datagrams.
const BYTES_PER_S_MAX: f64 = 4e6;
/// What UDP and IPv4 add to a datagram, and what sealing does, in bytes.
const DATAGRAM_BYTES: usize = 28 + 56;

/// Tells other nodes of this node's counters, and hears theirs. Whoever reads the gossip socket has it.
pub(crate) struct Counters {
    rates: Arc<RateLimits>,
    pushers: Pushers,
    peers: BTreeMap<NodeId, Peer>,
    numbers: Numbers,
    view: Arc<View>,
    metrics: Metrics,
    /// What was used of quotas, as the nodes have agreed on it, and how much of that the limiter knows.
    usage: Option<watch::Receiver<Usage>>,
    seeded: Usage,
    /// Starts of nodes that have got a number since.
    arrived: Vec<Start>,
    /// Till then nobody can have been heard yet, and this node takes the others to be there.
    began_at: Instant,
    members: BTreeSet<NodeId>,
    /// When the pushers want to be polled.
    poll_at: Option<Instant>,
    /// Before that they are not, since enough was sent.
    not_before: Instant,
    look_at: Instant,
    told_at: Instant,
}

/// Another member.
struct Peer {
    boot_ms: u64,
    /// Its number in the limiter; none if there was none left.
    number: Option<usize>,
    heard_at: Instant,
}

/// A datagram that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Counters {
    /// Of these counters.
    ///
    /// # Errors
    /// The metrics' names are taken.
    pub(crate) fn new(
        rates: Arc<RateLimits>,
        pushers: Pushers,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let now = Instant::now();
        Ok(Self {
            view: Arc::new(View::new(rates.clone())),
            rates,
            pushers,
            peers: BTreeMap::new(),
            numbers: Numbers::default(),
            metrics: Metrics::new(registry)?,
            usage: None,
            seeded: Usage::default(),
            arrived: Vec::new(),
            began_at: now,
            members: BTreeSet::new(),
            poll_at: None,
            not_before: now,
            look_at: now,
            told_at: now,
        })
    }

    /// The counters that workers count in.
    pub(crate) fn rates(&self) -> &Arc<RateLimits> {
        &self.rates
    }

    /// What people may look at.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// Goes by what the nodes agree on of quotas from now on, and takes this many of them to be there until it can have heard them.
    pub(crate) fn follow(&mut self, usage: watch::Receiver<Usage>, nodes: usize) {
        self.usage = Some(usage);
        self.began_at = Instant::now();
        self.rates.limiter().set_nodes(u32::try_from(nodes).unwrap_or(u32::MAX), 1.0);
        self.seed();
    }

    /// Something is to be told before the time that was given.
    pub(crate) fn have_come_due(&mut self) {
        self.poll_at = Some(Instant::now());
    }

    /// Hears what a member says that was started then.
    ///
    /// # Errors
    /// The body is none of its kind; nothing of it was taken.
    pub(crate) fn hear(
        &mut self,
        from: NodeId,
        boot_ms: u64,
        body: &[u8],
        now: Instant,
    ) -> Result<(), Malformed> {
        let body = wire::decode(body).map_err(|_| Malformed)?;
        let known = self.peers.get(&from).filter(|peer| peer.boot_ms == boot_ms);
        let number = match known {
            Some(peer) => peer.number,
            None => {
                let members = &self.members;
                let given = self.numbers.give(from, boot_ms, |node| members.contains(&node), now);
                if let Some((number, true)) = given {
                    self.pushers.counts.forget(number);
                    // Whoever had it before is known from now on by what was agreed on alone.
                    self.seeded = Usage::default();
                }
                // What was agreed on of this start is told with what it says itself from now on.
                self.arrived.push(Start { node: from, at_ms: boot_ms });
                self.view.look(self.numbers.starts(now.checked_sub(HEARD_FOR)));
                if given.is_none() {
                    tracing::warn!(node = %from, "too many nodes: what this one counts is not heard");
                }
                given.map(|(number, _)| number)
            }
        };
        self.peers.insert(from, Peer { boot_ms, number, heard_at: now });
        let Some(number) = number else { return Ok(()) };
        self.numbers.heard(number, now);
        let now_us = now_us();
        let records = match &body {
            wire::Body::Records(records) => {
                records.iter().for_each(|record| self.pushers.counts.receive(number, record, now_us));
                records.len()
            }
            wire::Body::Gauges(records) => {
                records.iter().for_each(|record| self.pushers.in_flight.receive(from.0, record, now_us));
                records.len()
            }
        };
        self.metrics.received.inc_by(records as u64);
        if records > 0 {
            self.poll_at = Some(now);
        }
        Ok(())
    }

    /// Hands over the bodies that are to be sent now, and to whom. Gives when to be called again, if nothing comes due before.
    pub(crate) fn tell(
        &mut self,
        members: &BTreeMap<NodeId, Option<SocketAddr>>,
        now: Instant,
        mut send: impl FnMut(&[u8], &[NodeId]),
    ) -> Instant {
        self.seed();
        if now >= self.look_at {
            self.look_at = now + LOOK_INTERVAL;
            self.look(members, now);
        }
        if self.poll_at.is_some_and(|at| at.max(self.not_before) <= now) {
            self.push(members, now, &mut send);
        }
        if now >= self.told_at + HELLO_INTERVAL {
            self.send(members, now, &wire::encode(&[]), 0, &mut send);
        }
        let poll_at = self.poll_at.map(|at| at.max(self.not_before));
        [Some(self.look_at), Some(self.told_at + HELLO_INTERVAL), poll_at]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(now)
    }

    fn push(
        &mut self,
        members: &BTreeMap<NodeId, Option<SocketAddr>>,
        now: Instant,
        send: &mut impl FnMut(&[u8], &[NodeId]),
    ) {
        let (mut records, mut gauges, now_us) = (Vec::new(), Vec::new(), now_us());
        let counts_next_us = self.pushers.counts.poll(now_us, |record| records.push(record));
        let in_flight_next_us = self.pushers.in_flight.poll(now_us, |record| gauges.push(record));
        let next_us = counts_next_us.into_iter().chain(in_flight_next_us).min();
        self.poll_at = next_us.map(|next_us| now + Duration::from_micros(next_us.saturating_sub(now_us)));
        let judged = self.pushers.counts.judged();
        self.metrics.judge(judged.admitted, judged.over);
        for records in records.chunks(wire::RECORDS_MAX) {
            self.send(members, now, &wire::encode(records), records.len(), send);
        }
        for gauges in gauges.chunks(wire::GAUGES_MAX) {
            self.send(members, now, &wire::encode_gauges(gauges), gauges.len(), send);
        }
    }

    /// Sends this body, of so many records, to all other members.
    fn send(
        &mut self,
        members: &BTreeMap<NodeId, Option<SocketAddr>>,
        now: Instant,
        body: &[u8],
        records: usize,
        send: &mut impl FnMut(&[u8], &[NodeId]),
    ) {
        let to: Vec<NodeId> = members.keys().copied().filter(|node| *node != self.view.me()).collect();
        let bytes = to.len() * (body.len() + DATAGRAM_BYTES);
        self.told_at = now;
        self.not_before = self.not_before.max(now) + Duration::from_secs_f64(bytes as f64 / BYTES_PER_S_MAX);
        self.metrics.sent.inc_by((to.len() * records) as u64);
        self.metrics.sent_bytes.inc_by(bytes as u64);
        if !to.is_empty() {
            send(body, &to);
        }
    }

    /// Looks who is there, and has the limiter go by it.
    fn look(&mut self, members: &BTreeMap<NodeId, Option<SocketAddr>>, now: Instant) {
        self.peers.retain(|node, _| members.contains_key(node));
        self.members = members.keys().copied().collect();
        let is_heard = |peer: &Peer| now.saturating_duration_since(peer.heard_at) < HEARD_FOR;
        let reached = self.peers.values().filter(|peer| is_heard(peer)).count() + 1;
        let others = members.keys().filter(|node| **node != self.view.me()).count();
        let is_early = now.saturating_duration_since(self.began_at) < HEARD_FOR;
        let (nodes, part) = shared(if is_early { others + 1 } else { reached }, others + 1);
        self.rates.limiter().set_nodes(nodes, part);
        self.pushers.in_flight.set_nodes(self.view.me().0, nodes, part);
        self.metrics.look(nodes, part);
        self.view.look(self.numbers.starts(now.checked_sub(HEARD_FOR)));
    }

    /// Tells the limiter what was agreed on of quotas, where that has changed.
    fn seed(&mut self) {
        let Some(usage) = &self.usage else { return };
        let usage = usage.borrow().clone();
        let unseeded = self.pushers.counts.take_unseeded();
        if usage.is_same(&self.seeded) && unseeded.is_empty() && self.arrived.is_empty() {
            return;
        }
        let mut keys = usage.changed_since(&self.seeded);
        let arrived = std::mem::take(&mut self.arrived);
        let has_arrived = |used: &&Arc<Agreed>| arrived.iter().any(|start| used.counts.contains_key(start));
        if !arrived.is_empty() {
            keys.extend(usage.iter().filter(has_arrived).map(|used| used.key));
        }
        keys.extend(unseeded.iter().map(|key| key.get()));
        let (me, now_us) = (self.view.start(), now_us());
        let present = |used: &&Arc<Agreed>| used.ends_at_s > now_us / 1_000_000;
        for used in keys.iter().filter_map(|key| usage.get(*key)).filter(present) {
            let Some(key) = NonZeroU64::new(used.key) else { continue };
            let settled: Vec<Settled> = used
                .counts
                .iter()
                .filter(|(start, _)| **start != me)
                .map(|(start, count)| Settled {
                    peer: self.numbers.find(*start),
                    used: u32::try_from(*count).unwrap_or(u32::MAX),
                })
                .collect();
            let added_up =
                self.numbers.starts(None).enumerate().filter(|(_, (start, _))| used.is_added_up(*start));
            let forgotten: Vec<usize> = added_up.map(|(number, _)| number).collect();
            self.pushers.counts.seed(key, used.period, &settled, &forgotten, now_us);
        }
        self.seeded = usage;
    }
}

/// By how many nodes the limits are shared, and which part of them these have, where so many of all are reached, this one among them.
///
/// Most of the nodes have all of the limits; the others have their part by their number. So however a cluster falls apart, no more is
/// admitted than the part that is with the smaller side. Whether Raft has a leader says nothing here: counters have ways of their own,
/// which may be cut while Raft's are not.
fn shared(reached: usize, all: usize) -> (u32, f32) {
    let (reached, all) = (reached.min(all), all.max(1));
    let part = if 2 * reached > all { 1.0 } else { reached as f32 / all as f32 };
    (u32::try_from(reached).unwrap_or(u32::MAX), part)
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
