//! Sends a request to an upstream: chooses a target, takes a connection, and tries again where that is safe.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use http::Request;
use http_body::Body;
use model::route::RouteTimeout;
use smallvec::SmallVec;

use crate::{
    access::Note,
    error::Fault,
    plan::{CompiledUpstream, endpoint::Endpoint},
    state::InFlight,
    timer,
    upload::{Progress, RequestBody},
    worker::Worker,
};

mod announce;
mod answer;
pub(crate) mod answered;
mod attempt;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod caller;
pub(crate) mod connect;
pub(crate) mod figures;
pub(crate) mod health;
pub(crate) mod hedge;
pub(crate) mod http2;
pub(crate) mod mirror;
pub(crate) mod pace;
pub(crate) mod pool;
pub(crate) mod replay;
mod resolve;
pub(crate) mod retry;
mod said;
mod shared;
pub(crate) mod stream;
mod switch;

pub(crate) use answer::Answer;
pub(crate) use replay::Reading;
pub(crate) use resolve::resolved;

use attempt::{Failed, attempt};
use balance::{Choice, Load};
use caller::Caller;
use figures::Figures;
use replay::Replay;
use retry::{Kept, Why};

/// How long forwarding one request may take.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Times {
    /// One attempt, to the head of its answer.
    attempt: Option<Duration>,
    /// All of it.
    total: Option<Duration>,
    /// When all of it must have ended, as [`timer::now_ms`].
    pub(crate) end_ms: Option<u64>,
}

impl Times {
    /// From now on, as the route says, or else the upstream.
    pub(crate) fn of(upstream: &CompiledUpstream, route: &RouteTimeout) -> Self {
        let spec = &upstream.spec.timeout;
        let limit = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
        let total = limit(route.request.unwrap_or(spec.total));
        let end_ms = total.map(|total| timer::now_ms().saturating_add(timer::millis(total)));
        Self { attempt: limit(route.attempt.unwrap_or(spec.attempt)), total, end_ms }
    }

    /// These, but no longer than the request gives itself, if it does.
    pub(crate) fn within(self, given: Option<Duration>) -> Self {
        match given.filter(|given| self.total.is_none_or(|total| *given < total)) {
            None => self,
            Some(given) => {
                let end_ms = timer::now_ms().saturating_add(timer::millis(given));
                Self { total: Some(given), end_ms: Some(end_ms), ..self }
            }
        }
    }
}

/// Counts the request as in flight, where the upstream limits that, or refuses it.
pub(crate) fn enter(worker: &Worker, upstream: &CompiledUpstream) -> Result<Option<InFlight>, Fault> {
    let limit = upstream.spec.limits.requests;
    if limit == 0 {
        return Ok(None);
    }
    InFlight::enter(&upstream.state, limit).map(Some).ok_or_else(|| {
        figures(worker, upstream).overflows.add(1);
        Fault::OVERFLOW
    })
}

fn figures<'u>(worker: &Worker, upstream: &'u CompiledUpstream) -> &'u Figures {
    upstream.state.figures.of(worker.number, || worker.settings.worker_count())
}

/// Sends the request to one of the upstream's targets, and again as its `retry` says: what was not sent at all, or what may
/// be sent twice and is kept.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    times: Times,
    caller: &Caller<'_>,
    mut request: Box<Request<RequestBody>>,
    note: &mut Note,
) -> Result<Answer, Fault> {
    let figures = figures(worker, upstream);
    figures.requests.add(1);
    let upload = request.body().progress();
    let kept = keep(worker, upstream, &mut request);
    let course = Course { worker, upstream, figures, times, caller, upload, kept, at: Cell::new(None) };
    match worker.deadlines.until(times.end_ms, pin!(course.run(request, note))).await {
        Some(answer) => answer,
        None => {
            course.overdue();
            Err(Fault::TIMEOUT)
        }
    }
}

/// What is kept of the body of a request that may be sent twice; none if it may not.
fn keep(worker: &Worker, upstream: &CompiledUpstream, request: &mut Request<RequestBody>) -> Option<Kept> {
    let retry = &upstream.spec.retry;
    if retry.attempts == 0 || !upstream.retry.takes(request.method()) {
        return None;
    }
    if matches!(request.body(), RequestBody::Empty) {
        return Some(Kept::Empty);
    }
    let bytes_max = u64::from(retry.body_bytes_max);
    if bytes_max == 0 || request.body().size_hint().lower() > bytes_max {
        return None;
    }
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    let replay = Replay::of(body, usize::try_from(bytes_max).unwrap_or(0), &worker.kept_bytes);
    *request.body_mut() = replay.clone().again()?;
    Some(Kept::Body(replay))
}

/// One request on its way through the targets of an upstream.
struct Course<'a> {
    worker: &'a Rc<Worker>,
    upstream: &'a CompiledUpstream,
    figures: &'a Figures,
    times: Times,
    caller: &'a Caller<'a>,
    upload: Option<Rc<Progress>>,
    kept: Option<Kept>,
    /// The target that has had it for longest.
    at: Cell<Option<&'a Endpoint>>,
}

impl<'a> Course<'a> {
    async fn run(&self, mut request: Box<Request<RequestBody>>, note: &mut Note) -> Result<Answer, Fault> {
        let mut retries = 0;
        let mut choice = Choice::new(self.upstream, &request);
        let mut stay: Option<&Endpoint> = None;
        // The targets whose idle connections are not to be trusted.
        let mut broken = SmallVec::<[u64; 4]>::new();
        loop {
            let (mut target, fresh) = match stay.take() {
                Some(target) => (target, true),
                None => {
                    let picked = choice.next().ok_or(Fault::UNAVAILABLE)?;
                    (picked.endpoint, picked.again && broken.contains(&picked.endpoint.state.id))
                }
            };
            let attempted = match hedge::of(self, &request, &choice) {
                None => {
                    self.at.set(Some(target));
                    note.attempt(&self.upstream.name, &target.label);
                    let attempted = self.attempt(self.caller, target, fresh, request).await;
                    note.attempted();
                    attempted
                }
                Some(hedge) => {
                    let begin = (target, fresh);
                    let racing = hedge::race(self, hedge, &mut choice, begin, request, &mut retries, note);
                    let (at, attempted) = Box::pin(racing).await;
                    target = at;
                    attempted
                }
            };
            let is_left = retries < self.upstream.spec.retry.attempts;
            let has_others = choice.has_untried();
            match attempted {
                Ok(mut answer) => {
                    let again = if is_left { self.answered(&mut answer, retries, has_others) } else { None };
                    let Some((wait, next)) = again.zip(answer.request.take()) else {
                        choice.bind(target, &mut answer.response);
                        return Ok(answer);
                    };
                    answer.throw_away();
                    self.retried(Why::Status, wait).await;
                    request = next;
                }
                Err(mut failed) if failed.reused && self.has_again(&failed) => {
                    // Not the target's fault: it may close what is idle at any time. Once more, on a new connection.
                    stay = Some(target);
                    self.worker.metrics.retries.add(1);
                    request = self.again(&mut failed).ok_or(failed.fault)?;
                    continue;
                }
                Err(mut failed) => {
                    if failed.why == Why::Overflow {
                        self.figures.overflows.add(1);
                    }
                    broken.push(target.state.id);
                    let wait = if is_left { self.failed(&failed, retries, has_others) } else { None };
                    let Some(wait) = wait else { return Err(failed.fault) };
                    request = self.again(&mut failed).ok_or(failed.fault)?;
                    self.retried(failed.why, wait).await;
                }
            }
            retries += 1;
        }
    }

    /// Sends the request to this target for this caller, for as long as an attempt may take, and judges the target by what comes of it.
    async fn attempt(
        &self,
        caller: &Caller<'_>,
        target: &'a Endpoint,
        fresh: bool,
        request: Box<Request<RequestBody>>,
    ) -> Result<Answer, Failed> {
        let Self { worker, upstream, .. } = self;
        self.figures.attempts.add(1);
        let mut load = Load::begin(&upstream.spec.balance, target);
        let began = (!upstream.spec.health.passive.slow.is_zero()).then(Instant::now);
        let attempted = attempt(worker, upstream, target, caller, self.times, request, fresh).await;
        match attempted {
            Ok(mut answer) => {
                match self.faulty(&answer, began) {
                    Some(why) => {
                        load.failed();
                        self.blame(target, &why);
                    }
                    None => {
                        load.answered();
                        health::succeeded(&target.state, &upstream.spec.health.passive);
                    }
                }
                answer.lease.load = load;
                Ok(answer)
            }
            Err(failed) => {
                if failed.why.is_to_blame() && !(failed.reused && self.has_again(&failed)) {
                    load.failed();
                    self.failed_at(target, failed.why);
                }
                Err(failed)
            }
        }
    }

    /// Whether the target has all of the request, so that it is its turn.
    fn is_sent(&self) -> bool {
        self.upload.as_ref().is_none_or(|upload| upload.ended_at_ms().is_some())
    }

    /// The time for all of it is over.
    fn overdue(&self) {
        if let Some(target) = self.at.get()
            && self.is_sent()
        {
            self.failed_at(target, Why::Timeout);
        }
    }

    /// Whether there is a request to be sent once more.
    fn has_again(&self, failed: &Failed) -> bool {
        failed.request.is_some() && (failed.unsent || self.kept.as_ref().is_some_and(Kept::is_whole))
    }

    fn again(&self, failed: &mut Failed) -> Option<Box<Request<RequestBody>>> {
        let request = failed.request.take()?;
        if failed.unsent { Some(request) } else { self.kept.as_ref()?.again(request) }
    }

    /// How long to wait before the attempt is made again; none if it is not to be.
    fn failed(&self, failed: &Failed, retries: u32, has_others: bool) -> Option<Duration> {
        if !self.has_again(failed) || !self.upstream.retry.takes_failure(failed.why) {
            return None;
        }
        // What was not sent is no load for anyone, and another target knows nothing of it.
        let is_free = failed.unsent;
        let wait = if is_free && has_others {
            Duration::ZERO
        } else {
            retry::wait(&self.upstream.spec.retry.backoff, retries)
        };
        (self.is_in_time(wait) && (is_free || self.is_affordable())).then_some(wait)
    }

    /// How long to wait before the request, which is made ready for it, is sent once more; none if this answer is the one that
    /// counts.
    fn answered(&self, answer: &mut Answer, retries: u32, has_others: bool) -> Option<Duration> {
        let request = answer.request.take()?;
        let kept = self.kept.as_ref().filter(|kept| kept.is_whole())?;
        let response = &answer.response;
        let backoff = &self.upstream.spec.retry.backoff;
        let mut wait = retry::wait(backoff, retries);
        if !has_others && let Some(asked) = retry::retry_after(response.headers(), SystemTime::now()) {
            if asked > backoff.max {
                return None;
            }
            wait = wait.max(asked);
        }
        answer.request = (self.is_in_time(wait) && self.is_affordable()).then(|| kept.again(request))?;
        Some(wait)
    }

    fn is_in_time(&self, wait: Duration) -> bool {
        let begin_ms = timer::now_ms().saturating_add(timer::millis(wait));
        self.times.end_ms.is_none_or(|end_ms| begin_ms < end_ms)
    }

    /// Takes a retry's worth from the budget, if there is so much.
    fn takes_of_budget(&self) -> bool {
        let state = &self.upstream.state;
        let requests = state.figures.sum(|figures| figures.requests.get());
        state.budget.take(&self.upstream.spec.retry.budget, requests, timer::now_ms())
    }

    fn is_affordable(&self) -> bool {
        let affordable = self.takes_of_budget();
        if !affordable {
            self.figures.retries_refused.add(1);
        }
        affordable
    }

    async fn retried(&self, why: Why, wait: Duration) {
        self.worker.metrics.retries.add(1);
        self.figures.retried(why);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Why this answer is a failure of its target; none if it is not.
    fn faulty(&self, answer: &Answer, began: Option<Instant>) -> Option<String> {
        let status = answer.response.status();
        if self.upstream.failures.has_status(status) {
            return Some(format!("it answered {}", status.as_u16()));
        }
        let took = began?.elapsed();
        let is_slow = self.upload.is_none() && took > self.upstream.spec.health.passive.slow;
        is_slow.then(|| format!("it took {} ms to answer", took.as_millis()))
    }

    fn failed_at(&self, target: &Endpoint, why: Why) {
        if self.upstream.failures.has_failure(why) {
            self.blame(target, why.in_words());
        } else {
            counted_failure(self.worker, self.upstream);
        }
    }

    fn blame(&self, target: &Endpoint, why: &str) {
        blame(self.worker, self.upstream, target, why);
    }
}

fn counted_failure(worker: &Worker, upstream: &CompiledUpstream) {
    worker.metrics.upstream_failures.add(1);
    figures(worker, upstream).failures.add(1);
}

/// Counts a failure of this target, which may take it out of use.
fn blame(worker: &Worker, upstream: &CompiledUpstream, target: &Endpoint, why: &str) {
    counted_failure(worker, upstream);
    let rule = &upstream.spec.health.passive;
    if health::failed(&target.state, rule, why, || health::may_eject(upstream)) {
        worker.metrics.ejections.add(1);
        figures(worker, upstream).ejections.add(1);
        tracing::warn!(upstream = %upstream.name, target = %target.label, reason = why, "a target is ejected");
    }
}
