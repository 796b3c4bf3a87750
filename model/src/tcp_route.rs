//! A TCP route: which connections it takes, and the upstream to which their bytes go as they come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Name, route::WeightedUpstream};

/// The listener of the setting `proxy_tls`, as TCP routes call it. Those of the setting `tcp` have names of their own.
pub const PROXY_TLS: &str = "proxy-tls";

/// Connections whose bytes go to an upstream as they come, and come back so: nothing of TLS or of any other protocol is ended here.
///
/// A connection is told by the listener that it has come to and, with `hosts`, by the host that its client names in the ClientHello of TLS (SNI,
/// RFC 6066, section 3). The more specific host goes first: exact, the longest wildcard, then any (Gateway API, TLSRoute and TCPRoute).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpRoute {
    /// The listeners it is on: names of the setting `tcp`, or `proxy-tls`; empty is `proxy-tls` alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Name>,
    /// Exact names (`db.example`) or wildcards for one or more leading labels (`*.example`); empty takes what no other route of the listener
    /// takes, and on `proxy-tls` no certificate is for either.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// To this upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Name>,
    /// To one of these, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<WeightedUpstream>,
    /// How long neither side may send; then the connection is closed. 0s is no such limit.
    #[serde(with = "crate::duration")]
    pub idle_timeout: Duration,
    /// The most connections at once, on each node; the next is closed. 0 is no such limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub connections_max: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Default for TcpRoute {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            hosts: Vec::new(),
            upstream: None,
            upstreams: Vec::new(),
            idle_timeout: Duration::from_secs(3_600),
            connections_max: 0,
        }
    }
}

impl TcpRoute {
    /// The listeners it is on, by name.
    pub fn on(&self) -> impl Iterator<Item = &str> {
        let usual = self.listeners.is_empty().then_some(PROXY_TLS);
        self.listeners.iter().map(Name::as_str).chain(usual)
    }

    /// The hosts it is for, as written; `*` where it takes any.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        let any = self.hosts.is_empty().then_some("*");
        self.hosts.iter().map(String::as_str).chain(any)
    }

    /// The upstreams that it names, each with its share.
    pub fn shares(&self) -> impl Iterator<Item = (&Name, u16)> {
        let several = self.upstreams.iter().map(|weighted| (&weighted.upstream, weighted.weight));
        self.upstream.iter().map(|name| (name, 1)).chain(several)
    }
}
