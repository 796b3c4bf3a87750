//! What is known of the keys that nodes tell each other of: this node's rates, and what each peer said last.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;

use crate::{RATES_BELIEVED_US, record::Record, share, time::Tick};

/// What was said longer ago than this is as old as this.
const AGE_US_MAX: u64 = 60_000_000;
/// The highest rate that is believed, in requests a second.
const RATE_MAX: f32 = 1e9;

/// This node's own rates of a key.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Whose block it is.
    pub(crate) key: AtomicU64,
    /// Requests a second that it admits, and that it is asked for, as the bits of f32.
    admitted_rate: AtomicU32,
    asked_rate: AtomicU32,
    /// When rates were last measured, and the window and the counts then.
    pub(crate) measured: AtomicU32,
    pub(crate) window_then: AtomicU32,
    pub(crate) admitted_then: AtomicU32,
    pub(crate) refused_then: AtomicU32,
    /// The last window that was looked back from.
    pub(crate) judged: AtomicU32,
    /// When peers were last told.
    pub(crate) told: AtomicU32,
    /// How often they were told the same since.
    pub(crate) doublings: AtomicU32,
    /// Up to when the pushes that there were use up what there may be.
    pub(crate) paid_until: AtomicU32,
}

impl Own {
    pub(crate) fn admitted_rate(&self) -> f32 {
        f32::from_bits(self.admitted_rate.load(Relaxed))
    }

    pub(crate) fn asked_rate(&self) -> f32 {
        f32::from_bits(self.asked_rate.load(Relaxed))
    }

    pub(crate) fn set_rates(&self, admitted: f32, asked: f32) {
        self.admitted_rate.store(admitted.to_bits(), Relaxed);
        self.asked_rate.store(asked.to_bits(), Relaxed);
    }
}

/// What a peer said last of a key.
#[derive(Debug, Default)]
struct Heard {
    /// The window's number, and in the lower half what the peer admitted in it.
    count: AtomicU64,
    previous: AtomicU32,
    admitted_rate: AtomicU32,
    asked_rate: AtomicU32,
    /// When; 0: never.
    at: AtomicU32,
    /// What of a period's count is agreed on.
    settled: AtomicU32,
}

/// Places for so many keys, and so many peers of each.
#[derive(Debug)]
pub(crate) struct Blocks {
    peers: usize,
    own: Box<[Own]>,
    heard: Box<[Heard]>,
    free: ArrayQueue<u32>,
}

impl Blocks {
    pub(crate) fn new(keys: usize, peers: usize) -> Self {
        let free = ArrayQueue::new(keys.max(1));
        // Number 0 says that there is none.
        (1..=keys).filter_map(|number| u32::try_from(number).ok()).for_each(|number| {
            let _ = free.push(number);
        });
        let own = (0..=keys).map(|_| Own::default()).collect();
        let heard = (0..(keys + 1) * peers).map(|_| Heard::default()).collect();
        Self { peers, own, heard, free }
    }

    /// A block that nobody has; none: they are used up.
    pub(crate) fn take(&self) -> Option<u32> {
        self.free.pop()
    }

    /// Whether there is none left.
    pub(crate) fn is_used_up(&self) -> bool {
        self.free.is_empty()
    }

    /// Whether there is a place for what this peer says.
    pub(crate) fn has_peer(&self, peer: usize) -> bool {
        peer < self.peers
    }

    /// Gives one back, in which nothing is left. Number 0 is none.
    pub(crate) fn give_back(&self, block: u32) {
        if block == 0 {
            return;
        }
        let own = self.own(block);
        own.key.store(0, Relaxed);
        own.set_rates(0.0, 0.0);
        own.doublings.store(0, Relaxed);
        self.heard_in(block).iter().for_each(Heard::forget);
        // There is room for all that were taken.
        let _ = self.free.push(block);
    }

    pub(crate) fn own(&self, block: u32) -> &Own {
        &self.own[block as usize]
    }

    fn heard_in(&self, block: u32) -> &[Heard] {
        let first = block as usize * self.peers;
        &self.heard[first..first + self.peers]
    }

    /// Takes what a peer says, unless it is older than what it said before. Whether it was news.
    pub(crate) fn hear(&self, block: u32, peer: usize, record: &Record, is_period: bool, now: Tick) -> bool {
        let Some(heard) = self.heard_in(block).get(peer) else { return false };
        heard.take(record, is_period, now)
    }

    /// Takes up what a peer is known to have admitted of a period.
    pub(crate) fn settle(&self, block: u32, peer: usize, period: u32, admitted: u32, now: Tick) {
        if let Some(heard) = self.heard_in(block).get(peer) {
            heard.settle(period, admitted, now);
        }
    }

    /// Whether a peer has spoken within this time.
    pub(crate) fn heard_within(&self, block: u32, time_us: u64, now: Tick) -> bool {
        self.heard_in(block).iter().any(|heard| {
            let at = heard.at.load(Relaxed);
            at != 0 && now.since_us(Tick(at)) < time_us
        })
    }

    /// Whether all that peers have said of this period is agreed on.
    pub(crate) fn is_settled(&self, block: u32, period: u32) -> bool {
        block == 0 || self.heard_in(block).iter().all(|heard| heard.is_settled(period))
    }

    /// Forgets what this peer has said of a key.
    pub(crate) fn forget_in(&self, block: u32, peer: usize) {
        if let Some(heard) = self.heard_in(block).get(peer) {
            heard.forget();
        }
    }

    /// Makes what was said long ago younger, and its rates none: so that its time is never taken for a later one.
    pub(crate) fn let_age(&self, block: u32, now: Tick) {
        let old = Tick(now.0.wrapping_sub(Tick::at(AGE_US_MAX).0));
        for heard in self.heard_in(block) {
            let at = heard.at.load(Relaxed);
            if at != 0 && now.after_us(Tick(at)).unsigned_abs() > AGE_US_MAX {
                heard.admitted_rate.store(0, Relaxed);
                heard.asked_rate.store(0, Relaxed);
                heard.at.store(old.0.max(1), Relaxed);
            }
        }
    }

    /// Forgets what this peer has said.
    pub(crate) fn forget(&self, peer: usize) {
        if !self.has_peer(peer) {
            return;
        }
        self.heard.iter().skip(peer).step_by(self.peers.max(1)).for_each(Heard::forget);
    }

    /// What each peer has said that matters in this window.
    pub(crate) fn peers(
        &self,
        block: u32,
        window: u32,
        now: Tick,
    ) -> impl Iterator<Item = share::Peer> + Clone + '_ {
        self.peers_by_number(block, window, now).map(|(_, peer)| peer)
    }

    /// The same, each with the peer's number.
    pub(crate) fn peers_by_number(
        &self,
        block: u32,
        window: u32,
        now: Tick,
    ) -> impl Iterator<Item = (usize, share::Peer)> + Clone + '_ {
        let heard = if block == 0 { &[] } else { self.heard_in(block) };
        heard
            .iter()
            .enumerate()
            .filter_map(move |(number, heard)| Some((number, heard.in_window(window, now)?)))
    }
}

impl Heard {
    fn forget(&self) {
        self.at.store(0, Relaxed);
        self.count.store(0, Relaxed);
        for word in [&self.previous, &self.admitted_rate, &self.asked_rate, &self.settled] {
            word.store(0, Relaxed);
        }
    }

    fn settle(&self, period: u32, admitted: u32, now: Tick) {
        let count = u64::from(period) << 32 | u64::from(admitted);
        if self.at.load(Relaxed) == 0 {
            self.forget();
            self.at.store(now.0.max(1), Relaxed);
        }
        // A later period is the greater number; of one the greater count.
        self.count.fetch_max(count, Relaxed);
        self.settled.store(admitted, Relaxed);
    }

    /// Whether all that was said of this period is agreed on.
    fn is_settled(&self, period: u32) -> bool {
        let count = self.count.load(Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        let (its, admitted) = ((count >> 32) as u32, count as u32);
        its != period || admitted <= self.settled.load(Relaxed)
    }

    fn take(&self, record: &Record, is_period: bool, now: Tick) -> bool {
        let count = u64::from(record.window) << 32 | u64::from(record.current);
        let before = self.count.load(Relaxed);
        let later = record.window.wrapping_sub((before >> 32) as u32).cast_signed();
        let is_first = self.at.load(Relaxed) == 0;
        match later {
            // Of one window the greater count is the later: what comes again, or late, takes nothing away.
            0 if !is_first => self.count.store(before.max(count), Relaxed),
            // Late, or sent again.
            -2..0 if !is_first => return false,
            ..0 if !is_first && is_period => return false,
            // Neighbours follow each other. Otherwise it is the clock that was set, and this is what it says now.
            _ => self.count.store(count, Relaxed),
        }
        self.previous.store(record.previous, Relaxed);
        // Whatever a peer says: what is no rate is none.
        let sound = |rate: f32| if rate.is_finite() { rate.clamp(0.0, RATE_MAX) } else { 0.0 };
        self.admitted_rate.store(sound(record.admitted_rate).to_bits(), Relaxed);
        self.asked_rate.store(sound(record.asked_rate).to_bits(), Relaxed);
        self.at.store(now.0.max(1), Relaxed);
        true
    }

    fn in_window(&self, window: u32, now: Tick) -> Option<share::Peer> {
        let at = self.at.load(Relaxed);
        if at == 0 {
            return None;
        }
        let count = self.count.load(Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        let (its, admitted) = ((count >> 32) as u32, count as u32);
        let previous = self.previous.load(Relaxed);
        let (current, previous) = match its.wrapping_sub(window) {
            0 => (admitted, previous),
            // It spoke in the window before, or its clock is a little ahead of this one.
            u32::MAX => (0, admitted),
            1 => (previous, 0),
            _ => (0, 0),
        };
        let age_us = now.since_us(Tick(at));
        let rate = |bits: &AtomicU32| {
            let a_second = f64::from(f32::from_bits(bits.load(Relaxed)));
            if age_us < RATES_BELIEVED_US { a_second / 1e6 } else { 0.0 }
        };
        Some(share::Peer {
            current: current.into(),
            previous: previous.into(),
            admitted_rate: rate(&self.admitted_rate),
            asked_rate: rate(&self.asked_rate),
            age_us: age_us as f64,
        })
    }
}
