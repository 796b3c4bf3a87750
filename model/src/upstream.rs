//! An upstream: a named pool of targets and how it is used.

mod balance;
mod condition;
mod health;
mod limits;
mod protocol;
mod proxy_protocol;
mod retry;
mod timeout;
mod tls;

use serde::{Deserialize, Serialize};

pub use balance::Balance;
pub use condition::Condition;
pub use health::{Health, Passive};
pub use limits::Limits;
pub use protocol::Protocol;
pub use proxy_protocol::ProxyProtocol;
pub use retry::{Backoff, Budget, Retry};
pub use timeout::Timeout;
pub use tls::{SniFrom, TlsVersion, UpstreamTls};

/// A named pool of targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// How a target is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// The pool, never empty.
    pub targets: Vec<Target>,
    /// How a failing target is taken out of use.
    #[serde(default)]
    pub health: Health,
    /// How a failed attempt is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// How long to wait.
    #[serde(default)]
    pub timeout: Timeout,
    /// What is spoken to its targets.
    #[serde(default, skip_serializing_if = "Protocol::is_default")]
    pub protocol: Protocol,
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
}

impl Target {
    fn weight_default() -> u16 {
        1
    }
}
