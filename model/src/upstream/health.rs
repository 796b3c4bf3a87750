//! How a failing target is taken out of use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
