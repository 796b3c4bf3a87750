//! Policies: what they are to the rest, and the catalogue of their types in the order in which they run.

use std::sync::Arc;

use model::{Name, Violation};
use serde::de::DeserializeOwned;

use crate::exchange::{Exchange, Refusal};

pub mod api_key;
pub mod ip;
#[cfg(test)]
pub(crate) mod test;

/// The header that tells the upstream who calls. A client's own never gets past the gateway, aliases included.
pub const CONSUMER_HEADER: &str = "x-consumer";

/// One traffic behaviour, built from a config's policy.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// The name of the config's policy.
    fn name(&self) -> &Name;

    /// Looks at the request before it is forwarded, may change it, or refuses it.
    fn request(&self, exchange: &mut Exchange<'_>) -> Result<(), Refusal>;
}

/// A policy, or what is wrong with its body.
pub type Built = Result<Arc<dyn Policy>, Vec<Violation>>;

/// A type of policy.
pub struct Row {
    /// What a config calls it.
    pub kind: &'static str,
    /// Builds it from a policy's name and body, or says what is wrong with the body.
    pub build: fn(&Name, &model::Policy) -> Built,
    /// Whether groups may override fields of its body.
    pub overridable: bool,
}

/// Every type of policy, in the order in which they run on a request.
pub const CATALOG: &[Row] = &[
    Row { kind: ip::KIND, build: ip::build, overridable: false },
    Row { kind: api_key::KIND, build: api_key::build, overridable: false },
];

/// The place in the [`CATALOG`] of a type.
pub fn rank(kind: &str) -> Option<usize> {
    CATALOG.iter().position(|row| row.kind == kind)
}

/// Builds a policy of whatever type, or says what is wrong with it.
pub fn build(name: &Name, policy: &model::Policy) -> Built {
    match CATALOG.iter().find(|row| row.kind == policy.kind) {
        Some(row) => (row.build)(name, policy),
        None => {
            let known: Vec<&str> = CATALOG.iter().map(|row| row.kind).collect();
            let message = format!("{:?} is no type of policy: one of {}", policy.kind, known.join(", "));
            Err(vec![Violation { path: format!("policies.{name}.type"), message }])
        }
    }
}

/// Reads a policy's body as its type's spec.
fn spec<T: DeserializeOwned>(name: &Name, policy: &model::Policy) -> Result<T, Vec<Violation>> {
    let body = serde_json::Value::Object(policy.body.clone());
    serde_path_to_error::deserialize(body).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { format!(".{place}") };
        vec![Violation { path: format!("policies.{name}{place}"), message: error.inner().to_string() }]
    })
}
