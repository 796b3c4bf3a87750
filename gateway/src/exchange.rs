//! One request in flight, as policies see and change it, and how they refuse it.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{Code, Name};

use crate::{
    lease::Lease,
    plan::{CompiledRoute, Plan},
};

/// One request in flight, between its routing and its forwarding.
///
/// `headers` are what will be forwarded: hop-by-hop, forwarded and identity headers of the client are gone already.
pub struct Exchange<'a> {
    /// The Plan that the request was pinned to when it came.
    pub plan: &'a Plan,
    /// The route that takes it.
    pub route: &'a CompiledRoute,
    /// Its method.
    pub method: &'a Method,
    /// Its host, as it was matched.
    pub host: &'a str,
    /// Its path, as it was matched.
    pub path: &'a str,
    /// Its query as it will be forwarded, without the `?`.
    pub query: Option<Cow<'a, str>>,
    /// Its headers as they will be forwarded.
    pub headers: &'a mut HeaderMap,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// Seconds since the Unix epoch, now.
    pub now_s: u64,
    /// When what is served was last known to be the newest.
    pub lease: &'a Lease,
    /// Who calls, once a policy has found out.
    pub consumer: Option<Name>,
}

/// Why a policy refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the nine outcomes; its HTTP status is the response's.
    pub code: Code,
    /// The word in logs and metrics, as `key_expired`; never shown to the client.
    pub reason: &'static str,
    /// What the client is told, which must not help one who guesses.
    pub detail: &'static str,
    /// Headers that the response must have, as `WWW-Authenticate`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal without headers.
    pub fn new(code: Code, reason: &'static str, detail: &'static str) -> Self {
        Self { code, reason, detail, headers: Vec::new() }
    }
}
