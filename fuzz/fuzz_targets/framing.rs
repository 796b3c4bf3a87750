//! A client's stream: what the guard before hyper lets through has its messages end where another strict parser has them
//! end. An input is a byte that says how the stream is cut, and the stream.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::fuzzing::{Framing, Refused};
use phalanx_fuzz::Input;

const HEADERS_MAX: usize = 256;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let cut = usize::from(input.byte());
    let stream = input.0;
    let whole = feed(stream, stream.len().max(1));
    assert_eq!(feed(stream, 1), whole, "byte by byte it is judged otherwise");
    assert_eq!(feed(stream, cut + 1), whole, "in pieces it is judged otherwise");
    let good = whole.as_ref().map_or_else(|refused| refused.good, |_| stream.len());
    agrees(&stream[..good]);
});

/// Feeds the stream in pieces of this length. Gives whether it ends between messages and whether in a head, or where and why
/// it is refused.
fn feed(stream: &[u8], piece: usize) -> Result<(bool, bool), Refused> {
    let mut framing = Framing::new();
    let mut begin = 0;
    for bytes in stream.chunks(piece) {
        framing.feed(bytes).map_err(|refused| Refused { good: begin + refused.good, ..refused })?;
        begin += bytes.len();
    }
    Ok((framing.between_messages(), framing.in_head()))
}

/// Where the guard says that it stands after these bytes, of which none is bad.
fn stands(good: &[u8]) -> (bool, bool) {
    feed(good, good.len().max(1)).unwrap_or_else(|refused| panic!("good bytes are refused: {refused:?}"))
}

/// Follows the messages with httparse, which hyper reads heads with, to the first that is not whole or that it refuses.
fn agrees(stream: &[u8]) {
    let mut begin = 0;
    while begin < stream.len() {
        let Some((head, body)) = head(&stream[begin..]) else { return };
        let head_end = begin + head;
        assert!(stands(&stream[..head_end - 1]).1, "the guard took the head to end before byte {head_end}");
        assert!(!stands(&stream[..head_end]).1, "the guard took the head to go on after byte {head_end}");
        let length = match body {
            Body::Length(length) => {
                usize::try_from(length).ok().filter(|length| *length <= stream.len() - head_end)
            }
            Body::Chunked => chunks(&stream[head_end..]),
        };
        let Some(length) = length else {
            assert!(!stands(stream).0, "the guard took a body to end that does not");
            return;
        };
        let end = head_end + length;
        assert!(stands(&stream[..end]).0, "the guard took the message to go on after byte {end}");
        assert!(!stands(&stream[..end - 1]).0, "the guard took the message to end before byte {end}");
        begin = end;
    }
}

enum Body {
    Length(u64),
    Chunked,
}

/// The length of a head, and of which sort its body is (RFC 9112, section 6.3).
fn head(stream: &[u8]) -> Option<(usize, Body)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(stream).ok()? else { return None };
    let values = |name: &str| {
        let of = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        of.map(|header| header.value).collect::<Vec<_>>()
    };
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Body::Length(0),
        ([length], []) => {
            let digits =
                std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            Body::Length(
                length.unwrap_or_else(|| panic!("such a Content-Length was let through: {digits:?}")),
            )
        }
        ([], [encoding]) => {
            assert!(encoding.eq_ignore_ascii_case(b"chunked"), "such a Transfer-Encoding was let through");
            assert_eq!(request.version, Some(1), "Transfer-Encoding in HTTP/1.0 was let through");
            Body::Chunked
        }
        both => panic!("this was let through: {both:?}"),
    };
    Some((length, body))
}

/// The length of a chunked body with its trailers; none if it is not whole.
fn chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let (begin, size) = match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => panic!("such a chunk size was let through"),
        };
        at += begin;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        let end = body.get(at.checked_add(size)?..)?.get(..2)?;
        assert_eq!(end, b"\r\n", "such an end of a chunk was let through");
        at += size + 2;
    }
    loop {
        let line = body[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}
