//! How much an upstream is asked for at once.

use serde::{Deserialize, Serialize};

/// How much an upstream is asked for at once by one node; what is above is refused with 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests in flight; 0 is no limit.
    pub requests: u32,
    /// Connections to all its targets together, idle ones included; 0 is no limit.
    pub connections: u32,
    /// Requests that wait for a connection, for `timeout.connect` at most, while there are as many as there may be.
    pub pending: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 0, connections: 0, pending: 1_024 }
    }
}
