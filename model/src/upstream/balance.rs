//! How a target is chosen for a request.

use serde::{Deserialize, Serialize};

/// How a target is chosen for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each target in turn, in proportion to its weight.
    #[default]
    RoundRobin,
}
