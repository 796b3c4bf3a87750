//! Which headers go through: those of one hop, and those by which a client could pass for another, do not.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// `Keep-Alive`, which `http` has no constant for.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers of one hop (RFC 9110, section 7.6.1), whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a client must not say of itself, by how a name begins.
const PROTECTED_PREFIXES: [&str; 5] = ["x-forwarded", "x-phalanx-", "x-consumer", "x-auth-", "x-client-cert"];
/// What a client must not say of itself, by name. That `_` and `.` pass for `-` in many a program behind us, and in some every
/// character that is no letter or digit (RFC 3875, section 4.1.18), is why names are compared as if they did.
const PROTECTED: [&str; 9] = [
    "client-cert",
    "client-cert-chain",
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "x-client-ip",
    "true-client-ip",
    "x-original-url",
    "x-rewrite-url",
];
/// What decides where a message ends or to whom it goes; harmful under an alias alone.
const ALIASED: [&str; 4] = ["content-length", "transfer-encoding", "host", "connection"];
const NAME_BYTES_MAX: usize = 64;

/// Whether it is one of [`HOP_BY_HOP`], without comparing it with each.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name {
        &header::CONNECTION
        | &header::TE
        | &header::TRANSFER_ENCODING
        | &header::UPGRADE
        | &header::PROXY_AUTHENTICATE
        | &header::PROXY_AUTHORIZATION => true,
        name => *name == KEEP_ALIVE || *name == PROXY_CONNECTION,
    }
}

/// What was found in a request's headers, of what is not passed on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// `Connection` names `upgrade`, and there is an `Upgrade`.
    pub(crate) upgrade: bool,
    /// `TE: trailers`.
    pub(crate) trailers: bool,
    /// `Expect` has something other than `100-continue`.
    pub(crate) expects_more: bool,
}

/// Takes away what must not go beyond this hop, and what only a trusted peer may say.
pub(crate) fn clean_request(headers: &mut HeaderMap, trusted: bool) -> Found {
    let mut hop = false;
    let mut expects_more = false;
    let mut gone: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        match name {
            &header::EXPECT => {
                let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
                expects_more = !headers.get_all(header::EXPECT).iter().all(known);
                gone.push(header::EXPECT);
            }
            &header::HOST | &header::ACCEPT | &header::USER_AGENT | &header::CONTENT_LENGTH => {}
            name if is_hop_by_hop(name) => hop = true,
            name if is_claim(name.as_str(), trusted) => gone.push(name.clone()),
            _ => {}
        }
    }
    for name in gone {
        headers.remove(name);
    }
    if !hop {
        return Found { expects_more, ..Found::default() };
    }
    let mut names_upgrade = false;
    let named = named_by_connection(headers, &mut names_upgrade);
    let upgrade = names_upgrade && headers.contains_key(header::UPGRADE);
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("trailers")))
    });
    for name in named.iter().chain(&HOP_BY_HOP) {
        if !(upgrade && *name == header::UPGRADE) {
            headers.remove(name);
        }
    }
    Found { upgrade, trailers, expects_more }
}

/// Takes away from a request's trailers what it may not say in its head, and what says where a message ends or to whom it goes: some
/// programs make them one (RFC 9110, section 6.5.1). A trusted peer has its head for it.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let bad = |name: &&HeaderName| {
        is_hop_by_hop(name)
            || matches!(**name, header::CONTENT_LENGTH | header::HOST | header::TRAILER)
            || is_claim(name.as_str(), false)
    };
    let bad: Vec<HeaderName> = trailers.keys().filter(bad).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// Takes away from a response's trailers what is of one hop, or says where a message ends: HTTP/2 has no such fields at all (RFC 9113,
/// section 8.2.2), and a client may take the response for malformed.
pub(crate) fn clean_response_trailers(trailers: &mut HeaderMap) {
    let bad = |name: &&HeaderName| {
        is_hop_by_hop(name) || matches!(**name, header::CONTENT_LENGTH | header::TRAILER)
    };
    let bad: Vec<HeaderName> = trailers.keys().filter(bad).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// Takes away from a response what must not go beyond this hop, and what may pass for a header that says where its body ends; for an
/// upgrade, `Upgrade` stays.
pub(crate) fn clean_response(headers: &mut HeaderMap, upgrade: bool) {
    let (mut hop, mut alias) = (false, false);
    for name in headers.keys() {
        hop |= is_hop_by_hop(name);
        alias |= is_framing_alias(name);
    }
    if alias {
        let aliases: Vec<HeaderName> =
            headers.keys().filter(|name| is_framing_alias(name)).cloned().collect();
        for name in aliases {
            headers.remove(name);
        }
    }
    if !hop {
        return;
    }
    let named = named_by_connection(headers, &mut false);
    for name in named.iter().chain(&HOP_BY_HOP) {
        if !(upgrade && *name == header::UPGRADE) && *name != header::PROXY_AUTHENTICATE {
            headers.remove(name);
        }
    }
}

/// The headers that `Connection` names and that it may take away: never one that says where a message ends, to whom
/// it goes or from whom it comes (Traefik's CVE-2021-32813 and CVE-2024-45410).
fn named_by_connection(headers: &HeaderMap, upgrade: &mut bool) -> Vec<HeaderName> {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if token.eq_ignore_ascii_case(b"upgrade") {
                *upgrade = true;
                continue;
            }
            let Ok(name) = HeaderName::from_bytes(token) else { continue };
            if !is_protected(name.as_str()) && !ALIASED.contains(&name.as_str()) {
                named.push(name);
            }
        }
    }
    named
}

fn is_protected(name: &str) -> bool {
    PROTECTED.contains(&name) || PROTECTED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the header is one that this client must not send. Names are in lower case, as `http` keeps them.
fn is_claim(name: &str, trusted: bool) -> bool {
    // What every name in the lists begins with; most headers end here.
    if !matches!(name.as_bytes().first(), Some(b'x' | b'f' | b't' | b'c' | b'h')) {
        return false;
    }
    if !name.bytes().any(passes_for_hyphen) {
        return !trusted && is_protected(name);
    }
    let mut plain = [0; NAME_BYTES_MAX];
    let Some(plain) = plain.get_mut(..name.len()) else {
        return PROTECTED_PREFIXES.iter().any(|prefix| aliases(name.as_bytes(), prefix.as_bytes()));
    };
    for (to, from) in plain.iter_mut().zip(name.bytes()) {
        *to = if passes_for_hyphen(from) { b'-' } else { from };
    }
    std::str::from_utf8(plain).is_ok_and(|plain| is_protected(plain) || ALIASED.contains(&plain))
}

/// Whether it is none, and may be taken for one.
fn passes_for_hyphen(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}

/// Whether it is neither of the headers that say where a message ends, and may pass for one.
fn is_framing_alias(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let (length, encoding) = (b"content-length", b"transfer-encoding");
    let passes_for = |want: &[u8]| name.len() == want.len() && name != want && aliases(name, want);
    passes_for(length) || passes_for(encoding)
}

fn aliases(name: &[u8], prefix: &[u8]) -> bool {
    let same = |(byte, want): (&u8, &u8)| byte == want || (*want == b'-' && passes_for_hyphen(*byte));
    name.len() >= prefix.len() && name.iter().zip(prefix).all(same)
}

/// Whether a response's headers leave it open where its body ends (RFC 9112, section 6.3).
pub(crate) fn badly_framed(headers: &HeaderMap) -> bool {
    let (mut encoded, mut measured) = (false, false);
    // Gone through once: a look-up for each name costs more than all there are.
    for (name, value) in headers {
        if name == header::TRANSFER_ENCODING {
            if encoded || !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return true;
            }
            encoded = true;
        } else if name == header::CONTENT_LENGTH {
            if measured || value.is_empty() || !value.as_bytes().iter().all(u8::is_ascii_digit) {
                return true;
            }
            measured = true;
        }
    }
    encoded && measured
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_header_of_one_hop_is_known() {
        assert!(HOP_BY_HOP.iter().all(is_hop_by_hop));
        assert!(!is_hop_by_hop(&header::HOST) && !is_hop_by_hop(&HeaderName::from_static("keep-alives")));
    }

    #[test]
    fn one_hop_stays_one_hop() {
        let mut headers = map(&[
            ("connection", "close, X-Mine,keep-alive"),
            ("connection", "authorization"),
            ("x-mine", "1"),
            ("authorization", "secret"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        assert_eq!(clean_request(&mut headers, false), Found { trailers: true, ..Found::default() });
        assert_eq!(names(&headers), ["accept"]);
    }

    #[test]
    fn only_100_continue_can_be_expected() {
        for (lines, more) in [
            (&[("expect", "100-Continue")][..], false),
            (&[("expect", "100-continue"), ("expect", "100-continue")], false),
            (&[("expect", "200-ok")], true),
            (&[("expect", "100-continue, x")], true),
            (&[("expect", "100-continue"), ("expect", "x")], true),
            (&[("expect", "")], true),
        ] {
            let mut headers = map(lines);
            assert_eq!(clean_request(&mut headers, false).expects_more, more, "{lines:?}");
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn connection_takes_nothing_that_others_rely_on() {
        let mut headers = map(&[
            ("connection", "x-forwarded-for, content-length, host, x-request-id, forwarded"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-request-id", "1"),
            ("forwarded", "for=192.0.2.1"),
            ("host", "a"),
            ("content-length", "1"),
        ]);
        clean_request(&mut headers, true);
        assert_eq!(
            names(&headers),
            ["content-length", "forwarded", "host", "x-forwarded-for", "x-request-id"]
        );
    }

    #[test]
    fn claims_are_dropped_under_every_alias() {
        let lines = [
            ("x-forwarded-for", "1"),
            ("x_forwarded_for", "1"),
            ("x-forwarded.proto", "1"),
            ("forwarded", "1"),
            ("x-real-ip", "1"),
            ("x.consumer", "1"),
            ("x_auth_user", "1"),
            ("content_length", "1"),
            ("transfer.encoding", "1"),
            ("transfer~encoding", "1"),
            ("x'auth|user", "1"),
            ("x_mine", "1"),
            ("x-mine", "1"),
        ];
        let mut headers = map(&lines);
        clean_request(&mut headers, false);
        assert_eq!(names(&headers), ["x-mine", "x_mine"]);
        let mut headers = map(&lines);
        clean_request(&mut headers, true);
        assert_eq!(names(&headers), ["forwarded", "x-forwarded-for", "x-mine", "x-real-ip", "x_mine"]);
    }

    #[test]
    fn trailers_of_requests_claim_frame_and_lead_nowhere() {
        let mut trailers = map(&[
            ("connection", "x-mine"),
            ("content-length", "1"),
            ("forwarded", "for=192.0.2.1"),
            ("host", "b"),
            ("trailer", "x-mine"),
            ("transfer-encoding", "chunked"),
            ("x-mine", "1"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["x-mine"]);
    }

    #[test]
    fn trailers_of_responses_are_of_no_hop_and_frame_nothing() {
        let mut trailers = map(&[
            ("connection", "x-mine"),
            ("transfer-encoding", "chunked"),
            ("content-length", "1"),
            ("trailer", "x-mine"),
            ("grpc-status", "0"),
            ("x-request-id", "1"),
        ]);
        clean_response_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "x-request-id"]);
    }

    #[test]
    fn a_response_has_nothing_that_passes_for_what_frames_it() {
        let mut headers = map(&[
            ("content-length", "1"),
            ("content_length", "2"),
            ("transfer_encoding", "chunked"),
            ("transfer.encoding", "chunked"),
            ("transfer-encodings", "x"),
            ("x_host", "kept"),
        ]);
        clean_response(&mut headers, false);
        assert_eq!(names(&headers), ["content-length", "transfer-encodings", "x_host"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(clean_request(&mut headers, false).upgrade);
        assert_eq!(names(&headers), ["upgrade"]);
        let mut headers = map(&[("connection", "upgrade")]);
        assert!(!clean_request(&mut headers, false).upgrade);
    }

    #[test]
    fn responses_that_two_parsers_would_read_differently_are_refused() {
        for (lines, bad) in [
            (&[("content-length", "1")][..], false),
            (&[("transfer-encoding", "Chunked")], false),
            (&[], false),
            (&[("content-length", "1"), ("content-length", "1")], true),
            (&[("content-length", "+1")], true),
            (&[("content-length", "1, 1")], true),
            (&[("transfer-encoding", "gzip, chunked")], true),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "chunked"), ("content-length", "1")], true),
        ] {
            assert_eq!(badly_framed(&map(lines)), bad, "{lines:?}");
        }
    }
}
