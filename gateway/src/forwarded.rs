//! What a target is told of the client: `X-Forwarded-*`, `Via` and `X-Request-Id`.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::X_REQUEST_ID;

/// `X-Forwarded-For`.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
/// RFC 9110, section 7.6.3: a gateway must say that a request came through it.
const VIA_11: HeaderValue = HeaderValue::from_static("1.1 phalanx");
const VIA_10: HeaderValue = HeaderValue::from_static("1.0 phalanx");
const VIA_20: HeaderValue = HeaderValue::from_static("2.0 phalanx");
const PSEUDONYM: &str = "phalanx";
/// How often a request may have come through gateways like this one; more is a loop.
const HOPS_MAX: usize = 8;
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Says from whom the request comes. What is there already was said by a trusted peer, and is added to. False if the
/// request goes round in a circle.
#[must_use]
pub(crate) fn add(
    headers: &mut HeaderMap,
    peer: &HeaderValue,
    trusted: bool,
    host: Option<&HeaderValue>,
    version: http::Version,
    secure: bool,
) -> bool {
    let before = if trusted { headers.get(X_FORWARDED_FOR) } else { None };
    let forwarded_for = match before {
        Some(before) => {
            let mut chain = before.as_bytes().to_vec();
            for value in headers.get_all(X_FORWARDED_FOR).iter().skip(1) {
                chain.extend_from_slice(b", ");
                chain.extend_from_slice(value.as_bytes());
            }
            chain.extend_from_slice(b", ");
            chain.extend_from_slice(peer.as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)).unwrap_or_else(|_| peer.clone())
        }
        None => peer.clone(),
    };
    headers.insert(X_FORWARDED_FOR, forwarded_for);
    if !(trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, if secure { HTTPS } else { HTTP });
    }
    if let Some(host) = host
        && !(trusted && headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    let via = match version {
        http::Version::HTTP_2 => VIA_20,
        http::Version::HTTP_10 => VIA_10,
        _ => VIA_11,
    };
    let others = headers.append(header::VIA, via);
    !others || hops(headers) <= HOPS_MAX
}

/// The scheme that the client used: what a trusted peer says of that, or what the connection is.
pub(crate) fn scheme(headers: &HeaderMap, trusted: bool, of_connection: &'static str) -> &'static str {
    let said = if trusted { headers.get(X_FORWARDED_PROTO) } else { None };
    let is = |scheme: &&str| said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(scheme.as_bytes()));
    ["https", "http"].into_iter().find(is).unwrap_or(of_connection)
}

/// How often `Via` names a gateway like this one.
fn hops(headers: &HeaderMap) -> usize {
    let stations = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    let ours = |station: &&str| station.split_whitespace().nth(1) == Some(PSEUDONYM);
    stations.flat_map(|value| value.split(',')).filter(ours).count()
}

/// Whether it may be a request's id: something to print, and not too long.
pub(crate) fn is_id(given: &HeaderValue) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&given.len()) && given.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Makes request ids: a random prefix of this worker's and a number.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// In hexadecimal digits.
    prefix: [u8; 16],
    next: Cell<u64>,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        // The standard library's keys are random: enough to be told apart, and nothing relies on their being secret.
        let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let mut prefix = [0; 16];
        hex(&mut prefix, chance);
        Self { prefix, next: Cell::new(0) }
    }

    /// The request's id: what a trusted peer has given it, or a new one.
    pub(crate) fn of(&self, headers: &HeaderMap, trusted: bool) -> HeaderValue {
        if trusted
            && let Some(given) = headers.get(X_REQUEST_ID)
            && is_id(given)
        {
            return given.clone();
        }
        self.make()
    }

    /// A new one.
    pub(crate) fn make(&self) -> HeaderValue {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut text = [b'-'; 27];
        text[..16].copy_from_slice(&self.prefix);
        hex(&mut text[17..], number);
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

fn hex(to: &mut [u8], mut number: u64) {
    for digit in to.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_strangers_choose_none() {
        let ids = RequestIds::new();
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("mine"));
        let first = ids.of(&headers, false);
        assert_ne!(first, "mine");
        assert_ne!(first, ids.of(&headers, false));
        assert_eq!(first.len(), 27);
        assert_eq!(ids.of(&headers, true), "mine");
    }

    #[test]
    fn a_trusted_chain_is_added_to() {
        let peer = HeaderValue::from_static("192.0.2.9");
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.2"));
        assert!(add(&mut headers, &peer, true, None, http::Version::HTTP_11, false));
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.1, 192.0.2.2, 192.0.2.9");
        assert!(add(&mut headers, &peer, false, None, http::Version::HTTP_11, false));
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.9");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
    }

    #[test]
    fn the_scheme_is_what_a_trusted_peer_says() {
        let mut headers = HeaderMap::new();
        assert_eq!(scheme(&headers, true, "https"), "https");
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("HTTPS"));
        assert_eq!((scheme(&headers, true, "http"), scheme(&headers, false, "http")), ("https", "http"));
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        assert_eq!(scheme(&headers, true, "https"), "http");
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("javascript"));
        assert_eq!(scheme(&headers, true, "http"), "http");
    }

    #[test]
    fn a_circle_is_noticed_and_a_chain_of_others_is_none() {
        let peer = HeaderValue::from_static("192.0.2.9");
        let mut headers = HeaderMap::new();
        headers.append(
            header::VIA,
            HeaderValue::from_static("1.1 a, 1.1 b, 1.1 c, 1.0 d (phalanx), 1.1 phalanx"),
        );
        for _ in 0..HOPS_MAX - 1 {
            assert!(add(&mut headers, &peer, false, None, http::Version::HTTP_11, false));
        }
        assert!(!add(&mut headers, &peer, false, None, http::Version::HTTP_11, false));
    }
}
