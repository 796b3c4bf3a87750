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
    /// Requests with the same key go to the same target, on all nodes, and few go elsewhere when targets come or go.
    Maglev(Hashing),
}

/// How requests are kept together by a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashing {
    /// What of a request is its key. A request without one goes to each target in turn.
    pub by: HashKey,
}

/// What of a request is its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The values of this header, as policies have left it.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The first value of this query parameter.
    Query(String),
    /// The client's address: the peer's, or what a trusted proxy says.
    Address,
}
