//! How long to wait for an upstream.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
