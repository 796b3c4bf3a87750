//! One attempt: a request sent to one target, and the wait for the head of its answer.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{connect::connect, pool::Lease};
use crate::{
    connection::Watch,
    error::Fault,
    headers,
    plan::{CompiledUpstream, endpoint::Endpoint},
    timer,
    upload::RequestBody,
    worker::Worker,
};

/// What a target answered, and the connection on which the rest of it comes.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// An attempt that came to nothing.
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// The request, if no byte of it was sent.
    pub(super) unsent: Option<Request<RequestBody>>,
    /// Whether the target is at fault, and not the client.
    pub(super) blame: bool,
    /// Whether it may be tried again.
    pub(super) again: bool,
    /// Whether the connection had been used before: it may just have been closed for being idle.
    pub(super) reused: bool,
}

impl Failed {
    fn unsent(fault: Fault, request: Request<RequestBody>) -> Self {
        Self { fault, unsent: Some(request), blame: true, again: true, reused: false }
    }
}

/// Sends the request to this target; on a connection that is new if `fresh`.
pub(super) async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    watch: &Watch,
    request: Request<RequestBody>,
    fresh: bool,
) -> Result<Answer, Failed> {
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let limit = upstream.spec.timeout.response;
    let whose = upstream.transport.whose(request.headers());
    let (mut link, reused) = match if fresh { None } else { pool.take(whose.as_deref()) } {
        Some(link) => (link, true),
        None => match connect(worker, upstream, target, whose).await {
            Ok(link) => (link, false),
            Err(error) => {
                worker.metrics.unconnected(&error);
                let (upstream, target) = (&upstream.name, &target.label);
                if error.is_of_config() && pool.may_tell() {
                    tracing::warn!(%upstream, %target, %error, "a target can't be connected to");
                } else {
                    tracing::debug!(%upstream, %target, %error, "a target can't be connected to");
                }
                return Err(Failed::unsent(Fault::BAD_GATEWAY, request));
            }
        },
    };
    let upload = request.body().progress();
    let held_up = link.held_up.clone();
    let is_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let sending = link.sender.try_send_request(request);
    let lease = Lease::new(link, pool, upload.clone());
    let mut sending = std::pin::pin!(sending);
    let mut wait = limit;
    let sent = loop {
        if let Some(sent) = worker.deadlines.within(wait, sending.as_mut()).await {
            break sent;
        }
        // The time runs from the request's last byte, or while the target takes nothing of what there is.
        let since = match upload.as_deref() {
            None => None,
            Some(upload) => match (upload.ended_at_ms(), held_up.load(Relaxed)) {
                (Some(ended), _) => Some(ended),
                // The client's turn.
                (None, 0) => Some(timer::now_ms()),
                (None, since) => Some(since),
            },
        };
        let passed =
            since.map_or(limit, |since| Duration::from_millis(timer::now_ms().saturating_sub(since)));
        if passed >= limit {
            lease.discard();
            return Err(Failed {
                fault: Fault::TIMEOUT,
                unsent: None,
                blame: true,
                again: false,
                reused: false,
            });
        }
        wait = limit.saturating_sub(passed);
    };
    let mut error = match sent {
        Ok(response) => {
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if (switches && !is_upgrade) || headers::badly_framed(response.headers()) {
                lease.discard();
                let fault = Fault::BAD_GATEWAY;
                return Err(Failed { fault, unsent: None, blame: true, again: false, reused: false });
            }
            return Ok(Answer { response, lease });
        }
        Err(error) => error,
    };
    lease.discard();
    let unsent = error.take_message();
    let error = error.into_error();
    if unsent.is_none() && error.is_user() {
        let detail =
            if watch.refused().is_some() { "The body is framed badly" } else { "The body broke off" };
        return Err(Failed {
            fault: Fault::bad_request(detail),
            unsent: None,
            blame: false,
            again: false,
            reused: false,
        });
    }
    tracing::debug!(upstream = %upstream.name, target = %target.label, %error, reused, "an attempt failed");
    Err(Failed { fault: Fault::BAD_GATEWAY, unsent, blame: true, again: true, reused })
}
