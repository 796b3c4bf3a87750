//! Policies: what they are to the rest, and the catalogue of their types in the order in which they run.

use std::{collections::BTreeMap, sync::Arc};

use model::{Config, Name, Violation};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    exchange::{Exchange, Refusal, Verdict},
    state::Figures,
};

pub mod api_key;
pub mod body_limit;
pub mod client_certificate;
pub mod compress;
pub mod concurrency;
pub mod cors;
pub mod error_pages;
pub mod fault;
pub(crate) mod grpc_web;
pub mod ip;
mod partition;
pub mod rate_limit;
mod refused;
pub mod request_id;
mod scope;
#[cfg(test)]
pub(crate) mod test;

/// The header that tells the upstream who calls. A client's own never gets past the gateway, aliases included.
pub const CONSUMER_HEADER: &str = "x-consumer";

/// One traffic behaviour, built from a config's policy.
pub trait Policy: Send + Sync + std::fmt::Debug {
    /// The name of the config's policy.
    fn name(&self) -> &Name;

    /// Looks at the request before it is forwarded: may change it, answer it, or refuse it. What is to be done with the response is
    /// left in [`Exchange::after`].
    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal>;

    /// What it has done, if it counts that. Handed to the policy that takes its place.
    fn figures(&self) -> Option<&Arc<Figures>> {
        None
    }
}

/// A policy, or what is wrong with its body.
pub type Built = Result<Arc<dyn Policy>, Vec<Violation>>;

/// What a policy is built besides its body from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// What the one before has done, with which it goes on.
    pub figures: Option<&'a Arc<Figures>>,
    /// The group whose form of the policy it is.
    pub group: Option<&'a Name>,
}

/// A type of policy.
pub struct Row {
    /// What a config calls it.
    pub kind: &'static str,
    /// Builds it from a policy's name and body, or says what is wrong with the body.
    pub build: fn(&Name, &model::Policy, Context<'_>) -> Built,
    /// The fields of its body that groups may override.
    pub overridable: &'static [&'static str],
}

/// Every type of policy, in the order in which they run on a request.
pub const CATALOG: &[Row] = &[
    Row { kind: cors::KIND, build: cors::build, overridable: &[] },
    Row { kind: request_id::KIND, build: request_id::build, overridable: &[] },
    Row { kind: grpc_web::KIND, build: grpc_web::build, overridable: &[] },
    Row { kind: compress::KIND, build: compress::build, overridable: &[] },
    Row { kind: error_pages::KIND, build: error_pages::build, overridable: &[] },
    Row { kind: ip::KIND, build: ip::build, overridable: &[] },
    Row { kind: client_certificate::KIND, build: client_certificate::build, overridable: &[] },
    Row { kind: api_key::KIND, build: api_key::build, overridable: &[] },
    Row { kind: body_limit::KIND, build: body_limit::build, overridable: body_limit::OVERRIDABLE },
    Row { kind: rate_limit::KIND, build: rate_limit::build, overridable: rate_limit::OVERRIDABLE },
    Row { kind: rate_limit::QUOTA, build: rate_limit::build_quota, overridable: rate_limit::OVERRIDABLE },
    Row { kind: concurrency::KIND, build: concurrency::build, overridable: concurrency::OVERRIDABLE },
    Row { kind: fault::KIND, build: fault::build, overridable: fault::OVERRIDABLE },
];

/// Fields of which a policy has one or the other: whoever overrides one takes the other away.
const IN_PLACE_OF_EACH_OTHER: [(&str, &str); 2] = [("limit", "limits"), ("limits", "limit")];

/// The place in the [`CATALOG`] of a type.
pub fn rank(kind: &str) -> Option<usize> {
    CATALOG.iter().position(|row| row.kind == kind)
}

/// A policy with its forms for groups.
#[derive(Debug)]
pub struct Grouped {
    base: Arc<dyn Policy>,
    by_group: BTreeMap<Name, Arc<dyn Policy>>,
}

impl Grouped {
    /// The policy of this name with what groups override, going on with the figures of the one before.
    pub(crate) fn build(
        name: &Name,
        policy: &model::Policy,
        config: &Config,
        before: Option<&Self>,
    ) -> Result<Self, Vec<Violation>> {
        let figures = before.and_then(|before| before.base.figures());
        let base = build(name, policy, Context { figures, group: None })?;
        let mut by_group = BTreeMap::new();
        for (group, entry) in &config.groups {
            if let Some(fields) = entry.spec.policies.get(name) {
                by_group.insert(group.clone(), overridden(name, policy, group, fields, base.figures())?);
            }
        }
        Ok(Self { base, by_group })
    }

    /// The form for the first of these groups that has one.
    pub(crate) fn of(&self, groups: &[Name]) -> &dyn Policy {
        if self.by_group.is_empty() {
            return &*self.base;
        }
        &**groups.iter().find_map(|group| self.by_group.get(group)).unwrap_or(&self.base)
    }

    /// What it has done.
    pub(crate) fn figures(&self) -> Option<&Arc<Figures>> {
        self.base.figures()
    }
}

/// Builds a policy of whatever type, or says what is wrong with it.
pub fn build(name: &Name, policy: &model::Policy, context: Context<'_>) -> Built {
    match row(policy) {
        Some(row) => (row.build)(name, policy, context),
        None => {
            let known: Vec<&str> = CATALOG.iter().map(|row| row.kind).collect();
            let message = format!("{:?} is no type of policy: one of {}", policy.kind, known.join(", "));
            Err(vec![Violation { path: format!("policies.{name}.type"), message }])
        }
    }
}

/// Builds a policy's form for a group that overrides these fields of its body, or says what is wrong with them, where the group
/// is.
pub fn overridden(
    name: &Name,
    policy: &model::Policy,
    group: &Name,
    fields: &Map<String, Value>,
    figures: Option<&Arc<Figures>>,
) -> Built {
    let path = format!("groups.{group}.policies.{name}");
    let may = row(policy).map_or(&[][..], |row| row.overridable);
    let other = fields.keys().filter(|field| !may.contains(&field.as_str()));
    let other: Vec<Violation> = other
        .map(|field| Violation {
            path: format!("{path}.{field}"),
            message: match may {
                [] => format!("a policy of type {} has nothing that a group can override", policy.kind),
                may => format!("is not for groups to override, which are {}", may.join(", ")),
            },
        })
        .collect();
    if !other.is_empty() {
        return Err(other);
    }
    let mut policy = policy.clone();
    for (one, other) in IN_PLACE_OF_EACH_OTHER {
        if fields.contains_key(one) && !fields.contains_key(other) {
            policy.body.remove(other);
        }
    }
    policy.body.extend(fields.clone());
    build(name, &policy, Context { figures, group: Some(group) }).map_err(|violations| {
        let at = format!("policies.{name}");
        let moved = violations.into_iter().map(|violation| match violation.path.strip_prefix(&at) {
            Some(rest) => Violation { path: format!("{path}{rest}"), ..violation },
            None => violation,
        });
        moved.collect()
    })
}

fn row(policy: &model::Policy) -> Option<&'static Row> {
    CATALOG.iter().find(|row| row.kind == policy.kind)
}

/// Reads a policy's body as its type's spec.
fn spec<T: DeserializeOwned>(name: &Name, policy: &model::Policy) -> Result<T, Vec<Violation>> {
    let body = Value::Object(policy.body.clone());
    serde_path_to_error::deserialize(body).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { format!(".{place}") };
        vec![Violation { path: format!("policies.{name}{place}"), message: error.inner().to_string() }]
    })
}
