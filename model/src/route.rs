//! A route: which requests it takes, what is done to them, and where they go.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Name,
    rare::{Blank, Rare},
};

/// Match, policies, changes, and where to: exactly one of `upstream`, `upstreams`, `redirect` and `respond`.
///
/// Match types and precedence are those of the Kubernetes Gateway API (HTTPRoute, v1): the more specific host, then
/// exact over prefix path, the longest path, a method, the most headers, the most query parameters; then the older
/// route, then the name. Templates rank between exact and prefix, regexes after prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Route {
    /// Exact names (`api.example`) or wildcards for one or more leading labels (`*.example`); empty takes any host.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Any one of these suffices; empty takes every request of the hosts.
    #[serde(default, rename = "match", deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// Policies by name; the order is the gateway's, not that of this list.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Name>,
    /// Changes to the request before it is forwarded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: Rare<RequestChanges>,
    /// Changes to the response before it is sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub response: Rare<ResponseChanges>,
    /// How long forwarding may take, where that is not as the upstream says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout: Rare<RouteTimeout>,
    /// Forward to this upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Name>,
    /// Forward to one of these, by weight.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<WeightedUpstream>,
    /// Send copies of requests to these too, and throw their answers away.
    #[serde(default, deserialize_with = "exact", skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<Mirror>,
    /// Answer with a redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Box<Redirect>>,
    /// Answer with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Box<Respond>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A list without room to grow: most have one element, and a growing `Vec` takes room for four.
fn exact<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(from)?;
    list.shrink_to_fit();
    Ok(list)
}

/// One set of predicates, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Match {
    /// The path; none is the prefix `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Any one of these methods; empty takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header by name (case ignored) and what its value must be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, ValueMatch>,
    /// Query parameter by name (case matters) and what its first value must be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, ValueMatch>,
}

/// What the normalised path must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// These bytes.
    Exact(String),
    /// These segments first: `/a` takes `/a` and `/a/b`, not `/ab`. A trailing `/` makes no difference.
    Prefix(String),
    /// A whole-path regular expression (crate `regex`: linear time).
    Regex(String),
    /// Segments, of which `{name}` takes any one and a last `{name...}` the rest.
    Template(String),
}

/// What a header's or query parameter's value must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueMatch {
    /// These bytes.
    Exact(String),
    /// A whole-value regular expression.
    Regex(String),
    /// There (true) or not there (false), whatever its value.
    Present(bool),
}

/// One upstream of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedUpstream {
    /// Its name.
    pub upstream: Name,
    /// Its share beside the others': 0 (none) to 65,535.
    #[serde(default = "WeightedUpstream::weight_default")]
    pub weight: u16,
}

impl WeightedUpstream {
    fn weight_default() -> u16 {
        1
    }
}

/// An upstream that gets copies of requests (Gateway API, HTTPRequestMirrorFilter).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its name.
    pub upstream: Name,
    /// Of how many of a hundred requests: 1 to 100.
    #[serde(default = "Mirror::percent_default")]
    pub percent: u32,
}

impl Mirror {
    fn percent_default() -> u32 {
        100
    }
}

/// Changes to a request before it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestChanges {
    /// To its headers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeaderChanges,
    /// To its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// The Host that the upstream sees; none passes the client's on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Changes to a response before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResponseChanges {
    /// To its headers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: HeaderChanges,
}

impl Blank for RequestChanges {
    const BLANK: &'static Self = &Self { headers: HeaderChanges::NONE, path: None, host: None };
}

impl Blank for ResponseChanges {
    const BLANK: &'static Self = &Self { headers: HeaderChanges::NONE };
}

/// How long forwarding may take (Gateway API, HTTPRouteTimeouts). What is not given is as the upstream says; 0s is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteTimeout {
    /// The whole exchange with its attempts, in place of the upstream's `timeout.total`.
    #[serde(with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt, in place of the upstream's `timeout.attempt`; `backendRequest` in the Gateway API.
    #[serde(with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Duration>,
}

impl Blank for RouteTimeout {
    const BLANK: &'static Self = &Self { request: None, attempt: None };
}

/// Changes to headers, in this order: remove, set, add.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderChanges {
    /// Names to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Names and the one value each is to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names and a value to add to what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

impl HeaderChanges {
    const NONE: Self = Self { remove: Vec::new(), set: BTreeMap::new(), add: BTreeMap::new() };
}

/// What the forwarded or redirected path becomes; the query stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRewrite {
    /// This path.
    Full(String),
    /// The matched prefix replaced by this; only where every match has a prefix path.
    Prefix(String),
}

/// A redirect: what is not given stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302 (as if not given), 303, 307 or 308.
    #[serde(default = "Redirect::status_default")]
    pub status: u16,
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

impl Redirect {
    fn status_default() -> u16 {
        302
    }
}

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Headers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body, as UTF-8 text of at most 24 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
}
