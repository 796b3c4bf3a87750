//! One attempt: a request sent to one target, and the wait for the head of its answer.

use std::{rc::Rc, time::Duration};

use http::{Request, Response, StatusCode};

use super::{
    Answer,
    answered::Answered,
    breaker,
    http2::{self, Undone},
    pool::{Lease, Pool, Wire},
    replay::Replay,
    retry::{Kept, Why},
    shared::{self, Slot},
};
use crate::{
    connection::Connection,
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
    worker::Worker,
};

/// How much of a body is kept that a target of HTTP/2 may refuse, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// An attempt that came to nothing.
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// The request, if no byte of it was sent.
    pub(super) unsent: Option<Request<RequestBody>>,
    /// Why.
    pub(super) why: Why,
    /// Whether the connection had been used before: it may just have been closed for being idle.
    pub(super) reused: bool,
}

impl Failed {
    /// The request may have been sent.
    fn sent(fault: Fault, why: Why) -> Self {
        Self { fault, unsent: None, why, reused: false }
    }
}

/// Sends the request to this target; on a connection that is new if `fresh`.
pub(super) async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    connection: &Connection,
    request: Request<RequestBody>,
    fresh: bool,
) -> Result<Answer, Failed> {
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let whose = upstream.transport.whose(request.headers(), connection);
    let is_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let obtained = match (upstream.transport.protocols, is_upgrade) {
        (Protocols::Http1, _) | (Protocols::Both, true) => {
            breaker::obtain(worker, upstream, target, &pool, whose, fresh).await
        }
        (Protocols::Http2, true) => return Err(Failed::sent(Fault::NO_UPGRADE, Why::Client)),
        (_, false) => Box::pin(shared::obtain(worker, upstream, target, &pool, whose, fresh)).await,
    };
    match obtained {
        Err(why) => {
            let fault = if why == Why::Overflow { Fault::OVERFLOW } else { Fault::BAD_GATEWAY };
            Err(Failed { fault, unsent: Some(request), why, reused: false })
        }
        Ok((Wire::Own(link), reused)) => {
            let sending = own(worker, upstream, target, connection, Exchange::new(link, request), pool);
            sending.await.map_err(|failed| Failed { reused: reused && failed.why == Why::Reset, ..failed })
        }
        Ok((Wire::Shared(slot), reused)) => {
            let sending = Box::pin(on_shared(worker, upstream, target, connection, slot, request));
            sending.await.map_err(|failed| Failed { reused: reused && failed.why == Why::Reset, ..failed })
        }
    }
}

/// Has the request answered on a connection of its own.
async fn own(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    connection: &Connection,
    mut exchange: Box<Exchange>,
    pool: Rc<Pool>,
) -> Result<Answer, Failed> {
    let upload = exchange.request().body().progress();
    let (limit, bytes_max) = (upstream.spec.timeout.response, worker.settings.limits.head_bytes_max);
    let mut wait = limit;
    let answered = loop {
        let heading = std::future::poll_fn(|cx| exchange.poll_head(bytes_max, cx));
        if let Some(answered) = worker.deadlines.within(wait, heading).await {
            break answered;
        }
        match left(limit, upload.as_deref(), |_| exchange.held_since_ms()) {
            Some(left) => wait = left,
            None => return Err(Failed::sent(Fault::TIMEOUT, Why::Timeout)),
        }
    };
    match answered {
        Ok(Head { parts, .. })
            if parts.status == StatusCode::SWITCHING_PROTOCOLS
                && !exchange.request().headers().contains_key(http::header::UPGRADE) =>
        {
            Err(Failed::sent(Fault::BAD_GATEWAY, Why::Nonsense))
        }
        Ok(Head { parts, decoder, keep_alive }) => {
            let body = ResponseBytes::new(exchange, decoder, keep_alive, pool);
            let response = Response::from_parts(parts, Answered::Own(body));
            Ok(Answer { response, lease: Lease::default() })
        }
        Err(Broken::Request(_)) => Err(broke_off(worker, connection, upload.as_deref())),
        Err(error) => {
            tracing::debug!(upstream = %upstream.name, target = %target.label, %error, "an attempt failed");
            let why = if matches!(error, Broken::Bad(_)) { Why::Nonsense } else { Why::Reset };
            Err(Failed { fault: Fault::BAD_GATEWAY, unsent: exchange.into_unsent(), why, reused: false })
        }
    }
}

/// Has the request answered on a connection that others use too.
async fn on_shared(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    connection: &Connection,
    slot: Slot,
    mut request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    let limit = upstream.spec.timeout.response;
    let upload = request.body().progress();
    let kept = keep(worker, &mut request);
    upload.iter().for_each(|upload| upload.offered());
    http2::to_http2(&mut request, upstream.transport.tls.is_some());
    let mut sending = std::pin::pin!(slot.send(request));
    let mut wait = limit;
    let sent = loop {
        if let Some(sent) = worker.deadlines.within(wait, sending.as_mut()).await {
            break sent;
        }
        match left(limit, upload.as_deref(), Progress::untaken_since_ms) {
            Some(left) => wait = left,
            None => {
                slot.was_late();
                return Err(Failed::sent(Fault::TIMEOUT, Why::Timeout));
            }
        }
    };
    let mut error = match sent {
        Ok(response) => {
            slot.answered();
            kept.into_iter().for_each(|kept| worker.spares.give(kept.spare));
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                || headers::badly_framed(response.headers())
            {
                return Err(Failed::sent(Fault::BAD_GATEWAY, Why::Nonsense));
            }
            let lease = Lease { slot: Some(slot), ..Lease::default() };
            return Ok(Answer { response: response.map(Answered::Shared), lease });
        }
        Err(error) => error,
    };
    let mut unsent = error.take_message();
    let error = error.into_error();
    unsent.iter_mut().for_each(http2::to_http1);
    let undone = http2::undone(&error);
    if undone == Some(Undone::GoneAway) {
        slot.retire();
    }
    if undone.is_some() {
        unsent = unsent.or_else(|| kept.as_ref()?.request());
    }
    kept.into_iter().for_each(|kept| worker.spares.give(kept.spare));
    let is_the_clients = error.is_user() || upload.as_ref().is_some_and(|upload| upload.broke_off());
    if unsent.is_none() && is_the_clients {
        return Err(broke_off(worker, connection, upload.as_deref()));
    }
    tracing::debug!(upstream = %upstream.name, target = %target.label, %error, "an attempt failed");
    Err(Failed { fault: Fault::BAD_GATEWAY, unsent, why: Why::Reset, reused: false })
}

/// What is kept of a request that its target may refuse, whatever it is (RFC 9113, section 8.7): its head, and the beginning of a
/// body that is not kept already.
fn keep(worker: &Worker, request: &mut Request<RequestBody>) -> Option<Kept> {
    let replay = match std::mem::replace(request.body_mut(), RequestBody::Empty) {
        RequestBody::Empty => None,
        kept @ RequestBody::Kept(_) => {
            *request.body_mut() = kept;
            return None;
        }
        body => Some(Replay::of(body, BODY_BYTES_MAX, &worker.kept_bytes)),
    };
    if let Some(body) = replay.as_ref().and_then(|replay| replay.clone().again()) {
        *request.body_mut() = body;
    }
    Some(Kept { spare: worker.spares.of(request), replay })
}

/// The client's body is at fault.
fn broke_off(worker: &Worker, connection: &Connection, upload: Option<&Progress>) -> Failed {
    let exceeded = upload.and_then(Progress::exceeded);
    if exceeded.is_some() && exceeded == worker.settings.limits.body_bytes_max {
        worker.metrics.limited(Limit::BodyBytes);
    }
    let is_framed_badly = connection.watch.refused().is_some();
    let detail = if is_framed_badly { "The body is framed badly" } else { "The body broke off" };
    let fault = exceeded.map_or_else(|| Fault::bad_request(detail), Fault::body_too_large);
    Failed::sent(fault, Why::Client)
}

/// How much of the target's time to answer is left; none if it is over. It runs from the request's last byte, or while the
/// target takes nothing of what there is, which is told by `untaken_since_ms`.
fn left(
    limit: Duration,
    upload: Option<&Progress>,
    untaken_since_ms: impl FnOnce(&Progress) -> u64,
) -> Option<Duration> {
    let upload = upload?;
    let since = match (upload.ended_at_ms(), untaken_since_ms(upload)) {
        (Some(ended), _) => ended,
        // The client's turn.
        (None, 0) => return Some(limit),
        (None, since) => since,
    };
    let passed = Duration::from_millis(timer::now_ms().saturating_sub(since));
    limit.checked_sub(passed).filter(|left| !left.is_zero())
}
