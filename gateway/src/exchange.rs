//! One request in flight, as policies see and change it, and how they answer or refuse it.

use std::{borrow::Cow, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{Code, Name};

use crate::{
    after::After,
    lease::Lease,
    plan::{CompiledRoute, Plan},
    rate_limits::RateLimits,
    tls::ClientCertificate,
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
    /// Its id.
    pub id: &'a HeaderValue,
    /// The client's address: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// The client's certificate, which an authority has signed that its listener trusts.
    pub certificate: Option<&'a ClientCertificate>,
    /// Microseconds since the Unix epoch, now.
    pub now_us: u64,
    /// When what is served was last known to be the newest.
    pub lease: &'a Lease,
    /// The counters of rate limits.
    pub rates: &'a RateLimits,
    /// Who calls, once a policy has found out.
    pub consumer: Option<Name>,
    /// The groups of who calls, in the consumer's order.
    pub groups: &'a [Name],
    /// The name of the key that it calls with.
    pub key: Option<Name>,
    /// What is to be done once the response is there.
    pub after: &'a mut After,
}

impl Exchange<'_> {
    /// Seconds since the Unix epoch, now.
    pub fn now_s(&self) -> u64 {
        self.now_us / 1_000_000
    }
}

/// What a policy makes of a request that it does not refuse.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It goes on: to the next policy, and then to where its route leads.
    Pass,
    /// It ends here, with this.
    Answer(Box<Reply>),
}

/// A response that a policy makes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// An empty one.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// Why a policy refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the nine outcomes; its HTTP status is the response's.
    pub code: Code,
    /// The word in logs and metrics, as `key_expired`; never shown to the client.
    pub reason: &'static str,
    /// What the client is told, which must not help one who guesses.
    pub detail: Cow<'static, str>,
    /// Headers that the response must have, as `WWW-Authenticate`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What is unusual about it.
    pub form: Option<Box<Form>>,
}

/// What is unusual about a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Form {
    /// Instead of the code's HTTP status.
    pub status: Option<StatusCode>,
    /// The problem's word, as clients are told it in `code`, and its title, instead of the code's.
    pub named: Option<(&'static str, &'static str)>,
    /// The problem type as a URI, and its title, instead of the code's.
    pub problem: Option<(&'static str, &'static str)>,
    /// More members of the problem document.
    pub members: serde_json::Map<String, serde_json::Value>,
    /// Instead of the problem document: the body, and what it is.
    pub body: Option<(HeaderValue, Bytes)>,
}

impl Refusal {
    /// A refusal without headers.
    pub fn new(code: Code, reason: &'static str, detail: &'static str) -> Self {
        Self { code, reason, detail: detail.into(), headers: Vec::new(), form: None }
    }

    /// The request's body has more bytes than it may.
    pub(crate) fn body_too_large(bytes_max: u64) -> Self {
        let form = Form {
            status: Some(StatusCode::PAYLOAD_TOO_LARGE),
            named: Some(("body_too_large", "The request's body is too large")),
            ..Form::default()
        };
        let detail = format!("It may have {} at the most.", model::size::format(bytes_max));
        Self {
            detail: detail.into(),
            form: Some(Box::new(form)),
            ..Self::new(Code::Invalid, "body_too_large", "")
        }
    }
}
