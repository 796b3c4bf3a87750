//! One attempt: a request sent to one target, and the wait for the head of its answer.

use std::{
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
};

use http::{Request, Response, StatusCode};

use super::{
    Answer, Times,
    answered::Answered,
    breaker,
    caller::Caller,
    http2::{self, Undone},
    pool::{Lease, Pool, Wire},
    replay::Replay,
    retry::{self, Kept, Why},
    shared::{self, Slot},
    switch::switch,
};
use crate::{
    error::Fault,
    h1::{
        client::{Broken, Exchange, ResponseBytes},
        response::Head,
    },
    headers,
    plan::{CompiledUpstream, endpoint::Endpoint, transport::Protocols},
    settings::Limit,
    timer,
    upload::{Progress, RequestBody},
    websocket,
    worker::Worker,
};

/// How much of a body is kept that a target of HTTP/2 may refuse, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// An attempt that came to nothing.
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// The request, as far as it is still there.
    pub(super) request: Option<Box<Request<RequestBody>>>,
    /// Whether no byte of it was sent, so that it is whole.
    pub(super) unsent: bool,
    /// Why.
    pub(super) why: Why,
    /// Whether the connection had been used before: it may just have been closed for being idle.
    pub(super) reused: bool,
}

impl Failed {
    /// It is not to be sent again.
    pub(super) fn for_good(fault: Fault, why: Why) -> Self {
        Self { fault, request: None, unsent: false, why, reused: false }
    }

    /// It may be sent again: for the first time, or as far as its body is kept.
    pub(super) fn with(fault: Fault, why: Why, request: Box<Request<RequestBody>>, unsent: bool) -> Self {
        Self { fault, request: Some(request), unsent, why, reused: false }
    }

    /// It may be that a connection that was not new ended for being idle.
    fn on(self, reused: bool) -> Self {
        Self { reused: reused && self.why == Why::Reset, ..self }
    }
}

/// Sends the request to this target; on a connection that is new if `fresh`.
pub(super) async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    caller: &Caller<'_>,
    times: Times,
    request: Box<Request<RequestBody>>,
    fresh: bool,
) -> Result<Answer, Failed> {
    let end_ms = times.attempt.map(|limit| timer::now_ms().saturating_add(timer::millis(limit)));
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let whose = upstream.transport.whose(request.headers(), caller.connection);
    let is_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let proof = if is_upgrade && upstream.transport.protocols == Protocols::Http2 {
        // There is no other upgrade in it.
        let proof = websocket::proof_of(request.headers());
        Some(proof.map_err(|fault| Failed::for_good(fault, Why::Client))?)
    } else {
        None
    };
    // All of it may have less time than the attempt.
    let queue_end_ms = end_ms.into_iter().chain(times.end_ms).min();
    let obtained = match (upstream.transport.protocols, is_upgrade) {
        (Protocols::Http1, _) | (Protocols::Both, true) => {
            let idle = if fresh { None } else { pool.take(whose.as_deref()) };
            match idle {
                Some(link) => Some(Ok((Wire::Own(link), true))),
                None => {
                    let wanted = (whose, fresh);
                    let obtaining = breaker::obtain(worker, upstream, target, &pool, wanted, queue_end_ms);
                    worker.deadlines.until(end_ms, Box::pin(obtaining)).await
                }
            }
        }
        (Protocols::Http2, _) | (Protocols::Both, false) => {
            let wanted = (whose, fresh);
            let obtaining = shared::obtain(worker, upstream, target, &pool, wanted, queue_end_ms);
            worker.deadlines.until(end_ms, Box::pin(obtaining)).await
        }
    };
    match obtained {
        None => Err(Failed::with(Fault::TIMEOUT, Why::Connect, request, true)),
        Some(Err(why)) => {
            let fault = if why == Why::Overflow { Fault::OVERFLOW } else { Fault::BAD_GATEWAY };
            Err(Failed::with(fault, why, request, true))
        }
        Some(Ok((Wire::Own(link), reused))) => {
            let exchange = Exchange::new(link, request);
            let sending = own(worker, upstream, target, caller, end_ms, exchange, pool);
            sending.await.map_err(|failed| failed.on(reused))
        }
        Some(Ok((Wire::Shared(slot), reused))) => {
            let sent = match proof {
                None => Box::pin(on_shared(worker, upstream, target, caller, end_ms, slot, request)).await,
                Some(proof) => Box::pin(switch(worker, upstream, target, end_ms, slot, request, proof)).await,
            };
            sent.map_err(|failed| failed.on(reused))
        }
    }
}

/// Has the request answered on a connection of its own.
async fn own(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    caller: &Caller<'_>,
    end_ms: Option<u64>,
    mut exchange: Box<Exchange>,
    pool: Rc<Pool>,
) -> Result<Answer, Failed> {
    let upload = exchange.request().body().progress();
    let (limit, bytes_max) = (upstream.spec.timeout.response, worker.settings.limits.head_bytes_max);
    let mut wait = limit;
    let answered = loop {
        // What comes before the answer does not put off when it is due.
        let heading = std::future::poll_fn(|cx| {
            loop {
                match ready!(exchange.poll_head(bytes_max, cx)) {
                    Ok(head) if head.is_interim() => caller.hear(worker, head.parts),
                    answered => return Poll::Ready(answered),
                }
            }
        });
        if let Some(answered) = worker.deadlines.until(Some(next(wait, end_ms)), heading).await {
            break answered;
        }
        match left(limit, end_ms, upload.as_deref(), |_| exchange.held_since_ms()) {
            Ok(left) => wait = left,
            Err(why) => {
                let (request, unsent) = exchange.into_request();
                return Err(Failed::with(Fault::TIMEOUT, why, request, unsent));
            }
        }
    };
    match answered {
        Ok(Head { parts, .. })
            if parts.status == StatusCode::SWITCHING_PROTOCOLS
                && !exchange.request().headers().contains_key(http::header::UPGRADE) =>
        {
            Err(Failed::for_good(Fault::BAD_GATEWAY, Why::Nonsense))
        }
        Ok(Head { parts, decoder, keep_alive }) => {
            let request = upstream.retry.takes_answer(parts.status).then(|| exchange.take_head());
            let body = ResponseBytes::new(exchange, decoder, keep_alive, pool);
            let response = Response::from_parts(parts, Answered::Own(body));
            Ok(Answer { response, lease: Lease::default(), request })
        }
        Err(Broken::Request(_)) => Err(broke_off(worker, caller, upload.as_deref())),
        Err(error) => {
            tracing::debug!(upstream = %upstream.name, target = %target.label, %error, "an attempt failed");
            let why = if matches!(error, Broken::Bad(_)) { Why::Nonsense } else { Why::Reset };
            let (request, unsent) = exchange.into_request();
            Err(Failed::with(Fault::BAD_GATEWAY, why, request, unsent))
        }
    }
}

/// Has the request answered on a connection that others use too.
async fn on_shared(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    caller: &Caller<'_>,
    end_ms: Option<u64>,
    slot: Slot,
    mut request: Box<Request<RequestBody>>,
) -> Result<Answer, Failed> {
    let limit = upstream.spec.timeout.response;
    let upload = request.body().progress();
    // It is handed over, and may be wanted again.
    let head = retry::bare(&request);
    let kept = keep(worker, &mut request);
    upload.iter().for_each(|upload| upload.offered());
    http2::to_http2(&mut request, upstream.transport.tls.is_some());
    let mut sending = std::pin::pin!(slot.send(*request));
    let mut wait = limit;
    let sent = loop {
        if let Some(sent) = worker.deadlines.until(Some(next(wait, end_ms)), sending.as_mut()).await {
            break sent;
        }
        match left(limit, end_ms, upload.as_deref(), Progress::untaken_since_ms) {
            Ok(left) => wait = left,
            Err(why) => {
                slot.was_late();
                return Err(Failed::with(Fault::TIMEOUT, why, head, false));
            }
        }
    };
    let mut error = match sent {
        Ok(response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Failed::for_good(Fault::BAD_GATEWAY, Why::Nonsense));
            }
            return answered(upstream, slot, response.map(Answered::Shared), head);
        }
        Err(error) => error,
    };
    let mut unsent = error.take_message().map(Box::new);
    let error = error.into_error();
    unsent.iter_mut().for_each(|request| http2::to_http1(request));
    let undone = http2::undone(&error);
    if undone == Some(Undone::GoneAway) {
        slot.retire();
    }
    if undone.is_some() && unsent.is_none() {
        unsent = kept.and_then(|kept| kept.again(retry::bare(&head)));
    }
    let is_the_clients = error.is_user() || upload.as_ref().is_some_and(|upload| upload.broke_off());
    if unsent.is_none() && is_the_clients {
        return Err(broke_off(worker, caller, upload.as_deref()));
    }
    tracing::debug!(upstream = %upstream.name, target = %target.label, %error, "an attempt failed");
    let is_unsent = unsent.is_some();
    Err(Failed::with(Fault::BAD_GATEWAY, Why::Reset, unsent.unwrap_or(head), is_unsent))
}

/// The answer that came on this connection to this request, which may be sent again after it.
pub(super) fn answered(
    upstream: &CompiledUpstream,
    slot: Slot,
    response: Response<Answered>,
    head: Box<Request<RequestBody>>,
) -> Result<Answer, Failed> {
    slot.answered();
    if headers::badly_framed(response.headers()) {
        return Err(Failed::for_good(Fault::BAD_GATEWAY, Why::Nonsense));
    }
    let lease = Lease { slot: Some(slot), ..Lease::default() };
    let request = upstream.retry.takes_answer(response.status()).then_some(head);
    Ok(Answer { response, lease, request })
}

/// What is kept of the body of a request that its target may refuse, whatever it is (RFC 9113, section 8.7): its beginning, if it is
/// not kept already by who will send it again.
fn keep(worker: &Worker, request: &mut Request<RequestBody>) -> Option<Kept> {
    let replay = match std::mem::replace(request.body_mut(), RequestBody::Empty) {
        RequestBody::Empty => return Some(Kept::Empty),
        RequestBody::Kept(reading) => {
            let kept = reading.kept_by_no_other().map(Kept::Body);
            *request.body_mut() = RequestBody::Kept(reading);
            return kept;
        }
        body => Replay::of(body, BODY_BYTES_MAX, &worker.kept_bytes),
    };
    if let Some(body) = replay.clone().again() {
        *request.body_mut() = body;
    }
    Some(Kept::Body(replay))
}

/// The client's body is at fault.
fn broke_off(worker: &Worker, caller: &Caller<'_>, upload: Option<&Progress>) -> Failed {
    let exceeded = upload.and_then(Progress::exceeded);
    if exceeded.is_some() && exceeded == worker.settings.limits.body_bytes_max {
        worker.metrics.limited(Limit::BodyBytes);
    }
    let is_framed_badly = caller.connection.watch.refused().is_some();
    let detail = if is_framed_badly { "The body is framed badly" } else { "The body broke off" };
    let fault = exceeded.map_or_else(|| Fault::bad_request(detail), Fault::body_too_large);
    Failed::for_good(fault, Why::Client)
}

/// When to look again: after so long, or when the attempt's time is over.
pub(super) fn next(wait: Duration, end_ms: Option<u64>) -> u64 {
    let at_ms = timer::now_ms().saturating_add(timer::millis(wait));
    end_ms.map_or(at_ms, |end_ms| at_ms.min(end_ms))
}

/// How much of the target's time to answer is left, or whose fault it is that there is none. It runs from the request's last byte, or
/// while the target takes nothing of what there is, which is told by `untaken_since_ms`; the attempt's runs in any case.
fn left(
    limit: Duration,
    end_ms: Option<u64>,
    upload: Option<&Progress>,
    untaken_since_ms: impl FnOnce(&Progress) -> u64,
) -> Result<Duration, Why> {
    let is_over = end_ms.is_some_and(|end_ms| timer::now_ms() >= end_ms);
    let Some(upload) = upload else { return Err(Why::Timeout) };
    let since = match (upload.ended_at_ms(), untaken_since_ms(upload)) {
        (Some(ended), _) => ended,
        (None, 0) if is_over => return Err(Why::Client),
        // The client's turn.
        (None, 0) => return Ok(limit),
        (None, since) => since,
    };
    let passed = Duration::from_millis(timer::now_ms().saturating_sub(since));
    limit.checked_sub(passed).filter(|left| !is_over && !left.is_zero()).ok_or(Why::Timeout)
}
