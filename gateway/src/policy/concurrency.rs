//! Policy `concurrency`: so many requests in flight at once, under a limit that all nodes share, or as many as a target bears.

use std::sync::Arc;

use http::{HeaderValue, header};
use limits::{Acquired, Bounds, InFlight};
use model::{Code, Name};
use serde::Deserialize;

use super::{
    Context, Policy,
    partition::{self, By, Part, Partition, own_counters},
    refused::{self, RefusalSpec, Refused},
    scope::{Counting, OnPartition},
};
use crate::{
    after::{Adaptive, Permit},
    exchange::{Exchange, Refusal, Verdict},
    rate_limits::KeyName,
    state::Figures,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "concurrency";
/// The fields of its body that groups may override.
pub(crate) const OVERRIDABLE: &[&str] = &["limit", "shadow", "refusal"];

/// The kind of its keys, which no window's length is.
const IN_FLIGHT: u32 = 0;
/// What whoever is refused is told to wait, in seconds: when another request ends can't be known.
const RETRY_AFTER_S: u64 = 1;
/// The problem types of refusals, and their titles (draft-ietf-httpapi-ratelimit-headers-11).
const QUOTA_EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "Too many requests at once");
const REDUCED_CAPACITY: (&str, &str) = (
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    "There is more to do than can be done now",
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// How many at once.
    limit: Option<u32>,
    /// As many as targets bear, found out by how long they take.
    adaptive: Option<AdaptiveSpec>,
    /// For whom requests are counted; without it, for all together.
    by: Option<By>,
    /// Whether all nodes count together.
    scope: Option<Counting>,
    /// What nodes do that are cut off from most of the others.
    on_partition: Option<OnPartition>,
    /// Count, and refuse nothing.
    #[serde(default)]
    shadow: bool,
    /// What a refusal looks like.
    #[serde(default)]
    refusal: RefusalSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveSpec {
    #[serde(default = "min_default")]
    min: u32,
    #[serde(default = "max_default")]
    max: u32,
    #[serde(default = "tolerance_default")]
    tolerance: f64,
}

fn min_default() -> u32 {
    10
}

fn max_default() -> u32 {
    1_000
}

fn tolerance_default() -> f64 {
    1.5
}

#[derive(Debug)]
struct Concurrency {
    name: Name,
    limit: Limit,
    shadow: bool,
    refused: Refused,
    figures: Arc<Figures>,
}

#[derive(Debug)]
enum Limit {
    Fixed { by: Box<[Part]>, group: Option<Name>, limit: InFlight, on_partition: OnPartition },
    Adaptive(Bounds),
}

pub(super) fn build(name: &Name, policy: &model::Policy, context: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let path = format!("policies.{name}");
    let mut violations = Violations::default();
    let limit = match (spec.limit, &spec.adaptive) {
        (Some(limit), None) => {
            let by = spec.by.unwrap_or_default().compile(&format!("{path}.by"), &mut violations);
            let scope = spec.scope.unwrap_or_default().compile(spec.on_partition, &path, &mut violations);
            let limit = InFlight::new(limit, scope);
            if limit.is_none() {
                violations.add(format!("{path}.limit"), format!("must be 1 to {}", InFlight::LIMIT_MAX));
            }
            let on_partition = spec.on_partition.unwrap_or_default();
            limit.map(|limit| Limit::Fixed {
                group: own_counters(&by, context.group),
                by,
                limit,
                on_partition,
            })
        }
        (None, Some(adaptive)) => {
            let fixed = [spec.by.is_some(), spec.scope.is_some(), spec.on_partition.is_some()];
            for (field, _) in
                ["by", "scope", "on_partition"].iter().zip(fixed).filter(|(_, is_there)| *is_there)
            {
                let message =
                    "is for a limit: what targets bear, each node finds out for each route by itself";
                violations.add(format!("{path}.{field}"), message.to_owned());
            }
            Some(Limit::Adaptive(adaptive.compile(&format!("{path}.adaptive"), &mut violations)))
        }
        (Some(_), Some(_)) | (None, None) => {
            violations.add(path.clone(), "needs either limit or adaptive".to_owned());
            None
        }
    };
    let refused = spec.refusal.compile(&format!("{path}.refusal"), &mut violations);
    match (limit, refused) {
        (Some(limit), Some(refused)) if violations.len() == 0 => Ok(Arc::new(Concurrency {
            name: name.clone(),
            limit,
            shadow: spec.shadow,
            refused,
            figures: context.figures.cloned().unwrap_or_default(),
        })),
        _ => Err(violations.into_vec()),
    }
}

impl AdaptiveSpec {
    fn compile(&self, path: &str, violations: &mut Violations) -> Bounds {
        let mut wrong =
            |field: &str, message: &str| violations.add(format!("{path}.{field}"), message.to_owned());
        if self.min == 0 {
            wrong("min", "must be 1 or more");
        }
        if self.max < self.min || self.max > InFlight::LIMIT_MAX {
            wrong("max", "must be min or more, and 1,073,741,823 at the most");
        }
        if !(1.0..=100.0).contains(&self.tolerance) {
            wrong("tolerance", "must be 1 to 100");
        }
        Bounds { min: self.min, max: self.max, tolerance: self.tolerance }
    }
}

impl Policy for Concurrency {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let permit = match &self.limit {
            Limit::Fixed { by, group, limit, on_partition } => {
                if let Some(refusal) = on_partition.refusal(exchange) {
                    return self.refuse(|| refusal);
                }
                let key = Partition::of(&self.name, group.as_ref(), by, exchange).key(IN_FLIGHT);
                let acquired = exchange.rates.enter(key, *limit);
                if acquired.is_none() && exchange.rates.wants_names(false) {
                    let by = partition::in_words(by, exchange);
                    exchange.rates.name(KeyName {
                        key,
                        policy: self.name.clone(),
                        limit: None,
                        by,
                        quota: None,
                    });
                }
                match acquired {
                    Some(Acquired::Counted(permit)) => Some(Permit::Shared(permit)),
                    Some(Acquired::Uncounted) => None,
                    None => return self.refuse(|| self.too_many()),
                }
            }
            Limit::Adaptive(bounds) => {
                let adapted = self.figures.adapted(&exchange.route.name);
                match Adaptive::enter(adapted, *bounds) {
                    Some(adaptive) => Some(Permit::Adaptive(adaptive)),
                    None => return self.refuse(|| self.overloaded()),
                }
            }
        };
        self.figures.admit();
        exchange.after.permits.extend(permit);
        Ok(Verdict::Pass)
    }

    fn figures(&self) -> Option<&Arc<Figures>> {
        Some(&self.figures)
    }
}

impl Concurrency {
    fn refuse(&self, refusal: impl FnOnce() -> Refusal) -> Result<Verdict, Refusal> {
        refused::refuse(&self.figures, self.shadow, refusal)
    }

    fn too_many(&self) -> Refusal {
        let mut refusal = Refusal::new(Code::Exhausted, "too_many_in_flight", "");
        let form = refusal.form.insert(Box::default());
        form.problem = Some(QUOTA_EXCEEDED);
        form.members.insert("violated-policies".into(), serde_json::json!([self.name]));
        self.dressed(refusal)
    }

    fn overloaded(&self) -> Refusal {
        let mut refusal = Refusal::new(Code::Unavailable, "overloaded", "");
        refusal.form.insert(Box::default()).problem = Some(REDUCED_CAPACITY);
        self.dressed(refusal)
    }

    fn dressed(&self, mut refusal: Refusal) -> Refusal {
        refusal.headers.push((header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S)));
        self.refused.dress(refusal)
    }
}

#[cfg(test)]
mod tests;
