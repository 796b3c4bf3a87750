//! A client's stream: what is taken for requests has its messages where another strict parser has them. An input is a byte
//! that says how the stream is cut, and the stream.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::fuzzing::{Item, Stream};
use phalanx_fuzz::Input;

const HEADERS_MAX: usize = 256;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let cut = usize::from(input.byte());
    let stream = input.0;
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, 1), whole, "byte by byte it is read otherwise");
    assert_eq!(read(stream, cut + 1), whole, "in pieces it is read otherwise");
    agrees(stream, &whole);
});

/// What is read of a stream in pieces of this length, the data of each body in one piece.
fn read(stream: &[u8], piece: usize) -> Vec<Item> {
    let mut reader = Stream::new();
    let mut items = Vec::new();
    for bytes in stream.chunks(piece) {
        for item in reader.feed(bytes) {
            match (item, items.last_mut()) {
                (Item::Data(more), Some(Item::Data(data))) => data.extend_from_slice(&more),
                (item, _) => items.push(item),
            }
        }
        if matches!(items.last(), Some(Item::Refused(_))) {
            break;
        }
    }
    items
}

/// Finds the same messages with httparse and the chunk reader below.
fn agrees(stream: &[u8], items: &[Item]) {
    let mut begin = 0;
    let mut items = items.iter().peekable();
    while let Some(Item::Head(..)) = items.next() {
        let data = items.next_if(|item| matches!(item, Item::Data(_)));
        let data = data.map_or(&[][..], |item| if let Item::Data(data) = item { data } else { &[] });
        let Some((length, body)) = head(&stream[begin..]) else { panic!("this is no head: byte {begin}") };
        begin += length;
        let rest = &stream[begin..];
        let (want, length) = match body {
            Body::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
                (rest[..length].to_vec(), Some(length))
            }
            Body::Chunked => match chunks(rest) {
                Some((want, length)) => (want, Some(length)),
                None => return,
            },
        };
        if matches!(items.peek(), Some(Item::Refused(_))) {
            // Perhaps in this body, of which what came before is right.
            assert!(want.starts_with(data) || data.starts_with(&want), "another body before byte {begin}");
            return;
        }
        // An empty body in chunks has data of no bytes.
        assert_eq!(data, want, "another body before byte {begin}");
        match length {
            Some(length) => begin += length,
            None => return,
        }
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

/// What is in a chunked body, and its length with its trailers; none if it is not whole, or refused.
fn chunks(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let (begin, size) = match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return None,
            Err(_) => return None,
        };
        at += begin;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        let end = body.get(at.checked_add(size)?..)?.get(..2)?;
        if end != b"\r\n" {
            return None;
        }
        data.extend_from_slice(&body[at..at + size]);
        at += size + 2;
    }
    loop {
        let line = body[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((data, at));
        }
    }
}
