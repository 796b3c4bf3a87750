//! One match of a route compiled: its predicates, and in words which of them failed.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};
use model::route::{Match, ValueMatch};
use regex::Regex;
use smallvec::SmallVec;

use super::pattern::PathPattern;
use crate::violations::Violations;

/// The most bytes that one compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host in lower case without port, as [`crate::router::host`] gives it.
    pub host: &'a str,
    /// The path as [`crate::path::normalise`] gives it.
    pub path: &'a str,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// One match of a route.
#[derive(Debug)]
pub(crate) struct CompiledMatch {
    pub(crate) path: PathPattern,
    /// What else there is to look at. Most have nothing, and keep the route in fewer lines of a cache.
    rest: Option<Box<Rest>>,
}

/// The predicates after host and path.
#[derive(Debug)]
struct Rest {
    methods: SmallVec<[Method; 1]>,
    headers: Box<[(HeaderName, ValueMatcher)]>,
    query: Box<[(Box<str>, ValueMatcher)]>,
}

/// What a value must be.
#[derive(Debug)]
enum ValueMatcher {
    Exact(Box<str>),
    Regex(Box<Regex>),
    Present(bool),
}

impl CompiledMatch {
    pub(crate) fn compile(spec: &Match, path: &str, violations: &mut Violations) -> Option<Self> {
        let before = violations.len();
        let pattern = PathPattern::compile(spec.path.as_ref(), &format!("{path}.path"), violations);
        let mut methods = SmallVec::with_capacity(spec.methods.len());
        for (index, method) in spec.methods.iter().enumerate() {
            match Method::from_bytes(method.as_bytes()) {
                Ok(method) => methods.push(method),
                Err(_) => {
                    violations.add(format!("{path}.methods[{index}]"), format!("{method:?} is no method"))
                }
            }
        }
        let mut headers = Vec::with_capacity(spec.headers.len());
        for (name, value) in &spec.headers {
            let place = format!("{path}.headers.{name}");
            let value = ValueMatcher::compile(value, &place, violations);
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => headers.extend(value.map(|value| (name, value))),
                Err(_) => violations.add(place, format!("{name:?} is no header name")),
            }
        }
        let mut query = Vec::with_capacity(spec.query.len());
        for (name, value) in &spec.query {
            let value = ValueMatcher::compile(value, &format!("{path}.query.{name}"), violations);
            query.extend(value.map(|value| (name.as_str().into(), value)));
        }
        if violations.len() > before {
            return None;
        }
        let has_more = !(methods.is_empty() && headers.is_empty() && query.is_empty());
        let rest = || Box::new(Rest { methods, headers: headers.into(), query: query.into() });
        Some(Self { path: pattern?, rest: has_more.then(rest) })
    }

    /// What orders matches whose host and path are as specific: lower goes first.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let rank =
            |rest: &Rest| (rest.methods.is_empty(), Reverse(rest.headers.len()), Reverse(rest.query.len()));
        self.rest.as_deref().map_or((true, Reverse(0), Reverse(0)), rank)
    }

    /// Whether everything but host and path holds.
    pub(crate) fn takes_rest(&self, head: &Head<'_>) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.takes(head))
    }

    /// The first predicate after the host that fails, in words.
    pub(crate) fn failed(&self, head: &Head<'_>) -> Option<String> {
        if !self.path.takes(head.path) {
            return Some(format!("path: want {}, have {}", self.path, head.path));
        }
        self.rest.as_ref()?.failed(head)
    }

    /// The match in words, as `GET prefix /orders`.
    pub(crate) fn in_words(&self) -> String {
        let Some(rest) = &self.rest else { return self.path.to_string() };
        let mut words = if rest.methods.is_empty() { String::new() } else { rest.methods_in_words() + " " };
        words.push_str(&self.path.to_string());
        for (name, value) in &rest.headers {
            words.push_str(&format!(" header {name} {}", value.in_words()));
        }
        for (name, value) in &rest.query {
            words.push_str(&format!(" query {name} {}", value.in_words()));
        }
        words
    }
}

impl Rest {
    fn takes(&self, head: &Head<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(head.method))
            && self.headers.iter().all(|(name, value)| value.takes(header(head.headers, name).as_deref()))
            && self.query.iter().all(|(name, value)| value.takes(parameter(head.query, name).as_deref()))
    }

    fn failed(&self, head: &Head<'_>) -> Option<String> {
        if !self.methods.is_empty() && !self.methods.contains(head.method) {
            return Some(format!("method: want {}, have {}", self.methods_in_words(), head.method));
        }
        for (name, value) in &self.headers {
            let have = header(head.headers, name);
            if !value.takes(have.as_deref()) {
                return Some(format!("header {name}: want {}, have {}", value.in_words(), shown(have)));
            }
        }
        for (name, value) in &self.query {
            let have = parameter(head.query, name);
            if !value.takes(have.as_deref()) {
                return Some(format!("query {name}: want {}, have {}", value.in_words(), shown(have)));
            }
        }
        None
    }

    fn methods_in_words(&self) -> String {
        self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|")
    }
}

impl ValueMatcher {
    fn compile(spec: &ValueMatch, path: &str, violations: &mut Violations) -> Option<Self> {
        Some(match spec {
            ValueMatch::Exact(text) => Self::Exact(text.as_str().into()),
            ValueMatch::Regex(text) => Self::Regex(Box::new(regex(text, path, violations)?)),
            ValueMatch::Present(present) => Self::Present(*present),
        })
    }

    fn takes(&self, have: Option<&[u8]>) -> bool {
        match self {
            Self::Exact(want) => have == Some(want.as_bytes()),
            Self::Regex(regex) => {
                have.and_then(|have| std::str::from_utf8(have).ok()).is_some_and(|have| regex.is_match(have))
            }
            Self::Present(want) => have.is_some() == *want,
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Exact(want) => format!("{want:?}"),
            Self::Regex(regex) => format!("regex {}", unwrapped(regex)),
            Self::Present(true) => "any".to_owned(),
            Self::Present(false) => "none".to_owned(),
        }
    }
}

/// Compiles an expression that must match the whole text.
pub(crate) fn regex(text: &str, path: &str, violations: &mut Violations) -> Option<Regex> {
    // On its own first: `)(` would become good by being wrapped.
    let alone = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    let whole = alone.and_then(|_| {
        regex::RegexBuilder::new(&format!(r"\A(?:{text})\z")).size_limit(REGEX_BYTES_MAX).build()
    });
    whole.map_err(|error| violations.add(path.to_owned(), error.to_string())).ok()
}

/// The expression as it was written.
pub(crate) fn unwrapped(regex: &Regex) -> &str {
    let whole = regex.as_str();
    whole.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z")).unwrap_or(whole)
}

/// A header's value; several are one list (RFC 9110, section 5.3), so that none of them slips by unseen.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first.as_bytes())) };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// The first value of a query parameter, decoded as forms are (`+` is a space).
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*form_decoded(key) == *name.as_bytes() && !pair.is_empty()).then(|| form_decoded(value))
    })
}

/// A form's name or value decoded; an escape that is none stays as it is.
pub(crate) fn form_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, rest) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = tail;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn shown(have: Option<Cow<'_, [u8]>>) -> String {
    have.map_or_else(|| "none".to_owned(), |have| format!("{:?}", String::from_utf8_lossy(&have)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn failed(
        spec: &str,
        method: &str,
        path: &str,
        query: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Option<String> {
        let mut violations = Violations::default();
        let spec: Match = serde_json::from_str(spec).unwrap();
        let compiled = CompiledMatch::compile(&spec, "m", &mut violations).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let head = Head { method: &method, host: "h", path, query, headers: &map };
        let failed = compiled.failed(&head);
        assert_eq!(failed.is_none(), compiled.path.takes(path) && compiled.takes_rest(&head));
        failed
    }

    #[test]
    fn each_predicate_fails_in_words() {
        let spec = r#"{"methods":["GET","POST"]}"#;
        assert_eq!(failed(spec, "GET", "/", None, &[]), None);
        assert_eq!(failed(spec, "PUT", "/", None, &[]).unwrap(), "method: want GET|POST, have PUT");
        let spec = r#"{"headers":{"X-Beta":{"exact":"1"}}}"#;
        assert_eq!(failed(spec, "GET", "/", None, &[("x-beta", "1")]), None);
        assert_eq!(failed(spec, "GET", "/", None, &[]).unwrap(), "header x-beta: want \"1\", have none");
        let twice = failed(spec, "GET", "/", None, &[("x-beta", "1"), ("x-beta", "2")]);
        assert_eq!(twice.unwrap(), "header x-beta: want \"1\", have \"1,2\"");
        let spec = r#"{"headers":{"a":{"regex":"v[0-9]+"},"b":{"present":true},"c":{"present":false}}}"#;
        assert_eq!(failed(spec, "GET", "/", None, &[("a", "v12"), ("b", "")]), None);
        assert!(
            failed(spec, "GET", "/", None, &[("a", "xv12"), ("b", "")]).unwrap().contains("regex v[0-9]+")
        );
        assert!(failed(spec, "GET", "/", None, &[("a", "v1")]).unwrap().starts_with("header b: want any"));
        assert!(failed(spec, "GET", "/", None, &[("a", "v1"), ("b", ""), ("c", "")]).is_some());
    }

    #[test]
    fn a_query_parameter_is_decoded_and_its_first_value_counts() {
        let spec = r#"{"query":{"a b":{"exact":"c d"}}}"#;
        for (query, taken) in [
            (Some("a+b=c%20d"), true),
            (Some("x&a%20b=c+d&a+b=no"), true),
            (Some("a+b=no&a+b=c+d"), false),
            (Some("A+b=c+d"), false),
            (Some("a+b"), false),
            (None, false),
        ] {
            assert_eq!(failed(spec, "GET", "/", query, &[]).is_none(), taken, "{query:?}");
        }
        assert_eq!(&*form_decoded("%zz%4"), b"%zz%4");
        assert_eq!(failed(r#"{"query":{"a":{"present":true}}}"#, "GET", "/", Some("a"), &[]), None);
    }

    #[test]
    fn a_bad_match_names_its_place() {
        let mut violations = Violations::default();
        let text =
            r#"{"path":{"regex":")("},"methods":["G T"],"headers":{"a b":{"exact":"x"},"c":{"regex":"("}}}"#;
        let spec: Match = serde_json::from_str(text).unwrap();
        assert!(CompiledMatch::compile(&spec, "m", &mut violations).is_none());
        let paths: Vec<String> = violations.into_vec().into_iter().map(|violation| violation.path).collect();
        assert_eq!(paths, ["m.path.regex", "m.methods[0]", "m.headers.a b", "m.headers.c"]);
    }
}
