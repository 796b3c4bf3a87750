//! The policy as a config has it, and what is wrong with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use jiff::tz::TimeZone;
use limits::{Rule, Scope};
use model::Name;
use serde::{Deserialize, Deserializer};

use super::{
    Limit, RateLimit, Span,
    calendar::{Calendar, Length},
    fields,
};
use crate::{
    after::CostHeader,
    policy::{
        Context,
        partition::{By, own_counters},
        refused::RefusalSpec,
        scope::{Counting, OnPartition},
    },
    violations::Violations,
};

/// The most limits of a policy.
const LIMITS_MAX: usize = 8;
/// The shortest window: nodes can't hear each other within less.
const WINDOW_MS_MIN: u64 = 100;

/// The body of a policy whose limits are written like `A`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "A: Deserialize<'de>"))]
pub(super) struct Spec<A> {
    /// For whom requests are counted; without it, for all together.
    #[serde(default)]
    by: By,
    /// Whether all nodes count together.
    #[serde(default)]
    scope: Counting,
    /// The limit, if there is one.
    limit: Option<A>,
    /// The limits by their names, if there are several.
    #[serde(default)]
    limits: BTreeMap<Name, A>,
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

/// How a limit is written.
pub(super) trait Written {
    /// Its span, shared so, or what is wrong with it, at this path.
    fn span(&self, scope: Scope, path: &str, violations: &mut Violations) -> Option<Span>;
}

/// So many requests in a period of the calendar.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    requests: u32,
    per: Length,
    /// A name of the IANA time zone database.
    #[serde(default = "zone_default")]
    time_zone: String,
}

fn zone_default() -> String {
    "UTC".to_owned()
}

impl Written for Quota {
    fn span(&self, scope: Scope, path: &str, violations: &mut Violations) -> Option<Span> {
        if scope != Scope::Cluster {
            let message =
                "is of a quota: all nodes count it together, and whoever is cut off has its part, or refuses";
            violations.add(path.to_owned(), message.to_owned());
        }
        let zone = TimeZone::get(&self.time_zone);
        if zone.is_err() {
            let message =
                format!("there is no time zone {:?}: write one as Europe/Berlin, or UTC", self.time_zone);
            violations.add(format!("{path}.time_zone"), message);
        }
        if !(1..=Rule::LIMIT_MAX).contains(&self.requests) {
            violations.add(format!("{path}.requests"), format!("must be 1 to {}", Rule::LIMIT_MAX));
        }
        Calendar::new(self.requests, self.per, zone.ok()?).map(Span::Calendar)
    }
}

/// So many requests in a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
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

impl<A: Written> Spec<A> {
    pub(super) fn compile(
        self,
        name: &Name,
        context: Context<'_>,
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
            let span = quota.span(scope, &format!("{path}.limit"), &mut violations);
            limits.extend(span.map(|span| Limit { name: None, told: name.to_string(), span }));
        }
        for (which, quota) in self.limits.iter().take(LIMITS_MAX) {
            let span = quota.span(scope, &format!("{path}.limits.{which}"), &mut violations);
            let told = format!("{name}/{which}");
            limits.extend(span.map(|span| Limit { name: Some(which.clone()), told, span }));
        }
        if self.limits.len() > LIMITS_MAX {
            violations.add(format!("{path}.limits"), format!("has more than {LIMITS_MAX}"));
        }
        limits.sort_by_key(|limit| std::cmp::Reverse(limit.order()));
        for pair in limits.windows(2) {
            if pair[0].order() == pair[1].order() {
                let message = format!("has the same window as {}: one of them is enough", pair[0].told);
                violations.add(format!("{path}.limits"), message);
            }
        }
        let cost = self.cost.compile(&format!("{path}.cost"), &mut violations);
        if let Some(cost) = &cost
            && let Some(least) = limits.iter().map(Limit::quota).min()
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
                group: own_counters(&by, context.group),
                told: self.headers.then(|| fields::Policy::new(&limits, !by.is_empty())),
                by,
                limits: limits.into(),
                cost,
                on_partition: self.on_partition.unwrap_or_default(),
                shadow: self.shadow,
                refused,
                figures: context.figures.cloned().unwrap_or_default(),
            }),
            _ => Err(violations.into_vec()),
        }
    }
}

impl Written for Rate {
    fn span(&self, scope: Scope, path: &str, violations: &mut Violations) -> Option<Span> {
        self.rule(path, violations).map(|rule| Span::Window(rule.within(scope)))
    }
}

impl Rate {
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
