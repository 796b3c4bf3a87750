//! The counters of a node, and what it decides by them.

use std::{
    num::NonZeroU64,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Relaxed},
        },
    },
};

use crossbeam_queue::ArrayQueue;

use crate::{
    EPOCH_US, Pusher,
    block::Blocks,
    rule::{Rule, Scope},
    share::{Known, PUSH_DIVISOR, Share},
    sketch::Sketch,
    slot::{LATE_US_MAX, PENDING, STALE, Slot, UNSHARED},
    table::Table,
    time::Tick,
};

/// How old an epoch is at the least before what a peer has said ends it.
pub(crate) const EPOCH_MIN_US: u64 = 1_000;

/// How much a limiter holds.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Keys that it counts.
    pub keys: usize,
    /// Keys of which nodes tell each other at the same time.
    pub shared_keys: usize,
    /// Peers, at the most; one that starts anew is another one for a while.
    pub peers: usize,
    /// What this node's chances come from: another number on each node.
    pub seed: u64,
}

/// What is decided of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// It is let through.
    Admit {
        /// What this node may let through besides, for now.
        remaining: u32,
        /// Whether it is the first of its window on this node.
        is_first: bool,
    },
    /// It is refused.
    Refuse {
        /// After so many microseconds one of the same cost may be let through, if nobody else asks.
        retry_after_us: u64,
    },
}

/// The counters of a node. Threads share it.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    /// Made with the first request that is counted: where nothing is limited, nothing is needed.
    held: OnceLock<Held>,
    /// How many nodes share the limits, this one among them.
    nodes: AtomicU32,
    /// Which part of a limit these nodes have together, as the bits of an f32.
    part: AtomicU32,
}

/// What counts.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) table: Table,
    pub(crate) blocks: Blocks,
    sketch: Sketch,
    /// Slots that peers are to be told of.
    pub(crate) due: ArrayQueue<u32>,
    /// Slots of keys of periods, which keep them for long.
    periods: AtomicU32,
}

impl Held {
    /// Whether so many slots are of keys of periods that another may not have one: half, so that there is room for others.
    pub(crate) fn is_full_of_periods(&self) -> bool {
        self.periods.load(Relaxed) as usize >= self.table.slots().len() / 2
    }

    /// A slot was taken for a key of a period.
    pub(crate) fn add_period(&self) {
        self.periods.fetch_add(1, Relaxed);
    }
}

impl Limiter {
    /// One that has counted nothing, and who tells its peers of it. It is alone until it is told otherwise.
    pub fn new(settings: Settings) -> (Arc<Self>, Pusher) {
        let limiter = Arc::new(Self {
            settings,
            held: OnceLock::new(),
            nodes: AtomicU32::new(1),
            part: AtomicU32::new(1.0_f32.to_bits()),
        });
        let pusher = Pusher::new(limiter.clone());
        (limiter, pusher)
    }

    /// So many nodes share the limits, this one among them, and have this part of them together, from 0 to 1.
    pub fn set_nodes(&self, nodes: u32, part: f32) {
        self.nodes.store(nodes.max(1), Relaxed);
        let part = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self.part.store(part.to_bits(), Relaxed);
    }

    /// Whether these nodes have but a part of the limits.
    pub fn is_cut_off(&self) -> bool {
        self.part() < 1.0
    }

    /// What counts, made if it is not there yet.
    pub(crate) fn held(&self) -> &Held {
        self.held.get_or_init(|| Held {
            table: Table::new(self.settings.keys),
            blocks: Blocks::new(self.settings.shared_keys, self.settings.peers),
            sketch: Sketch::new(),
            due: ArrayQueue::new(self.settings.shared_keys.max(1)),
            periods: AtomicU32::new(0),
        })
    }

    /// What counts, if anything was counted yet.
    pub(crate) fn held_if_any(&self) -> Option<&Held> {
        self.held.get()
    }

    /// How many nodes share the limits, this one among them.
    pub fn nodes(&self) -> u32 {
        self.nodes.load(Relaxed)
    }

    fn part(&self) -> f64 {
        f32::from_bits(self.part.load(Relaxed)).into()
    }

    /// What these nodes may admit together.
    fn limit(&self, rule: Rule) -> f64 {
        let part = if rule.scope() == Scope::Cluster { self.part() } else { 1.0 };
        f64::from(rule.limit()) * part
    }

    /// This node's part of a limit where nobody tells it of the others.
    fn even_part(&self, rule: Rule) -> f64 {
        if rule.scope() == Scope::Node {
            self.limit(rule)
        } else {
            self.limit(rule) / f64::from(self.nodes())
        }
    }

    /// Asks for a request of this cost, which is 1 for most, under this key's limit.
    ///
    /// The key is a digest, the same on all nodes, of what is limited and of the window's length: rules of different windows need
    /// different keys. Who asks must not be able to choose it, so it is a digest under a secret.
    ///
    /// `is_due` becomes true if the [`Pusher`] is to be polled now.
    pub fn acquire(
        &self,
        key: NonZeroU64,
        rule: Rule,
        cost: u32,
        now_us: u64,
        is_due: &mut bool,
    ) -> Decision {
        let (now, table) = (Tick::at(now_us), &self.held().table);
        let place = match rule.period() {
            Some(_) if self.held().is_full_of_periods() => table.find(key),
            _ => table.find_or_take(key, now),
        };
        let Some(place) = place else {
            return self.acquire_without_slot(key, rule, cost, now_us);
        };
        let slot = table.at(place);
        self.keep_up(slot, rule, now_us);
        let ceiling = slot.ceiling(now);
        let Some(before) = slot.reserve(cost, ceiling) else {
            slot.refused.fetch_add(cost, Relaxed);
            let admitted = slot.count().admitted;
            *is_due |= self.tell_if_due(place, slot, admitted);
            let missing = f64::from(admitted) + f64::from(cost) - ceiling;
            return Decision::Refuse { retry_after_us: retry_after_us(slot, rule, cost, missing, now_us) };
        };
        let admitted = before.admitted + cost;
        if before.admitted == slot.told.load(Relaxed) {
            slot.first_untold.store(now.0, Relaxed);
        }
        *is_due |= self.tell_if_due(place, slot, admitted);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
        let remaining = (ceiling - f64::from(admitted)).max(0.0) as u32;
        Decision::Admit { remaining, is_first: before.admitted == 0 }
    }

    /// What is decided where the table has no room: by this node's even part of the limit, since nobody is told of it.
    fn acquire_without_slot(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64) -> Decision {
        if self.held().sketch.acquire(key.get(), rule, self.even_part(rule), cost, now_us) {
            return Decision::Admit { remaining: 0, is_first: false };
        }
        Decision::Refuse { retry_after_us: rule.left_us(now_us) }
    }

    /// Counts so much more under a key that has been asked for, whether or not it may: what a request turns out to have cost.
    ///
    /// `is_due` becomes true if the [`Pusher`] is to be polled now.
    pub fn charge(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64, is_due: &mut bool) {
        let table = &self.held().table;
        let Some(place) = table.find(key) else { return };
        let slot = table.at(place);
        self.keep_up(slot, rule, now_us);
        let before = slot.add(cost);
        if before.admitted == slot.told.load(Relaxed) {
            slot.first_untold.store(Tick::at(now_us).0, Relaxed);
        }
        *is_due |= self.tell_if_due(place, slot, before.admitted.saturating_add(cost));
    }

    /// Takes back a request that was admitted in this window, and refused by another limit.
    pub fn take_back(&self, key: NonZeroU64, rule: Rule, cost: u32, now_us: u64) {
        let table = &self.held().table;
        if let Some(place) = table.find(key) {
            table.at(place).take_back(rule.window(now_us).0, cost);
        }
    }

    /// Lets go of keys of periods that are over.
    pub fn end_periods(&self, is_over: impl Fn(NonZeroU64, u32) -> bool) {
        let Some(held) = self.held_if_any() else { return };
        let mut left = 0;
        for slot in held.table.slots() {
            if let (Some(key), Some(period)) = (slot.its_key(), slot.period())
                && !(is_over(key, period) && slot.let_go(key.get()))
            {
                left += 1;
            }
        }
        held.periods.store(left, Relaxed);
    }

    /// Has the slot be limited by this rule, in the present epoch and window.
    fn keep_up(&self, slot: &Slot, rule: Rule, now_us: u64) {
        let known = slot.rule();
        // A period never gives way to an earlier one: a request that began before its end counts in the present one.
        let rule = match (known, rule.period()) {
            (Some(known), Some(period)) if known.period() > Some(period) => known,
            _ => rule,
        };
        if known != Some(rule) {
            if rule.period().is_some() && known.is_none_or(|known| known.period().is_none()) {
                self.held().add_period();
            }
            slot.set_rule(rule);
            self.begin_epoch(slot, rule, now_us);
        } else if is_over(slot, rule, Tick::at(now_us), now_us) {
            self.begin_epoch(slot, rule, now_us);
        }
    }

    /// Has peers told of this slot if so much was admitted that they must know.
    pub(crate) fn tell_if_due(&self, place: u32, slot: &Slot, admitted: u32) -> bool {
        admitted >= slot.tell_at.load(Relaxed)
            && admitted > slot.told.load(Relaxed)
            && !slot.has(PENDING)
            && slot.raise(PENDING)
            && self.held().due.push(place).inspect_err(|_| slot.lower(PENDING)).is_ok()
    }

    /// Looks anew at what this node may admit.
    pub(crate) fn begin_epoch(&self, slot: &Slot, rule: Rule, now_us: u64) {
        let began = slot.began.load(Relaxed);
        // A thread that was held since it read the clock goes by the time of whoever was here last.
        let behind_us = Tick(began).since_us(Tick::at(now_us));
        let now_us = if behind_us < LATE_US_MAX { now_us + behind_us } else { now_us };
        let now = Tick::at(now_us);
        let (now_in, gone) = rule.window(now_us);
        let window = slot.roll(rule, now_us);
        // Where another thread has begun the next window already, this is its very beginning.
        let gone = if window == now_in { gone } else { 0.0 };
        // One thread is enough. Those that come meanwhile go on by the old ceiling.
        if slot.began.compare_exchange(began, now.0, AcqRel, Relaxed).is_err() {
            return;
        }
        slot.lower(STALE);
        let admitted = slot.count().admitted;
        if slot.has(UNSHARED) {
            let base = rule.period().map_or(0.0, |_| f64::from(slot.previous.load(Relaxed)));
            slot.set_ceiling(self.even_part(rule) - base / f64::from(self.nodes()), 0.0);
            slot.tell_at.store(u32::MAX, Relaxed);
            return;
        }
        let share = self.share(slot, rule, gone, window, admitted, now);
        let chance = if share.weight < 1.0 && share.remaining >= 1.0 { self.chance(slot, now) } else { 0.0 };
        slot.set_ceiling(f64::from(admitted) + share.budget + chance, share.slope);
        let is_told = rule.scope() != Scope::Node;
        slot.tell_at
            .store(if is_told { self.tell_at(slot, share.remaining, admitted) } else { u32::MAX }, Relaxed);
    }

    fn share(&self, slot: &Slot, rule: Rule, gone: f64, window: u32, admitted: u32, now: Tick) -> Share {
        let blocks = &self.held().blocks;
        let block = slot.block.load(Relaxed);
        // A block that is another key's still is none; and what a node has by itself is nobody else's business.
        let is_its = blocks.own(block).key.load(Relaxed) == slot.key.load(Relaxed);
        let block = if is_its && rule.scope() != Scope::Node { block } else { 0 };
        // A period has none before it in sight; in its place is what was used of it that nobody tells of any more.
        let (base, previous) = match rule.period() {
            Some(_) => (f64::from(slot.previous.load(Relaxed)), 0.0),
            None => (0.0, f64::from(slot.previous.load(Relaxed))),
        };
        // Whoever is cut off has its part of what others have not used of a period.
        let others = || base + blocks.peers(block, window, now).map(|peer| peer.current).sum::<f64>();
        let limit = match rule.period() {
            Some(_) if self.is_cut_off() => {
                let others = others();
                others + (f64::from(rule.limit()) - others).max(0.0) * self.part()
            }
            _ => self.limit(rule),
        };
        let known = Known {
            limit,
            window_us: rule.window_us() as f64,
            gone,
            current: f64::from(admitted) + base,
            previous,
            admitted_rate: f64::from(blocks.own(block).admitted_rate()) / 1e6,
            nodes: self.nodes().into(),
        };
        known.share(blocks.peers(block, window, now))
    }

    /// At which count peers are to be told: once what they were not told is their part of what remains, divided.
    fn tell_at(&self, slot: &Slot, remaining: f64, admitted: u32) -> u32 {
        let nodes = f64::from(self.nodes());
        if nodes < 2.0 {
            return u32::MAX;
        }
        let told = f64::from(slot.told.load(Relaxed));
        // What remains goes down by one as what is not told goes up by one: solved for the count at which they meet.
        let parts = PUSH_DIVISOR * nodes;
        let at = (told + (remaining.max(0.0) + f64::from(admitted)) / parts) / (1.0 + 1.0 / parts);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
        let at = at.ceil().max(told + 1.0) as u32;
        at
    }

    /// A number from 0 to 1, which is another for each epoch: the parts of requests that nodes may admit come to whole ones, over time.
    fn chance(&self, slot: &Slot, now: Tick) -> f64 {
        let mut bits = slot.key.load(Relaxed) ^ self.settings.seed ^ u64::from(now.0) << 32;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Whether the slot's epoch is over: it is old, a peer has spoken since, a window has ended, or the clock was set back.
fn is_over(slot: &Slot, rule: Rule, now: Tick, now_us: u64) -> bool {
    let age_us = now.after_us(Tick(slot.began.load(Relaxed)));
    if age_us < 0 && age_us.unsigned_abs() < LATE_US_MAX {
        // Another thread that was not held has begun it.
        return false;
    }
    let is_old =
        age_us.unsigned_abs() >= EPOCH_US || slot.has(STALE) && age_us.unsigned_abs() >= EPOCH_MIN_US;
    let ahead = slot.count().window.wrapping_sub(rule.window(now_us).0);
    is_old || ahead > 1 && rule.period().is_none()
}

/// When a request of this cost may be let through that was refused now for want of so much, if nobody else asks.
fn retry_after_us(slot: &Slot, rule: Rule, cost: u32, missing: f64, now_us: u64) -> u64 {
    let window_us = rule.window_us();
    let left_us = window_us - now_us % window_us;
    let slope = f64::from(slot.slope());
    let wait_us = if slope > 0.0 { missing.max(0.0) / slope } else { f64::INFINITY };
    // In the next window, what was admitted in this one goes out of sight request by request.
    let next_us =
        left_us as f64 + window_us as f64 * f64::from(cost.min(rule.limit())) / f64::from(rule.limit());
    let wait_us = if wait_us < left_us as f64 { wait_us } else { next_us };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
    let wait_us = wait_us.ceil() as u64;
    wait_us.max(1)
}
