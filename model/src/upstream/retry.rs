//! How a failed attempt is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Condition;

/// How a failed attempt is tried again, on another target where there is one.
///
/// A request of which no byte was sent may always be tried again. One that was sent is only if its method may be, and if it
/// has no body or its body was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts after the first: 0 to 10.
    pub attempts: u32,
    /// What is tried again; empty is `connect` and `reset`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Condition>,
    /// Methods of which a request that was sent may be sent again; empty is the idempotent ones (RFC 9110, section 9.2.2).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The largest body that is kept to be sent again, in bytes; 0 keeps none.
    #[serde(skip_serializing_if = "is_zero")]
    pub body_bytes_max: u32,
    /// How many requests may be tried again beside those that come.
    pub budget: Budget,
    /// How long to wait before.
    pub backoff: Backoff,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: Vec::new(),
            methods: Vec::new(),
            body_bytes_max: 0,
            budget: Budget::default(),
            backoff: Backoff::default(),
        }
    }
}

/// How many requests that were sent may be sent again, by upstream and node, so that retries don't multiply the load of an
/// upstream that fails (Finagle's RetryBudget).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// So many of a hundred requests: 0 to 100.
    pub percent: u32,
    /// So many a second besides, however few requests come: 0 to 10,000.
    pub min_per_s: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: 20, min_per_s: 10 }
    }
}

/// How long to wait before a retry: a time by chance up to `base`, doubled for each retry of the request, but not above `max`
/// ("full jitter" of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backoff {
    /// The longest before the first retry; 0s waits before none.
    #[serde(with = "crate::duration")]
    pub base: Duration,
    /// The longest before any.
    #[serde(with = "crate::duration")]
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}
