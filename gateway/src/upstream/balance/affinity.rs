//! What of a request says where it should go: the key that it is hashed by, and the cookie of its target.

use std::{fmt, net::IpAddr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::{
    Name, Upstream, Violation,
    upstream::{Balance, HashKey, SameSite, Sticky},
};
use siphasher::sip128::SipHasher13;
use smallvec::SmallVec;

use crate::{
    plan::{endpoint::Endpoints, matcher},
    violations::Violations,
};

/// What of a request says where it should go; nothing of most.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Affinity {
    /// The hash of its key.
    pub(crate) hash: Option<u64>,
    /// The place of the endpoint that its cookie is of.
    pub(crate) bound: Option<usize>,
}

/// How requests of an upstream say where they should go.
pub(crate) struct Binding {
    by: Option<Key>,
    sticky: Option<Cookie>,
    /// The same on all nodes of the cluster, and known to them alone: nobody can choose keys that all lead to one target, or make
    /// cookies.
    secret: (u64, u64),
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding").field("by", &self.by).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Key {
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    Address,
}

struct Cookie {
    name: Box<str>,
    /// What follows the value.
    attributes: Box<str>,
    /// The value of each endpoint, in order, with its place.
    values: Box<[(Value, usize)]>,
}

/// A digest of an endpoint, in base64.
type Value = [u8; 22];

impl Binding {
    /// Of an upstream with these endpoints; none if its requests say nothing of where they should go.
    pub(crate) fn compile(
        name: &Name,
        spec: &Upstream,
        endpoints: &Endpoints,
        secret: (u64, u64),
    ) -> Result<Option<Box<Self>>, Vec<Violation>> {
        let mut violations = Violations::default();
        let by = match &spec.balance {
            Balance::Maglev(hashing) => Some(match &hashing.by {
                HashKey::Header(header) => match HeaderName::from_bytes(header.as_bytes()) {
                    Ok(header) => Key::Header(header),
                    Err(_) => {
                        let path = format!("upstreams.{name}.balance.maglev.by.header");
                        violations.add(path, format!("{header:?} is no header name"));
                        return Err(violations.into_vec());
                    }
                },
                HashKey::Cookie(cookie) => Key::Cookie(cookie.as_str().into()),
                HashKey::Query(parameter) => Key::Query(parameter.as_str().into()),
                HashKey::Address => Key::Address,
            }),
            _ => None,
        };
        let sticky = spec.sticky.as_ref().map(|sticky| {
            let all = endpoints.all().iter().enumerate();
            let mut values: Vec<(Value, usize)> =
                all.map(|(at, endpoint)| (value(secret, name, &endpoint.label), at)).collect();
            values.sort_unstable();
            let (cookie, attributes) = (sticky.cookie.as_str().into(), attributes(sticky).into());
            Cookie { name: cookie, attributes, values: values.into() }
        });
        if let Some(cookie) = &sticky
            && HeaderValue::from_str(&format!("{}={}", cookie.name, cookie.attributes)).is_err()
        {
            violations.add(format!("upstreams.{name}.sticky"), "makes no header value".to_owned());
            return Err(violations.into_vec());
        }
        let is_any = by.is_some() || sticky.is_some();
        Ok(is_any.then(|| Box::new(Self { by, sticky, secret })))
    }

    /// What the request says.
    pub(crate) fn of(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        client: impl FnOnce() -> IpAddr,
    ) -> Affinity {
        let hash = self.by.as_ref().and_then(|key| self.hash(key, headers, query, client));
        let bound = self.sticky.as_ref().and_then(|cookie| {
            let value: Value = cookie_of(headers, &cookie.name)?.try_into().ok()?;
            let at = cookie.values.binary_search_by_key(&value, |(value, _)| *value).ok()?;
            Some(cookie.values[at].1)
        });
        Affinity { hash, bound }
    }

    fn hash(
        &self,
        key: &Key,
        headers: &HeaderMap,
        query: Option<&str>,
        client: impl FnOnce() -> IpAddr,
    ) -> Option<u64> {
        let hash = |bytes: &[u8]| SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(bytes).h1;
        match key {
            Key::Header(name) => {
                let mut bytes = SmallVec::<[u8; 128]>::new();
                for value in headers.get_all(name) {
                    bytes.extend_from_slice(value.as_bytes());
                    bytes.push(b'\n');
                }
                (bytes.len() > 1).then(|| hash(&bytes))
            }
            Key::Cookie(name) => cookie_of(headers, name).filter(|value| !value.is_empty()).map(hash),
            Key::Query(name) => {
                matcher::parameter(query, name).filter(|value| !value.is_empty()).map(|value| hash(&value))
            }
            Key::Address => Some(match client().to_canonical() {
                IpAddr::V4(address) => hash(&address.octets()),
                IpAddr::V6(address) => hash(&address.octets()),
            }),
        }
    }

    /// The cookie by which further requests get to the endpoint at this place, if these are kept together and this one's is of
    /// another.
    pub(crate) fn cookie(&self, affinity: Affinity, place: usize) -> Option<HeaderValue> {
        let cookie = self.sticky.as_ref().filter(|_| affinity.bound != Some(place))?;
        let (value, _) = cookie.values.iter().find(|(_, at)| *at == place)?;
        let value = std::str::from_utf8(value).ok()?;
        HeaderValue::try_from(format!("{}={value}{}", cookie.name, cookie.attributes)).ok()
    }
}

/// The value of the first cookie of this name (RFC 6265, section 4.2.1).
fn cookie_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value)
    })
}

fn value(secret: (u64, u64), upstream: &Name, label: &str) -> Value {
    let text = format!("{upstream}\n{label}");
    let digest = SipHasher13::new_with_keys(secret.0, secret.1).hash(text.as_bytes()).as_u128();
    let mut value = [b'A'; 22];
    // There is just so much room.
    let _ = URL_SAFE_NO_PAD.encode_slice(digest.to_be_bytes(), &mut value);
    value
}

fn attributes(sticky: &Sticky) -> String {
    let mut text = format!("; Path={}", sticky.path);
    if let Some(ttl) = sticky.ttl {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    text.push_str(match sticky.same_site {
        None => "",
        Some(SameSite::Strict) => "; SameSite=Strict",
        Some(SameSite::Lax) => "; SameSite=Lax",
        Some(SameSite::None) => "; SameSite=None",
    });
    text.push_str(if sticky.secure { "; Secure" } else { "" });
    text.push_str(if sticky.http_only { "; HttpOnly" } else { "" });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_wherever_they_are() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; bb=2;c=3", "d=\"4\" ; e=; a=5"] {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        }
        for (name, value) in [("a", "1"), ("bb", "2"), ("c", "3"), ("d", "\"4\""), ("e", "")] {
            assert_eq!(cookie_of(&headers, name), Some(value.as_bytes()), "{name}");
        }
        for name in ["b", "f", "A", ""] {
            assert_eq!(cookie_of(&headers, name), None, "{name}");
        }
    }

    #[test]
    fn attributes_are_those_that_are_said() {
        let of = |text: &str| attributes(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"cookie":"c"}"#), "; Path=/; HttpOnly");
        let all =
            r#"{"cookie":"c","ttl":"1h","path":"/a","same_site":"none","secure":true,"http_only":false}"#;
        assert_eq!(of(all), "; Path=/a; Max-Age=3600; SameSite=None; Secure");
    }
}
