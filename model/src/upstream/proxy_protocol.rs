//! Whether targets are told by the PROXY protocol for whom a connection is made.

use serde::{Deserialize, Serialize};

/// A version of the PROXY protocol, by which a target is told for whom a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line for people.
    V1,
    /// Bytes.
    V2,
}
