//! Who tells the other nodes, and hears them: what is due, when it is, and everything that matters again now and then.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    Limiter, PUSH_INTERVAL_US, RATE_INTERVAL_US, RESEND_INTERVAL_US, Record, Rule, Scope,
    block::Own,
    limiter::{EPOCH_MIN_US, Held},
    share::PUSH_DIVISOR,
    slot::{PENDING, STALE, Slot, TENDED, UNSHARED},
    time::Tick,
};

/// Over which time rates are evened out, in microseconds.
const RATE_TAU_US: f64 = 75_000.0;
/// So many pushes of a key may follow each other at once, after a rest.
const PUSHES_IN_A_ROW: u64 = 32;
/// For how long nobody must have spoken of a key for it to be let go of: as peers send again what matters, some times over.
const FORGOTTEN_US: u64 = 50 * RESEND_INTERVAL_US;
/// For how long what a peer has said of a period is kept that is not agreed on.
const UNSETTLED_US: u64 = 59_000_000;
/// Resends of a key that has not changed come at intervals that double, so many times.
const DOUBLINGS_MAX: u32 = 4;
/// How long after the end of a window, at the most, all that was admitted in it has been heard.
const HEARD_US: u64 = 100_000;
/// Requests that were not told of, of which a rate can be told, and in which time at the least.
const RATE_REQUESTS_MIN: u32 = 8;
const RATE_TIME_MIN_US: u64 = 500;

/// A slot that the other nodes are told of, or have told of, as long as it is this key's.
#[derive(Debug, Clone, Copy)]
struct Tended {
    place: u32,
    key: u64,
}

/// Tells the other nodes of a limiter's counters, and hears what they tell. One task has it: so what is heard of a key belongs to nobody
/// else.
#[derive(Debug)]
pub struct Pusher {
    limiter: Arc<Limiter>,
    tended: Vec<Tended>,
    /// Slots that wait for their push.
    waiting: Vec<u32>,
    rates_at_us: u64,
    resend_at_us: u64,
    judged: Judged,
    /// Keys of which it must be said anew what was used of their period.
    unseeded: Vec<NonZeroU64>,
}

/// What was used of a period, by whoever has counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The peer's number; none if it has none, as this node's own former starts.
    pub peer: Option<usize>,
    /// What was used.
    pub used: u32,
}

/// What windows that are over have come to, all nodes together, as far as this node has heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// What was admitted.
    pub admitted: u64,
    /// What of it was more than the limit.
    pub over: u64,
}

impl Judged {
    fn add(&mut self, more: Self) {
        self.admitted += more.admitted;
        self.over += more.over;
    }
}

impl Pusher {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Self {
        Self {
            limiter,
            tended: Vec::new(),
            waiting: Vec::new(),
            rates_at_us: 0,
            resend_at_us: 0,
            judged: Judged::default(),
            unseeded: Vec::new(),
        }
    }

    /// Takes what this peer, by its number, says of a key. It is to be polled afterwards.
    ///
    /// A peer that starts anew has counted nothing: it must come under another number, and its former one be forgotten two windows later.
    pub fn receive(&mut self, peer: usize, record: &Record, now_us: u64) {
        let limiter = self.limiter.clone();
        let (now, held) = (Tick::at(now_us), limiter.held());
        if !held.blocks.has_peer(peer) {
            return;
        }
        let place = match held.table.find(record.key) {
            Some(place) => place,
            // Nobody's slot is taken for a key that there is no block for.
            None if held.blocks.is_used_up() => return,
            None => match held.table.find_or_take(record.key, now) {
                Some(place) => place,
                None => return,
            },
        };
        let slot = held.table.at(place);
        // Another key may have taken the slot meanwhile: the block is that one's then.
        if !self.tend(place, now) || self.own(slot).key.load(Relaxed) != record.key.get() {
            return;
        }
        let rule = slot.rule();
        let is_period = rule.is_some_and(|rule| rule.period().is_some());
        if !held.blocks.hear(slot.block.load(Relaxed), peer, record, is_period, now) {
            return;
        }
        let Some(rule) = rule else { return };
        if now.after_us(Tick(slot.began.load(Relaxed))).unsigned_abs() < EPOCH_MIN_US {
            slot.raise(STALE);
            return;
        }
        limiter.begin_epoch(slot, rule, now_us);
        // What this node has kept to itself may be much, by what it knows now.
        limiter.tell_if_due(place, slot, slot.count().admitted);
    }

    /// Keys that have got a place for what peers say, or lost it: if they are of a period, they are to be seeded.
    pub fn take_unseeded(&mut self) -> Vec<NonZeroU64> {
        std::mem::take(&mut self.unseeded)
    }

    /// Says what was used of a period, this node's own count since its start left out. What is said takes the place of what was said
    /// before.
    ///
    /// What peers of the numbers `forgotten` have said of the key counts no more: it is in what is said here.
    pub fn seed(
        &mut self,
        key: NonZeroU64,
        period: u32,
        settled: &[Settled],
        forgotten: &[usize],
        now_us: u64,
    ) {
        let (limiter, now) = (self.limiter.clone(), Tick::at(now_us));
        let held = limiter.held();
        let place = match held.is_full_of_periods() {
            true => held.table.find(key),
            false => held.table.find_or_take(key, now),
        };
        let Some(place) = place else { return };
        let slot = held.table.at(place);
        match slot.period() {
            Some(known) if known > period => return,
            Some(known) if known == period => {}
            // How much there may be is said with the first request.
            known => {
                if known.is_none() {
                    held.add_period();
                }
                let Some(rule) = Rule::of_period(Rule::LIMIT_MAX, period) else { return };
                slot.set_rule(rule);
                slot.roll(rule, now_us);
            }
        }
        let block = slot.block.load(Relaxed);
        let block = if self.own(slot).key.load(Relaxed) == key.get() { block } else { 0 };
        let mut base = 0_u32;
        for one in settled {
            match one.peer.filter(|peer| block != 0 && held.blocks.has_peer(*peer)) {
                Some(peer) => held.blocks.settle(block, peer, period, one.used, now),
                None => base = base.saturating_add(one.used),
            }
        }
        if block != 0 {
            forgotten.iter().for_each(|peer| held.blocks.forget_in(block, *peer));
        }
        slot.set_base(base);
        slot.lower(UNSHARED);
        if let Some(rule) = slot.rule() {
            limiter.begin_epoch(slot, rule, now_us);
        }
    }

    /// Forgets what this peer has said.
    pub fn forget(&mut self, peer: usize) {
        if let Some(held) = self.limiter.held_if_any() {
            held.blocks.forget(peer);
        }
    }

    /// Hands over what the other nodes are to be told now. Gives when it wants to be polled again, in microseconds since the Unix
    /// epoch, if nothing is due before; none: not before something is.
    pub fn poll(&mut self, now_us: u64, mut send: impl FnMut(Record)) -> Option<u64> {
        self.limiter.held_if_any()?;
        self.take_up(now_us);
        if has_come(self.rates_at_us, RATE_INTERVAL_US, now_us) {
            self.rates_at_us = now_us + RATE_INTERVAL_US;
            self.measure(now_us);
        }
        let is_resent = has_come(self.resend_at_us, RESEND_INTERVAL_US, now_us);
        if is_resent {
            self.resend_at_us = now_us + RESEND_INTERVAL_US;
        }
        let next_push = self.push(now_us, &mut send);
        if is_resent {
            self.resend(now_us, &mut send);
        }
        let tending = (!self.tended.is_empty()).then_some(self.rates_at_us.min(self.resend_at_us));
        next_push.into_iter().chain(tending).min()
    }

    fn take_up(&mut self, now_us: u64) {
        while let Some(place) = self.held().due.pop() {
            if self.tend(place, Tick::at(now_us)) {
                self.waiting.push(place);
                continue;
            }
            let slot = self.held().table.at(place);
            slot.raise(UNSHARED);
            slot.lower(PENDING);
            if let Some(rule) = slot.rule() {
                self.limiter.begin_epoch(slot, rule, now_us);
            }
        }
    }

    /// Sees to it that this slot is looked after, and has a block for its key. False if there is none.
    fn tend(&mut self, place: u32, now: Tick) -> bool {
        let limiter = self.limiter.clone();
        let (slot, blocks) = (limiter.held().table.at(place), &limiter.held().blocks);
        let (key, block) = (slot.key.load(Relaxed), slot.block.load(Relaxed));
        if block != 0 {
            // One of a key that had the slot before goes with the next measurement.
            return blocks.own(block).key.load(Relaxed) == key;
        }
        let Some(block) = blocks.take() else { return false };
        let own = blocks.own(block);
        own.key.store(key, Relaxed);
        own.told.store(now.0, Relaxed);
        own.paid_until.store(now.0, Relaxed);
        mark(own, slot, now);
        slot.block.store(block, Relaxed);
        slot.raise(TENDED);
        self.unseeded.extend(NonZeroU64::new(key));
        self.tended.push(Tended { place, key });
        true
    }

    fn held(&self) -> &Held {
        self.limiter.held()
    }

    fn own(&self, slot: &Slot) -> &Own {
        self.held().blocks.own(slot.block.load(Relaxed))
    }

    /// How long pushes of this slot have been paid for already: one in each interval over time, and several in a row after a rest (the
    /// generic cell rate algorithm, ITU-T I.371), since it is at its onset that a burst is known least.
    fn paid_us(&self, slot: &Slot, now: Tick) -> u64 {
        let paid_us = Tick(self.own(slot).paid_until.load(Relaxed)).since_us(now);
        // More than there can be: the clock was set back.
        if paid_us > 2 * PUSHES_IN_A_ROW * PUSH_INTERVAL_US { 0 } else { paid_us }
    }

    /// Sends what is due and may be sent; gives when the next that waits may be.
    fn push(&mut self, now_us: u64, send: &mut impl FnMut(Record)) -> Option<u64> {
        let (mut waiting, mut next) = (std::mem::take(&mut self.waiting), None);
        waiting.retain(|place| {
            let slot = self.held().table.at(*place);
            let too_soon_us = |this: &Self| {
                let paid_us = this.paid_us(slot, Tick::at(now_us));
                paid_us.saturating_sub((PUSHES_IN_A_ROW - 1) * PUSH_INTERVAL_US)
            };
            let mut waits_us = too_soon_us(self);
            if waits_us == 0 {
                slot.lower(PENDING);
                self.tell(slot, now_us, send);
                // What came meanwhile may be due again.
                let is_due = slot.count().admitted >= slot.tell_at.load(Relaxed);
                if !is_due || !slot.raise(PENDING) {
                    return false;
                }
                waits_us = too_soon_us(self);
            }
            let at_us = now_us + waits_us.max(1);
            next = Some(next.map_or(at_us, |next: u64| next.min(at_us)));
            true
        });
        self.waiting = waiting;
        next
    }

    /// Sends what this node knows of a key, and goes on by it.
    fn tell(&self, slot: &Slot, now_us: u64, send: &mut impl FnMut(Record)) {
        let (Some(key), Some(rule)) = (NonZeroU64::new(slot.key.load(Relaxed)), slot.rule()) else { return };
        let (now, own) = (Tick::at(now_us), self.own(slot));
        if own.key.load(Relaxed) != key.get() {
            return;
        }
        slot.roll(rule, now_us);
        let count = slot.count();
        let fresh = count.admitted.saturating_sub(slot.told.load(Relaxed));
        if fresh >= RATE_REQUESTS_MIN {
            let passed_us = now.since_us(Tick(slot.first_untold.load(Relaxed))).max(RATE_TIME_MIN_US);
            let rate = f64::from(fresh) * 1e6 / passed_us as f64;
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough")]
            let asked = own.asked_rate().max(rate as f32);
            own.set_rates(own.admitted_rate().max(asked), asked);
        }
        let doublings = if fresh == 0 { own.doublings.load(Relaxed) + 1 } else { 0 };
        own.doublings.store(doublings.min(DOUBLINGS_MAX), Relaxed);
        slot.told.store(count.admitted, Relaxed);
        own.told.store(now.0, Relaxed);
        let paid_until_us = now_us + self.paid_us(slot, now) + PUSH_INTERVAL_US;
        own.paid_until.store(Tick::at(paid_until_us).0, Relaxed);
        send(Record {
            key,
            window: count.window,
            current: count.admitted,
            previous: if rule.period().is_some() { 0 } else { slot.previous.load(Relaxed) },
            admitted_rate: own.admitted_rate(),
            asked_rate: own.asked_rate(),
        });
        self.limiter.begin_epoch(slot, rule, now_us);
    }

    /// Measures the rates of all that is tended, and lets go of what nobody asks for any more.
    fn measure(&mut self, now_us: u64) {
        let now = Tick::at(now_us);
        let (mut tended, mut judged) = (std::mem::take(&mut self.tended), self.judged);
        let mut unseeded = std::mem::take(&mut self.unseeded);
        tended.retain(|one| {
            let slot = self.held().table.at(one.place);
            let block = slot.block.load(Relaxed);
            if slot.key.load(Relaxed) != one.key || self.is_over(slot, now_us) {
                // First the block: as long as the slot is tended, no other key takes it.
                slot.block.store(0, Relaxed);
                self.held().blocks.give_back(block);
                slot.lower(TENDED);
                unseeded.extend(NonZeroU64::new(one.key).filter(|_| slot.period().is_some()));
                return false;
            }
            self.held().blocks.let_age(block, now);
            judged.add(self.judge(slot, now_us));
            measure(self.own(slot), slot, now);
            true
        });
        (self.tended, self.judged, self.unseeded) = (tended, judged, unseeded);
    }

    /// What windows that are over have come to, for those keys that nodes tell each other of.
    pub fn judged(&self) -> Judged {
        self.judged
    }

    /// What the window before has come to, told once, when all of it can have been heard.
    fn judge(&self, slot: &Slot, now_us: u64) -> Judged {
        let Some(rule) = slot.rule() else { return Judged::default() };
        let (window, gone) = rule.window(now_us);
        let heard_us = HEARD_US.min(rule.window_us() / 2) as f64;
        let own = self.own(slot);
        if gone * (rule.window_us() as f64) < heard_us || own.judged.load(Relaxed) == window {
            return Judged::default();
        }
        slot.roll(rule, now_us);
        own.judged.store(window, Relaxed);
        let peers = self.held().blocks.peers(slot.block.load(Relaxed), window, Tick::at(now_us));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they were u32")]
        let by_peers = peers.map(|peer| peer.previous as u64).sum::<u64>();
        let admitted = u64::from(slot.previous.load(Relaxed)) + by_peers;
        Judged { admitted, over: admitted.saturating_sub(rule.limit().into()) }
    }

    /// Whether neither this node nor a peer counts anything for the key any more.
    fn is_over(&self, slot: &Slot, now_us: u64) -> bool {
        if let Some(rule) = slot.rule() {
            slot.roll(rule, now_us);
        }
        let (blocks, block) = (&self.held().blocks, slot.block.load(Relaxed));
        let is_heard = |time_us| blocks.heard_within(block, time_us, Tick::at(now_us));
        // What was used of a period needs no place here once it is agreed on.
        let is_counted = match slot.period() {
            Some(period) => {
                let is_kept = blocks.is_settled(block, period) || !is_heard(UNSETTLED_US);
                slot.count().admitted > slot.told.load(Relaxed) || !is_kept
            }
            None => slot.count().admitted.saturating_add(slot.previous.load(Relaxed)) > 0,
        };
        !is_counted && self.own(slot).asked_rate() == 0.0 && !is_heard(FORGOTTEN_US) && !slot.has(PENDING)
    }

    /// Tells again of everything that matters.
    fn resend(&self, now_us: u64, send: &mut impl FnMut(Record)) {
        for one in &self.tended {
            let slot = self.held().table.at(one.place);
            let shared = slot.rule().filter(|rule| rule.scope() != Scope::Node);
            let (own, Some(rule)) = (self.own(slot), shared) else { continue };
            slot.roll(rule, now_us);
            let counted = match rule.period() {
                // What was used of a period is agreed on: it is told some times, and no more.
                Some(_) if own.doublings.load(Relaxed) >= DOUBLINGS_MAX => continue,
                Some(_) => slot.count().admitted,
                None => slot.count().admitted.saturating_add(slot.previous.load(Relaxed)),
            };
            let matters = f64::from(counted)
                >= f64::from(rule.limit()) / (2.0 * PUSH_DIVISOR * f64::from(self.limiter.nodes()));
            let told_us = Tick::at(now_us).after_us(Tick(own.told.load(Relaxed))).unsigned_abs();
            let doubled = PUSH_INTERVAL_US.max((RESEND_INTERVAL_US << own.doublings.load(Relaxed)) / 2);
            let is_new = slot.count().admitted > slot.told.load(Relaxed);
            if matters && told_us >= if is_new { PUSH_INTERVAL_US } else { doubled } {
                self.tell(slot, now_us, send);
            }
        }
    }
}

/// Whether a time has come that lies no further ahead than this: one that does was set before the clock was set back.
fn has_come(at_us: u64, interval_us: u64, now_us: u64) -> bool {
    now_us >= at_us || at_us - now_us > interval_us
}

fn measure(own: &Own, slot: &Slot, now: Tick) {
    let passed_us = now.since_us(Tick(own.measured.load(Relaxed)));
    let count = slot.count();
    let since = own.admitted_then.load(Relaxed);
    let admitted = match count.window == own.window_then.load(Relaxed) {
        true => count.admitted.saturating_sub(since),
        false => count.admitted.saturating_add(slot.previous.load(Relaxed).saturating_sub(since)),
    };
    let refused = slot.refused.load(Relaxed).wrapping_sub(own.refused_then.load(Relaxed));
    mark(own, slot, now);
    if admitted == 0 && refused == 0 {
        own.set_rates(own.admitted_rate() / 4.0, 0.0);
        return;
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
}

fn mark(own: &Own, slot: &Slot, now: Tick) {
    let count = slot.count();
    own.measured.store(now.0, Relaxed);
    own.admitted_then.store(count.admitted, Relaxed);
    own.window_then.store(count.window, Relaxed);
    own.refused_then.store(slot.refused.load(Relaxed), Relaxed);
}
