//! An upstream: a named pool of targets and how it is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}

/// How a target is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each target in turn, in proportion to its weight.
    #[default]
    RoundRobin,
}

/// One address in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name.
    pub address: String,
    /// Its share of the requests beside the others': 0 (none) to 65,535.
    #[serde(default = "Target::weight_default")]
    pub weight: u16,
}

impl Target {
    fn weight_default() -> u16 {
        1
    }
}

/// How a failing target is taken out of use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// By what happens to the traffic itself.
    #[serde(default)]
    pub passive: Passive,
}

/// Passive ejection: after so many failures in a row a target gets no traffic for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passive {
    /// Failures in a row (refused or broken connections, timeouts, 502, 503 and 504) that eject; 0 never ejects.
    pub failures: u32,
    /// For how long; doubled at each ejection in a row, up to 16 times.
    #[serde(with = "crate::duration")]
    pub eject: Duration,
}

impl Default for Passive {
    fn default() -> Self {
        Self { failures: 5, eject: Duration::from_secs(10) }
    }
}

/// How a failed attempt is tried again, on another target where there is one.
///
/// Only what is safe to send twice: a request of an idempotent method (RFC 9110, section 9.2.2) with no body sent
/// yet, or any request of which no byte was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts after the first: 0 to 10.
    pub attempts: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2 }
    }
}

/// How long to wait for an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeout {
    /// Until a connection stands.
    #[serde(with = "crate::duration")]
    pub connect: Duration,
    /// From the request's last byte to the response's head; then 504.
    #[serde(with = "crate::duration")]
    pub response: Duration,
}

impl Default for Timeout {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), response: Duration::from_secs(15) }
    }
}
