//! What policies leave to be done until the response is there: headers, costs that only it tells, and whatever else they do to it.

use std::{
    num::NonZeroU64,
    rc::Rc,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use limits::{Bounds, Rule};
use smallvec::SmallVec;

use crate::{
    body::ResponseBody,
    grpc::Call,
    metrics::Metrics,
    policy::compress::Memory,
    rate_limits::RateLimits,
    state::{Adapted, InFlight},
};

/// What policies leave to be done until the response is there, be it a target's or the gateway's own.
#[derive(Debug, Default)]
pub struct After {
    /// Headers for the response, in the place of what it has under these names.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
    /// What was counted for the request.
    pub charges: SmallVec<[Charge; 2]>,
    /// What is in flight as long as the exchange is.
    pub permits: Vec<Permit>,
    /// Headers of the response that are for the gateway alone.
    pub hidden: SmallVec<[HeaderName; 1]>,
    /// The most bytes that the request's body may have.
    pub body_bytes_max: Option<u64>,
    /// For how long the request is held up before it goes where its route leads, or is refused.
    pub delay: Option<Duration>,
    /// What is done to the response, the last first: the policy that saw the request first sees the response last. Refusals of later
    /// policies and the gateway's own errors come by here too.
    pub(crate) layers: Vec<Box<dyn Layer>>,
    /// The request, if it is one of gRPC.
    pub(crate) call: Option<Call>,
    /// The request's body is base64, which its target does not get it as.
    pub(crate) from_base64: bool,
    /// The target is told that trailers are taken, whether or not the client said so.
    pub(crate) wants_trailers: bool,
}

/// What a policy does to a response on its way to the client.
pub(crate) trait Layer: std::fmt::Debug {
    /// Changes its head, or its body.
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, about: &About<'_>);
}

/// What there is to know for it of a response besides itself.
pub(crate) struct About<'a> {
    /// The code of the problem document that the gateway has made; none of any other response.
    pub(crate) problem: Option<&'static str>,
    /// The request's id.
    pub(crate) id: &'a HeaderValue,
    /// The worker's figures.
    pub(crate) metrics: &'a Arc<Metrics>,
    /// What the worker's encoders may take.
    pub(crate) encoders: &'a Rc<Memory>,
}

/// Something that is counted as in flight until this is dropped.
#[derive(Debug)]
pub enum Permit {
    /// Under a limit that nodes share.
    Shared(limits::Permit),
    /// On a route that adapts to how long its target takes.
    Adaptive(Adaptive),
    /// At an upstream that limits them.
    Upstream(InFlight),
}

/// A request on a route that adapts to how long its target takes.
#[derive(Debug)]
pub struct Adaptive {
    adapted: Arc<Adapted>,
    bounds: Bounds,
    began: Instant,
    /// How many were in flight with it.
    in_flight: u32,
}

impl Adaptive {
    /// Counts a request in; none if there are as many as there may be.
    pub(crate) fn enter(adapted: Arc<Adapted>, bounds: Bounds) -> Option<Self> {
        let limit = adapted.gradient.limit(bounds);
        let add = |in_flight| (in_flight < limit).then(|| in_flight + 1);
        let before = adapted.in_flight.fetch_update(AcqRel, Relaxed, add).ok()?;
        Some(Self { adapted, bounds, began: Instant::now(), in_flight: before + 1 })
    }

    /// The target has answered now.
    fn answered(&self, now_us: u64) {
        let took_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.adapted.gradient.sample(self.bounds, took_us, self.in_flight, now_us);
    }
}

impl Drop for Adaptive {
    fn drop(&mut self) {
        self.adapted.in_flight.fetch_sub(1, AcqRel);
    }
}

/// What was counted for a request under one limit.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The counter's.
    pub key: NonZeroU64,
    /// The limit.
    pub rule: Rule,
    /// How much.
    pub cost: u32,
    /// Where the response tells how much it should have been.
    pub told: Option<Arc<CostHeader>>,
}

/// A header with the cost of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct CostHeader {
    /// Its name.
    pub name: HeaderName,
    /// What a request costs that has none, or one that is no number.
    pub default: u32,
    /// The most that is believed.
    pub max: u32,
}

impl CostHeader {
    /// The cost that these headers tell.
    pub fn read(&self, headers: &HeaderMap) -> u32 {
        // The last line is that of whoever is nearest.
        let last = headers.get_all(&self.name).iter().next_back();
        let told = last.and_then(|value| value.to_str().ok()?.trim().parse::<u128>().ok());
        told.map_or(self.default, |told| u32::try_from(told).unwrap_or(u32::MAX)).min(self.max)
    }
}

impl After {
    /// Takes back what was counted for a request that is refused after all.
    pub(crate) fn take_back(&mut self, rates: &RateLimits, now_us: u64) {
        for charge in self.charges.drain(..) {
            rates.take_back(charge.key, charge.rule, charge.cost, now_us);
        }
    }

    /// A target has answered.
    pub(crate) fn answered(&self, now_us: impl FnOnce() -> u64) {
        let mut adaptive = self.permits.iter().filter_map(|permit| match permit {
            Permit::Adaptive(adaptive) => Some(adaptive),
            Permit::Shared(_) | Permit::Upstream(_) => None,
        });
        if let Some(first) = adaptive.next() {
            let now_us = now_us();
            [first].into_iter().chain(adaptive).for_each(|adaptive| adaptive.answered(now_us));
        }
    }

    /// Does what was left to be done.
    pub(crate) fn finish(
        &mut self,
        response: &mut Response<ResponseBody>,
        about: &About<'_>,
        rates: &RateLimits,
        now_us: impl FnOnce() -> u64,
    ) {
        let layers = std::mem::take(&mut self.layers);
        self.tell(response.headers_mut(), rates, now_us);
        layers.into_iter().rev().for_each(|layer| layer.respond(response, about));
    }

    /// Settles what was counted, and tells where the client stands.
    pub(crate) fn tell(&mut self, headers: &mut HeaderMap, rates: &RateLimits, now_us: impl FnOnce() -> u64) {
        if self.charges.iter().any(|charge| charge.told.is_some()) {
            settle(&self.charges, headers, rates, now_us());
        }
        self.hidden.iter().for_each(|name| drop(headers.remove(name)));
        headers.reserve(self.headers.len());
        let mut set = SmallVec::<[HeaderName; 4]>::new();
        for (name, value) in self.headers.drain(..) {
            if set.contains(&name) {
                headers.append(name, value);
            } else {
                set.push(name.clone());
                headers.insert(name, value);
            }
        }
    }
}

/// Counts what the response tells of its cost.
fn settle(charges: &[Charge], headers: &HeaderMap, rates: &RateLimits, now_us: u64) {
    for (charge, header) in charges.iter().filter_map(|charge| Some((charge, charge.told.as_ref()?))) {
        let cost = header.read(headers);
        if cost > charge.cost {
            rates.charge(charge.key, charge.rule, cost - charge.cost, now_us);
        } else if cost < charge.cost {
            rates.take_back(charge.key, charge.rule, charge.cost - cost, now_us);
        }
    }
}
