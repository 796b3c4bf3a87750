//! gRPC (grpc/doc/PROTOCOL-HTTP2.md): its requests known, how long they give, and what the gateway itself says to them.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use model::Code;

use crate::{
    body::{BodyError, ResponseBody, Wrapping},
    error::Fault,
};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const KIND: &[u8] = b"application/grpc";
/// The status of a method that nobody has (grpc/doc/statuscodes.md).
const UNIMPLEMENTED: u8 = 12;
const TOO_LONG: &str = "The upstream took too long";
const BROKE_OFF: &str = "The upstream broke off";
/// The statuses of streams that their target resets, of which the nine outcomes know nothing.
const CANCELLED: u8 = 1;
const INTERNAL: u8 = 13;

/// A request of gRPC or gRPC-Web, which is told in that what there is to say.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its content type.
    kind: HeaderValue,
    /// How long it gives, from when it came.
    pub(crate) timeout: Option<Duration>,
}

impl Call {
    /// None of any other request.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if *method != Method::POST {
            return None;
        }
        let kind = headers.get(header::CONTENT_TYPE).filter(|kind| is_grpc(kind))?;
        Some(Self { kind: kind.clone(), timeout: timeout(headers) })
    }

    /// What the gateway says to it: a head alone ("Trailers-Only").
    pub(crate) fn refusal(&self, fault: &Fault, request_id: &HeaderValue) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.kind.clone());
        let status = if *fault == Fault::NO_ROUTE { UNIMPLEMENTED } else { fault.code.grpc_status() };
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
        headers.insert(GRPC_MESSAGE, message(fault.text()));
        fault.mark(headers, request_id);
        response
    }
}

/// Whether it is `application/grpc`, or that and what is in it, or gRPC-Web.
fn is_grpc(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes();
    kind.get(..KIND.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(KIND))
        && matches!(kind.get(KIND.len()), None | Some(b'+' | b';' | b' ' | b'-'))
}

/// How long the request gives: at most eight digits, and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3_600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// An answer that ends with a status, even where its target's does not: of a body that breaks off its client would know nothing.
#[derive(Debug)]
pub(crate) struct Ends<B>(Option<B>);

impl<B> Ends<B> {
    pub(crate) fn new(body: B) -> Self {
        Self(Some(body))
    }
}

impl<B> Body for Ends<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        let Some(Err(error)) = frame else { return Poll::Ready(frame) };
        // With it goes the target's stream.
        self.0 = None;
        let (status, text) = status_of(&error);
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
        trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(text));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Wrapping for Ends<ResponseBody> {
    fn inner(&mut self) -> Option<&mut ResponseBody> {
        self.0.as_mut()
    }
}

/// The status of a body that breaks off (grpc/doc/PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping").
fn status_of(error: &BodyError) -> (u8, &'static str) {
    let cause = match error {
        BodyError::Timeout => return (Code::Timeout.grpc_status(), TOO_LONG),
        BodyError::Http(error) => error.source(),
        _ => None,
    };
    let reason = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()?.reason());
    let status = match reason {
        None | Some(Reason::REFUSED_STREAM) => Code::Unavailable.grpc_status(),
        Some(Reason::CANCEL) => CANCELLED,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::Exhausted.grpc_status(),
        Some(Reason::INADEQUATE_SECURITY) => Code::Denied.grpc_status(),
        Some(_) => INTERNAL,
    };
    (status, BROKE_OFF)
}

/// The text with all but visible ASCII and spaces, and `%`, as percent and two digits.
fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // It is all visible ASCII and spaces now.
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC;charset=utf-8", true),
            ("application/grpc-web-text+proto", true),
            ("application/grpcx", false),
            ("application/json", false),
            ("application/grp", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(kind)), is, "{kind}");
        }
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        assert!(Call::of(&Method::POST, &headers).is_some() && Call::of(&Method::GET, &headers).is_none());
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, want) in [
            ("1S", Some(Duration::from_secs(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("0m", Some(Duration::ZERO)),
            ("250m", Some(Duration::from_millis(250))),
            ("3M", Some(Duration::from_secs(180))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("1s", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]);
            assert_eq!(timeout(&headers), want, "{text:?}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("a b%c\n~"), "a b%25c%0A~");
        assert_eq!(message("ü"), "%C3%BC");
    }

    #[test]
    fn what_the_gateway_says_has_a_status() {
        let id = HeaderValue::from_static("1");
        for (fault, status) in [
            (Fault::NO_ROUTE, "12"),
            (Fault::BAD_GATEWAY, "14"),
            (Fault::TIMEOUT, "4"),
            (Fault::bad_request("x"), "3"),
            (Fault::refusal(Code::Exhausted, "", None), "8"),
            (Fault::refusal(Code::Unauthenticated, "", None), "16"),
            (Fault::refusal(Code::Denied, "", None), "7"),
        ] {
            let call = Call { kind: HeaderValue::from_static("application/grpc+proto"), timeout: None };
            let response = call.refusal(&fault, &id);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[GRPC_STATUS], status, "{fault:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc+proto");
        }
    }
}
