//! A policy: one traffic behaviour, by type, reusable by name; its body means something to the data plane alone.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A policy's type and the body that the data plane's catalogue reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its row in the catalogue, as `api-key`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Every other field.
    #[serde(flatten)]
    pub body: Map<String, Value>,
}
