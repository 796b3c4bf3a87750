//! `Vary`: what of a request a response depends on, for caches to know (RFC 9110, section 12.5.5).

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Says that the response depends on this request header, unless that is said already.
pub(crate) fn on(response: &mut HeaderMap, name: &HeaderName) {
    let is_said = response.get_all(header::VARY).iter().any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tokens.any(|token| token == b"*" || token.eq_ignore_ascii_case(name.as_str().as_bytes()))
    });
    if !is_said {
        response.append(header::VARY, HeaderValue::from(name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_what_was_said_stays() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            on(&mut headers, &header::ORIGIN);
            on(&mut headers, &header::ACCEPT_ENCODING);
        }
        let all = |headers: &HeaderMap| -> Vec<HeaderValue> {
            headers.get_all(header::VARY).iter().cloned().collect()
        };
        assert_eq!(all(&headers), ["origin", "accept-encoding"]);
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("Cookie, ORIGIN"));
        on(&mut headers, &header::ORIGIN);
        assert_eq!(all(&headers), ["Cookie, ORIGIN"]);
        headers.insert(header::VARY, HeaderValue::from_static("*"));
        on(&mut headers, &header::ORIGIN);
        assert_eq!(all(&headers), ["*"]);
    }
}
