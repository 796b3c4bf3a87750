//! Who tells the other nodes how many requests are in flight, hears them, and says how many this node may have.
//!
//! What is left of a limit is shared out evenly among the nodes that have requests of the key or want to, so that all may take theirs at the
//! same time. Nodes are told at once when a node has taken a good part of what is left, and within 50 ms when it has given
//! back.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    PUSH_INTERVAL_US, Scope,
    gauge::{Gauges, Held, Slot},
};

/// Between two looks at all keys that are in use.
pub(crate) const LOOK_INTERVAL_US: u64 = 50_000;
/// What has not changed is told again after so long.
const RESEND_US: u64 = 500_000;
/// What was told so long ago is not believed any more.
const BELIEVED_US: u64 = 1_700_000;
/// Before the others were heard, a node may take this part of what is left.
pub(crate) const FIRST_DIVISOR: u32 = 2;
/// Others are told when so much of this node's part of what is left is taken.
const TELL_DIVISOR: u32 = 8;
/// So many pushes of a key may follow each other at once, after a rest.
const PUSHES_IN_A_ROW: u64 = 8;
/// For so long after a request was refused, a node would have more.
const WANTED_US: u64 = 150_000;
/// Keys that others have told of, at the most.
const HEARD_MAX: usize = 65_536;

/// How many requests a node has in flight under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaugeRecord {
    /// The key's digest.
    pub key: NonZeroU64,
    /// How many, less than 2^31.
    pub in_flight: u32,
    /// Whether it would have more.
    pub wants: bool,
}

/// What a peer said last.
#[derive(Debug, Clone, Copy)]
struct Heard {
    in_flight: u32,
    wants: bool,
    at_us: u64,
}

/// A key that has a slot here.
#[derive(Debug)]
struct Tended {
    place: u32,
    /// What the others were told, and when.
    told: u32,
    told_wants: bool,
    told_at_us: u64,
    /// Up to when the pushes that there were use up what there may be (the generic cell rate algorithm, ITU-T I.371).
    paid_until_us: u64,
    /// When a request was last refused.
    wanted_at_us: u64,
}

impl Tended {
    fn new(place: u32) -> Self {
        Self { place, told: 0, told_wants: false, told_at_us: 0, paid_until_us: 0, wanted_at_us: 0 }
    }

    fn wants(&self, now_us: u64) -> bool {
        now_us.abs_diff(self.wanted_at_us) < WANTED_US
    }

    /// How long it must wait until it may be told again.
    fn waits_us(&self, now_us: u64) -> u64 {
        let paid_us = self.paid_until_us.saturating_sub(now_us);
        // More than there can be: the clock was set back.
        let paid_us = if paid_us > 2 * PUSHES_IN_A_ROW * PUSH_INTERVAL_US { 0 } else { paid_us };
        paid_us.saturating_sub((PUSHES_IN_A_ROW - 1) * PUSH_INTERVAL_US)
    }
}

/// Tells the other nodes of what is in flight here, and hears them. One task has it.
#[derive(Debug)]
pub struct GaugePusher {
    gauges: Arc<Gauges>,
    me: u64,
    nodes: u32,
    part: f32,
    tended: HashMap<u64, Tended>,
    heard: HashMap<u64, BTreeMap<u64, Heard>>,
    /// Keys that wait until they may be told again.
    waiting: Vec<u64>,
    /// Second slots of keys that two threads took one for at the same time.
    strays: Vec<u32>,
    look_at_us: u64,
}

impl GaugePusher {
    pub(crate) fn new(gauges: Arc<Gauges>) -> Self {
        Self {
            gauges,
            me: 0,
            nodes: 1,
            part: 1.0,
            tended: HashMap::new(),
            heard: HashMap::new(),
            waiting: Vec::new(),
            strays: Vec::new(),
            look_at_us: 0,
        }
    }

    /// This node is `me` of so many that share the limits, and have this part of them together, from 0 to 1.
    pub fn set_nodes(&mut self, me: u64, nodes: u32, part: f32) {
        (self.me, self.nodes, self.part) = (me, nodes.max(1), part.clamp(0.0, 1.0));
    }

    /// Takes what this node says of a key. It is to be polled afterwards.
    pub fn receive(&mut self, node: u64, record: &GaugeRecord, now_us: u64) {
        let key = record.key.get();
        if record.in_flight == 0 && !record.wants {
            if let Some(nodes) = self.heard.get_mut(&key) {
                nodes.remove(&node);
            }
        } else if self.heard.len() < HEARD_MAX || self.heard.contains_key(&key) {
            let heard = Heard { in_flight: record.in_flight, wants: record.wants, at_us: now_us };
            self.heard.entry(key).or_default().insert(node, heard);
        }
        if let Some(tended) = self.tended.get(&key) {
            let gauges = self.gauges.clone();
            self.share(gauges.held().at(tended.place), key, now_us);
        }
    }

    /// Hands over what the other nodes are to be told now. Gives when it wants to be polled again, if nothing is due before; none: not
    /// before something is.
    pub fn poll(&mut self, now_us: u64, mut send: impl FnMut(GaugeRecord)) -> Option<u64> {
        let gauges = self.gauges.clone();
        let held = gauges.held_if_any()?;
        let mut due = std::mem::take(&mut self.waiting);
        while let Some(place) = held.due.pop() {
            let slot = held.at(place);
            slot.is_looked_at();
            let key = slot.key();
            if key != 0 && held.find(key) == Some(place) {
                self.tended.entry(key).or_insert_with(|| Tended::new(place)).place = place;
                due.push(key);
            } else if key != 0 {
                self.strays.push(place);
            }
        }
        due.sort_unstable();
        due.dedup();
        let mut next = None;
        for key in due {
            if let Some(waits_us) = self.look(held, key, false, now_us, &mut send) {
                next = Some(next.map_or(waits_us, |next: u64| next.min(waits_us)));
            }
        }
        if now_us >= self.look_at_us || self.look_at_us - now_us > LOOK_INTERVAL_US {
            self.look_at_us = now_us + LOOK_INTERVAL_US;
            self.strays.retain(|place| !held.free(*place));
            self.heard.retain(|_, nodes| {
                nodes.retain(|_, heard| is_believed(heard, now_us));
                !nodes.is_empty()
            });
            for key in self.tended.keys().copied().collect::<Vec<_>>() {
                self.look(held, key, true, now_us, &mut send);
            }
        }
        let next = next.map(|waits_us| now_us + waits_us);
        let is_at_rest = self.tended.is_empty() && self.heard.is_empty() && self.strays.is_empty();
        let looking = (!is_at_rest).then_some(self.look_at_us);
        next.into_iter().chain(looking).min()
    }

    /// Looks at a key: tells of it if that is due, and says how many this node may have. A look at all keys tells also of less, and lets go
    /// of those that are not in use any more. Gives how long it must wait to be told.
    fn look(
        &mut self,
        held: &Held,
        key: u64,
        is_of_all: bool,
        now_us: u64,
        send: &mut impl FnMut(GaugeRecord),
    ) -> Option<u64> {
        let tended = self.tended.get_mut(&key)?;
        let slot = held.at(tended.place);
        let limit = slot.limit().filter(|_| slot.key() == key);
        let (Some(limit), count) = (limit, slot.count()) else {
            self.tended.remove(&key);
            return None;
        };
        if slot.take_wanted() {
            tended.wanted_at_us = now_us;
        }
        let wants = tended.wants(now_us);
        let is_more = count >= slot.tell_at.load(Relaxed) || wants && !tended.told_wants;
        let is_other = count != tended.told || wants != tended.told_wants;
        let is_old = count > 0 && now_us.abs_diff(tended.told_at_us) >= RESEND_US;
        let mut waits_us = 0;
        if (is_more || is_of_all && (is_other || is_old)) && limit.scope() != Scope::Node && self.nodes > 1 {
            waits_us = tended.waits_us(now_us);
            if waits_us == 0 {
                (tended.told, tended.told_wants, tended.told_at_us) = (count, wants, now_us);
                tended.paid_until_us = tended.paid_until_us.max(now_us) + PUSH_INTERVAL_US;
                if let Some(key) = NonZeroU64::new(key) {
                    send(GaugeRecord { key, in_flight: count, wants });
                }
            } else if !is_of_all {
                self.waiting.push(key);
            }
        }
        let is_alone = limit.scope() == Scope::Node || self.nodes == 1;
        let is_known = is_alone || !is_other;
        let is_unused = is_of_all && count == 0 && is_known && !wants && !self.heard.contains_key(&key);
        if is_unused && held.free(tended.place) {
            self.tended.remove(&key);
            return None;
        }
        self.share(slot, key, now_us);
        if waits_us > 0 {
            // It is told when it may be; until then nobody needs to wake anybody for it.
            slot.tell_at.store(u32::MAX, Relaxed);
        }
        (waits_us > 0 && !is_of_all).then_some(waits_us)
    }

    /// Says how many this node may have of a key.
    fn share(&self, slot: &Slot, key: u64, now_us: u64) {
        let (Some(limit), Some(tended)) = (slot.limit(), self.tended.get(&key)) else { return };
        let all = match limit.scope() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a u32")]
            Scope::Cluster => (f64::from(limit.limit()) * f64::from(self.part)).floor() as u32,
            Scope::Reachable | Scope::Node => limit.limit(),
        };
        let heard = self.heard.get(&key).filter(|_| limit.scope() != Scope::Node);
        let believed = heard.into_iter().flatten().filter(|(_, heard)| is_believed(heard, now_us));
        let (mut sharing, mut others) = (Sharing::alone(tended.wants(now_us)), 0_u32);
        for (node, heard) in believed {
            others = others.saturating_add(heard.in_flight);
            sharing.add(heard, *node < self.me);
        }
        let count = slot.count();
        let left = all.saturating_sub(others).saturating_sub(count);
        let is_told = self.nodes > 1 && limit.scope() != Scope::Node;
        let fair = sharing.even_part(all);
        let allowed = if count.saturating_add(others) > all {
            // Too many: whoever has more than its part has no more than that.
            all.saturating_sub(others).max(count.min(fair))
        } else if left == 0 && sharing.others_want() && count > fair {
            // Nothing is left for others that want: whoever has more than its part gives back half of what is more.
            count - (count - fair).div_ceil(2)
        } else if sharing.nodes == 1 && is_told {
            // Nobody else is known to have any, and may begin at the same time.
            (tended.told + left.div_ceil(FIRST_DIVISOR)).max(count)
        } else {
            count + sharing.part(left)
        };
        slot.others.store(others, Relaxed);
        slot.allowed.store(allowed, Relaxed);
        let step = (left / (TELL_DIVISOR * self.nodes)).max(1);
        slot.tell_at.store(if is_told { tended.told.saturating_add(step) } else { u32::MAX }, Relaxed);
    }
}

/// Who has requests of a key, or would have some: this node among them.
#[derive(Debug)]
struct Sharing {
    nodes: u32,
    /// How many of them come before this one.
    before: u32,
    /// How many of them would have more.
    wanting: u32,
    /// How many of those come before this one.
    wanting_before: u32,
    /// Whether this one would have more.
    wants: bool,
}

impl Sharing {
    fn alone(wants: bool) -> Self {
        Self { nodes: 1, before: 0, wanting: wants.into(), wanting_before: 0, wants }
    }

    fn add(&mut self, heard: &Heard, is_before: bool) {
        if heard.in_flight > 0 || heard.wants {
            self.nodes += 1;
            self.before += u32::from(is_before);
            self.wanting += u32::from(heard.wants);
            self.wanting_before += u32::from(heard.wants && is_before);
        }
    }

    fn others_want(&self) -> bool {
        self.wanting > u32::from(self.wants)
    }

    /// This node's even part: of what can't be shared out evenly, the first nodes have one more each.
    fn even_part(&self, of: u32) -> u32 {
        of / self.nodes + u32::from(self.before < of % self.nodes)
    }

    /// This node's part of what is left: of what can't be shared out evenly, those that would have more come first. If there are none, each
    /// may take one more: hardly ever will all do so at the same time.
    fn part(&self, left: u32) -> u32 {
        let (even, rest) = (left / self.nodes, left % self.nodes);
        let has_one_more = match (self.wanting, self.wants) {
            (0, _) => rest > 0,
            (_, true) => self.wanting_before < rest,
            (wanting, false) => wanting + (self.before - self.wanting_before) < rest,
        };
        even + u32::from(has_one_more)
    }
}

fn is_believed(heard: &Heard, now_us: u64) -> bool {
    now_us.abs_diff(heard.at_us) < BELIEVED_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_shared_out_once() {
        // Which of four nodes want, as bits.
        for wanting in 0_u32..16 {
            let wants = |node: u32| wanting >> node & 1 == 1;
            for left in 0..20 {
                let part = |me: u32| {
                    let mut sharing = Sharing::alone(wants(me));
                    for node in (0..4).filter(|node| *node != me) {
                        sharing.add(&Heard { in_flight: 1, wants: wants(node), at_us: 0 }, node < me);
                    }
                    sharing.part(left)
                };
                let parts: Vec<u32> = (0..4).map(part).collect();
                let sum: u32 = parts.iter().sum();
                match wanting {
                    0 => assert!(parts.iter().all(|part| *part == left.div_ceil(4)), "{left}: {parts:?}"),
                    _ => assert_eq!(sum, left, "{wanting:b}: {parts:?}"),
                }
            }
        }
    }
}
