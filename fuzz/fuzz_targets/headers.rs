//! Which headers go through. An input is a byte (bit 0: the peer is trusted; bit 1: the response is an upgrade) and lines.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::fuzzing;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use phalanx_fuzz::Input;

/// Of one hop: RFC 9110, section 7.6.1, and what proxies made up.
const HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// What says who the client is: names, then beginnings of names.
const CLAIMS: [&str; 9] = [
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
const CLAIM_PREFIXES: [&str; 5] = ["x-forwarded", "x-phalanx-", "x-consumer", "x-auth-", "x-client-cert"];
/// Harmful where `_` or `.` stands for `-`.
const ALIASED: [&str; 4] = ["content-length", "transfer-encoding", "host", "connection"];
/// What says where a message ends.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// What the trailers of neither may say: RFC 9110, section 6.5.1.
const OF_HEADS: [&str; 2] = ["content-length", "trailer"];

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let flags = input.byte();
    let (trusted, upgrade) = (flags & 1 != 0, flags & 2 != 0);
    let headers = read(input.0);
    request(&headers, trusted);
    trailers(&headers);
    response_trailers(&headers);
    response(&headers, upgrade);
});

fn read(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn is_claim(name: &str) -> bool {
    CLAIMS.contains(&name) || CLAIM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What it is to a program that takes whatever is no letter or digit for `-`; none if that is what it is anyway.
fn alias(name: &str) -> Option<String> {
    let plain = name.replace(|byte: char| !byte.is_ascii_alphanumeric(), "-");
    (plain != name).then_some(plain)
}

fn may_not_be_said(name: &str, trusted: bool) -> bool {
    match alias(name) {
        Some(plain) => is_claim(&plain) || ALIASED.contains(&&*plain),
        None => !trusted && is_claim(name),
    }
}

/// The tokens of `Connection`, in lower case.
fn tokens(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter();
    let tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase()).collect()
}

/// Whether a token of `Connection` takes away the header that it names.
fn takes_away(token: &str) -> bool {
    !is_claim(token) && !ALIASED.contains(&token) && !["keep-alive", "close", "upgrade"].contains(&token)
}

/// What is left was there, with every value that it had.
fn is_part(left: &HeaderMap, all: &HeaderMap) {
    for name in left.keys() {
        assert!(left.get_all(name).iter().eq(all.get_all(name).iter()), "{name} was changed");
    }
}

fn request(before: &HeaderMap, trusted: bool) {
    let mut after = before.clone();
    let (upgrade, trailers) = fuzzing::clean_request(&mut after, trusted);
    is_part(&after, before);
    let tokens = tokens(before);
    assert_eq!(upgrade, tokens.iter().any(|token| token == "upgrade") && before.contains_key("upgrade"));
    assert!(!trailers || before.contains_key("te"));
    for name in before.keys().map(HeaderName::as_str) {
        let hop = HOP.contains(&name) && !(upgrade && name == "upgrade");
        let named = takes_away(name) && tokens.iter().any(|token| token == name);
        let gone = hop || named || may_not_be_said(name, trusted) || name == "expect";
        assert_eq!(after.contains_key(name), !gone, "{name}, trusted: {trusted}, of {before:?}");
    }
    // Cleaned once is clean, but for the upgrade, which goes on without its `Connection`.
    let mut again = after.clone();
    again.remove(header::UPGRADE);
    let once = again.clone();
    assert_eq!(fuzzing::clean_request(&mut again, trusted), (false, false));
    assert_eq!(again, once);
    forwarded(after, trusted);
}

fn forwarded(mut headers: HeaderMap, trusted: bool) {
    let peer = HeaderValue::from_static("192.0.2.9");
    let mut before =
        headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
    let stations = headers.get_all(header::VIA).iter().count();
    let _ = fuzzing::add_forwarded(&mut headers, &peer, trusted);
    assert!(trusted || before.is_empty(), "a stranger's X-Forwarded-For went through");
    before.push(peer.as_bytes().to_vec());
    let chain: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(chain.len(), 1);
    assert_eq!(chain[0].as_bytes(), before.join(&b", "[..]));
    assert!(headers.contains_key("x-forwarded-proto"));
    assert_eq!(headers.get_all(header::VIA).iter().count(), stations + 1);
}

fn trailers(before: &HeaderMap) {
    let mut after = before.clone();
    fuzzing::clean_trailers(&mut after);
    is_part(&after, before);
    for name in before.keys().map(HeaderName::as_str) {
        let of_head = OF_HEADS.contains(&name) || name == "host";
        let gone = HOP.contains(&name) || of_head || may_not_be_said(name, false);
        assert_eq!(after.contains_key(name), !gone, "{name} in trailers");
    }
}

fn response_trailers(before: &HeaderMap) {
    let mut after = before.clone();
    fuzzing::clean_response_trailers(&mut after);
    is_part(&after, before);
    for name in before.keys().map(HeaderName::as_str) {
        let gone = HOP.contains(&name) || OF_HEADS.contains(&name);
        assert_eq!(after.contains_key(name), !gone, "{name} in a response's trailers");
    }
}

fn response(before: &HeaderMap, upgrade: bool) {
    let mut after = before.clone();
    fuzzing::clean_response(&mut after, upgrade);
    is_part(&after, before);
    let tokens = tokens(before);
    for name in before.keys().map(HeaderName::as_str) {
        let stays = name == "proxy-authenticate" || upgrade && name == "upgrade";
        let named = takes_away(name) && tokens.iter().any(|token| token == name);
        let alias = alias(name).is_some_and(|plain| FRAMING.contains(&&*plain));
        let gone = !stays && (HOP.contains(&name) || named || alias);
        assert_eq!(after.contains_key(name), !gone, "{name} in a response");
    }
    let lengths: Vec<_> = before.get_all(header::CONTENT_LENGTH).iter().collect();
    let encodings: Vec<_> = before.get_all(header::TRANSFER_ENCODING).iter().collect();
    let plain = match (&lengths[..], &encodings[..]) {
        ([], []) => true,
        ([length], []) => {
            length.to_str().is_ok_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        }
        ([], [encoding]) => encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    assert_eq!(fuzzing::badly_framed(before), !plain, "{before:?}");
}
