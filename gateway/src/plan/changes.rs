//! Header changes, path rewrites and redirects compiled, so that a request only copies what is ready.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use model::route::{HeaderChanges, PathRewrite, Redirect};

use crate::{path, violations::Violations};

/// Headers that say how a message is framed or routed: changing them would break what the gateway promises.
const FIXED: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Changes to headers, in this order: remove, set, add. Most routes have none, which costs them a word.
#[derive(Debug, Default)]
pub struct CompiledHeaders(Option<Box<Lists>>);

#[derive(Debug)]
struct Lists {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

impl CompiledHeaders {
    pub(crate) fn compile(spec: &HeaderChanges, path: &str, violations: &mut Violations) -> Self {
        if *spec == HeaderChanges::default() {
            return Self(None);
        }
        let mut remove = Vec::with_capacity(spec.remove.len());
        for (index, name) in spec.remove.iter().enumerate() {
            remove.extend(header_name(name, format!("{path}.remove[{index}]"), violations));
        }
        let mut pairs = |field: &str, from: &std::collections::BTreeMap<String, String>| {
            let mut to = Vec::with_capacity(from.len());
            for (name, value) in from {
                to.extend(header(name, value, format!("{path}.{field}.{name}"), violations));
            }
            to.into_boxed_slice()
        };
        let (set, add) = (pairs("set", &spec.set), pairs("add", &spec.add));
        Self(Some(Box::new(Lists { remove: remove.into(), set, add })))
    }

    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        let Some(lists) = &self.0 else { return };
        for name in &lists.remove {
            headers.remove(name);
        }
        for (name, value) in &lists.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &lists.add {
            headers.append(name, value.clone());
        }
    }
}

pub(crate) fn header_name(name: &str, path: String, violations: &mut Violations) -> Option<HeaderName> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if FIXED.contains(&name.as_str()) => {
            violations.add(path, format!("{name} is the gateway's own to set"));
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            violations.add(path, format!("{name:?} is no header name"));
            None
        }
    }
}

pub(crate) fn header(
    name: &str,
    value: &str,
    path: String,
    violations: &mut Violations,
) -> Option<(HeaderName, HeaderValue)> {
    let Ok(value) = HeaderValue::from_str(value) else {
        violations.add(path, format!("{value:?} is no header value"));
        return None;
    };
    Some((header_name(name, path, violations)?, value))
}

/// What a path becomes.
#[derive(Debug)]
pub(crate) enum CompiledRewrite {
    Full(Box<str>),
    /// In place of the matched prefix; without a trailing slash.
    Prefix(Box<str>),
}

impl CompiledRewrite {
    pub(crate) fn compile(spec: &PathRewrite, path: &str, violations: &mut Violations) -> Option<Self> {
        let (field, text) = match spec {
            PathRewrite::Full(text) => ("full", text),
            PathRewrite::Prefix(text) => ("prefix", text),
        };
        // An empty prefix cuts the matched one off, as `/` does (Gateway API, ReplacePrefixMatch).
        let text = if text.is_empty() && field == "prefix" { "/" } else { text };
        match path::normalise(text) {
            Ok(normal) if field == "full" => Some(Self::Full((&*normal).into())),
            Ok(normal) => Some(Self::Prefix(normal.strip_suffix('/').unwrap_or(&normal).into())),
            Err(error) => {
                violations.add(format!("{path}.{field}"), error.to_string());
                None
            }
        }
    }

    /// The path after it, given the matched prefix without trailing slash (Gateway API, HTTPPathModifier).
    pub(crate) fn apply<'a>(&'a self, path: &'a str, matched: Option<&str>) -> Cow<'a, str> {
        match self {
            Self::Full(full) => Cow::Borrowed(full),
            Self::Prefix(prefix) => {
                let rest = matched.and_then(|matched| path.strip_prefix(matched)).unwrap_or(path);
                match (prefix.is_empty(), rest.is_empty()) {
                    (true, true) => Cow::Borrowed("/"),
                    (true, false) => Cow::Borrowed(rest),
                    (false, true) => Cow::Borrowed(prefix),
                    (false, false) => Cow::Owned(format!("{prefix}{rest}")),
                }
            }
        }
    }
}

/// A redirect.
#[derive(Debug)]
pub struct CompiledRedirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    scheme: Option<&'static str>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<CompiledRewrite>,
}

impl CompiledRedirect {
    pub(crate) fn compile(spec: &Redirect, path: &str, violations: &mut Violations) -> Option<Self> {
        let before = violations.len();
        if !matches!(spec.status, 301 | 302 | 303 | 307 | 308) {
            violations.add(format!("{path}.status"), "must be 301, 302, 303, 307 or 308".to_owned());
        }
        let scheme = match spec.scheme.as_deref() {
            None => None,
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            Some(other) => {
                violations.add(format!("{path}.scheme"), format!("{other:?} is not http or https"));
                None
            }
        };
        if let Some(host) = &spec.host
            && (host.contains(':') || host.parse::<http::uri::Authority>().is_err())
        {
            violations.add(format!("{path}.host"), format!("{host:?} is no host name"));
        }
        let rewrite = spec
            .path
            .as_ref()
            .and_then(|to| CompiledRewrite::compile(to, &format!("{path}.path"), violations));
        let status = StatusCode::from_u16(spec.status).ok()?;
        let host = spec.host.as_deref().map(Box::from);
        (violations.len() == before).then_some(Self { status, scheme, host, port: spec.port, path: rewrite })
    }

    /// The value of `Location` for a request of this scheme, to this authority (`host` or `host:port`), with this
    /// normalised path and query. A port is left out where it is the scheme's own.
    pub(crate) fn location(
        &self,
        scheme: &str,
        authority: &str,
        path: &str,
        query: Option<&str>,
        matched: Option<&str>,
    ) -> String {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse::<u16>().ok()),
            _ => (authority, None),
        };
        // A new scheme brings its own port with it; otherwise the client's stays (Gateway API, port).
        let port = self.port.or(if self.scheme.is_some() { None } else { port });
        let scheme = self.scheme.unwrap_or(scheme);
        let host = self.host.as_deref().unwrap_or(host);
        let path = self.path.as_ref().map_or(Cow::Borrowed(path), |rewrite| rewrite.apply(path, matched));
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443))) {
            location.push_str(&format!(":{port}"));
        }
        location.push_str(&path);
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(text: &str, path: &str, matched: Option<&str>) -> String {
        let mut violations = Violations::default();
        let spec = serde_json::from_str(text).unwrap();
        CompiledRewrite::compile(&spec, "p", &mut violations).unwrap().apply(path, matched).into_owned()
    }

    #[test]
    fn a_prefix_is_replaced_as_in_the_gateway_api() {
        // The table of HTTPPathModifier.replacePrefixMatch; matched prefixes are without trailing slash here.
        for (path, matched, with, becomes) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "", "/xyz", "/xyz/foo"),
        ] {
            let text = format!(r#"{{"prefix":"{with}"}}"#);
            assert_eq!(rewrite(&text, path, Some(matched)), becomes, "{path} {matched} {with}");
        }
        assert_eq!(rewrite(r#"{"full":"/x"}"#, "/foo/bar", None), "/x");
    }

    #[test]
    fn a_redirect_changes_what_it_names() {
        for (spec, authority, location) in [
            (r#"{"scheme":"https"}"#, "h:8080", "https://h/a/b?q"),
            (r#"{"scheme":"https","port":8443}"#, "h", "https://h:8443/a/b?q"),
            (r#"{"host":"other"}"#, "h:8080", "http://other:8080/a/b?q"),
            (r#"{"host":"other"}"#, "h:80", "http://other/a/b?q"),
            (r#"{"port":80}"#, "[::1]:8080", "http://[::1]/a/b?q"),
            (r#"{"path":{"prefix":"/x"}}"#, "[::1]", "http://[::1]/x/b?q"),
            (r#"{"path":{"full":"/y"},"status":308}"#, "h", "http://h/y?q"),
        ] {
            let mut violations = Violations::default();
            let spec = serde_json::from_str(spec).unwrap();
            let redirect = CompiledRedirect::compile(&spec, "r", &mut violations).unwrap();
            assert_eq!(redirect.location("http", authority, "/a/b", Some("q"), Some("/a")), location);
        }
        for bad in
            [r#"{"status":200}"#, r#"{"scheme":"ftp"}"#, r#"{"host":"a b"}"#, r#"{"path":{"full":"x"}}"#]
        {
            let mut violations = Violations::default();
            let spec = serde_json::from_str(bad).unwrap();
            assert!(CompiledRedirect::compile(&spec, "r", &mut violations).is_none(), "{bad}");
            assert_eq!(violations.len(), 1, "{bad}");
        }
    }

    #[test]
    fn headers_are_removed_set_and_added_in_that_order() {
        let mut violations = Violations::default();
        let text = r#"{"remove":["A","b"],"set":{"b":"1","c":"1"},"add":{"c":"2","d":"3"}}"#;
        let compiled = CompiledHeaders::compile(&serde_json::from_str(text).unwrap(), "h", &mut violations);
        let mut headers = HeaderMap::new();
        for name in ["a", "b", "c", "d"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("0"));
        }
        compiled.apply(&mut headers);
        let values = |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            (values("a"), values("b"), values("c"), values("d")),
            (vec![], vec!["1"], vec!["1", "2"], vec!["0", "3"])
        );
        let text = r#"{"remove":["a b","Content-Length"],"set":{"host":"x"},"add":{"x":"a\nb"}}"#;
        CompiledHeaders::compile(&serde_json::from_str(text).unwrap(), "h", &mut violations);
        let paths: Vec<String> = violations.into_vec().into_iter().map(|violation| violation.path).collect();
        assert_eq!(paths, ["h.remove[0]", "h.remove[1]", "h.set.host", "h.add.x"]);
    }
}
