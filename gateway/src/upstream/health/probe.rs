//! One check of one target: what it is asked, and whether its answer says that it is well.

use std::{borrow::Cow, rc::Rc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use model::upstream::{Active, GrpcCheck, HttpCheck};

use super::super::{
    Times,
    answered::Answered,
    attempt::attempt,
    caller::Caller,
    connect::{Offer, connect},
    retry::Why,
};
use crate::{
    connection::Connection,
    plan::{CompiledUpstream, endpoint::Endpoint},
    upload::RequestBody,
    worker::Worker,
};

const USER_AGENT: HeaderValue = HeaderValue::from_static("phalanx-health-check");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// The most bytes of an answer of gRPC that are read.
const ANSWER_BYTES_MAX: usize = 4_096;

/// What is wrong with a target.
pub(super) type Ill = Cow<'static, str>;

/// Asks the target. None if nothing can be said of it now.
pub(super) async fn ask(
    worker: &Rc<Worker>,
    connection: &Connection,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    active: &Active,
) -> Option<Result<(), Ill>> {
    let asking = async {
        if let Some(check) = &active.http {
            let request = http(check, target);
            return answered(worker, connection, upstream, target, request, async |answer| {
                well(check, answer.status().as_u16())
            })
            .await;
        }
        if let Some(check) = &active.grpc {
            return answered(worker, connection, upstream, target, grpc(check, target), serving).await;
        }
        connected(worker, connection, upstream, target).await
    };
    match tokio::time::timeout(active.timeout, asking).await {
        Ok(Err(None)) => None,
        Ok(Err(Some(ill))) => Some(Err(ill)),
        Ok(Ok(())) => Some(Ok(())),
        Err(_) => Some(Err(late(active.timeout))),
    }
}

fn late(timeout: Duration) -> Ill {
    format!("there was no answer within {}", model::duration::format(timeout)).into()
}

/// Why an attempt came to nothing; none if that says nothing of the target.
fn ill(why: Why) -> Option<Ill> {
    why.is_to_blame().then(|| why.in_words().into())
}

async fn answered(
    worker: &Rc<Worker>,
    connection: &Connection,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    request: Box<Request<RequestBody>>,
    judge: impl AsyncFnOnce(Response<Answered>) -> Result<(), Ill>,
) -> Result<(), Option<Ill>> {
    let caller = Caller::gateway(connection);
    let attempted = attempt(worker, upstream, target, &caller, Times::default(), request, true).await;
    let answer = attempted.map_err(|failed| ill(failed.why))?;
    let judged = judge(answer.response).await;
    // Each check is by a connection of its own, so that it is known whether the target takes one.
    worker.pools.of(target.state.id, upstream.transport.id).clear();
    judged.map_err(Some)
}

async fn connected(
    worker: &Rc<Worker>,
    connection: &Connection,
    upstream: &CompiledUpstream,
    target: &Endpoint,
) -> Result<(), Option<Ill>> {
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let nothing = http::HeaderMap::new();
    let whose = upstream.transport.whose(&nothing, connection);
    let connecting = connect(worker, upstream, target, &pool, whose, None, Offer::All);
    connecting.await.map(drop).map_err(ill)
}

fn host(target: &Endpoint, told: &str) -> HeaderValue {
    let host = if told.is_empty() { &*target.authority } else { told };
    HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""))
}

fn http(check: &HttpCheck, target: &Endpoint) -> Box<Request<RequestBody>> {
    let mut request = Box::new(Request::new(RequestBody::Empty));
    if check.method == "HEAD" {
        *request.method_mut() = http::Method::HEAD;
    }
    *request.uri_mut() = check.path.parse().unwrap_or_default();
    request.headers_mut().insert(header::HOST, host(target, &check.host));
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    request
}

fn well(check: &HttpCheck, status: u16) -> Result<(), Ill> {
    let good = if check.statuses.is_empty() {
        (200..300).contains(&status)
    } else {
        check.statuses.contains(&status)
    };
    if good { Ok(()) } else { Err(format!("it answered {status}").into()) }
}

/// A `HealthCheckRequest` (grpc/doc/health-checking.md): the service is field 1, a string.
fn grpc(check: &GrpcCheck, target: &Endpoint) -> Box<Request<RequestBody>> {
    let service = check.service.as_bytes();
    let mut message = BytesMut::new();
    if let (false, Ok(length)) = (service.is_empty(), u8::try_from(service.len())) {
        message.put_u8(0x0A);
        if length >= 0x80 {
            message.put_slice(&[length, 1]);
        } else {
            message.put_u8(length);
        }
        message.put_slice(service);
    }
    let mut body = BytesMut::new();
    // Not compressed, so many bytes (grpc/doc/PROTOCOL-HTTP2.md).
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or_default());
    body.put(message);
    let mut request = Box::new(Request::new(RequestBody::Full(Some(body.freeze()))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(GRPC_PATH);
    request.headers_mut().insert(header::HOST, host(target, ""));
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    request.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    request.headers_mut().insert(header::TE, TRAILERS);
    request
}

async fn serving(answer: Response<Answered>) -> Result<(), Ill> {
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answered {}", answer.status().as_u16()).into());
    }
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Ill::from("its answer broke off"))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()) {
        Some("0") => {}
        Some(status) => return Err(format!("it answered with grpc-status {status}").into()),
        None => return Err("its answer has no grpc-status".into()),
    }
    match status_of(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(2) => Err("it says that it is not serving".into()),
        Some(3) => Err("it says that it does not know the service".into()),
        _ => Err("it does not say whether it is serving".into()),
    }
}

/// The status in a `HealthCheckResponse`: field 1, a number; 1 is SERVING. One that is 0 is not written.
fn status_of(body: &Bytes) -> Option<u8> {
    let message = body.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_grpc_are_as_its_protocol_says() {
        let target = Endpoint {
            label: "a:1".into(),
            authority: "a:1".into(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1,
            state: Default::default(),
            rank: Default::default(),
        };
        let body = |service: &str| match grpc(&GrpcCheck { service: service.into() }, &target).into_body() {
            RequestBody::Full(Some(bytes)) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(body(""), [0, 0, 0, 0, 0]);
        assert_eq!(body("ab"), [0, 0, 0, 0, 4, 0x0A, 2, b'a', b'b']);
        let long = body(&"s".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0A, 200, 1]);
        assert_eq!(status_of(&Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])), Some(1));
        assert_eq!(status_of(&Bytes::from_static(&[0, 0, 0, 0, 0])), Some(0));
        assert_eq!(status_of(&Bytes::from_static(&[0, 0])), None);
    }

    #[test]
    fn the_statuses_that_are_named_are_well_and_else_2xx() {
        let check = HttpCheck::default();
        assert!(well(&check, 204).is_ok() && well(&check, 301).is_err() && well(&check, 503).is_err());
        let check = HttpCheck { statuses: vec![401], ..check };
        assert!(well(&check, 401).is_ok() && well(&check, 200).is_err());
    }
}
