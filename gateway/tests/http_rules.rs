//! HTTP/1.1 as RFC 9110 and 9112 have it, rule by rule: what a client sends to the byte, and what must come of it.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use Must::{Pass, Refuse};
use support::{in_front_of, recorder::Recorder, status};

/// What must come of a request.
#[derive(Debug, Clone, Copy)]
enum Must {
    /// This status, the connection closed, and nothing at the target.
    Refuse(&'static str),
    /// 200, and the target gets this request line and this body.
    Pass(&'static str, &'static str),
}

type Case = (&'static str, &'static [u8], Must);

/// Sections are those of RFC 9112, unless they say otherwise.
const LINES: [Case; 28] = [
    ("2.2 bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Refuse("400")),
    ("2.2 bare LF after a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Refuse("400")),
    ("2.2 bare LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refuse("400")),
    ("2.2 CR without LF after the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", Refuse("400")),
    ("2.2 CR in a request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("2.2 CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n", Refuse("400")),
    ("2.2 two CR before LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Refuse("400")),
    ("2.2 white space before the first header", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refuse("400")),
    ("2.2 a line of white space", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", Refuse("400")),
    (
        "2.2 empty lines before a request",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    ("2.2 an empty line of LF alone before a request", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("2.3 HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("2.3 a later minor version", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refuse("505")),
    ("2.3 another major version", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", Refuse("505")),
    ("2.3 the name in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("2.3 two digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refuse("400")),
    ("2.3 no digits", b"GET / HTTP/one\r\nHost: a\r\n\r\n", Refuse("400")),
    ("2.3 no dot", b"GET / HTTP/11\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 no version", b"GET /\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 a tab", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 a space before the method", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 a space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3 a method that is no token", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("9110 9.1 a method is what it is", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", Pass("get / HTTP/1.1", "")),
    ("3 bytes that are no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", Refuse("400")),
];

const TARGETS: [Case; 33] = [
    ("3.2 a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 a fragment in the query", b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 what is not ASCII", b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 what is not ASCII in the query", b"GET /?\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 NUL", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 a control byte", b"GET /\x07 HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.1 no slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.1 a query", b"GET /?a=b&c=%20 HTTP/1.1\r\nHost: a\r\n\r\n", Pass("GET /?a=b&c=%20 HTTP/1.1", "")),
    ("3.2.2 absolute form", b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", Pass("GET /b?c HTTP/1.1", "")),
    (
        "3.2.2 absolute form without a path",
        b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    ("3.2.2 absolute form of another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.2 absolute form of another port", b"GET http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.2 absolute form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", Refuse("400")),
    ("9110 4.2.4 a user in the target", b"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.2 another scheme", b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2.3 authority form without CONNECT", b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refuse("400")),
    ("9110 9.3.6 CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refuse("400")),
    ("3.2.4 asterisk without OPTIONS", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 no Host", b"GET / HTTP/1.1\r\n\r\n", Refuse("400")),
    ("3.2 two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refuse("400")),
    ("3.2 two Hosts that are the same", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refuse("400")),
    ("3.2 an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Refuse("400")),
    ("3.2 a Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refuse("400")),
    ("3.2 a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refuse("400")),
    ("3.2 a Host with a query", b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", Refuse("400")),
    ("3.2 a list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refuse("400")),
    ("3.2 a port that is no number", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refuse("400")),
    ("3.2 two ports", b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", Refuse("400")),
    ("3.2 half an address", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refuse("400")),
    ("3.2 a folded Host", b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Refuse("400")),
    ("3.2 an address and a port", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("3.2 a Host before white space", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refuse("400")),
    ("3.2 a Host under an alias alone", b"GET / HTTP/1.1\r\nHo_st: a\r\n\r\n", Refuse("400")),
];

const HEADERS: [Case; 16] = [
    ("5.1 a space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", Refuse("400")),
    ("5.1 a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", Refuse("400")),
    ("5.1 a space in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", Refuse("400")),
    ("5 no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refuse("400")),
    ("5 no name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", Refuse("400")),
    ("5.2 a fold of a space", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Refuse("400")),
    ("5.2 a fold of a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Refuse("400")),
    ("5.2 a fold of nothing", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\n\r\n", Refuse("400")),
    ("9110 5.5 NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Refuse("400")),
    ("9110 5.1 NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", Refuse("400")),
    ("9110 5.5 an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    (
        "9110 5.5 a tab in a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\tz\r\n\r\n",
        Pass("GET / HTTP/1.1", ""),
    ),
    ("9110 5.5 bytes above 127", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n", Pass("GET / HTTP/1.1", "")),
    ("9110 10.1.1 another expectation", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", Refuse("417")),
    (
        "9110 9.3.8 TRACE with a body",
        b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        Refuse("400"),
    ),
    ("9110 9.3.8 TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Pass("TRACE / HTTP/1.1", "")),
];

/// What comes after a method and a Host.
const LENGTHS: [Case; 31] = [
    ("6.2 a length", b"Content-Length: 3\r\n\r\nabc", Pass("POST / HTTP/1.1", "abc")),
    ("6.2 a length of 0", b"Content-Length: 0\r\n\r\n", Pass("POST / HTTP/1.1", "")),
    ("6.2 zeros before a length", b"Content-Length: 003\r\n\r\nabc", Pass("POST / HTTP/1.1", "abc")),
    (
        "6.2 a body that looks like a request",
        b"Content-Length: 5\r\n\r\nGET /",
        Pass("POST / HTTP/1.1", "GET /"),
    ),
    ("6.2 a plus", b"Content-Length: +3\r\n\r\nabc", Refuse("400")),
    ("6.2 a minus", b"Content-Length: -3\r\n\r\nabc", Refuse("400")),
    ("6.2 no number", b"Content-Length: abc\r\n\r\nabc", Refuse("400")),
    ("6.2 nothing", b"Content-Length:\r\n\r\nabc", Refuse("400")),
    ("6.2 hexadecimal", b"Content-Length: 0x3\r\n\r\nabc", Refuse("400")),
    ("6.2 a fraction", b"Content-Length: 3.0\r\n\r\nabc", Refuse("400")),
    ("6.2 digits and letters", b"Content-Length: 3abc\r\n\r\nabc", Refuse("400")),
    ("6.2 a space in it", b"Content-Length: 3 3\r\n\r\nabc", Refuse("400")),
    ("6.2 an underscore in it", b"Content-Length: 1_0\r\n\r\n0123456789", Refuse("400")),
    ("6.2 above 64 bits", b"Content-Length: 18446744073709551619\r\n\r\nabc", Refuse("400")),
    ("6.3 twice the same", b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Refuse("400")),
    ("6.3 twice", b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc", Refuse("400")),
    ("6.3 a list of the same", b"Content-Length: 3, 3\r\n\r\nabc", Refuse("400")),
    ("6.3 a list", b"Content-Length: 3, 0\r\n\r\nabc", Refuse("400")),
    ("6.3 an empty member", b"Content-Length: 3,\r\n\r\nabc", Refuse("400")),
    ("5.1 a space before its colon", b"Content-Length : 3\r\n\r\nabc", Refuse("400")),
    (
        "6.1 with Transfer-Encoding",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refuse("400"),
    ),
    (
        "6.1 after Transfer-Encoding",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Refuse("400"),
    ),
    ("6.1 with one that is unknown", b"Transfer-Encoding: x\r\nContent-Length: 3\r\n\r\nabc", Refuse("400")),
    ("6.1 an unknown coding", b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("6.1 identity", b"Transfer-Encoding: identity\r\n\r\n", Refuse("400")),
    ("6.1 chunked is not the last", b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("6.1 chunked twice", b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("6.1 two lines", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("6.1 with a parameter", b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("6.1 nothing", b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", Refuse("400")),
    ("7 in any case", b"tRANSFER-eNCODING: ChunkeD\r\n\r\n1\r\na\r\n0\r\n\r\n", Pass("POST / HTTP/1.1", "a")),
];

/// What comes after a head with `Transfer-Encoding: chunked`.
const CHUNKS: [Case; 33] = [
    ("7.1 one", b"3\r\nabc\r\n0\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1 several", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1 none", b"0\r\n\r\n", Pass("POST / HTTP/1.1", "")),
    ("7.1 zeros before a size", b"0003\r\nabc\r\n000\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1 data that looks like an end", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", Pass("POST / HTTP/1.1", "0\r\n\r\n")),
    ("7.1 no size", b"\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a size that is none", b"g\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a plus", b"+3\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a minus", b"-3\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a prefix", b"0x3\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 an underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a space before a size", b" 3\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a space after a size", b"3 \r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a size above 64 bits", b"10000000000000003\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 a size of 64 bits", b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 more data than the size", b"3\r\nabcd\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 less data than the size", b"4\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 data without an end", b"3\r\nabc0\r\n\r\n", Refuse("400")),
    ("7.1 LF alone after a size", b"3\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 CR alone after a size", b"3\rabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1 LF alone after data", b"3\r\nabc\n0\r\n\r\n", Refuse("400")),
    ("7.1 CR alone after data", b"3\r\nabc\r0\r\n\r\n", Refuse("400")),
    ("7.1 LF alone at the end", b"3\r\nabc\r\n0\r\n\n", Refuse("400")),
    ("7.1.1 an extension", b"3;a=b;c=\"d;e\"\r\nabc\r\n0\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1.1 an extension of the last", b"3\r\nabc\r\n0;a\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1.1 no name", b"3;\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1.1 a name that is no token", b"3;a[\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1.1 LF in an extension", b"3;a\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1.1 CR in an extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1.1 NUL in an extension", b"3;a=\"\0\"\r\nabc\r\n0\r\n\r\n", Refuse("400")),
    ("7.1.2 trailers", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", Pass("POST / HTTP/1.1", "abc")),
    ("7.1.2 LF alone after a trailer", b"3\r\nabc\r\n0\r\nX: y\n\r\n", Refuse("400")),
    ("7.1.2 a folded trailer", b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", Refuse("400")),
];

/// Sends each and sees to it that the next request of another client is one at the target, whatever was left there.
async fn hold(before: &str, cases: &[Case]) {
    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    for (rule, bytes, must) in cases {
        let mut client = under.client().await;
        client.write([before.as_bytes(), bytes].concat()).await;
        let answer = client.head().await;
        match must {
            Refuse(want) => {
                assert_eq!(status(&answer), *want, "{rule}: {answer}");
                assert!(client.rest().await.starts_with("{\""), "{rule}");
                assert_eq!(target.take(), [], "{rule}");
            }
            Pass(line, body) => {
                assert_eq!(status(&answer), "200", "{rule}: {answer}");
                let seen = target.take();
                assert_eq!(seen.len(), 1, "{rule}: {seen:?}");
                assert_eq!((seen[0].line().as_str(), &seen[0].body[..]), (*line, body.as_bytes()), "{rule}");
                assert_eq!(seen[0].fault(), None, "{rule}: {seen:?}");
            }
        }
        let mut next = under.client().await;
        next.write("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(next.answer().await.status, 200, "{rule}");
        let seen = target.take();
        assert_eq!((seen.len(), seen[0].line().as_str()), (1, "GET /next HTTP/1.1"), "{rule}");
    }
}

#[tokio::test]
async fn lines() {
    hold("", &LINES).await;
}

#[tokio::test]
async fn targets_and_hosts() {
    hold("", &TARGETS).await;
}

#[tokio::test]
async fn headers() {
    hold("", &HEADERS).await;
}

#[tokio::test]
async fn lengths_and_codings() {
    hold("POST / HTTP/1.1\r\nHost: a\r\n", &LENGTHS).await;
}

#[tokio::test]
async fn chunks() {
    hold("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &CHUNKS).await;
}

#[tokio::test]
async fn options_of_the_server_are_answered_here() {
    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
    assert_eq!(target.take(), []);
}

/// RFC 9110, sections 5.1 and 5.5: every byte that is no token in a name, and every control byte in a value.
#[tokio::test]
async fn no_byte_passes_that_a_name_or_value_must_not_have() {
    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    for byte in 0..=255_u8 {
        let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:".contains(&byte);
        let is_text = byte == b'\t' || !byte.is_ascii_control();
        for (before, after, good) in [(&b"X"[..], &b"y: z"[..], is_token), (b"X: y", b"z", is_text)] {
            let line = [before, &[byte], after].concat();
            let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", &line[..], b"\r\n\r\n"].concat();
            let mut client = under.client().await;
            client.write(request).await;
            let answer = client.head().await;
            assert_eq!(status(&answer), if good { "200" } else { "400" }, "{line:?}");
            let seen = target.take();
            assert_eq!(seen.len(), usize::from(good), "{line:?}");
            assert!(seen.iter().all(|seen| seen.fault().is_none()), "{line:?}: {seen:?}");
        }
    }
}

/// RFC 9112, section 8: a request that breaks off is none.
#[tokio::test]
async fn a_request_that_breaks_off_is_none() {
    use tokio::io::AsyncWriteExt;

    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let mut client = under.client().await;
        client.write(request).await;
        client.0.get_mut().shutdown().await.unwrap();
        let answer = client.rest().await;
        assert!(answer.is_empty() || status(&answer) == "400", "{request:?}: {answer}");
        assert_eq!(target.take(), [], "{request:?}");
    }
}

/// RFC 9112, section 9.3: which connections stay.
#[tokio::test]
async fn connections_stay_or_go_as_their_clients_say() {
    let target = Recorder::start().await;
    let under = in_front_of(target.address);
    for (request, stays) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close, x\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        let mut client = under.client().await;
        client.write(request).await;
        assert_eq!(client.answer().await.status, 200, "{request:?}");
        if stays {
            client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.answer().await.status, 200, "{request:?}");
        } else {
            assert_eq!(client.rest().await, "", "{request:?}");
        }
    }
}
