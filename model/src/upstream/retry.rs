//! How a failed attempt is tried again.

use serde::{Deserialize, Serialize};

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
