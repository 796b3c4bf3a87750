//! One attempt: a request sent to one target, and the wait for the head of its answer.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use futures::future::Either;
use http::{Request, StatusCode};

use super::{
    Answer, breaker,
    http2::{self, Undone},
    pool::{Lease, Wire},
    replay::Replay,
    retry::{Kept, Why},
    shared::{self, Slot},
    stream::HeldUp,
};
use crate::{
    connection::Connection,
    error::Fault,
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

/// Sends the request to this target; on a connection that is new if `fresh`.
pub(super) async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    connection: &Connection,
    mut request: Request<RequestBody>,
    fresh: bool,
) -> Result<Answer, Failed> {
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let limit = upstream.spec.timeout.response;
    let whose = upstream.transport.whose(request.headers(), connection);
    let is_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let obtained = match (upstream.transport.protocols, is_upgrade) {
        (Protocols::Http1, _) | (Protocols::Both, true) => {
            breaker::obtain(worker, upstream, target, &pool, whose, fresh).await
        }
        (Protocols::Http2, true) => {
            let fault = Fault::NO_UPGRADE;
            return Err(Failed { fault, unsent: None, why: Why::Client, reused: false });
        }
        (_, false) => Box::pin(shared::obtain(worker, upstream, target, &pool, whose, fresh)).await,
    };
    let (mut wire, reused) = match obtained {
        Ok(obtained) => obtained,
        Err(why) => {
            let fault = if why == Why::Overflow { Fault::OVERFLOW } else { Fault::BAD_GATEWAY };
            return Err(Failed { fault, unsent: Some(request), why, reused: false });
        }
    };
    let upload = request.body().progress();
    let (sending, held_up, kept) = match &mut wire {
        Wire::Own(link) => {
            link.awaited.store(true, Relaxed);
            (Either::Left(link.sender.try_send_request(request)), Some(link.held_up.clone()), None)
        }
        Wire::Shared(slot) => {
            let kept = keep(worker, &mut request);
            upload.iter().for_each(|upload| upload.offered());
            http2::to_http2(&mut request, upstream.transport.tls.is_some());
            (Either::Right(slot.send(request)), None, kept)
        }
    };
    let mut lease = Lease::new(wire, pool, upload.clone());
    let mut sending = std::pin::pin!(sending);
    let mut wait = limit;
    let sent = loop {
        if let Some(sent) = worker.deadlines.within(wait, sending.as_mut()).await {
            break sent;
        }
        // The time runs from the request's last byte, or while the target takes nothing of what there is.
        let since = match upload.as_deref() {
            None => None,
            Some(upload) => match (upload.ended_at_ms(), untaken_since_ms(held_up.as_ref(), upload)) {
                (Some(ended), _) => Some(ended),
                // The client's turn.
                (None, 0) => Some(timer::now_ms()),
                (None, since) => Some(since),
            },
        };
        let passed =
            since.map_or(limit, |since| Duration::from_millis(timer::now_ms().saturating_sub(since)));
        if passed >= limit {
            lease.slot().into_iter().for_each(Slot::was_late);
            lease.discard();
            return Err(Failed { fault: Fault::TIMEOUT, unsent: None, why: Why::Timeout, reused: false });
        }
        wait = limit.saturating_sub(passed);
    };
    let mut error = match sent {
        Ok(response) => {
            lease.slot().into_iter().for_each(Slot::answered);
            kept.into_iter().for_each(|kept| worker.spares.give(kept.spare));
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if (switches && !is_upgrade) || headers::badly_framed(response.headers()) {
                lease.discard();
                let fault = Fault::BAD_GATEWAY;
                return Err(Failed { fault, unsent: None, why: Why::Nonsense, reused: false });
            }
            if headers::says_more_than_there_is(response.status(), response.headers()) {
                lease.end_connection();
            }
            return Ok(Answer { response, lease });
        }
        Err(error) => error,
    };
    let mut unsent = error.take_message();
    let error = error.into_error();
    if let Some(slot) = lease.slot() {
        unsent.iter_mut().for_each(http2::to_http1);
        let undone = http2::undone(&error);
        if undone == Some(Undone::GoneAway) {
            slot.retire();
        }
        if undone.is_some() {
            unsent = unsent.or_else(|| kept.as_ref()?.request());
        }
        kept.into_iter().for_each(|kept| worker.spares.give(kept.spare));
    }
    lease.discard();
    let exceeded = upload.as_ref().and_then(|upload| upload.exceeded());
    if exceeded.is_some() && exceeded == worker.settings.limits.body_bytes_max {
        worker.metrics.limited(Limit::BodyBytes);
    }
    let broke_off = error.is_user() || upload.is_some_and(|upload| upload.broke_off());
    if unsent.is_none() && broke_off {
        let detail = if connection.watch.refused().is_some() {
            "The body is framed badly"
        } else {
            "The body broke off"
        };
        return Err(Failed {
            fault: exceeded.map_or_else(|| Fault::bad_request(detail), Fault::body_too_large),
            unsent: None,
            why: Why::Client,
            reused: false,
        });
    }
    tracing::debug!(upstream = %upstream.name, target = %target.label, %error, reused, "an attempt failed");
    Err(Failed { fault: Fault::BAD_GATEWAY, unsent, why: Why::Reset, reused })
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

/// Since when the target has taken nothing of a body of which there is more; 0 if it is the client's turn.
fn untaken_since_ms(held_up: Option<&HeldUp>, upload: &Progress) -> u64 {
    // What keeps up a stream of HTTP/2 is not its connection.
    held_up.map_or_else(|| upload.untaken_since_ms(), |held_up| held_up.load(Relaxed))
}
