//! An upstream: a named pool of targets and how it is used.

mod balance;
mod condition;
mod health;
mod hedge;
mod http2;
mod limits;
mod protocol;
mod proxy_protocol;
mod retry;
mod sticky;
mod timeout;
mod tls;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use balance::{Balance, HashKey, Hashing};
pub use condition::Condition;
pub use health::{Active, FailureRate, GrpcCheck, Health, HttpCheck, Passive, TcpCheck};
pub use hedge::{After, Hedge};
pub use http2::Http2;
pub use limits::Limits;
pub use protocol::Protocol;
pub use proxy_protocol::ProxyProtocol;
pub use retry::{Backoff, Budget, Retry};
pub use sticky::{SameSite, Sticky};
pub use timeout::Timeout;
pub use tls::{SniFrom, TlsVersion, UpstreamTls};

/// A named pool of targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How a target is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// How a client's requests are kept to one target by a cookie; they are not unless this is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// For how long a target that has just come into use gets less than its share, 0s (not at all) to 1h; 0s unless said.
    #[serde(default, with = "crate::duration", skip_serializing_if = "Duration::is_zero")]
    pub slow_start: Duration,
    /// Below how many percent of targets in use, by weight, requests go to all of them: 0 (when there is none) to 100; 0 unless said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub panic_percent: u32,
    /// The pool, never empty.
    pub targets: Vec<Target>,
    /// How a failing target is taken out of use.
    #[serde(default)]
    pub health: Health,
    /// How a failed attempt is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// When it is sent to one more target before it has failed; never unless this is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Box<Hedge>>,
    /// How long to wait.
    #[serde(default)]
    pub timeout: Timeout,
    /// What is spoken to its targets.
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
    /// How connections are used on which that is HTTP/2; as usual unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<Box<Http2>>,
    /// TLS to its targets; in clear without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<UpstreamTls>>,
    /// Tells targets by the PROXY protocol for whom a connection is made, which is then used for one client connection alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How much it is asked for at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One address in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name, each of whose addresses is a place to send to. Or the name
    /// of a service, as `_http._tcp.orders` (RFC 2782), whose records say hosts, ports, priorities and weights.
    pub address: String,
    /// Its share of the requests beside the others': 0 (none) to 65,535. That of each address, where it is a name.
    #[serde(default = "Target::weight_default")]
    pub weight: u16,
    /// Targets of a higher number get only what those of lower ones can't bear: 0 (unless said) to 127.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u16,
    /// Where it is. A node whose setting `zone` is another prefers targets of its own zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Target {
    fn weight_default() -> u16 {
        1
    }
}
