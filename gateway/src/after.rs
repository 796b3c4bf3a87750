//! What policies leave to be done until the response is there: headers, and costs that only it tells.

use std::{num::NonZeroU64, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use limits::Rule;

use crate::rate_limits::RateLimits;

/// What policies leave to be done until the response is there, be it a target's or the gateway's own.
#[derive(Debug, Default)]
pub struct After {
    /// Headers for the response, in the place of what it has under these names.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What was counted for the request.
    pub charges: Vec<Charge>,
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
        let told = headers.get(&self.name).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
        told.unwrap_or(self.default).min(self.max)
    }
}

impl After {
    /// Takes back what was counted for a request that is refused after all.
    pub(crate) fn take_back(&mut self, rates: &RateLimits, now_us: u64) {
        for charge in self.charges.drain(..) {
            rates.take_back(charge.key, charge.rule, charge.cost, now_us);
        }
    }

    /// Does what was left to be done, on the headers of the response.
    pub(crate) fn finish(self, headers: &mut HeaderMap, rates: &RateLimits, now_us: impl FnOnce() -> u64) {
        if self.charges.iter().any(|charge| charge.told.is_some()) {
            settle(&self.charges, headers, rates, now_us());
        }
        self.headers.iter().for_each(|(name, _)| drop(headers.remove(name)));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
    }
}

/// Counts what the response tells of its cost, and keeps that to the gateway.
fn settle(charges: &[Charge], headers: &mut HeaderMap, rates: &RateLimits, now_us: u64) {
    let told = || charges.iter().filter_map(|charge| Some((charge, charge.told.as_ref()?)));
    for (charge, header) in told() {
        let cost = header.read(headers);
        if cost > charge.cost {
            rates.charge(charge.key, charge.rule, cost - charge.cost, now_us);
        } else if cost < charge.cost {
            rates.take_back(charge.key, charge.rule, charge.cost - cost, now_us);
        }
    }
    told().for_each(|(_, header)| drop(headers.remove(&header.name)));
}
