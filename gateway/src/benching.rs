//! What the benches in bench/ ask of this crate, and nobody else does.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use crate::{
    forwarded,
    h1::{
        encode::{self, Framing, Persistence},
        request::{self, Reader},
    },
    headers,
    plan::CompiledUpstream,
    settings::Limits,
    upstream::balance::{Affinity, Choice},
};

/// Reads heads of requests, as a client's connection does.
#[derive(Debug)]
pub struct RequestHeads {
    buf: BytesMut,
    reader: Reader,
    limits: Limits,
}

impl RequestHeads {
    /// Of a new connection.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a connection has a beginning and no default")]
    pub fn new() -> Self {
        Self { buf: BytesMut::new(), reader: Reader::default(), limits: Limits::default() }
    }

    /// Reads one, which comes whole; none if it is bad. How many header lines it has, and whether another may follow.
    pub fn read(&mut self, head: &[u8]) -> Option<(usize, bool)> {
        self.buf.extend_from_slice(head);
        let request::Head { parts, keep_alive, .. } =
            self.reader.read(&mut self.buf, &self.limits).ok()??;
        Some((parts.headers.len(), keep_alive))
    }
}

/// Makes of a stranger's headers those that are forwarded.
pub fn clean_request(headers: &mut HeaderMap, peer: &HeaderValue) -> bool {
    headers::clean_request(headers, false);
    forwarded::add(headers, peer, false, None, Version::HTTP_11, false)
}

/// Makes of a target's headers those that its client gets; false if they leave it open where its body ends.
pub fn clean_response(headers: &mut HeaderMap) -> bool {
    let good = !headers::badly_framed(headers);
    headers::clean_response(headers, false);
    good
}

/// Writes the head of a 200 with a body of so many bytes.
pub fn write_response(out: &mut Vec<u8>, headers: &HeaderMap, length: u64) {
    encode::response(out, StatusCode::OK, headers, Framing::Length(length), Persistence::Implied, None);
}

/// Where a request with these headers goes first.
pub fn choose<'u>(upstream: &'u CompiledUpstream, headers: &HeaderMap) -> Option<&'u str> {
    let client = || IpAddr::V4(Ipv4Addr::LOCALHOST);
    let affinity =
        upstream.binding.as_ref().map_or_else(Affinity::default, |binding| binding.of(headers, None, client));
    Choice::with(upstream, affinity).next().map(|picked| &*picked.endpoint.label)
}
