//! What the targets in fuzz/ ask of this crate, and nobody else does.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Version};

use crate::{
    forwarded,
    framing::Follower,
    headers,
    proxy_protocol::{self, Found, ProxyProtocol},
    settings::Limits,
    upstream::response_head,
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
    response_head::end(pieces)
}

/// The framing of a client's stream, as the guard before hyper follows it.
#[derive(Debug)]
pub struct Framing(Follower);

/// Where and why a stream is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// How many bytes of the slice that was fed are good.
    pub good: usize,
    /// Whether that is in a head; if not, in a body.
    pub in_head: bool,
    /// What the client is told.
    pub detail: &'static str,
}

impl Framing {
    /// At the beginning of a stream.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a stream has a beginning and no default")]
    pub fn new() -> Self {
        Self(Follower::new(Limits::default().head()))
    }

    /// Goes on over these bytes.
    ///
    /// # Errors
    /// Where they are framed badly; then nothing more may be fed.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.0.feed(bytes).map_err(|found| Refused {
            good: found.good,
            in_head: found.in_head,
            detail: found.fault.detail(),
        })
    }

    /// Whether the stream stands between two messages.
    #[must_use]
    pub fn between_messages(&self) -> bool {
        self.0.between_messages()
    }

    /// Whether it stands within a head.
    #[must_use]
    pub fn in_head(&self) -> bool {
        self.0.in_head()
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
