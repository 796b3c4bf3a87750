//! Policy `api-key`: only callers with a good key get through, and the upstream is told who they are. Fails closed.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};
use model::{Code, Name, key};
use serde::Deserialize;

use super::{CONSUMER_HEADER, Context, Policy};
use crate::{
    exchange::{Exchange, Refusal, Verdict},
    plan::matcher::{form_decoded, parameter},
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "api-key";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Where the key is.
    #[serde(rename = "in", default)]
    place: Place,
    /// Who may pass; without it, everyone with a good key.
    allow: Option<Allow>,
    /// Keep the key from the upstream.
    #[serde(default = "hide_default")]
    hide: bool,
    /// What becomes of callers while this node can't know which keys were revoked.
    #[serde(default)]
    on_isolation: OnIsolation,
    /// After how long without a word from a majority that is so.
    #[serde(default = "isolation_default", with = "model::duration")]
    isolation_after: Duration,
}

/// What becomes of callers while this node can't know which keys were revoked.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnIsolation {
    /// They are let through with the keys that were good when it knew.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// Where the key is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Place {
    /// In this header.
    Header(String),
    /// In this query parameter.
    Query(String),
    /// In `Authorization: Bearer`.
    Bearer,
}

/// Who may pass: a consumer that is named, or in a group that is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    #[serde(default)]
    groups: BTreeSet<Name>,
    #[serde(default)]
    consumers: BTreeSet<Name>,
}

fn hide_default() -> bool {
    true
}

fn isolation_default() -> Duration {
    Duration::from_secs(30)
}

/// Below it a leader that is lost and followed by another would have callers refused.
const ISOLATION_AFTER_MIN: Duration = Duration::from_secs(5);

impl Default for Place {
    fn default() -> Self {
        Self::Header("x-api-key".to_owned())
    }
}

#[derive(Debug)]
struct ApiKey {
    name: Name,
    place: CompiledPlace,
    allow: Option<Allow>,
    hide: bool,
    /// How old the word of a majority may be, if that matters.
    lease: Option<Duration>,
}

#[derive(Debug)]
enum CompiledPlace {
    Header(HeaderName),
    Query(String),
    Bearer,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let mut violations = Violations::default();
    let place = match spec.place {
        Place::Header(text) => match HeaderName::from_bytes(text.as_bytes()) {
            Ok(header) if header == header::AUTHORIZATION => {
                let message = "write bearer for the Authorization header".to_owned();
                violations.add(format!("policies.{name}.in.header"), message);
                None
            }
            Ok(header) => Some(CompiledPlace::Header(header)),
            Err(_) => {
                violations.add(format!("policies.{name}.in.header"), format!("{text:?} is no header name"));
                None
            }
        },
        Place::Query(text) if text.is_empty() => {
            violations.add(format!("policies.{name}.in.query"), "must not be empty".to_owned());
            None
        }
        Place::Query(text) => Some(CompiledPlace::Query(text)),
        Place::Bearer => Some(CompiledPlace::Bearer),
    };
    if let Some(allow) = &spec.allow
        && allow.groups.is_empty()
        && allow.consumers.is_empty()
    {
        violations.add(
            format!("policies.{name}.allow"),
            "lets nobody through: name groups or consumers".to_owned(),
        );
    }
    if spec.isolation_after < ISOLATION_AFTER_MIN {
        violations.add(format!("policies.{name}.isolation_after"), "must be 5s or more".to_owned());
    }
    let lease = match spec.on_isolation {
        OnIsolation::Open => None,
        OnIsolation::Closed => Some(spec.isolation_after),
    };
    match place {
        Some(place) if violations.len() == 0 => {
            Ok(Arc::new(ApiKey { name: name.clone(), place, allow: spec.allow, hide: spec.hide, lease }))
        }
        _ => Err(violations.into_vec()),
    }
}

impl Policy for ApiKey {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        if self.lease.is_some_and(|time| !exchange.lease.holds_for(time)) {
            let told = "It can't be known now which keys are good. Try again later.";
            return Err(Refusal::new(Code::Unavailable, "isolated", told));
        }
        let Caller { consumer, groups, key } = self.caller(exchange)?;
        let value = HeaderValue::from_str(consumer.as_str()).map_err(|_| refuse("consumer_name"))?;
        if self.hide {
            self.take_out(exchange);
        }
        exchange.headers.insert(HeaderName::from_static(CONSUMER_HEADER), value);
        (exchange.consumer, exchange.groups, exchange.key) = (Some(consumer), groups, Some(key));
        Ok(Verdict::Pass)
    }
}

/// One answer for everything that is wrong with a key, so that it tells a guesser nothing; the log has the reason.
fn refuse(reason: &'static str) -> Refusal {
    let mut refusal = Refusal::new(Code::Unauthenticated, reason, "A valid API key is needed.");
    refusal.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey")));
    refusal
}

/// Who calls, and with what.
struct Caller<'a> {
    consumer: Name,
    groups: &'a [Name],
    key: Name,
}

impl ApiKey {
    /// Who holds the request's key, if they may pass.
    fn caller<'a>(&self, exchange: &Exchange<'a>) -> Result<Caller<'a>, Refusal> {
        let credential = self.credential(exchange)?;
        if !key::well_formed(&credential) {
            return Err(refuse("key_malformed"));
        }
        let (name, key) = exchange.plan.key(&credential).ok_or_else(|| refuse("key_unknown"))?;
        if key.expires_at_s.is_some_and(|expires_at_s| expires_at_s <= exchange.now_s()) {
            return Err(refuse("key_expired"));
        }
        let consumers = &exchange.plan.config().consumers;
        let consumer = &consumers.get(&key.consumer).ok_or_else(|| refuse("consumer_unknown"))?.spec;
        if consumer.disabled {
            return Err(Refusal::new(Code::Denied, "consumer_disabled", "This caller may not do that."));
        }
        let passes = self.allow.as_ref().is_none_or(|allow| {
            allow.consumers.contains(&key.consumer)
                || consumer.groups.iter().any(|group| allow.groups.contains(group))
        });
        if !passes {
            return Err(Refusal::new(Code::Denied, "consumer_not_allowed", "This caller may not do that."));
        }
        Ok(Caller { consumer: key.consumer.clone(), groups: &consumer.groups, key: name.clone() })
    }

    fn credential<'e>(&self, exchange: &'e Exchange<'_>) -> Result<Cow<'e, str>, Refusal> {
        let name = match &self.place {
            CompiledPlace::Query(name) => {
                let value =
                    parameter(exchange.query.as_deref(), name).ok_or_else(|| refuse("key_missing"))?;
                return match value {
                    Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
                    Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
                }
                .ok_or_else(|| refuse("key_malformed"));
            }
            CompiledPlace::Header(name) => name,
            CompiledPlace::Bearer => &header::AUTHORIZATION,
        };
        let mut values = exchange.headers.get_all(name).iter();
        let value = values.next().ok_or_else(|| refuse("key_missing"))?;
        if values.next().is_some() {
            return Err(refuse("key_repeated"));
        }
        let value = value.to_str().map_err(|_| refuse("key_malformed"))?;
        let CompiledPlace::Bearer = &self.place else { return Ok(Cow::Borrowed(value)) };
        let (scheme, token) = value.split_once(' ').ok_or_else(|| refuse("key_missing"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refuse("key_missing"));
        }
        Ok(Cow::Borrowed(token.trim_start_matches(' ')))
    }

    /// Takes the key out of what is forwarded.
    fn take_out(&self, exchange: &mut Exchange<'_>) {
        let name = match &self.place {
            CompiledPlace::Header(name) => {
                exchange.headers.remove(name);
                return;
            }
            CompiledPlace::Bearer => {
                exchange.headers.remove(header::AUTHORIZATION);
                return;
            }
            CompiledPlace::Query(name) => name,
        };
        let Some(query) = exchange.query.as_deref() else { return };
        let is_key =
            |pair: &str| *form_decoded(pair.split_once('=').map_or(pair, |(key, _)| key)) == *name.as_bytes();
        let left: Vec<&str> = query.split('&').filter(|pair| !is_key(pair)).collect();
        exchange.query = (!left.is_empty()).then(|| Cow::Owned(left.join("&")));
    }
}

#[cfg(test)]
mod tests;
