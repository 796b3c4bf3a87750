//! A WebSocket on a connection of HTTP/2 to a target (RFC 8441): asked for by an extended CONNECT, and answered as a target of HTTP/1.1 would.

use std::rc::Rc;

use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::{
    Answer,
    answered::Answered,
    attempt::{Failed, answered, next},
    http2::{self, Undone},
    retry::{self, Why},
    shared::Slot,
};
use crate::{
    error::Fault, plan::CompiledUpstream, plan::endpoint::Endpoint, upload::RequestBody, websocket,
    worker::Worker,
};

/// Has the target open a WebSocket. Once it has, the answer is the 101 of HTTP/1.1, with this proof of the request's key.
pub(super) async fn switch(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    end_ms: Option<u64>,
    slot: Slot,
    mut request: Box<Request<RequestBody>>,
    proof: HeaderValue,
) -> Result<Answer, Failed> {
    let timeout = &upstream.spec.timeout;
    // It may be asked only once it has said that it takes such (RFC 8441, section 3), which comes first of all that it says.
    let saying = slot.takes_websockets();
    match worker.deadlines.until(Some(next(timeout.connect, end_ms)), std::pin::pin!(saying)).await {
        Some(Some(true)) => {}
        Some(Some(false)) => return Err(Failed::for_good(Fault::NO_UPGRADE, Why::Client)),
        Some(None) => return Err(Failed::with(Fault::BAD_GATEWAY, Why::Reset, request, true)),
        None => {
            slot.was_late();
            return Err(Failed::with(Fault::BAD_GATEWAY, Why::Connect, request, true));
        }
    }
    let head = retry::bare(&request);
    http2::to_http2(&mut request, upstream.transport.tls.is_some());
    if request.uri().authority().is_none() {
        let fault = Fault::bad_request("The Host is empty, and the upstream takes WebSockets over HTTP/2");
        return Err(Failed::for_good(fault, Why::Client));
    }
    websocket::as_connect(&mut request);
    let sending = slot.send(*request);
    let sent = worker.deadlines.until(Some(next(timeout.response, end_ms)), std::pin::pin!(sending)).await;
    let Some(sent) = sent else {
        slot.was_late();
        return Err(Failed::with(Fault::TIMEOUT, Why::Timeout, head, false));
    };
    match sent {
        Ok(mut response) if response.status() == StatusCode::OK => {
            let opening = hyper::upgrade::on(&mut response);
            let opened = opening.await.map_err(|_| Failed::for_good(Fault::BAD_GATEWAY, Why::Nonsense))?;
            let (mut parts, _) = response.into_parts();
            websocket::as_switched(&mut parts, proof);
            let response = Response::from_parts(parts, Answered::Switched(TokioIo::new(opened)));
            answered(upstream, slot, response, head)
        }
        // Of another success hyper gives no stream.
        Ok(response) if response.status().is_success() || response.status().is_informational() => {
            Err(Failed::for_good(Fault::BAD_GATEWAY, Why::Nonsense))
        }
        Ok(response) => answered(upstream, slot, response.map(Answered::Shared), head),
        Err(mut error) => {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            let undone = http2::undone(&error);
            if undone == Some(Undone::GoneAway) {
                slot.retire();
            }
            tracing::debug!(upstream = %upstream.name, target = %target.label, %error, "an attempt failed");
            Err(Failed::with(Fault::BAD_GATEWAY, Why::Reset, head, unsent || undone.is_some()))
        }
    }
}
