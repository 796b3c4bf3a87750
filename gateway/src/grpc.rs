//! gRPC (grpc/doc/PROTOCOL-HTTP2.md): its requests known, and what the gateway itself says to them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::{body::ResponseBody, error::Fault};

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const KIND: &[u8] = b"application/grpc";
/// The status of a method that nobody has (grpc/doc/statuscodes.md).
const UNIMPLEMENTED: u8 = 12;

/// The content type of a request of gRPC or gRPC-Web; none of any other.
pub(crate) fn kind<'h>(method: &Method, headers: &'h HeaderMap) -> Option<&'h HeaderValue> {
    if *method != Method::POST {
        return None;
    }
    headers.get(header::CONTENT_TYPE).filter(|kind| is_grpc(kind))
}

/// Whether it is `application/grpc`, or that and what is in it, or gRPC-Web.
pub(crate) fn is_grpc(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes();
    kind.get(..KIND.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(KIND))
        && matches!(kind.get(KIND.len()), None | Some(b'+' | b';' | b' ' | b'-'))
}

/// What the gateway says to a request of this content type: a head alone ("Trailers-Only").
pub(crate) fn refusal(kind: HeaderValue, fault: &Fault, request_id: &HeaderValue) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    let status = if *fault == Fault::NO_ROUTE { UNIMPLEMENTED } else { fault.code.grpc_status() };
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    headers.insert(GRPC_MESSAGE, message(fault.text()));
    fault.mark(headers, request_id);
    response
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
    use model::Code;

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
        assert!(kind(&Method::POST, &headers).is_some() && kind(&Method::GET, &headers).is_none());
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
            let response = refusal(HeaderValue::from_static("application/grpc+proto"), &fault, &id);
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[GRPC_STATUS], status, "{fault:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc+proto");
        }
    }
}
