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
    /// A whole attempt, from its beginning to the response's head; then the next attempt, or 504. 0s is no such limit.
    #[serde(with = "crate::duration", skip_serializing_if = "Duration::is_zero")]
    pub attempt: Duration,
    /// Between two parts of the response's body; then it breaks off. 0s is no such limit.
    #[serde(with = "crate::duration")]
    pub idle: Duration,
    /// The whole exchange with its attempts, from its forwarding to the response's last byte: then 504, or the response breaks
    /// off. 0s is no such limit.
    #[serde(with = "crate::duration", skip_serializing_if = "Duration::is_zero")]
    pub total: Duration,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(15),
            attempt: Duration::ZERO,
            idle: Duration::from_secs(300),
            total: Duration::ZERO,
        }
    }
}
