//! A target that is checked: when, by whom, and what is made of it.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use model::upstream::Active;
use siphasher::sip128::SipHasher13;

use super::{
    opinion::{Opinion, Others, Word, fresh_ms},
    probe::Ill,
};
use crate::{
    chance,
    checks::{Checks, Finding, Sharers},
    plan::{CompiledUpstream, endpoint::Endpoint},
    timer,
};

/// Keys of the digests of targets: digits of e, the same on all nodes of all versions.
const SEED: (u64, u64) = (2_718_281_828_459_045_235, 3_602_874_713_526_624_977);
/// For so many intervals a target is checked here after a request to it has failed.
const WATCHED_INTERVALS: u64 = 10;

/// A target that is checked.
pub(super) struct Checked {
    upstream: RefCell<Arc<CompiledUpstream>>,
    /// Its place among the upstream's.
    at: Cell<usize>,
    digest: Cell<u64>,
    due_ms: Cell<u64>,
    is_running: Cell<bool>,
    opinion: RefCell<Opinion>,
    /// What a check made here has last come to.
    own: Cell<Option<Word>>,
    /// Till then others are given time to say something.
    waits_until_ms: Cell<u64>,
    /// Till then it is checked here whatever others say.
    watched_until_ms: Cell<u64>,
    /// Requests in a row that had failed when it was last looked.
    failures: Cell<u32>,
}

impl Checked {
    /// The target at this place, not checked yet.
    pub(super) fn new(upstream: &Arc<CompiledUpstream>, at: usize, active: &Active, is_shared: bool) -> Self {
        let (interval_ms, now_ms) = (timer::millis(active.interval), timer::now_ms());
        let new = Self {
            upstream: RefCell::new(upstream.clone()),
            at: Cell::new(at),
            digest: Cell::new(0),
            // Not all at once, on all nodes, after a change.
            due_ms: Cell::new(now_ms + chance::below(interval_ms / 4)),
            is_running: Cell::new(false),
            opinion: RefCell::default(),
            own: Cell::new(None),
            waits_until_ms: Cell::new(if is_shared { now_ms + fresh_ms(active) } else { 0 }),
            watched_until_ms: Cell::new(0),
            failures: Cell::new(0),
        };
        new.digest.set(new.digested(active));
        new
    }

    /// A digest of it and of how it is checked.
    pub(super) fn digest(&self) -> u64 {
        self.digest.get()
    }

    fn digested(&self, active: &Active) -> u64 {
        let upstream = self.upstream.borrow();
        let Some(target) = upstream.endpoints.all().get(self.at.get()) else { return 0 };
        // It is made of plain fields.
        let how = serde_json::to_string(active).unwrap_or_default();
        let text = format!("{}\0{}\0{how}", upstream.name, target.label);
        SipHasher13::new_with_keys(SEED.0, SEED.1).hash(text.as_bytes()).h1
    }

    /// Goes by this upstream, which is compiled anew, and where the target has this place.
    pub(super) fn follow(&self, upstream: &Arc<CompiledUpstream>, at: usize, active: &Active) {
        if self.is_of(upstream) {
            return;
        }
        *self.upstream.borrow_mut() = upstream.clone();
        self.at.set(at);
        let next_ms = timer::now_ms() + timer::millis(active.interval);
        self.due_ms.set(self.due_ms.get().min(next_ms));
        let digest = self.digested(active);
        if self.digest.replace(digest) != digest {
            self.opinion.borrow_mut().forget_others();
            self.waits_until_ms.set(timer::now_ms() + fresh_ms(active));
        }
    }

    /// Whether it is compiled like this.
    pub(super) fn is_of(&self, upstream: &Arc<CompiledUpstream>) -> bool {
        Arc::ptr_eq(&self.upstream.borrow(), upstream)
    }

    /// Its upstream, and its place there.
    pub(super) fn upstream(&self) -> (Arc<CompiledUpstream>, usize) {
        (self.upstream.borrow().clone(), self.at.get())
    }

    /// Nobody checks it any more, and nobody would find out that it is well again.
    pub(super) fn forget(&self) {
        let _ = self.with(|_, target| {
            target.state.unhealthy.store(false, Relaxed);
            target.state.found.store(None);
            target.state.is_left_to_others.store(false, Relaxed);
        });
    }

    fn with<T>(&self, then: impl FnOnce(&Active, &Endpoint) -> T) -> Option<T> {
        let upstream = self.upstream.borrow();
        let active = upstream.spec.health.active.as_ref()?;
        Some(then(active, upstream.endpoints.all().get(self.at.get())?))
    }

    /// Whether to check it now. Then it is under way, until [`Self::end`].
    pub(super) fn begin(&self, sharers: &Sharers) -> bool {
        if self.due_ms.get() > timer::now_ms() || self.is_running.get() {
            return false;
        }
        let is_left = self.with(|active, target| {
            let is_left = self.is_left_to_others(active, target, sharers);
            if target.state.is_left_to_others.load(Relaxed) != is_left {
                target.state.is_left_to_others.store(is_left, Relaxed);
            }
            let interval_ms = timer::millis(active.interval);
            // What is left to others is looked at again sooner: they may fall silent.
            let (least_ms, spread_ms) = match is_left {
                true => (interval_ms / 8, interval_ms / 8),
                false => (interval_ms - interval_ms / 10, interval_ms / 5),
            };
            self.due_ms.set(timer::now_ms() + least_ms + chance::below(spread_ms));
            is_left
        });
        self.is_running.set(is_left == Some(false));
        self.is_running.get()
    }

    fn is_left_to_others(&self, active: &Active, target: &Endpoint, sharers: &Sharers) -> bool {
        let now_ms = timer::now_ms();
        let failures = target.state.failures.load(Relaxed);
        if failures > self.failures.replace(failures) {
            let watched_ms = timer::millis(active.interval).saturating_mul(WATCHED_INTERVALS);
            self.watched_until_ms.set(now_ms + watched_ms);
        }
        if active.checkers == 0
            || sharers.is_alone()
            || target.state.unhealthy.load(Relaxed)
            || now_ms < self.watched_until_ms.get()
            || sharers.is_mine(self.digest.get(), active.checkers)
        {
            return false;
        }
        match self.opinion.borrow().others(active, now_ms) {
            Others::Well => true,
            Others::Ill => false,
            Others::Silent => now_ms < self.waits_until_ms.get(),
        }
    }

    /// A check has ended, whatever came of it.
    pub(super) fn end(&self) {
        self.is_running.set(false);
    }

    /// Takes what a check made here has come to, and lets the others know if it is for this one to find out.
    pub(super) fn conclude(&self, checks: &Checks, found: Result<(), Ill>) {
        let sharers = checks.sharers();
        let upstream = self.upstream.borrow().name.clone();
        let told = self.with(|active, target| {
            let state = &target.state;
            let before = state.unhealthy.load(Relaxed);
            let after = self.opinion.borrow_mut().check(active, before, found.is_ok());
            let target = &target.label;
            if let Err(ill) = found {
                if !before && after {
                    tracing::warn!(%upstream, %target, reason = %ill, "a target is out of use: its checks fail");
                }
                if after {
                    state.why.store(Some(Arc::new(ill.into_owned())));
                }
            } else if before && !after {
                state.in_use_since_ms.store(timer::now_ms(), Relaxed);
                tracing::info!(%upstream, %target, "a target is in use again: its checks are good");
            }
            state.unhealthy.store(after, Relaxed);
            let own = Word { by: sharers.me, is_well: !after, at_ms: timer::now_ms() };
            let is_mine = active.checkers > 0 && sharers.is_mine(self.digest.get(), active.checkers);
            let is_new = self.own.replace(Some(own)).is_none_or(|word| word.is_well != own.is_well);
            (is_mine && !sharers.is_alone()).then_some((own.is_well, is_new))
        });
        if let Some((is_well, is_new)) = told.flatten() {
            checks.tell(Finding { target: self.digest.get(), is_well }, is_new);
        }
        self.show();
    }

    /// Hears what another has found.
    pub(super) fn hear(&self, by: u64, is_well: bool) {
        let is_called_for = self.with(|active, target| {
            let word = Word { by, is_well, at_ms: timer::now_ms() };
            let unhealthy = target.state.unhealthy.load(Relaxed);
            let is_new = self.opinion.borrow_mut().hear(active, unhealthy, word);
            if active.checkers > 0 && is_new {
                // Soon, but not by all at the same moment.
                let soon_ms = timer::now_ms() + chance::below(timer::millis(active.interval) / 8);
                self.due_ms.set(self.due_ms.get().min(soon_ms));
            }
            active.checkers > 0
        });
        if is_called_for == Some(true) {
            self.show();
        }
    }

    /// Leaves what is known for people.
    fn show(&self) {
        let now_ms = timer::now_ms();
        let _ = self.with(|active, target| {
            let opinion = self.opinion.borrow();
            let mut words: Vec<Word> = opinion.words(active, now_ms).copied().collect();
            words.extend(self.own.get());
            words.sort_by_key(|word| word.by);
            target.state.found.store(Some(Arc::new(words)));
        });
    }
}
