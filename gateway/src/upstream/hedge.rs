//! One more attempt, at another target, while an answer takes long: the first that can be passed on is, and the others are dropped, which
//! ends their connections of HTTP/1.1 and resets their streams of HTTP/2.
//!
//! A hedge is a retry that is made early: it takes one of the request's attempts and its worth of the budget, and what may not be sent
//! twice is not hedged. Who is dropped has neither answered nor failed, so that nothing is held against its target.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use http::{Request, header};
use model::upstream::{After, Hedge};
use smallvec::SmallVec;

use super::{
    Answer, Course,
    attempt::Failed,
    balance::Choice,
    caller::Caller,
    retry::{self, Why},
};
use crate::{
    access::Note,
    plan::{CompiledUpstream, endpoint::Endpoint},
    state::InFlight,
    timer,
    upload::RequestBody,
};

mod tail;

pub(crate) use tail::Tail;

/// When the request is to be hedged, if it may be: as it may be sent twice, asks for no tunnel, and no cookie says where it is to go.
pub(super) fn of<'a>(
    course: &Course<'a>,
    request: &Request<RequestBody>,
    choice: &Choice<'_>,
) -> Option<&'a Hedge> {
    let hedge = course.upstream.spec.hedge.as_deref()?;
    let is_bound = choice.is_bound() || request.headers().contains_key(header::UPGRADE);
    (course.kept.is_some() && !is_bound).then_some(hedge)
}

/// Sends the request to this target, on a connection that is new if the target is to be asked afresh, and to others while there is no answer, and has what
/// became of it, and at which of them. Each that it is sent to besides is one of its retries.
pub(super) async fn race<'a>(
    course: &Course<'a>,
    hedge: &Hedge,
    choice: &mut Choice<'a>,
    (target, fresh): (&'a Endpoint, bool),
    request: Box<Request<RequestBody>>,
    retries: &mut u32,
    note: &mut Note,
) -> (&'a Endpoint, Result<Answer, Failed>) {
    let (tail, delay) = match hedge.after {
        After::Time(time) => (None, Some(time)),
        After::Percentile(percent) => {
            let tail: &Tail = course.upstream.state.tail.get_or_init(Box::default);
            let time = tail.percentile(percent, timer::now_ms());
            (Some(tail), time.map(|time| time.max(hedge.floor)))
        }
    };
    // Whoever waits hears of interim responses from one target.
    let unheard = Caller::gateway(course.caller.connection);
    let head = retry::bare(&request);
    let mut race = Race { course, unheard: &unheard, choice, head, runners: SmallVec::new() };
    race.first(target, fresh, request, tail);
    note.attempt(&course.upstream.name, &target.label);
    let attempts = course.upstream.spec.retry.attempts;
    let mut left = delay.map_or(0, |_| hedge.max.min(attempts.saturating_sub(*retries)));
    let delay = delay.unwrap_or_default();
    let mut due = pin!(tokio::time::sleep(delay));
    loop {
        tokio::select! {
            biased;
            (at, attempted) = ended(&mut race.runners) => {
                let runner = race.runners.remove(at);
                if let Some(ended) = race.judge(runner, attempted, note) {
                    return ended;
                }
            }
            () = due.as_mut(), if left > 0 => {
                left = match race.hedge() {
                    More::Sent => {
                        *retries += 1;
                        note.hedged();
                        left - 1
                    }
                    More::Later => left,
                    More::None => 0,
                };
                due.as_mut().reset(tokio::time::Instant::now() + delay);
            }
        }
    }
}

/// The attempts of one request that are under way at once.
struct Race<'r, 'a> {
    course: &'r Course<'a>,
    /// For whom hedges are sent.
    unheard: &'r Caller<'a>,
    choice: &'r mut Choice<'a>,
    /// The request without its body.
    head: Box<Request<RequestBody>>,
    /// In the order in which they began.
    runners: SmallVec<[Runner<'r, 'a>; 2]>,
}

/// One of them.
struct Runner<'r, 'a> {
    target: &'a Endpoint,
    attempt: Pin<Box<dyn Future<Output = Result<Answer, Failed>> + 'r>>,
    began: Instant,
    /// None of hedges: one that is dropped early would look fast.
    timing: Option<Timing<'a>>,
    is_hedge: bool,
    /// A hedge's place among the requests in flight, where these are limited. The request's own goes on to the end of its answer.
    _in_flight: Option<InFlight>,
}

/// What came of the wish for one more.
enum More {
    Sent,
    /// Perhaps later.
    Later,
    None,
}

impl<'r, 'a> Race<'r, 'a> {
    fn first(
        &mut self,
        target: &'a Endpoint,
        fresh: bool,
        request: Box<Request<RequestBody>>,
        tail: Option<&'a Tail>,
    ) {
        let began = Instant::now();
        let course = self.course;
        course.at.set(Some(target));
        self.runners.push(Runner {
            target,
            attempt: Box::pin(course.attempt(course.caller, target, fresh, request)),
            began,
            timing: tail.map(|tail| Timing { tail, began }),
            is_hedge: false,
            _in_flight: None,
        });
    }

    /// Sends the request to one more target, if there is one that is in use and was not tried, and neither limits nor the budget are in the way.
    fn hedge(&mut self) -> More {
        let course = self.course;
        if !course.is_sent() {
            return More::Later;
        }
        let Some(in_flight) = room(course.upstream) else { return More::None };
        let Some(spare) = self.choice.spare() else { return More::None };
        let request = course.kept.as_ref().and_then(|kept| kept.beside(retry::bare(&self.head)));
        let Some(request) = request else { return More::None };
        if !course.takes_of_budget() {
            course.figures.hedges_refused.add(1);
            return More::None;
        }
        course.figures.hedges.add(1);
        let target = self.choice.take(spare).endpoint;
        self.runners.push(Runner {
            target,
            attempt: Box::pin(course.attempt(self.unheard, target, false, request)),
            began: Instant::now(),
            timing: None,
            is_hedge: true,
            _in_flight: in_flight,
        });
        More::Sent
    }

    /// What the race comes to, now that this attempt has ended so; none if another is to be waited for.
    fn judge(
        &mut self,
        mut runner: Runner<'r, 'a>,
        attempted: Result<Answer, Failed>,
        note: &mut Note,
    ) -> Option<(&'a Endpoint, Result<Answer, Failed>)> {
        // Such an answer is one after which the request may be sent again.
        let would_be_retried = attempted.as_ref().is_ok_and(|answer| answer.request.is_some());
        let says_how_long = match &attempted {
            Ok(_) => !would_be_retried,
            Err(failed) => failed.why == Why::Timeout,
        };
        if !says_how_long && let Some(timing) = runner.timing.take() {
            timing.forget();
        }
        let is_last = self.runners.is_empty();
        let is_good = match &attempted {
            Ok(_) => !would_be_retried,
            // What the client does wrong is wrong wherever it goes.
            Err(failed) => failed.why == Why::Client,
        };
        if !is_last && !is_good {
            if let Ok(answer) = attempted {
                answer.throw_away();
            }
            self.course.at.set(self.runners.first().map(|oldest| oldest.target));
            return None;
        }
        let won = runner.is_hedge && attempted.is_ok() && is_good;
        if won {
            self.course.figures.hedges_won.add(1);
        }
        note.attempted_at(&runner.target.label, runner.began.elapsed(), won);
        Some((runner.target, attempted))
    }
}

/// A place for one more request, which is none where nothing is limited; or none at all. Where requests wait for connections, one that needs none
/// of its own would be in their way.
#[expect(clippy::option_option, reason = "there may be room of which nothing needs to be kept")]
fn room(upstream: &CompiledUpstream) -> Option<Option<InFlight>> {
    if upstream.connections.as_ref().is_some_and(|connections| connections.is_waited_for()) {
        return None;
    }
    match upstream.spec.limits.requests {
        0 => Some(None),
        limit => InFlight::enter(&upstream.state, limit).map(Some),
    }
}

/// The first of these that has ended, and how.
async fn ended(runners: &mut [Runner<'_, '_>]) -> (usize, Result<Answer, Failed>) {
    poll_fn(|cx| {
        let ended = runners.iter_mut().enumerate().find_map(|(at, runner)| {
            let Poll::Ready(attempted) = runner.attempt.as_mut().poll(cx) else { return None };
            Some((at, attempted))
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Tells how long an attempt was under way, however it ended: answered, dropped for another, or given up by its client.
struct Timing<'a> {
    tail: &'a Tail,
    began: Instant,
}

impl Timing<'_> {
    /// It ended in a way that says nothing.
    fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.tail.saw(self.began.elapsed(), timer::now_ms());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Name;

    use super::*;
    use crate::{names::Names, plan::Surroundings};

    #[test]
    fn one_more_takes_a_place_where_requests_are_limited() {
        let upstream = |limits: &str| {
            let text = format!(r#"{{"targets":[{{"address":"a:1"}}],"limits":{{{limits}}}}}"#);
            let spec = Arc::new(serde_json::from_str(&text).unwrap());
            let around = Surroundings::new(Names::new().0, None);
            CompiledUpstream::compile(&Name::new("u").unwrap(), &spec, None, &around, |_| None).unwrap()
        };
        assert!(matches!(room(&upstream("")), Some(None)));
        let limited = upstream(r#""requests":2"#);
        let of_the_request = InFlight::enter(&limited.state, 2);
        let place = room(&limited);
        assert!(matches!(place, Some(Some(_))));
        assert!(room(&limited).is_none());
        drop(place);
        assert!(room(&limited).is_some());
        drop(of_the_request);
    }
}
