//! WebSocket over HTTP/2 (RFC 8441): to targets it is what it is in HTTP/1.1, with the key and its proof (RFC 6455, section
//! 4.1) between the gateway and the target.

use ::aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::error::Fault;

/// What is put behind a key to be digested (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

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
    let mut chance = [0; 16];
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
        let mut digested = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        digested.update(self.0.as_bytes());
        digested.update(GUID);
        let proof = STANDARD.encode(digested.finish());
        headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|given| given.as_bytes() == proof.as_bytes())
    }
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
