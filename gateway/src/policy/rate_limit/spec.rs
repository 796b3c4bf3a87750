//! The policy as a config has it, and what is wrong with it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use limits::{Rule, Scope};
use model::Name;
use serde::{Deserialize, Deserializer};

use super::{Limit, Part, RateLimit, fields};
use crate::{after::CostHeader, exchange::Form, plan::changes, state::Figures, violations::Violations};

/// The most limits of a policy, and parts of what it counts by.
const LIMITS_MAX: usize = 8;
const PARTS_MAX: usize = 8;
/// The longest text of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 16_384;
/// What a refusal's body is, unless said.
const TEXT: &str = "text/plain; charset=utf-8";
/// The shortest window: nodes can't hear each other within less.
const WINDOW_MS_MIN: u64 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// For whom requests are counted; without it, for all together.
    #[serde(default, deserialize_with = "one_or_several")]
    by: Vec<By>,
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

#[derive(Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Counting {
    Node,
    #[default]
    Cluster,
}

/// What nodes do that are cut off from most of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnPartition {
    /// They have their part of the limit by their number.
    #[default]
    Share,
    /// They have all of it anew.
    Local,
    /// They refuse.
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum By {
    Consumer,
    Group,
    Key,
    Address,
    Route,
    Header(String),
    Network {
        #[serde(default = "v4_default")]
        v4: u8,
        #[serde(default = "v6_default")]
        v6: u8,
    },
}

fn v4_default() -> u8 {
    32
}

fn v6_default() -> u8 {
    64
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

/// What a refusal looks like.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RefusalSpec {
    /// 400 to 599.
    status: Option<u16>,
    /// The problem document's detail.
    #[serde(default)]
    detail: String,
    /// A body in the problem document's place.
    body: Option<String>,
    /// What the body is.
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What a refusal looks like.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) detail: Cow<'static, str>,
    pub(super) form: Form,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
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

/// One, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<By>, D::Error> {
    let several = match serde_json::Value::deserialize(from)? {
        serde_json::Value::Array(several) => several,
        one => vec![one],
    };
    several.into_iter().map(|one| serde_json::from_value(one).map_err(serde::de::Error::custom)).collect()
}

impl Spec {
    pub(super) fn compile(
        self,
        name: &Name,
        figures: Arc<Figures>,
    ) -> Result<RateLimit, Vec<model::Violation>> {
        let path = format!("policies.{name}");
        let mut violations = Violations::default();
        let by = parts(self.by, &path, &mut violations);
        let scope = match (self.scope, self.on_partition.unwrap_or_default()) {
            (Counting::Node, _) => Scope::Node,
            (Counting::Cluster, OnPartition::Local) => Scope::Reachable,
            (Counting::Cluster, _) => Scope::Cluster,
        };
        if scope == Scope::Node && self.on_partition.is_some() {
            let message = "is for scope cluster: what a node counts by itself can't be cut off";
            violations.add(format!("{path}.on_partition"), message.to_owned());
        }
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

fn parts(by: Vec<By>, path: &str, violations: &mut Violations) -> Box<[Part]> {
    let mut parts = Vec::with_capacity(by.len());
    let path = format!("{path}.by");
    if by.len() > PARTS_MAX {
        violations.add(path.clone(), format!("has more than {PARTS_MAX}"));
    }
    for one in by.into_iter().take(PARTS_MAX) {
        let part = match one {
            By::Consumer => Part::Consumer,
            By::Group => Part::Group,
            By::Key => Part::Key,
            By::Route => Part::Route,
            By::Address => Part::Network { v4: v4_default(), v6: v6_default() },
            By::Network { v4, v6 } if v4 <= 32 && v6 <= 128 => Part::Network { v4, v6 },
            By::Network { .. } => {
                violations.add(
                    path.clone(),
                    "a network has 32 bits of IPv4 and 128 of IPv6 at the most".to_owned(),
                );
                continue;
            }
            By::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Part::Header(name),
                Err(_) => {
                    violations.add(path.clone(), format!("{name:?} is no header name"));
                    continue;
                }
            },
        };
        if parts.contains(&part) {
            violations.add(path.clone(), "has the same twice".to_owned());
        }
        parts.push(part);
    }
    parts.into()
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

impl RefusalSpec {
    fn compile(self, path: &str, violations: &mut Violations) -> Option<Refused> {
        let before = violations.len();
        let mut wrong =
            |field: &str, message: &str| violations.add(format!("{path}.{field}"), message.to_owned());
        let status = self.status.map(|status| {
            let status = StatusCode::from_u16(status).ok().filter(|_| (400..600).contains(&status));
            status.ok_or_else(|| wrong("status", "must be 400 to 599"))
        });
        let status = status.and_then(Result::ok);
        if self.body.is_some() && !self.detail.is_empty() {
            wrong("detail", "is of the problem document, which body takes the place of");
        }
        for (field, text) in [("detail", Some(&self.detail)), ("body", self.body.as_ref())] {
            if text.is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
                wrong(field, "is longer than 16,384 bytes");
            }
        }
        if self.content_type.is_some() && self.body.is_none() {
            wrong("content_type", "is for a body");
        }
        let kind = HeaderValue::from_str(self.content_type.as_deref().unwrap_or(TEXT));
        if kind.is_err() {
            wrong("content_type", "is no header value");
        }
        let body = kind.ok().zip(self.body.map(Bytes::from));
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let place = format!("{path}.headers.{name}");
            match changes::header(name, value, place.clone(), violations) {
                Some((name, _)) if [header::CONTENT_TYPE, header::RETRY_AFTER].contains(&name) => {
                    violations.add(place, "is the policy's own to set".to_owned());
                }
                one => headers.extend(one),
            }
        }
        let problem = body.is_none().then_some(fields::QUOTA_EXCEEDED);
        let form = Form { status, problem, members: serde_json::Map::new(), body };
        (violations.len() == before).then(|| Refused { detail: self.detail.into(), form, headers })
    }
}
