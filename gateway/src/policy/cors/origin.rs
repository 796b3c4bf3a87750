//! Which origins a `cors` policy names: exactly, by wildcard, by expression, or all of them.

use http::HeaderValue;
use regex::Regex;
use serde::Deserialize;

use crate::{plan::matcher, violations::Violations};

/// The most that a policy may name.
const ORIGINS_MAX: usize = 256;

/// An origin as a config names it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an origin, as https://shop.example or https://*.shop.example, or {regex: …}")]
pub(super) enum OriginSpec {
    Text(String),
    #[serde(rename_all = "snake_case")]
    Regex {
        regex: String,
    },
}

/// The origins that may read.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// All of them.
    pub(super) any: bool,
    exact: Vec<Box<[u8]>>,
    wild: Vec<Wild>,
    regexes: Vec<Regex>,
}

/// Every host under a domain, as `https://*.shop.example`.
#[derive(Debug)]
struct Wild {
    /// With `://`.
    scheme: Box<[u8]>,
    /// From the dot, with the port if there is one.
    domain: Box<[u8]>,
}

impl Wild {
    /// Whether one or more labels stand in the asterisk's place.
    fn takes(&self, origin: &[u8]) -> bool {
        let labels =
            origin.strip_prefix(&*self.scheme).and_then(|authority| authority.strip_suffix(&*self.domain));
        labels.is_some_and(|labels| !labels.is_empty() && labels.iter().all(|byte| is_of_host(*byte)))
    }
}

fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

impl Origins {
    pub(super) fn compile(specs: &[OriginSpec], path: &str, violations: &mut Violations) -> Self {
        let mut origins = Self::default();
        if specs.is_empty() {
            violations.add(path.to_owned(), "name who may read: an origin, or \"*\" for all".to_owned());
        }
        if specs.len() > ORIGINS_MAX {
            violations.add(path.to_owned(), format!("has more than {ORIGINS_MAX}"));
        }
        for (index, spec) in specs.iter().take(ORIGINS_MAX).enumerate() {
            let place = format!("{path}[{index}]");
            match spec {
                OriginSpec::Regex { regex } => {
                    origins.regexes.extend(matcher::regex(regex, &format!("{place}.regex"), violations));
                }
                OriginSpec::Text(text) => origins.name(text, place, violations),
            }
        }
        origins
    }

    fn name(&mut self, text: &str, place: String, violations: &mut Violations) {
        if text == "*" {
            self.any = true;
            return;
        }
        if text == "null" {
            self.exact.push(text.as_bytes().into());
            return;
        }
        match parse(text) {
            Ok((scheme, authority)) => match authority.strip_prefix('*') {
                Some(domain) => self
                    .wild
                    .push(Wild { scheme: scheme.into_bytes().into(), domain: domain.as_bytes().into() }),
                None => self.exact.push((scheme + &authority).into_bytes().into()),
            },
            Err(error) => violations.add(place, format!("{text:?} {error}")),
        }
    }

    /// Whether this one may read. Origins are compared as bytes: browsers write them in one way (HTML standard, "ASCII serialization of
    /// an origin").
    pub(super) fn contain(&self, origin: &HeaderValue) -> bool {
        let origin = origin.as_bytes();
        self.any
            || self.exact.iter().any(|exact| **exact == *origin)
            || self.wild.iter().any(|wild| wild.takes(origin))
            || std::str::from_utf8(origin)
                .is_ok_and(|origin| self.regexes.iter().any(|regex| regex.is_match(origin)))
    }
}

/// The scheme with `://`, and the host with its port, as a browser would write them; the host may begin with `*.`.
fn parse(text: &str) -> Result<(String, String), &'static str> {
    let lower = text.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://").ok_or("is no origin: write scheme://host")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return Err("has no scheme: write scheme://host");
    }
    if authority.contains(['/', '?', '#', '@']) {
        return Err("has more than scheme, host and port, which is all that an origin has");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = port.map(str::parse::<u16>).transpose().map_err(|_| "has no good port")?;
    let plain = host.strip_prefix("*.").unwrap_or(host);
    let is_address = plain == host && host.starts_with('[') && host.ends_with(']');
    if plain.contains('*') {
        return Err("has its asterisk in another place than the first label");
    }
    if plain.is_empty() || (!is_address && !plain.bytes().all(is_of_host)) {
        return Err("has no host");
    }
    // Browsers leave out the scheme's own.
    let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    Ok((format!("{scheme}://"), format!("{host}{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &str) -> Result<Origins, Vec<String>> {
        let mut violations = Violations::default();
        let origins = Origins::compile(&serde_json::from_str::<Vec<_>>(list).unwrap(), "o", &mut violations);
        match violations.len() {
            0 => Ok(origins),
            _ => Err(violations.into_vec().into_iter().map(|violation| violation.path).collect()),
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origins = origins(
            r#"["https://Shop.example:443", "http://localhost:3000", "capacitor://localhost", "https://[::1]:8443", "null"]"#,
        )
        .unwrap();
        for (origin, may) in [
            ("https://shop.example", true),
            ("http://shop.example", false),
            ("https://shop.example:8443", false),
            ("https://shop.example.evil.example", false),
            ("https://evil-shop.example", false),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("capacitor://localhost", true),
            ("https://[::1]:8443", true),
            ("null", true),
        ] {
            assert_eq!(origins.contain(&HeaderValue::from_static(origin)), may, "{origin}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_labels_and_an_expression_for_the_whole() {
        let origins = origins(
            r#"["https://*.shop.example", "http://*.test:8080", {"regex": "https://pr-[0-9]+\\.preview\\.example"}]"#,
        )
        .unwrap();
        for (origin, may) in [
            ("https://a.shop.example", true),
            ("https://a.b.shop.example", true),
            ("https://shop.example", false),
            ("https://.shop.example", false),
            ("https://evilshop.example", false),
            ("https://a.shop.example:8443", false),
            ("https://evil.example/.shop.example", false),
            ("https://evil.example:1@x.shop.example", false),
            ("http://a.shop.example", false),
            ("http://a.test:8080", true),
            ("http://a.test", false),
            ("https://pr-12.preview.example", true),
            ("https://pr-12.preview.example.evil.example", false),
            ("https://pr-12xpreview.example", false),
        ] {
            assert_eq!(origins.contain(&HeaderValue::from_static(origin)), may, "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_names_its_place() {
        let bad = r#"["shop.example", "https://a/b", "https://a.*.b", "https://", "https://a:99999", "1://a", {"regex": "("}, "ok://a"]"#;
        let places: Vec<String> = (0..6).map(|at| format!("o[{at}]")).chain(["o[6].regex".into()]).collect();
        assert_eq!(origins(bad).unwrap_err(), places);
        assert_eq!(origins("[]").unwrap_err(), ["o"]);
    }
}
