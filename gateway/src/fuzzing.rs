//! What the targets in fuzz/ ask of this crate, and nobody else does.

use std::net::SocketAddr;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::{
    forwarded,
    h1::{
        self,
        decoder::{Decoded, Decoder},
    },
    headers,
    proxy_protocol::{self, Found, ProxyProtocol},
    settings::Limits,
};

/// Takes from a request's headers what goes no further. Says whether it asks for an upgrade, and whether it takes trailers.
pub fn clean_request(headers: &mut HeaderMap, trusted: bool) -> (bool, bool) {
    let headers::Found { upgrade, trailers, .. } = headers::clean_request(headers, trusted);
    (upgrade, trailers)
}

/// Takes from a request's trailers what goes no further.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    headers::clean_trailers(trailers);
}

/// Takes from a response's trailers what goes no further.
pub fn clean_response_trailers(trailers: &mut HeaderMap) {
    headers::clean_response_trailers(trailers);
}

/// Takes from a response's headers what goes no further.
pub fn clean_response(response: &mut HeaderMap, upgrade: bool) {
    headers::clean_response(response, upgrade);
}

/// Whether a response's headers leave it open where its body ends.
pub fn badly_framed(response: &HeaderMap) -> bool {
    headers::badly_framed(response)
}

/// Adds from whom a request comes; false if it goes round in a circle.
#[must_use]
pub fn add_forwarded(request: &mut HeaderMap, peer: &HeaderValue, trusted: bool) -> bool {
    forwarded::add(request, peer, trusted, None, Version::HTTP_11, false)
}

/// Whether the heads of a response have ended in these pieces of a target's stream; none if they are bad.
pub fn response_heads<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<bool> {
    let (mut buf, mut lines) = (BytesMut::new(), h1::lines::Lines::default());
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Some(head) = h1::response::read(&mut lines, &mut buf, &Method::GET, usize::MAX).ok()? {
            if !head.is_interim() {
                return Some(true);
            }
        }
    }
    Some(false)
}

/// A client's stream, as a connection reads it.
#[derive(Debug)]
pub struct Stream {
    buf: BytesMut,
    reader: h1::request::Reader,
    decoder: Decoder,
    limits: Limits,
}

/// What a stream holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A request's head: its method, its target and its header lines.
    Head(String, String, Vec<(String, Vec<u8>)>),
    /// Bytes of its body.
    Data(Vec<u8>),
    /// What is refused, and what the client is told of it. Nothing follows.
    Refused(&'static str),
}

impl Stream {
    /// At the beginning of a stream.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a stream has a beginning and no default")]
    pub fn new() -> Self {
        Self {
            buf: BytesMut::new(),
            reader: h1::request::Reader::default(),
            decoder: Decoder::length(0),
            limits: Limits::default(),
        }
    }

    /// Goes on over these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Item> {
        self.buf.extend_from_slice(bytes);
        let mut items = Vec::new();
        loop {
            let item = if self.decoder.is_done() { self.head() } else { self.body() };
            match item {
                Ok(Some(item)) => items.push(item),
                Ok(None) => return items,
                Err(fault) => {
                    items.push(Item::Refused(fault.detail()));
                    return items;
                }
            }
        }
    }

    fn head(&mut self) -> Result<Option<Item>, h1::Fault> {
        let Some(head) = self.reader.read(&mut self.buf, &self.limits)? else { return Ok(None) };
        self.decoder = head.decoder;
        let line =
            |(name, value): (&http::HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
        let lines = head.parts.headers.iter().map(line).collect();
        Ok(Some(Item::Head(head.parts.method.to_string(), head.parts.uri.to_string(), lines)))
    }

    fn body(&mut self) -> Result<Option<Item>, h1::Fault> {
        Ok(match self.decoder.decode(&mut self.buf)? {
            Decoded::Data(data) => Some(Item::Data(data.to_vec())),
            Decoded::Trailers(_) | Decoded::End => Some(Item::Data(Vec::new())),
            Decoded::More => None,
        })
    }
}

/// What the bytes of a connection's beginning say of whom it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// It goes on.
    More,
    /// It is so long, and names this source, if one.
    Whole(usize, Option<SocketAddr>),
    /// There is none.
    None,
}

/// Reads the PROXY header that these bytes begin with.
#[must_use]
pub fn proxy_header(bytes: &[u8], taken: ProxyProtocol) -> ProxyHeader {
    match proxy_protocol::parse(bytes, taken) {
        Ok(Found::More) => ProxyHeader::More,
        Ok(Found::Header(length, source)) => ProxyHeader::Whole(length, source),
        Err(_) => ProxyHeader::None,
    }
}

/// The host that a client's stream names in its ClientHello, or in a word why there is none, and how many bytes of it were read.
#[must_use]
pub fn client_hello<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Result<Option<String>, &'static str>, usize) {
    crate::tcp::hello::found(pieces)
}
