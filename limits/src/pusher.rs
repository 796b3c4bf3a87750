//! Who tells the other nodes: what is due, when it is, and everything that matters again now and then.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    Limiter, PUSH_INTERVAL_US, RATE_INTERVAL_US, RESEND_INTERVAL_US, Record,
    block::Own,
    share::PUSH_DIVISOR,
    slot::{PENDING, Slot, TENDED},
    time::Tick,
};

/// So many pushes of a key may follow each other at once, after a rest.
const PUSHES_IN_A_ROW: u64 = 32;
/// Over which time rates are evened out, in microseconds.
const RATE_TAU_US: f64 = 75_000.0;
/// For how long nobody must have spoken of a key for it to be let go of: as peers send again what matters, many times over.
const FORGOTTEN_US: u64 = 50 * RESEND_INTERVAL_US;
/// Requests that were not told of, of which a rate can be told.
const RATE_REQUESTS_MIN: u32 = 8;

/// Tells the other nodes of a limiter's counters. One task has it.
#[derive(Debug)]
pub struct Pusher {
    limiter: Arc<Limiter>,
    /// Slots that the other nodes are told of.
    tended: Vec<u32>,
    /// Slots that wait for their push.
    waiting: Vec<u32>,
    rates_at_us: u64,
    resend_at_us: u64,
}

impl Pusher {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Self {
        Self { limiter, tended: Vec::new(), waiting: Vec::new(), rates_at_us: 0, resend_at_us: 0 }
    }

    /// Hands over what the other nodes are to be told now. Gives when it wants to be polled again, in microseconds since the Unix
    /// epoch, if nothing is due before; none: not before something is.
    pub fn poll(&mut self, now_us: u64, mut send: impl FnMut(Record)) -> Option<u64> {
        self.take_up(now_us);
        if now_us >= self.rates_at_us {
            self.rates_at_us = now_us + RATE_INTERVAL_US;
            self.measure(now_us);
        }
        let is_resent = now_us >= self.resend_at_us;
        if is_resent {
            self.resend_at_us = now_us + RESEND_INTERVAL_US;
        }
        self.push(now_us, &mut send);
        if is_resent {
            self.resend(now_us, &mut send);
        }
        let next_push = self.waiting.iter().map(|place| self.push_at_us(*place, now_us)).min();
        let tending = (!self.tended.is_empty()).then_some(self.rates_at_us.min(self.resend_at_us));
        next_push.into_iter().chain(tending).min()
    }

    fn take_up(&mut self, now_us: u64) {
        while let Some(place) = self.limiter.heard_of.pop() {
            self.tend(place, now_us);
        }
        while let Some(place) = self.limiter.due.pop() {
            let slot = self.limiter.table.at(place);
            if self.limiter.block_of(slot).is_none() {
                // There are more keys than peers can be told of.
                slot.lower(PENDING);
                continue;
            }
            if slot.raise(TENDED) {
                self.tend(place, now_us);
            }
            self.waiting.push(place);
        }
    }

    fn tend(&mut self, place: u32, now_us: u64) {
        let (slot, now) = (self.limiter.table.at(place), Tick::at(now_us));
        let own = self.own(slot);
        mark(own, slot, now);
        own.spent.store(now.0, Relaxed);
        self.tended.push(place);
    }

    fn own(&self, slot: &Slot) -> &Own {
        self.limiter.blocks.own(slot.block.load(Relaxed))
    }

    /// When this slot may be pushed: once in each interval over time, and several times in a row after a rest (the generic cell
    /// rate algorithm, ITU-T I.371), since it is at its onset that a burst is known least.
    fn push_at_us(&self, place: u32, now_us: u64) -> u64 {
        let spent = Tick(self.own(self.limiter.table.at(place)).spent.load(Relaxed));
        let ahead_us = spent.since_us(Tick::at(now_us));
        now_us + ahead_us.saturating_sub((PUSHES_IN_A_ROW - 1) * PUSH_INTERVAL_US)
    }

    /// Sends what is due and may be sent.
    fn push(&mut self, now_us: u64, send: &mut impl FnMut(Record)) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|place| {
            if self.push_at_us(*place, now_us) > now_us {
                return true;
            }
            let slot = self.limiter.table.at(*place);
            slot.lower(PENDING);
            self.tell(slot, now_us, send);
            // What came meanwhile may be due again.
            self.limiter.tell_if_due(*place, slot, slot.count().admitted);
            false
        });
        self.waiting = waiting;
    }

    /// Sends what this node knows of a key, and goes on by it.
    fn tell(&self, slot: &Slot, now_us: u64, send: &mut impl FnMut(Record)) {
        let (Some(key), Some(rule)) = (NonZeroU64::new(slot.key.load(Relaxed)), slot.rule()) else { return };
        let (now, own) = (Tick::at(now_us), self.own(slot));
        slot.roll(rule.window(now_us).0);
        let count = slot.count();
        let fresh = count.admitted.saturating_sub(slot.told.load(Relaxed));
        if fresh >= RATE_REQUESTS_MIN {
            let passed_us = now.since_us(Tick(slot.first.load(Relaxed))).max(64);
            let rate = f64::from(fresh) * 1e6 / passed_us as f64;
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
            let asked = own.asked_rate().max(rate as f32);
            own.set_rates(own.admitted_rate().max(asked), asked);
        }
        slot.told.store(count.admitted, Relaxed);
        own.told.store(now.0, Relaxed);
        let ahead_us = Tick(own.spent.load(Relaxed)).since_us(now);
        own.spent.store(Tick::at(now_us + ahead_us + PUSH_INTERVAL_US).0, Relaxed);
        send(Record {
            key,
            window: count.window,
            current: count.admitted,
            previous: slot.previous.load(Relaxed),
            admitted_rate: own.admitted_rate(),
            asked_rate: own.asked_rate(),
        });
        self.limiter.begin_epoch(slot, rule, now_us);
    }

    /// Measures the rates of all that is tended, and lets go of what nobody asks for any more.
    fn measure(&mut self, now_us: u64) {
        let now = Tick::at(now_us);
        let mut tended = std::mem::take(&mut self.tended);
        tended.retain(|place| {
            let slot = self.limiter.table.at(*place);
            if self.is_over(slot, now_us) {
                slot.lower(TENDED);
                self.limiter.blocks.give_back(slot.block.swap(0, Relaxed));
                return false;
            }
            let own = self.own(slot);
            let passed_us = now.since_us(Tick(own.measured.load(Relaxed)));
            let count = slot.count();
            let since = own.admitted.load(Relaxed);
            let admitted = match count.window == own.window.load(Relaxed) {
                true => count.admitted.saturating_sub(since),
                false => count.admitted + slot.previous.load(Relaxed).saturating_sub(since),
            };
            let refused = slot.refused.load(Relaxed).wrapping_sub(own.refused.load(Relaxed));
            mark(own, slot, now);
            if admitted == 0 && refused == 0 {
                own.set_rates(own.admitted_rate() / 4.0, 0.0);
                return true;
            }
            let passed = passed_us.max(1) as f64;
            let part = 1.0 - (-passed / RATE_TAU_US).exp();
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
            let even = |before: f32, requests: u32| {
                let rate = f64::from(requests) * 1e6 / passed;
                (f64::from(before) + part * (rate - f64::from(before))) as f32
            };
            let asked = admitted.saturating_add(refused);
            own.set_rates(even(own.admitted_rate(), admitted), even(own.asked_rate(), asked));
            true
        });
        self.tended = tended;
    }

    /// Whether neither this node nor a peer counts anything for the key any more.
    fn is_over(&self, slot: &Slot, now_us: u64) -> bool {
        if let Some(rule) = slot.rule() {
            slot.roll(rule.window(now_us).0);
        }
        let counted = slot.count().admitted.saturating_add(slot.previous.load(Relaxed));
        let heard =
            self.limiter.blocks.heard_within(slot.block.load(Relaxed), FORGOTTEN_US, Tick::at(now_us));
        counted == 0 && self.own(slot).asked_rate() == 0.0 && !heard && !slot.has(PENDING)
    }

    /// Tells again of everything that matters.
    fn resend(&self, now_us: u64, send: &mut impl FnMut(Record)) {
        for place in &self.tended {
            let slot = self.limiter.table.at(*place);
            let (own, Some(rule)) = (self.own(slot), slot.rule()) else { continue };
            slot.roll(rule.window(now_us).0);
            let counted = slot.count().admitted.saturating_add(slot.previous.load(Relaxed));
            let matters =
                f64::from(counted) >= f64::from(rule.limit()) / (2.0 * PUSH_DIVISOR * self.limiter.nodes());
            let told_us = Tick::at(now_us).since_us(Tick(own.told.load(Relaxed)));
            if matters && told_us >= PUSH_INTERVAL_US {
                self.tell(slot, now_us, send);
            }
        }
    }
}

fn mark(own: &Own, slot: &Slot, now: Tick) {
    let count = slot.count();
    own.measured.store(now.0, Relaxed);
    own.admitted.store(count.admitted, Relaxed);
    own.window.store(count.window, Relaxed);
    own.refused.store(slot.refused.load(Relaxed), Relaxed);
}
