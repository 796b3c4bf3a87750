//! How a failing target is taken out of use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Condition;

/// How a failing target is taken out of use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// By what happens to the traffic itself.
    #[serde(default)]
    pub passive: Passive,
    /// By asking it whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Box<Active>>,
}

/// Passive ejection: a target that fails gets no traffic for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Passive {
    /// Failures in a row that eject; 0 never ejects for that.
    pub failures: u32,
    /// For how long; doubled at each ejection in a row, up to 16 times.
    #[serde(with = "crate::duration")]
    pub eject: Duration,
    /// What is a failure; empty is `connect`, `reset`, `timeout` and `gateway_error`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Condition>,
    /// An answer whose head takes longer is a failure too, whatever it says; 0s is no such limit. Requests with bodies don't
    /// count: how long these took says nothing of the target.
    #[serde(with = "crate::duration", skip_serializing_if = "Duration::is_zero")]
    pub slow: Duration,
    /// How many failures among its requests eject.
    #[serde(skip_serializing_if = "FailureRate::is_off")]
    pub rate: FailureRate,
    /// How many of a hundred targets may be out of use before no more are ejected, rounded up: 0 to 100.
    pub max_ejected: u32,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 5,
            eject: Duration::from_secs(10),
            on: Vec::new(),
            slow: Duration::ZERO,
            rate: FailureRate::default(),
            max_ejected: 50,
        }
    }
}

/// How many of a target's requests fail in a time, once there are enough to tell (Envoy's failure percentage outlier detection).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureRate {
    /// Failures of a hundred requests that eject, 1 to 100; 0 never ejects for that.
    pub percent: u32,
    /// Requests in `window` below which nothing is said: 1 to 10,000.
    pub requests: u32,
    /// In which they are counted; then anew.
    #[serde(with = "crate::duration")]
    pub window: Duration,
}

impl FailureRate {
    fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for FailureRate {
    fn default() -> Self {
        Self { percent: 0, requests: 20, window: Duration::from_secs(10) }
    }
}

/// Active checks: targets are asked whether they are well, each by some nodes. Exactly one of `http`, `tcp` and `grpc` says how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Active {
    /// By a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// By a connection, with the handshake of TLS where the upstream has that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// By the health protocol of gRPC (grpc/doc/health-checking.md), over HTTP/2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    /// From one check of a target to the next, a tenth more or less by chance.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// How long a check may take.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Good checks in a row that bring a target back into use.
    pub healthy: u32,
    /// Failed checks in a row that take it out of use.
    pub unhealthy: u32,
    /// How many nodes check a target: 0 to 64; 0 is all of them, each for itself.
    pub checkers: u32,
}

impl Default for Active {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            grpc: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            checkers: 2,
        }
    }
}

/// A check by a request of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpCheck {
    /// The path, with the query if there is one.
    pub path: String,
    /// GET or HEAD.
    pub method: String,
    /// The Host; empty is the target's address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The statuses of a target that is well; empty is 200 to 299.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        Self { path: "/".into(), method: "GET".into(), host: String::new(), statuses: Vec::new() }
    }
}

/// A check by a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TcpCheck {}

/// A check by `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcCheck {
    /// The service that is asked after; empty is the server as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
}
