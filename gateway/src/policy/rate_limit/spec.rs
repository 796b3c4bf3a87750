//! The policy as a config has it, and what is wrong with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use limits::Rule;
use model::Name;
use serde::{Deserialize, Deserializer};

use super::{Limit, RateLimit, fields};
use crate::{
    after::CostHeader,
    policy::{
        partition::By,
        refused::RefusalSpec,
        scope::{Counting, OnPartition},
    },
    state::Figures,
    violations::Violations,
};

/// The most limits of a policy.
const LIMITS_MAX: usize = 8;
/// The shortest window: nodes can't hear each other within less.
const WINDOW_MS_MIN: u64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// For whom requests are counted; without it, for all together.
    #[serde(default)]
    by: By,
    /// Whether all nodes count together.
    #[serde(default)]
    scope: Counting,
    /// The limit, if there is one.
    limit: Option<Quota>,
    /// The limits by their names, if there are several.
    #[serde(default)]
    limits: BTreeMap<Name, Quota>,
    /// What a request costs.
    #[serde(default, deserialize_with = "number_or_header")]
    cost: CostSpec,
    /// What nodes do that are cut off from most of the others.
    on_partition: Option<OnPartition>,
    /// Count, and refuse nothing.
    #[serde(default)]
    shadow: bool,
    /// Whether responses tell of the limits.
    #[serde(default = "tells_default")]
    headers: bool,
    /// What a refusal looks like.
    #[serde(default)]
    refusal: RefusalSpec,
}

fn tells_default() -> bool {
    true
}

/// So many requests in a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    requests: u32,
    #[serde(with = "model::duration")]
    per: Duration,
    /// How many may come at once; without it, all.
    burst: Option<u32>,
}

/// What a request costs: a number, or a header that tells it.
enum CostSpec {
    Fixed(u32),
    Told(CostTold),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum CostTold {
    RequestHeader(CostFrom),
    ResponseHeader(CostFrom),
}

impl Default for CostSpec {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CostFrom {
    name: String,
    #[serde(default = "cost_default")]
    default: u32,
    max: u32,
}

fn cost_default() -> u32 {
    1
}

/// What a request costs.
#[derive(Debug)]
pub(super) enum Cost {
    Fixed(u32),
    Request(CostHeader),
    Response(Arc<CostHeader>),
}

impl Cost {
    /// What a request of these headers is counted as when it comes.
    pub(super) fn of_request(&self, headers: &HeaderMap) -> u32 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Request(header) => header.read(headers),
            Self::Response(header) => header.default.min(header.max),
        }
    }

    /// Which header of the response tells what it should have been.
    pub(super) fn told_later(&self) -> Option<Arc<CostHeader>> {
        if let Self::Response(header) = self { Some(header.clone()) } else { None }
    }

    /// The most that it can be.
    fn max(&self) -> u32 {
        match self {
            Self::Fixed(cost) => *cost,
            Self::Request(header) => header.max,
            Self::Response(header) => header.max,
        }
    }
}

fn number_or_header<'de, D: Deserializer<'de>>(from: D) -> Result<CostSpec, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let read = match value {
        number @ serde_json::Value::Number(_) => serde_json::from_value(number).map(CostSpec::Fixed),
        told => serde_json::from_value(told).map(CostSpec::Told),
    };
    read.map_err(serde::de::Error::custom)
}

impl Spec {
    pub(super) fn compile(
        self,
        name: &Name,
        figures: Arc<Figures>,
    ) -> Result<RateLimit, Vec<model::Violation>> {
        let path = format!("policies.{name}");
        let mut violations = Violations::default();
        let by = self.by.compile(&format!("{path}.by"), &mut violations);
        let scope = self.scope.compile(self.on_partition, &path, &mut violations);
        let mut limits = Vec::with_capacity(self.limits.len() + 1);
        if self.limit.is_some() != self.limits.is_empty() {
            violations.add(path.clone(), "needs either limit or limits".to_owned());
        }
        if let Some(quota) = &self.limit {
            let rule = quota.rule(&format!("{path}.limit"), &mut violations);
            limits.extend(rule.map(|rule| Limit { name: None, told: name.to_string(), rule }));
        }
        for (which, quota) in self.limits.iter().take(LIMITS_MAX) {
            let rule = quota.rule(&format!("{path}.limits.{which}"), &mut violations);
            let told = format!("{name}/{which}");
            limits.extend(rule.map(|rule| Limit { name: Some(which.clone()), told, rule }));
        }
        if self.limits.len() > LIMITS_MAX {
            violations.add(format!("{path}.limits"), format!("has more than {LIMITS_MAX}"));
        }
        limits.iter_mut().for_each(|limit| limit.rule = limit.rule.within(scope));
        limits.sort_by_key(|limit| std::cmp::Reverse(limit.rule.window_ms()));
        for pair in limits.windows(2) {
            if pair[0].rule.window_ms() == pair[1].rule.window_ms() {
                let message = format!("has the same window as {}: one of them is enough", pair[0].told);
                violations.add(format!("{path}.limits"), message);
            }
        }
        let cost = self.cost.compile(&format!("{path}.cost"), &mut violations);
        if let Some(cost) = &cost
            && let Some(least) = limits.iter().map(|limit| limit.rule.limit()).min()
            && cost.max() > least
        {
            violations.add(
                format!("{path}.cost"),
                format!("can be over {least}, the least that a limit lets through"),
            );
        }
        let refusal = self.refusal.compile(&format!("{path}.refusal"), &mut violations);
        match (cost, refusal) {
            (Some(cost), Some(refused)) if violations.len() == 0 => Ok(RateLimit {
                name: name.clone(),
                told: self.headers.then(|| fields::Policy::new(&limits, !by.is_empty())),
                by,
                limits: limits.into(),
                cost,
                on_partition: self.on_partition.unwrap_or_default(),
                shadow: self.shadow,
                refused,
                figures,
            }),
            _ => Err(violations.into_vec()),
        }
    }
}

impl Quota {
    /// The rule that comes to as many in the time, and no more than the burst at once: a window in which just the burst falls due.
    fn rule(&self, path: &str, violations: &mut Violations) -> Option<Rule> {
        let burst = self.burst.unwrap_or(self.requests);
        if !(1..=Rule::LIMIT_MAX).contains(&self.requests) || !(1..=Rule::LIMIT_MAX).contains(&burst) {
            let field = if burst == self.requests { "requests" } else { "burst" };
            violations.add(format!("{path}.{field}"), format!("must be 1 to {}", Rule::LIMIT_MAX));
            return None;
        }
        let per_ms = self.per.as_millis();
        let window_ms = (per_ms * u128::from(burst)).div_ceil(u128::from(self.requests));
        let window_ms = u64::try_from(window_ms).unwrap_or(u64::MAX);
        if !(WINDOW_MS_MIN..=u64::from(Rule::WINDOW_MS_MAX)).contains(&window_ms) {
            let (field, message) = match self.burst {
                None => ("per", "must be 100ms to 1d".to_owned()),
                Some(_) => {
                    let told = model::duration::format(Duration::from_millis(window_ms));
                    ("burst", format!("falls due in {told}, which must be 100ms to 1d"))
                }
            };
            violations.add(format!("{path}.{field}"), message);
            return None;
        }
        Rule::new(burst, u32::try_from(window_ms).ok()?)
    }
}

impl CostSpec {
    fn compile(self, path: &str, violations: &mut Violations) -> Option<Cost> {
        let header = |from: CostFrom, violations: &mut Violations| {
            let Ok(name) = HeaderName::from_bytes(from.name.as_bytes()) else {
                violations.add(path.to_owned(), format!("{:?} is no header name", from.name));
                return None;
            };
            Some(CostHeader { name, default: from.default, max: from.max })
        };
        match self {
            Self::Fixed(0) => {
                violations.add(path.to_owned(), "must be 1 or more".to_owned());
                None
            }
            Self::Fixed(cost) => Some(Cost::Fixed(cost)),
            Self::Told(CostTold::RequestHeader(from)) => header(from, violations).map(Cost::Request),
            Self::Told(CostTold::ResponseHeader(from)) => {
                header(from, violations).map(|header| Cost::Response(header.into()))
            }
        }
    }
}
