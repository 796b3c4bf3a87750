//! How a target is chosen for a request.

use serde::{Deserialize, Serialize};

/// How a target is chosen for a request. In each, a target gets its share by its weight, unless what the strategy looks at says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each target in turn.
    #[default]
    RoundRobin,
    /// Any target.
    Random,
    /// Of two targets drawn at random the one with fewer requests in flight.
    LeastRequests,
    /// Of two targets drawn at random the one that would have answered sooner of late, with its requests in flight.
    P2c,
}
