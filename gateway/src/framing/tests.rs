//! What the follower lets through, and what it stops at.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 65_536, target_bytes_max: 16_384, headers_max: 100 };

/// What streams are made of.
const PARTS: [&str; 22] = [
    "GET / HTTP/1.1",
    "POST / HTTP/1.0",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "content-length",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: gzip\r\n",
    ": ",
    " ",
    "3",
    "0\r\n",
    "3\r\nabc\r\n",
    ";ext=1",
    "abc",
    "#",
    "GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
];

/// What a stream comes to, whole and byte by byte.
fn fault(stream: &str) -> Option<Fault> {
    let whole = Follower::new(LIMITS).feed(stream.as_bytes()).err();
    let mut follower = Follower::new(LIMITS);
    let single = (0..stream.len())
        .find_map(|at| follower.feed(&stream.as_bytes()[at..=at]).err().map(|found| (at, found)));
    assert_eq!(
        whole.map(|found| (found.good, found.in_head, found.fault)),
        single.map(|(at, found)| (at, found.in_head, found.fault)),
        "{stream:?}"
    );
    if whole.is_none() {
        assert!(follower.between_messages(), "{stream:?} ends in {:?}", follower.state);
    }
    whole.map(|found| found.fault)
}

#[test]
fn good_streams_are_followed_to_their_ends() {
    for stream in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5 \r\n\r\na\nb\ncGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\na\nb\nc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n000\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Lengthy: x\r\nTransfer-Encodings: x\r\n\r\n",
    ] {
        assert_eq!(fault(stream), None, "{stream:?}");
    }
}

#[test]
fn bad_heads_are_refused() {
    for (head, want) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::LineEnd),
        ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Fragment),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::LineEnd),
        ("\nGET / HTTP/1.1\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", Fault::LineEnd),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", Fault::WhiteSpace),
        ("GET / HTTP/1.1\r\n X: a\r\n\r\n", Fault::WhiteSpace),
        ("GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", Fault::WhiteSpace),
        ("GET / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n", Fault::WhiteSpace),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault::ContentLength),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::TransferEncoding),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Fault::TransferEncoding),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Fault::TransferEncoding),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Fault::TransferEncoding),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Fault::TransferEncoding),
        (
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault::TransferEncoding,
        ),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Fault::Both),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Both),
        ("GET / HTTP/2.0\r\n\r\n", Fault::Version),
        ("GET / HTTP/1.2\r\n\r\n", Fault::Version),
        ("GET / HTTP/0.9\r\n\r\n", Fault::Version),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n", Fault::NotAscii),
    ] {
        assert_eq!(fault(head), Some(want), "{head:?}");
    }
}

#[test]
fn bad_chunks_are_refused() {
    for body in [
        "\r\n",
        "x\r\n",
        "+1\r\n",
        "0x1\r\n",
        "1 \r\n",
        " 1\r\n",
        "1\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "1\r\na\r\n\r\n",
        "1;a\n",
        "1;\0\r\n",
        "ffffffffffffffff\r\n",
        "0000000000000000\r\n",
        "1\r2",
    ] {
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(fault(&stream), Some(Fault::Chunk), "{body:?}");
    }
    for body in ["0\r\n\n", "0\r\nx: y\n\r\n"] {
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_eq!(fault(&stream), Some(Fault::LineEnd), "{body:?}");
    }
}

proptest! {
    /// However a stream is cut, it is judged alike: whole, byte by byte, and in two.
    #[test]
    fn cuts_change_nothing(
        parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let stream = parts.concat();
        let tight = HeadLimits { bytes_max: 64, target_bytes_max: 4, headers_max: 2 };
        for limits in [LIMITS, tight] {
        let feed = |cuts: &[usize]| {
            let mut follower = Follower::new(limits);
            let mut begin = 0;
            for &end in cuts {
                if let Err(found) = follower.feed(&stream.as_bytes()[begin..end]) {
                    return Err((begin + found.good, found.in_head, found.fault));
                }
                begin = end;
            }
            Ok(follower.between_messages())
        };
        let whole = feed(&[stream.len()]);
        prop_assert_eq!(feed(&(1..=stream.len()).collect::<Vec<_>>()), whole);
        prop_assert_eq!(feed(&[cut.index(stream.len() + 1), stream.len()]), whole);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Follower::new(LIMITS).feed(&bytes);
    }
}

#[test]
fn what_a_stranger_can_grow_is_bounded() {
    let limits = HeadLimits { bytes_max: 100, target_bytes_max: 20, headers_max: 2 };
    let stops_at = |stream: &str| {
        let refused = Follower::new(limits).feed(stream.as_bytes()).err();
        refused.map(|found| (found.good, found.fault))
    };
    let (long, name) = ("a".repeat(100), "x".repeat(65));
    let head = "GET / HTTP/1.1\r\n";
    for (stream, want) in [
        (format!("GET /{}", "a".repeat(95)), None),
        (format!("GET /{long}"), Some((100, Fault::TargetTooLong))),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(19)), None),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(20)), Some((35, Fault::TargetTooLong))),
        (format!("{long} "), Some((100, Fault::MethodTooLong))),
        (format!("{name} / HTTP/1.1\r\n"), Some((77, Fault::MethodTooLong))),
        (format!("{head}x: {}", "a".repeat(81)), None),
        (format!("{head}x: {}", "a".repeat(82)), Some((100, Fault::HeadTooLarge))),
        (format!("{head}x: {}\r\n\r\n", "a".repeat(79)), Some((100, Fault::HeadTooLarge))),
        (format!("{head}a: b\r\na: b\r\n\r\n"), None),
        (format!("{head}a: b\r\na: b\r\na: b\r\n"), Some((33, Fault::HeadersTooMany))),
        ("\r\n".repeat(51), Some((100, Fault::HeadTooLarge))),
        (format!("{head}a: b\r\n\r\n").repeat(10), None),
        (format!("{head}transfer-encoding: chunked\r\n\r\n0\r\nx: {long}"), Some((149, Fault::HeadTooLarge))),
    ] {
        assert_eq!(stops_at(&stream), want, "{stream:?}");
    }
    let extension = "x".repeat(chunk::EXTENSION_BYTES_MAX + 1);
    let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}");
    assert_eq!(fault(&stream), Some(Fault::Chunk));
}
