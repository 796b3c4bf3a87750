//! What a request adds to the load of the endpoint that it is sent to, for strategies that look at it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use model::upstream::Balance;

use crate::{plan::endpoint::Endpoint, state::TargetState, timer};

/// What an endpoint that has never answered is taken to cost while it is asked for the first time (as Finagle's `PeakEwma` does).
const PENALTY: f32 = 1e15;

/// One request's part of an endpoint's load: in flight until this is dropped. Nothing where the strategy looks at no load.
#[derive(Debug, Default)]
pub(crate) struct Load(Option<Counted>);

#[derive(Debug)]
struct Counted {
    state: Arc<TargetState>,
    /// When it was sent, until it is known how long the answer took.
    sent: Option<Instant>,
}

impl Load {
    /// A request is sent to this endpoint.
    pub(crate) fn begin(balance: &Balance, endpoint: &Endpoint) -> Self {
        let is_timed = match balance {
            Balance::RoundRobin | Balance::Random | Balance::Maglev(_) => return Self(None),
            Balance::LeastRequests => false,
            Balance::P2c => true,
        };
        endpoint.state.load.in_flight.fetch_add(1, Relaxed);
        Self(Some(Counted { state: endpoint.state.clone(), sent: is_timed.then(Instant::now) }))
    }

    /// The head of its answer is there.
    pub(crate) fn answered(&mut self) {
        if let Some((state, sent)) = self.timed() {
            state.load.latency.saw(micros_since(sent), timer::now_ms());
        }
    }

    /// It failed, or the answer says that the endpoint did.
    pub(crate) fn failed(&mut self) {
        if let Some((state, sent)) = self.timed() {
            state.load.latency.failed(micros_since(sent), timer::now_ms());
        }
    }

    fn timed(&mut self) -> Option<(&TargetState, Instant)> {
        let counted = self.0.as_mut()?;
        Some((&counted.state, counted.sent.take()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Who gave up waiting has seen how long it takes at the least.
        if let Some((state, sent)) = self.timed() {
            state.load.latency.would_exceed(micros_since(sent), timer::now_ms());
        }
        if let Some(counted) = &self.0 {
            counted.state.load.in_flight.fetch_sub(1, Relaxed);
        }
    }
}

fn micros_since(sent: Instant) -> u32 {
    u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Whether the first of two endpoints has no more requests in flight than the second, each for its weight.
pub(super) fn is_freer(one: &Endpoint, other: &Endpoint) -> bool {
    let load = |endpoint: &Endpoint| u64::from(endpoint.state.load.in_flight.load(Relaxed));
    load(one) * u64::from(other.weight) <= load(other) * u64::from(one.weight)
}

/// Whether the first of two endpoints would answer no later than the second, where `mean` is what an endpoint weighs on average: the
/// latency of late, times the requests that there would be with this one, of which one of a greater weight bears more.
pub(super) fn is_faster(one: &Endpoint, other: &Endpoint, mean: f32) -> bool {
    let now_ms = timer::now_ms();
    let cost = |endpoint: &Endpoint| {
        let in_flight = endpoint.state.load.in_flight.load(Relaxed);
        match endpoint.state.load.latency.expected_us(now_ms) {
            None if in_flight == 0 => 0.0,
            None => PENALTY * in_flight as f32,
            Some(us) => us * (1.0 + in_flight as f32 * mean / endpoint.weight as f32),
        }
    };
    cost(one) <= cost(other)
}
