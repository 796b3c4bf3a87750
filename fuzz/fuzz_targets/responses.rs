//! A target's stream: what is let through has the head of its response end where httparse, which hyper reads it with, has it end. An
//! input is a byte that says how the stream is cut, and the stream.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::fuzzing::response_heads;
use phalanx_fuzz::Input;

const HEADERS_MAX: usize = 256;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let cut = usize::from(input.byte());
    let stream = input.0;
    let whole = response_heads([stream]);
    assert_eq!(response_heads(stream.chunks(1)), whole, "byte by byte it is judged otherwise");
    assert_eq!(response_heads(stream.chunks(cut + 1)), whole, "in pieces it is judged otherwise");
    let mut begin = 0;
    while let Some((length, status)) = head(&stream[begin..]) {
        begin += length;
        let is_interim = (100..200).contains(&status) && status != 101;
        match response_heads([&stream[..begin]]) {
            None => return,
            Some(ended) => assert_eq!(ended, !is_interim, "a head of status {status} ends at byte {begin}"),
        }
        assert_ne!(response_heads([&stream[..begin - 1]]), Some(true), "it ended before byte {begin}");
        if !is_interim {
            return;
        }
    }
});

/// The length of a head and its status, if it is whole.
fn head(stream: &[u8]) -> Option<(usize, u16)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(stream).ok()? {
        httparse::Status::Complete(length) => Some((length, response.code?)),
        httparse::Status::Partial => None,
    }
}
