//! Which endpoint is next: one that the upstream's strategy draws, those passed over that are out of use or were tried.

mod draw;
mod latency;
mod load;

use model::upstream::Balance;
use smallvec::SmallVec;

pub(crate) use draw::Draw;
pub(crate) use latency::Latency;
pub(crate) use load::Load;

use super::health;
use crate::plan::{CompiledUpstream, endpoint::Endpoint};

/// Draws until one is in use; then the next that is, whatever its weight.
const DRAWS_MAX: usize = 16;

/// The choice of endpoints for one request: for its first attempt, and for each after that another.
#[derive(Debug)]
pub(crate) struct Choice<'u> {
    upstream: &'u CompiledUpstream,
    tried: SmallVec<[usize; 4]>,
}

/// An endpoint that was chosen for an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picked<'u> {
    /// What was chosen.
    pub(crate) endpoint: &'u Endpoint,
    /// Whether the request was sent there before.
    pub(crate) again: bool,
}

impl<'u> Choice<'u> {
    /// For a request to this upstream.
    pub(crate) fn new(upstream: &'u CompiledUpstream) -> Self {
        Self { upstream, tried: SmallVec::new() }
    }

    /// The next endpoint: one that is in use and was not tried; if there is none, one that was not tried; then any. None if the
    /// upstream has none.
    pub(crate) fn next(&mut self) -> Option<Picked<'u>> {
        let endpoints = self.upstream.endpoints.all();
        let at = match endpoints.len() {
            0 => return None,
            1 => 0,
            _ => {
                let is_untried = |at: usize| !self.tried.contains(&at);
                let is_in_use = |at: usize| is_untried(at) && !health::is_ejected(&endpoints[at].state);
                self.draw(is_in_use).or_else(|| self.draw(is_untried)).or_else(|| self.draw(|_| true))?
            }
        };
        let again = self.tried.contains(&at);
        if !again {
            self.tried.push(at);
        }
        Some(Picked { endpoint: &endpoints[at], again })
    }

    /// Whether there is an endpoint that was not tried.
    pub(crate) fn has_untried(&self) -> bool {
        self.tried.len() < self.upstream.endpoints.all().len()
    }

    /// What the strategy draws of those that will do.
    fn draw(&self, will_do: impl Fn(usize) -> bool) -> Option<usize> {
        let (endpoints, draw) = (self.upstream.endpoints.all(), self.upstream.endpoints.draw());
        let one_that_will_do = |draw_one: &dyn Fn() -> usize| {
            let mut last = 0;
            for _ in 0..DRAWS_MAX {
                last = draw_one();
                if will_do(last) {
                    return Some(last);
                }
            }
            (last..draw.count()).chain(0..last).find(|at| will_do(*at))
        };
        let better_of_two = |is_better: &dyn Fn(&Endpoint, &Endpoint) -> bool| {
            let (one, other) = draw.two();
            match (will_do(one), will_do(other)) {
                (true, true) if one == other || is_better(&endpoints[one], &endpoints[other]) => Some(one),
                (true, true) => Some(other),
                // Of those that are in use both would have been drawn.
                _ => {
                    let one = one_that_will_do(&|| draw.by_chance())?;
                    let other = one_that_will_do(&|| draw.by_chance())?;
                    Some(if is_better(&endpoints[one], &endpoints[other]) { one } else { other })
                }
            }
        };
        match self.upstream.spec.balance {
            Balance::RoundRobin => one_that_will_do(&|| draw.in_turn(self.upstream.state.turns.next())),
            Balance::Random => one_that_will_do(&|| draw.by_chance()),
            Balance::LeastRequests => better_of_two(&load::is_freer),
            Balance::P2c => {
                let mean = self.upstream.endpoints.mean_weight();
                better_of_two(&|one, other| load::is_faster(one, other, mean))
            }
        }
    }
}

#[cfg(test)]
mod tests;
