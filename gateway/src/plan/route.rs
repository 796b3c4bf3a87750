//! A route compiled: its matches, its policies by name in their order, its changes, and where it goes.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use model::{
    Entry, Name, Rare, Revision, Route, Violation,
    route::{Mirror, RouteTimeout},
};
use smallvec::SmallVec;

use super::{
    changes::{self, CompiledHeaders, CompiledRedirect, CompiledRewrite},
    matcher::CompiledMatch,
};
use crate::{policy, violations::Violations};

/// A route, ready to be matched and obeyed. It names its policies and upstreams, which the Plan resolves, so that a
/// change of one of these compiles no route anew.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its name.
    pub name: Name,
    /// Where it goes.
    pub action: Action,
    /// Changes to the request's headers.
    pub request: CompiledHeaders,
    /// Changes to the response's headers.
    pub response: CompiledHeaders,
    pub(crate) created: Revision,
    pub(crate) policies: Box<[Name]>,
    // One of a hundred thousand routes is in no cache of the processor: what a request asks of it is here, and not behind pointers, but
    // for what few routes have, so that it is in three lines of a cache.
    pub(crate) matches: SmallVec<[CompiledMatch; 1]>,
    rewrite: Option<Box<Rewrite>>,
    timeout: Rare<RouteTimeout>,
    /// Whether its spec has to be asked who gets copies.
    is_mirrored: bool,
    spec: Arc<Route>,
}

/// Bytes of a line of the processor's cache.
const LINE: usize = 64;
/// Bytes of the counts that an [`Arc`] begins with.
const COUNTS: usize = 2 * size_of::<usize>();
const _: () = assert!(COUNTS + size_of::<CompiledRoute>() <= 3 * LINE, "a route is in three lines");

/// What the upstream sees in place of what the client said; none passes the client's on.
#[derive(Debug)]
struct Rewrite {
    path: Option<CompiledRewrite>,
    host: Option<HeaderValue>,
}

/// Where a route goes.
#[derive(Debug)]
pub enum Action {
    /// To an upstream.
    Forward(Weighted),
    /// Back, with a redirect.
    Redirect(Box<CompiledRedirect>),
    /// Back, with this.
    Respond(Box<CompiledResponse>),
}

/// Upstreams by weight.
#[derive(Debug)]
pub struct Weighted {
    /// Each with the sum of the weights up to its own.
    choices: SmallVec<[(Name, u32); 1]>,
}

/// A fixed response.
#[derive(Debug)]
pub struct CompiledResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl CompiledRoute {
    /// Compiles a route; `kind` gives a policy's type.
    pub(crate) fn compile<'k>(
        name: &Name,
        entry: &Entry<Route>,
        kind: impl Fn(&Name) -> Option<&'k str>,
    ) -> Result<Self, Vec<Violation>> {
        let spec = &entry.spec;
        let path = format!("routes.{name}");
        let mut violations = Violations::default();
        let mut matches = SmallVec::<[CompiledMatch; 1]>::with_capacity(spec.matches.len().max(1));
        for (index, one) in spec.matches.iter().enumerate() {
            matches.extend(CompiledMatch::compile(one, &format!("{path}.match[{index}]"), &mut violations));
        }
        if spec.matches.is_empty() {
            matches.extend(CompiledMatch::compile(&Default::default(), &path, &mut violations));
        }
        if matches.len() > usize::from(u16::MAX) {
            violations.add(format!("{path}.match"), "has more than 65,535".to_owned());
        }
        let request = CompiledHeaders::compile(
            &spec.request.headers,
            &format!("{path}.request.headers"),
            &mut violations,
        );
        let response = CompiledHeaders::compile(
            &spec.response.headers,
            &format!("{path}.response.headers"),
            &mut violations,
        );
        let path_spec = spec.request.path.as_ref();
        let forward_path = path_spec
            .and_then(|to| CompiledRewrite::compile(to, &format!("{path}.request.path"), &mut violations));
        let redirected = spec.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        for (to, field) in [(path_spec, "request"), (redirected, "redirect")] {
            let by_prefix = matches!(to, Some(model::route::PathRewrite::Prefix(_)));
            if by_prefix && matches.iter().any(|one| one.path.prefix().is_none()) {
                let message = "needs a prefix path in every match of the route";
                violations.add(format!("{path}.{field}.path.prefix"), message.to_owned());
            }
        }
        let host = spec.request.host.as_deref().and_then(|host| {
            let value =
                HeaderValue::from_str(host).ok().filter(|_| host.parse::<http::uri::Authority>().is_ok());
            if value.is_none() {
                violations.add(format!("{path}.request.host"), format!("{host:?} is no host"));
            }
            value
        });
        let policies = policies(spec, &path, kind, &mut violations);
        let action = Action::compile(spec, &path, &mut violations);
        match action {
            Some(action) if violations.len() == 0 => Ok(Self {
                name: name.clone(),
                action,
                request,
                response,
                created: entry.created,
                policies,
                matches,
                rewrite: (forward_path.is_some() || host.is_some())
                    .then(|| Box::new(Rewrite { path: forward_path, host })),
                timeout: spec.timeout.clone(),
                is_mirrored: !spec.mirror.is_empty(),
                spec: spec.clone(),
            }),
            _ => Err(violations.into_vec()),
        }
    }

    /// The path that is forwarded for a request that came by this match.
    pub fn forward_path<'a>(&'a self, index: usize, path: &'a str) -> Cow<'a, str> {
        let rewrite = self.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
        rewrite.map_or(Cow::Borrowed(path), |rewrite| rewrite.apply(path, self.prefix(index)))
    }

    /// The Host that the upstream sees; none passes the client's on.
    pub fn forward_host(&self) -> Option<&HeaderValue> {
        self.rewrite.as_ref()?.host.as_ref()
    }

    /// The value of `Location` that `redirect` gives to a request of this scheme, to this authority (`host` or
    /// `host:port`), that came by this match.
    pub fn location(
        &self,
        redirect: &CompiledRedirect,
        index: usize,
        scheme: &str,
        authority: &str,
        path: &str,
        query: Option<&str>,
    ) -> String {
        redirect.location(scheme, authority, path, query, self.prefix(index))
    }

    fn prefix(&self, index: usize) -> Option<&str> {
        self.matches.get(index)?.path.prefix()
    }

    /// The hosts as written; one empty pattern where it takes any.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &str> {
        let any = self.spec.hosts.is_empty().then_some("");
        self.spec.hosts.iter().map(String::as_str).chain(any)
    }

    /// Its limits of time, in place of those of its upstream.
    pub(crate) fn timeout(&self) -> &RouteTimeout {
        &self.timeout
    }

    /// Who gets copies of its requests.
    pub(crate) fn mirrors(&self) -> &[Mirror] {
        if self.is_mirrored { &self.spec.mirror } else { &[] }
    }

    /// The upstreams that it names.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Name> {
        let choices = if let Action::Forward(weighted) = &self.action { &*weighted.choices } else { &[] };
        choices.iter().map(|(name, _)| name).chain(self.mirrors().iter().map(|mirror| &mirror.upstream))
    }

    /// Has it name its upstreams by what `known` gives for them: names that many routes share, and that are likely to be at hand.
    pub(crate) fn share_names(&mut self, known: impl Fn(&Name) -> Option<Name>) {
        let Action::Forward(weighted) = &mut self.action else { return };
        for (name, _) in &mut weighted.choices {
            if let Some(known) = known(name) {
                *name = known;
            }
        }
    }
}

/// The route's policies in the order of the catalogue; those of one type in the order of the route.
fn policies<'k>(
    spec: &Route,
    path: &str,
    kind: impl Fn(&Name) -> Option<&'k str>,
    violations: &mut Violations,
) -> Box<[Name]> {
    let mut ranked = Vec::with_capacity(spec.policies.len());
    for (index, name) in spec.policies.iter().enumerate() {
        match kind(name) {
            // A policy of a type that is not in the catalogue is its own violation.
            Some(kind) => ranked.push((policy::rank(kind), name.clone())),
            None => violations.add(format!("{path}.policies[{index}]"), format!("there is no policy {name}")),
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, name)| name).collect()
}

impl Action {
    fn compile(spec: &Route, path: &str, violations: &mut Violations) -> Option<Self> {
        let forward = spec.upstream.is_some() || !spec.upstreams.is_empty();
        match (forward, &spec.redirect, &spec.respond) {
            (true, None, None) => Some(Self::Forward(Weighted::compile(spec))),
            (false, Some(redirect), None) => {
                CompiledRedirect::compile(redirect, &format!("{path}.redirect"), violations)
                    .map(|redirect| Self::Redirect(Box::new(redirect)))
            }
            (false, None, Some(respond)) => {
                let mut headers = HeaderMap::with_capacity(respond.headers.len());
                for (name, value) in &respond.headers {
                    let place = format!("{path}.respond.headers.{name}");
                    headers.extend(
                        changes::header(name, value, place, violations)
                            .map(|(name, value)| (Some(name), value)),
                    );
                }
                let status = StatusCode::from_u16(respond.status)
                    .ok()
                    .filter(|status| (200..600).contains(&status.as_u16()));
                if status.is_none() {
                    violations.add(format!("{path}.respond.status"), "must be 200 to 599".to_owned());
                }
                let body = Bytes::copy_from_slice(respond.body.as_bytes());
                Some(Self::Respond(Box::new(CompiledResponse { status: status?, headers, body })))
            }
            _ => {
                let message = "must have exactly one of upstream, upstreams, redirect and respond";
                violations.add(path.to_owned(), message.to_owned());
                None
            }
        }
    }

    /// Where it goes, in words.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Forward(weighted) => weighted.in_words(),
            Self::Redirect(redirect) => format!("redirect with {}", redirect.status.as_u16()),
            Self::Respond(response) => format!("respond with {}", response.status.as_u16()),
        }
    }
}

impl Weighted {
    fn compile(spec: &Route) -> Self {
        let alone = spec.upstream.iter().map(|name| (name, 1));
        let several = spec.upstreams.iter().map(|choice| (&choice.upstream, u32::from(choice.weight)));
        Self::of(alone.chain(several))
    }

    /// Of these, each with its weight.
    pub(crate) fn of<'n>(shares: impl Iterator<Item = (&'n Name, u32)>) -> Self {
        let mut sum = 0u32;
        let choices = shares.map(|(name, weight)| {
            sum = sum.saturating_add(weight);
            (name.clone(), sum)
        });
        Self { choices: choices.collect() }
    }

    /// Where it goes, in words.
    pub(crate) fn in_words(&self) -> String {
        let mut before = 0;
        let mut words = Vec::with_capacity(self.choices.len());
        for (name, sum) in &self.choices {
            let weight = sum - before;
            before = *sum;
            words.push(if self.choices.len() == 1 {
                name.to_string()
            } else {
                format!("{name} (weight {weight})")
            });
        }
        format!("forward to {}", words.join(", "))
    }

    /// The upstream whose turn it is, of a counter that goes up by one a request; none if all weights are 0.
    ///
    /// Multiplied by the golden ratio, turns fall evenly between the choices instead of in runs.
    pub fn pick(&self, turn: u64) -> Option<&Name> {
        if let [(name, 1..)] = &*self.choices {
            return Some(name);
        }
        let total = u64::from(self.choices.last()?.1);
        let place = ((turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) * total) >> 32;
        self.choices.iter().find(|(_, sum)| place < u64::from(*sum)).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<CompiledRoute, Vec<Violation>> {
        let spec = Arc::new(serde_json::from_str(text).unwrap());
        let entry = Entry { created: Revision(1), changed: Revision(1), doc: text.as_bytes().into(), spec };
        CompiledRoute::compile(&Name::new("r").unwrap(), &entry, |name| {
            ["ip", "api-key"].into_iter().find(|kind| name.as_str().starts_with(kind))
        })
    }

    #[test]
    fn weights_are_kept_and_evenly_spread() {
        let text =
            r#"{"upstreams":[{"upstream":"a","weight":9},{"upstream":"b"},{"upstream":"c","weight":0}]}"#;
        let route = compile(text).unwrap();
        let Action::Forward(weighted) = &route.action else { panic!("not forwarded") };
        let picked: Vec<&str> = (0..1000).map(|turn| weighted.pick(turn).unwrap().as_str()).collect();
        let count = |name| picked.iter().filter(|picked| **picked == name).count();
        assert!((899..=901).contains(&count("a")) && count("c") == 0, "{}", count("a"));
        assert!(picked.chunks(20).all(|chunk| chunk.contains(&"b")));
        assert_eq!(route.action.in_words(), "forward to a (weight 9), b (weight 1), c (weight 0)");
        let none = compile(r#"{"upstreams":[{"upstream":"a","weight":0}]}"#).unwrap();
        let Action::Forward(weighted) = &none.action else { panic!("not forwarded") };
        assert_eq!(weighted.pick(1), None);
    }

    #[test]
    fn policies_run_in_the_order_of_the_catalogue() {
        let route = compile(r#"{"upstream":"u","policies":["api-key-1","ip-2","ip-1"]}"#).unwrap();
        let names: Vec<&str> = route.policies.iter().map(Name::as_str).collect();
        assert_eq!(names, ["ip-2", "ip-1", "api-key-1"]);
    }

    #[test]
    fn what_can_not_be_obeyed_is_told_at_once() {
        let text = r#"{"match":[{"path":{"exact":"x"}},{"path":{"exact":"/x"}}],"policies":["nope"],
            "request":{"path":{"prefix":"/y"},"host":"a b"},"respond":{"status":99}}"#;
        let paths: Vec<String> =
            compile(text).unwrap_err().into_iter().map(|violation| violation.path).collect();
        assert_eq!(
            paths,
            [
                "routes.r.match[0].path.exact",
                "routes.r.request.path.prefix",
                "routes.r.request.host",
                "routes.r.policies[0]",
                "routes.r.respond.status"
            ]
        );
        assert_eq!(compile("{}").unwrap_err()[0].path, "routes.r");
        assert_eq!(compile(r#"{"upstream":"u","redirect":{}}"#).unwrap_err()[0].path, "routes.r");
    }

    #[test]
    fn a_rewrite_replaces_the_prefix_of_the_match_that_took_it() {
        let text = r#"{"upstream":"u","match":[{"path":{"prefix":"/a/"}},{"path":{"prefix":"/b/c"}}],
            "request":{"path":{"prefix":"/x"}}}"#;
        let route = compile(text).unwrap();
        assert_eq!(route.forward_path(0, "/a/1"), "/x/1");
        assert_eq!(route.forward_path(1, "/b/c"), "/x");
    }
}
