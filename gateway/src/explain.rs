//! Which route would take a request, and for each other candidate the first predicate that failed.

use std::{cmp::Ordering, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::api::{Candidate, ExplainRequest, Explanation};

use crate::{
    path,
    plan::{CompiledRoute, Head, Plan, pattern::Shape},
    router,
};

/// The most candidates in an answer.
const CANDIDATES_MAX: usize = 100;

/// One match of a route at one host that takes the request's.
struct Looked<'p> {
    host: String,
    route: &'p Arc<CompiledRoute>,
    index: usize,
    failed: Option<String>,
    /// How far from taking the request: 0 takes its path, 1 begins as it does, 2 neither.
    distance: u8,
}

/// A request as it would come to the router.
struct Asked {
    method: Method,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Plan {
    /// Explains what would become of a request. Looks at every route: for people, not for traffic.
    pub fn explain(&self, request: &ExplainRequest) -> Explanation {
        let mut explanation = Explanation {
            revision: self.revision(),
            host: String::new(),
            path: String::new(),
            refused: None,
            tcp_route: None,
            route: None,
            policies: Vec::new(),
            action: None,
            candidates: Vec::new(),
        };
        let asked = match read(request) {
            Ok(asked) => asked,
            Err(refused) => {
                explanation.refused = Some(refused);
                return explanation;
            }
        };
        let Asked { method, host, path, query, headers } = &asked;
        let head = Head { method, host, path, query: query.as_deref(), headers };
        if let Some(matched) = self.route(&head) {
            explanation.route = Some(matched.route.name.clone());
            explanation.policies = matched.route.policies.to_vec();
            explanation.action = Some(matched.route.action.in_words());
        }
        explanation.candidates = self.candidates(&head);
        if request.url.starts_with("https://") {
            let through = self.tcp.of_tls(Some(host), &self.certificates);
            explanation.tcp_route = through.map(|route| route.name.clone());
        }
        explanation.host.clone_from(host);
        explanation.path.clone_from(path);
        explanation
    }

    fn candidates(&self, head: &Head<'_>) -> Vec<Candidate> {
        let mut looked = Vec::new();
        for route in self.routes.values() {
            for host in route.hosts().map(router::pattern_host).filter(|host| host_takes(host, head.host)) {
                for (index, matcher) in route.matches.iter().enumerate() {
                    let distance = if matcher.path.takes(head.path) {
                        0
                    } else {
                        2 - u8::from(matcher.path.first_segment() == head.path.split('/').nth(1))
                    };
                    looked.push(Looked { host: host.clone(), route, index, failed: None, distance });
                }
            }
        }
        looked.sort_by(|a, b| a.distance.cmp(&b.distance).then_with(|| a.order(b)));
        looked.truncate(CANDIDATES_MAX);
        looked.sort_by(Looked::order);
        for one in &mut looked {
            one.failed = one.route.matches[one.index].failed(head);
        }
        // The first that takes it ends the search; the ones after it are outranked.
        let mut winner: Option<String> = None;
        for one in &mut looked {
            match (&winner, &one.failed) {
                (None, None) => winner = Some(one.route.name.to_string()),
                (Some(winner), None) => one.failed = Some(format!("outranked by {winner}")),
                _ => {}
            }
        }
        looked.into_iter().map(Looked::into_candidate).collect()
    }
}

impl Looked<'_> {
    fn order(&self, other: &Self) -> Ordering {
        let rank = |one: &Self| {
            let wildcard = one.host.starts_with('*');
            // Exact, then the longest wildcard, then any; then shapes, and expressions last.
            let host = (one.host.is_empty(), wildcard, usize::MAX - one.host.len());
            let shape: Option<Shape> = one.route.matches[one.index].path.shape();
            (host, shape.is_none(), shape)
        };
        let place = rank(self).cmp(&rank(other));
        place.then_with(|| router::precedence((self.route, self.index), (other.route, other.index)))
    }

    fn into_candidate(self) -> Candidate {
        let host = if self.host.is_empty() { "any host" } else { &self.host };
        let matcher = format!("{host} {}", self.route.matches[self.index].in_words());
        Candidate { route: self.route.name.clone(), index: self.index, matcher, failed: self.failed }
    }
}

fn host_takes(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix) && !host.starts_with('.'),
        None => pattern.is_empty() || pattern == host,
    }
}

/// Reads the request as the proxy would, or says why it would be refused.
fn read(request: &ExplainRequest) -> Result<Asked, String> {
    let method = request.method.to_ascii_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method"))?;
    let (authority, target) = match request.url.split_once("://") {
        Some((_, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (None, request.url.as_str()),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("header {name}: {value:?} is no value"))?;
        headers.append(key, value);
    }
    let from_header = headers.get(http::header::HOST).and_then(|value| value.to_str().ok());
    let authority = authority.or(request.host.as_deref()).or(from_header).unwrap_or_default();
    let host = router::host(authority).ok_or_else(|| format!("{authority:?} is no host"))?.into_owned();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let path =
        path::normalise(if path.is_empty() { "/" } else { path }).map_err(|error| error.to_string())?;
    Ok(Asked { method, host, path: path.into_owned(), query, headers })
}

#[cfg(test)]
mod tests;
