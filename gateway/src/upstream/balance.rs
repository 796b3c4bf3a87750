//! Which endpoint is next: the one that the request's cookie is of; else one that the upstream's strategy draws, those passed over
//! that are out of use or were tried.

mod affinity;
mod draw;
mod latency;
mod levels;
mod load;
mod maglev;
mod slow_start;

use http::{HeaderValue, Request, Response, header};
use model::upstream::Balance;
use smallvec::SmallVec;

pub(crate) use affinity::{Affinity, Binding};
pub(crate) use draw::Draw;
pub(crate) use latency::Latency;
pub(crate) use levels::Shares;
pub(crate) use load::Load;
pub(crate) use maglev::Table;

use self::levels::Health;
use super::health;
use crate::{
    chance,
    plan::{
        CompiledUpstream,
        endpoint::{Endpoint, Level},
    },
    timer,
};

/// Draws until one is in use; then the next that is, whatever its weight.
const DRAWS_MAX: usize = 16;

/// The choice of endpoints for one request: for its first attempt, and for each after that another.
#[derive(Debug)]
pub(crate) struct Choice<'u> {
    upstream: &'u CompiledUpstream,
    affinity: Affinity,
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
    /// For this request to this upstream. Where it should go is among its extensions, if it says so.
    pub(crate) fn new<B>(upstream: &'u CompiledUpstream, request: &Request<B>) -> Self {
        let affinity = match upstream.binding {
            Some(_) => request.extensions().get().copied().unwrap_or_default(),
            None => Affinity::default(),
        };
        Self::with(upstream, affinity)
    }

    /// For what says this of where it should go.
    pub(crate) fn with(upstream: &'u CompiledUpstream, affinity: Affinity) -> Self {
        Self { upstream, affinity, tried: SmallVec::new() }
    }

    /// The next endpoint: one that is in use and was not tried; if there is none, one that was not tried; then any. None if the
    /// upstream has none.
    pub(crate) fn next(&mut self) -> Option<Picked<'u>> {
        let endpoints = &self.upstream.endpoints;
        let at = match (endpoints.all(), endpoints.levels()) {
            ([], _) => return None,
            ([_], [_]) => 0,
            _ => self.choose()?,
        };
        Some(self.take(at))
    }

    /// The place of one more endpoint that is in use and was not tried, if there is one.
    pub(crate) fn spare(&self) -> Option<usize> {
        self.choose_in_use()
    }

    /// The endpoint at this place, which is tried now.
    pub(crate) fn take(&mut self, at: usize) -> Picked<'u> {
        let again = self.tried.contains(&at);
        if !again {
            self.tried.push(at);
        }
        Picked { endpoint: &self.upstream.endpoints.all()[at], again }
    }

    /// Whether a cookie says where the request goes.
    pub(crate) fn is_bound(&self) -> bool {
        self.affinity.bound.is_some()
    }

    /// Whether there is an endpoint that was not tried, other than for its cookies.
    pub(crate) fn has_untried(&self) -> bool {
        (0..self.upstream.endpoints.drawn()).any(|at| !self.tried.contains(&at))
    }

    /// Sets the cookie by which further requests get to this endpoint, which has answered this one, if they are to and would not; but none
    /// of an endpoint that answers in a way that counts as its failure.
    pub(crate) fn bind<B>(&self, answered: &Endpoint, response: &mut Response<B>) {
        let is_failure = matches!(response.status().as_u16(), 502..=504);
        if let Some(cookie) = self.cookie(answered).filter(|_| !is_failure) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }

    fn cookie(&self, answered: &Endpoint) -> Option<HeaderValue> {
        let binding = self.upstream.binding.as_ref()?;
        binding.cookie(self.affinity, self.upstream.endpoints.place(answered)?)
    }

    fn choose(&self) -> Option<usize> {
        let is_untried = |at: usize| !self.tried.contains(&at);
        let in_use = self.choose_in_use();
        in_use.or_else(|| self.draw(|at, _| is_untried(at))).or_else(|| self.draw(|_, _| true))
    }

    /// One that is in use and was not tried.
    fn choose_in_use(&self) -> Option<usize> {
        let (endpoints, spec) = (&self.upstream.endpoints, &self.upstream.spec);
        if let Some(shares) = endpoints.shares() {
            let health = endpoints.levels().iter().map(|level| Health {
                in_use: endpoints
                    .of(level)
                    .iter()
                    .filter(|one| is_in_use(one))
                    .map(|one| u64::from(one.weight))
                    .sum(),
                all: level.weight,
            });
            shares.refresh(spec.panic_percent, health);
        }
        let is_untried = |at: usize| !self.tried.contains(&at);
        let all = endpoints.all();
        if let Some(at) = self.affinity.bound.filter(|at| is_untried(*at) && is_in_use(&all[*at])) {
            return Some(at);
        }
        let will_do = |at: usize, in_panic: bool| is_untried(at) && (in_panic || is_in_use(&all[at]));
        let window_ms = timer::millis(spec.slow_start);
        // A key leads to one target, however new that is.
        if window_ms > 0 && self.affinity.hash.is_none() {
            let is_taken =
                |at: usize, in_panic| will_do(at, in_panic) && slow_start::takes(&all[at].state, window_ms);
            if let Some(at) = self.draw(is_taken) {
                return Some(at);
            }
        }
        self.draw(will_do)
    }

    /// What the strategy draws of those that will do, of the level whose share it is, or of another.
    fn draw(&self, will_do: impl Fn(usize, bool) -> bool) -> Option<usize> {
        let levels = self.upstream.endpoints.levels();
        let Some(shares) = self.upstream.endpoints.shares() else {
            return self.draw_of(levels.first()?, |at| will_do(at, false));
        };
        let number =
            self.affinity.hash.map_or_else(chance::number, |hash| maglev::next_choice(hash, u64::MAX));
        let first = shares.by(number);
        std::iter::once(first).chain((0..levels.len()).filter(|other| *other != first)).find_map(|level| {
            let in_panic = shares.is_in_panic(level);
            self.draw_of(levels.get(level)?, |at| will_do(at, in_panic))
        })
    }

    fn draw_of(&self, level: &Level, will_do: impl Fn(usize) -> bool) -> Option<usize> {
        let (endpoints, draw) = (self.upstream.endpoints.of(level), &level.draw);
        let will_do = |place: &usize| will_do(level.first + *place);
        let first_of = |choices: &mut dyn Iterator<Item = usize>| {
            let mut last = 0;
            let found = choices.inspect(|place| last = *place).find(&will_do);
            found.or_else(|| (last..draw.count()).chain(0..last).find(will_do))
        };
        let in_turn = || (0..DRAWS_MAX).map(|_| draw.in_turn(self.upstream.state.turns.next()));
        let by_chance = || (0..DRAWS_MAX).map(|_| draw.by_chance());
        let better_of_two = |is_better: &dyn Fn(&Endpoint, &Endpoint) -> bool| {
            let (mut one, mut other) = draw.two();
            if !will_do(&one) || !will_do(&other) {
                // Of those that are in use both would have been drawn.
                (one, other) = (first_of(&mut by_chance())?, first_of(&mut by_chance())?);
            }
            Some(if one == other || is_better(&endpoints[one], &endpoints[other]) { one } else { other })
        };
        let place = match (&self.upstream.spec.balance, self.affinity.hash, &level.table) {
            (Balance::Maglev(_), Some(hash), Some(table)) => {
                let choices = 0..DRAWS_MAX as u64;
                first_of(&mut choices.map(|choice| table.at(maglev::next_choice(hash, choice))))
            }
            (Balance::RoundRobin | Balance::Maglev(_), ..) => first_of(&mut in_turn()),
            (Balance::Random, ..) => first_of(&mut by_chance()),
            (Balance::LeastRequests, ..) => better_of_two(&load::is_freer),
            (Balance::P2c, ..) => better_of_two(&|one, other| load::is_faster(one, other, level.mean_weight)),
        };
        Some(level.first + place?)
    }
}

/// Whether requests go there.
fn is_in_use(endpoint: &Endpoint) -> bool {
    !health::is_out(&endpoint.state)
}

#[cfg(test)]
mod tests;
