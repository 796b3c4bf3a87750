//! What is known of keys, for people to look at.

use std::{num::NonZeroU64, sync::atomic::Ordering::Relaxed};

use crate::{Limiter, Rule, time::Tick};

/// What a node knows of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// The key's digest.
    pub key: NonZeroU64,
    /// What it is limited to.
    pub rule: Rule,
    /// What this node admitted in this window.
    pub admitted: u32,
    /// What this node refused for as long as it has known the key; goes round.
    pub refused: u32,
    /// What remains of the limit for all who share it, as far as this node knows.
    pub remaining: u32,
    /// What others said that they admitted in this window.
    pub peers: Vec<Peer>,
}

/// What a peer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The peer's number.
    pub number: usize,
    /// What it admitted in this window.
    pub admitted: u32,
}

impl Usage {
    /// What all nodes admitted in this window, as far as this one knows.
    pub fn admitted_by_all(&self) -> u64 {
        self.peers.iter().fold(self.admitted.into(), |sum, peer| sum + u64::from(peer.admitted))
    }

    /// Which part of the limit is used up: 1 is all of it.
    pub fn used(&self) -> f64 {
        1.0 - f64::from(self.remaining) / f64::from(self.rule.limit())
    }
}

/// What a node knows to be used of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeriodCount {
    /// The key's digest.
    pub key: NonZeroU64,
    /// The period's number.
    pub period: u32,
    /// How much there may be; none while no request has come.
    pub limit: Option<u32>,
    /// What this node admitted since its start.
    pub admitted: u32,
    /// What is known of others' starts.
    pub peers: Vec<Peer>,
    /// What is known besides, of starts that have no number.
    pub base: u32,
}

impl PeriodCount {
    /// What was used in all.
    pub fn sum(&self) -> u64 {
        let own = u64::from(self.admitted) + u64::from(self.base);
        self.peers.iter().fold(own, |sum, peer| sum + u64::from(peer.admitted))
    }
}

impl Limiter {
    /// What is known to be used of periods, in no order. Looks at the whole table, and disturbs nobody.
    pub fn periods(&self, now_us: u64) -> impl Iterator<Item = PeriodCount> + '_ {
        let slots = self.held_if_any().map(|held| held.table.slots()).unwrap_or_default();
        slots.iter().filter_map(move |slot| {
            let (key, period) = (slot.its_key()?, slot.period()?);
            let count = slot.count();
            let (blocks, block) = (&self.held_if_any()?.blocks, slot.block.load(Relaxed));
            let is_its = blocks.own(block).key.load(Relaxed) == key.get();
            let heard = blocks.peers_by_number(if is_its { block } else { 0 }, period, Tick::at(now_us));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a u32")]
            let peers = heard.map(|(number, peer)| Peer { number, admitted: peer.current as u32 });
            Some(PeriodCount {
                key,
                period,
                limit: slot.rule().map(Rule::limit).filter(|limit| *limit != Rule::LIMIT_MAX),
                admitted: if count.window == period { count.admitted } else { 0 },
                peers: peers.filter(|peer| peer.admitted > 0).collect(),
                base: slot.previous.load(Relaxed),
            })
        })
    }

    /// Every key of a window that is used now, in no order. Looks at the whole table, and disturbs nobody.
    pub fn usage(&self, now_us: u64) -> impl Iterator<Item = Usage> + '_ {
        let slots = self.held_if_any().map(|held| held.table.slots()).unwrap_or_default();
        slots.iter().filter_map(move |slot| self.usage_of(slot, now_us))
    }

    fn usage_of(&self, slot: &crate::slot::Slot, now_us: u64) -> Option<Usage> {
        let (key, rule) = (slot.its_key()?, slot.rule()?);
        if rule.period().is_some() {
            return None;
        }
        let blocks = &self.held_if_any()?.blocks;
        let (window, gone) = rule.window(now_us);
        let (count, before) = (slot.count(), slot.previous.load(Relaxed));
        let (admitted, previous) = match window.wrapping_sub(count.window) {
            0 => (count.admitted, before),
            1 => (0, count.admitted),
            _ => (0, 0),
        };
        let block = slot.block.load(Relaxed);
        let is_its = blocks.own(block).key.load(Relaxed) == key.get();
        let heard = blocks.peers_by_number(if is_its { block } else { 0 }, window, Tick::at(now_us));
        let (mut current_by_all, mut previous_by_all) = (f64::from(admitted), f64::from(previous));
        let mut peers = Vec::new();
        for (number, peer) in heard {
            current_by_all += peer.current;
            previous_by_all += peer.previous;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a u32")]
            peers.push(Peer { number, admitted: peer.current as u32 });
        }
        let used = current_by_all + previous_by_all * (1.0 - gone);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
        let remaining = (f64::from(rule.limit()) - used).max(0.0) as u32;
        let refused = slot.refused.load(Relaxed);
        (used > 0.0 || refused > 0).then_some(Usage { key, rule, admitted, refused, remaining, peers })
    }
}
