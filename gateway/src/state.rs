//! What outlives a Plan: the turn, the health and the load of upstreams and their targets, and what policies have done, carried from each
//! Plan to the next.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use imbl::OrdMap;
use limits::Gradient;
use model::Name;
use tokio::sync::Notify;

use crate::{
    timer,
    upstream::{balance::Latency, budget::Budget, figures::ByWorker, health::opinion::Word, hedge::Tail},
};

/// What is known of an upstream beside its config; kept for as long as the upstream is there.
#[derive(Debug, Default)]
pub struct UpstreamState {
    /// Whose turn it is.
    pub turns: Turns,
    /// Requests in flight, counted where they are limited.
    in_flight: AtomicU32,
    /// How many requests may be sent again.
    pub(crate) budget: Budget,
    /// How long its slowest answers take of late, once somebody wants to know.
    pub(crate) tail: OnceLock<Box<Tail>>,
    /// What is counted of it.
    pub(crate) figures: ByWorker,
    /// Told when it has somewhere to go, if it had not.
    pub resolved: Notify,
}

/// A request in flight at an upstream that limits these, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<UpstreamState>);

impl InFlight {
    /// Counts a request in; none if there are as many as there may be.
    pub(crate) fn enter(state: &Arc<UpstreamState>, limit: u32) -> Option<Self> {
        let more = |in_flight| (in_flight < limit).then_some(in_flight + 1);
        state.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(state.clone()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A count of turns. Each of some threads has its own, so that they don't write to one another's memory to take turns.
#[derive(Debug, Default)]
pub struct Turns(OnceLock<Box<[Turn; STRIPES]>>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Turn(AtomicU64);

impl Turns {
    /// A number that goes up by one each time it is asked for by this thread.
    pub fn next(&self) -> u64 {
        let turns = self.0.get_or_init(Box::default);
        let stripe = STRIPE.with(|stripe| *stripe);
        // Threads begin with different ones, so that not all of them begin with the same target.
        turns[stripe % STRIPES].0.fetch_add(1, Ordering::Relaxed).wrapping_add(stripe as u64)
    }
}

/// What a policy has done, for as long as there is one of its name and type.
#[derive(Debug, Default)]
pub struct Figures {
    // Some cache lines, so that threads seldom write to the same one.
    stripes: [Stripe; STRIPES],
    /// For each route that adapts how much is in flight at once, what it has found out.
    adapted: ArcSwap<OrdMap<Name, Arc<Adapted>>>,
}

/// What is in flight on a route that adapts it, and how much there may be.
#[derive(Debug, Default)]
pub struct Adapted {
    /// Requests in flight.
    pub in_flight: AtomicU32,
    /// How many there may be.
    pub gradient: Gradient,
}

/// Routes of which it is known what they adapted to; of more it is found out anew.
const ADAPTED_MAX: usize = 100_000;

/// Cache lines for what many threads write.
const STRIPES: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe {
    admitted: AtomicU64,
    refused: AtomicU64,
    would_refuse: AtomicU64,
}

impl Figures {
    /// A request was admitted.
    pub fn admit(&self) {
        self.stripe().admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused.
    pub fn refuse(&self) {
        self.stripe().refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A request would have been refused by a policy that only watches.
    pub fn would_refuse(&self) {
        self.stripe().would_refuse.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were admitted, refused, and let through though a policy that only watches would have refused them.
    pub fn sums(&self) -> [u64; 3] {
        self.stripes.iter().fold([0; 3], |[admitted, refused, would_refuse], stripe| {
            [
                admitted.wrapping_add(stripe.admitted.load(Ordering::Relaxed)),
                refused.wrapping_add(stripe.refused.load(Ordering::Relaxed)),
                would_refuse.wrapping_add(stripe.would_refuse.load(Ordering::Relaxed)),
            ]
        })
    }

    /// What this route has found out.
    pub fn adapted(&self, route: &Name) -> Arc<Adapted> {
        if let Some(adapted) = self.adapted.load().get(route) {
            return adapted.clone();
        }
        let new = Arc::<Adapted>::default();
        self.adapted.rcu(|known| {
            let mut known = if known.len() < ADAPTED_MAX { OrdMap::clone(known) } else { OrdMap::new() };
            known.entry(route.clone()).or_insert_with(|| new.clone());
            known
        });
        self.adapted.load().get(route).cloned().unwrap_or(new)
    }

    fn stripe(&self) -> &Stripe {
        &self.stripes[STRIPE.with(|stripe| *stripe) % STRIPES]
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// What is known of one target; kept for as long as its upstream has its address.
#[derive(Debug)]
pub struct TargetState {
    /// No other target of this process has or had it: what connection pools are keyed by.
    pub id: u64,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// Ejections in a row.
    pub ejections: AtomicU32,
    /// When it may be used again, in milliseconds of the health checker's monotonic clock; 0 if it is not ejected.
    pub ejected_until_ms: AtomicU64,
    /// Since when it is in use, or from when on it will be, in milliseconds of the same clock. Whoever takes a target out of use, or brings it
    /// back, says so here: its share grows from then on, where the upstream starts slowly.
    pub in_use_since_ms: AtomicU64,
    /// Whether its checks say that it is not well.
    pub unhealthy: AtomicBool,
    /// What checks have found, for people: the newest word of each who checks it.
    pub found: ArcSwapOption<Vec<Word>>,
    /// Whether its checks are left to others now.
    pub is_left_to_others: AtomicBool,
    /// Failures among requests of late, packed, where they are counted.
    pub window: AtomicU64,
    /// Why it was last taken out of use.
    pub why: ArcSwapOption<String>,
    /// What it has to do.
    pub load: TargetLoad,
}

/// What a target has to do, where the balance strategy looks at it: in a line of memory of its own, since the rest is written seldom and
/// read for each request.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct TargetLoad {
    /// Requests in flight.
    pub in_flight: AtomicU32,
    /// How long it takes to answer.
    pub latency: Latency,
}

impl TargetState {
    /// A target of which nothing bad is known.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        timer::refresh();
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            in_use_since_ms: AtomicU64::new(timer::now_ms()),
            unhealthy: AtomicBool::new(false),
            found: ArcSwapOption::const_empty(),
            is_left_to_others: AtomicBool::new(false),
            window: AtomicU64::new(0),
            why: ArcSwapOption::const_empty(),
            load: TargetLoad::default(),
        }
    }
}

impl Default for TargetState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_flight_are_bounded_and_counted_out() {
        let state = Arc::<UpstreamState>::default();
        let two = [InFlight::enter(&state, 2), InFlight::enter(&state, 2)];
        assert!(two.iter().all(Option::is_some) && InFlight::enter(&state, 2).is_none());
        drop(two);
        assert!(InFlight::enter(&state, 1).is_some());
    }
}
