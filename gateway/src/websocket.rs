//! WebSocket over HTTP/2 (RFC 8441), of clients and to targets. In between it is what it is in HTTP/1.1, with a key and its proof (RFC 6455,
//! section 4.1): those are between the gateway and whichever of the two speaks HTTP/1.1.

use ::aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts, response};

use crate::{error::Fault, upgrade::UPGRADE};

/// What is put behind a key to be digested (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// How many bytes a key is made of.
const KEY_BYTES: usize = 16;
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// The key that a request was given, by which the target's answer is known.
#[derive(Debug, Clone)]
pub(crate) struct Key(HeaderValue);

/// A mark on the answer that opens a tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opens;

/// Makes an extended CONNECT the GET that asks for an upgrade.
pub(crate) fn as_http1(head: &mut Parts, protocol: &hyper::ext::Protocol) -> Result<(), Fault> {
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Err(Fault::bad_request("The :protocol is not served here"));
    }
    let mut chance = [0; KEY_BYTES];
    rand::fill(&mut chance).map_err(|_| Fault::UNAVAILABLE)?;
    let key = HeaderValue::try_from(STANDARD.encode(chance)).map_err(|_| Fault::UNAVAILABLE)?;
    head.method = Method::GET;
    head.headers.insert(header::UPGRADE, WEBSOCKET);
    head.headers.insert(header::CONNECTION, UPGRADE);
    head.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    head.extensions.insert(Key(key));
    Ok(())
}

impl Key {
    /// Whether the target has understood what it was asked.
    pub(crate) fn is_proven(&self, headers: &HeaderMap) -> bool {
        let proof = proof(&self.0);
        headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|given| given.as_bytes() == proof.as_bytes())
    }
}

/// The proof that a key is understood.
fn proof(key: &HeaderValue) -> String {
    let mut digested = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    digested.update(key.as_bytes());
    digested.update(GUID);
    STANDARD.encode(digested.finish())
}

/// The proof that a client is to be given whose WebSocket a target of HTTP/2 opens, where there is no key. An error if its request for an
/// upgrade is not for a WebSocket, or has no key that is one (RFC 6455, section 4.2.1).
pub(crate) fn proof_of(headers: &HeaderMap) -> Result<HeaderValue, Fault> {
    let protocol = headers.get(header::UPGRADE);
    if !protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Err(Fault::NO_UPGRADE);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let is_key = |key: &&HeaderValue| STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == KEY_BYTES);
    let proof = keys.next().filter(is_key).filter(|_| keys.next().is_none()).map(proof);
    proof
        .and_then(|proof| HeaderValue::try_from(proof).ok())
        .ok_or_else(|| Fault::bad_request("A WebSocket needs one Sec-WebSocket-Key, of 16 bytes in base64"))
}

/// Makes a request for an upgrade to a WebSocket, which is in the form of HTTP/2 besides, an extended CONNECT.
pub(crate) fn as_connect<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::CONNECT;
    for name in [header::UPGRADE, header::SEC_WEBSOCKET_KEY] {
        request.headers_mut().remove(name);
    }
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
}

/// Makes the answer by which a target opens a WebSocket the one of HTTP/1.1, with this proof.
pub(crate) fn as_switched(head: &mut response::Parts, proof: HeaderValue) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::UPGRADE, WEBSOCKET);
    head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
}

/// Whether it says success, and opens no tunnel.
pub(crate) fn is_false_success<B>(response: &Response<B>) -> bool {
    response.status().is_success() && response.extensions().get::<Opens>().is_none()
}

/// Makes the answer that opens a tunnel one of HTTP/2.
pub(crate) fn as_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        response.headers_mut().remove(name);
    }
    response.extensions_mut().insert(Opens);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_given_for_one_key_of_a_websocket() {
        let proof = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| {
                (name.parse::<header::HeaderName>().unwrap(), HeaderValue::from_static(value))
            });
            proof_of(&lines.collect::<HeaderMap>())
        };
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof(&[("upgrade", "WebSocket"), key]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for other in [&[("upgrade", "other"), key][..], &[key]] {
            assert_eq!(proof(other).unwrap_err(), Fault::NO_UPGRADE);
        }
        for bad in [
            &[("upgrade", "websocket")][..],
            &[("upgrade", "websocket"), key, key],
            &[("upgrade", "websocket"), ("sec-websocket-key", "c2hvcnQ=")],
            &[("upgrade", "websocket"), ("sec-websocket-key", "no base64")],
        ] {
            assert_eq!(proof(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad:?}");
        }
    }

    #[test]
    fn a_proof_is_that_of_rfc_6455() {
        let key = Key(HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let mut headers = HeaderMap::new();
        assert!(!key.is_proven(&headers));
        headers
            .insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(key.is_proven(&headers));
        headers
            .insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("S3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_proven(&headers));
    }
}
