//! Policy `request-id`: clients, and targets under a name of their own, are told a request's id.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Response};
use model::Name;
use serde::Deserialize;

use super::{Context, Policy};
use crate::{
    after::{About, Layer},
    body::ResponseBody,
    error::X_REQUEST_ID,
    exchange::{Exchange, Refusal, Verdict},
    forwarded,
    plan::changes,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "request-id";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// The header that it is in.
    #[serde(default = "header_default")]
    header: String,
    /// Whether a client's own is taken over.
    #[serde(default)]
    accept: bool,
    /// Whether the client is told.
    #[serde(default = "response_default")]
    response: bool,
}

fn header_default() -> String {
    X_REQUEST_ID.as_str().to_owned()
}

fn response_default() -> bool {
    true
}

#[derive(Debug)]
struct RequestId {
    name: Name,
    header: HeaderName,
    accept: bool,
    response: bool,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let Spec { header, accept, response } = super::spec(name, policy)?;
    let path = format!("policies.{name}");
    let mut violations = Violations::default();
    let header = changes::header_name(&header, format!("{path}.header"), &mut violations);
    let is_usual = header.as_ref() == Some(&X_REQUEST_ID);
    if accept && is_usual {
        let message =
            "is for another header: X-Request-Id is taken over from trusted proxies, and from nobody else";
        violations.add(format!("{path}.accept"), message.to_owned());
    }
    if !response && is_usual {
        let message = "nothing is left to be done: targets are told in X-Request-Id anyway";
        violations.add(format!("{path}.response"), message.to_owned());
    }
    match header {
        Some(header) if violations.len() == 0 => {
            Ok(Arc::new(RequestId { name: name.clone(), header, accept, response }))
        }
        _ => Err(violations.into_vec()),
    }
}

impl Policy for RequestId {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let given = self.accept.then(|| exchange.headers.get(&self.header)).flatten();
        let given = given.filter(|given| forwarded::is_id(given)).cloned();
        let id = given.unwrap_or_else(|| exchange.id.clone());
        if self.response {
            exchange.after.layers.push(Box::new(Told { header: self.header.clone(), id: id.clone() }));
        }
        exchange.headers.insert(self.header.clone(), id);
        Ok(Verdict::Pass)
    }
}

/// What the client is told.
#[derive(Debug)]
struct Told {
    header: HeaderName,
    id: HeaderValue,
}

impl Layer for Told {
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, _: &About<'_>) {
        response.headers_mut().insert(self.header, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::Plan,
        policy::test::{config, policy, respond, run_in},
    };

    /// What target and client are told, where the client sends this.
    fn told(doc: &str, header: &'static str, sends: Option<&'static str>) -> [Option<String>; 2] {
        let policy = policy(doc).unwrap();
        let prepare = |exchange: &mut Exchange<'_>| {
            if let Some(id) = sends {
                exchange.headers.insert(header, HeaderValue::from_static(id));
            }
        };
        let text = |value: Option<&HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
        let mut target = None;
        let plan = Plan::empty().install(&config(&[])).unwrap();
        run_in(&plan, &*policy, prepare, |exchange| target = text(exchange.headers.get(header))).unwrap();
        let response = respond(&*policy, prepare, Response::new(ResponseBody::empty()));
        [target, text(response.headers().get(header))]
    }

    fn both(id: &str) -> [Option<String>; 2] {
        [Some(id.to_owned()), Some(id.to_owned())]
    }

    #[test]
    fn both_sides_are_told_under_one_name() {
        assert_eq!(told(r#"{"type": "request-id"}"#, "x-request-id", None), both("id"));
        let own = r#"{"type": "request-id", "header": "X-Correlation-Id"}"#;
        assert_eq!(told(own, "x-correlation-id", None), both("id"));
        assert_eq!(told(own, "x-correlation-id", Some("mine")), both("id"));
        let quiet = r#"{"type": "request-id", "header": "x-trace", "response": false}"#;
        assert_eq!(told(quiet, "x-trace", None), [Some("id".to_owned()), None]);
    }

    #[test]
    fn a_clients_own_is_taken_over_where_that_is_wanted_and_it_is_one() {
        let open = r#"{"type": "request-id", "header": "x-correlation-id", "accept": true}"#;
        assert_eq!(told(open, "x-correlation-id", Some("mine-7")), both("mine-7"));
        assert_eq!(told(open, "x-correlation-id", Some("")), both("id"));
        assert_eq!(told(open, "x-correlation-id", Some("two words")), both("id"));
        assert_eq!(told(open, "x-correlation-id", None), both("id"));
    }

    #[test]
    fn what_is_wrong_names_its_place() {
        for (doc, place) in [
            (r#"{"type": "request-id", "header": "a b"}"#, "policies.p.header"),
            (r#"{"type": "request-id", "header": "connection"}"#, "policies.p.header"),
            (r#"{"type": "request-id", "accept": true}"#, "policies.p.accept"),
            (r#"{"type": "request-id", "response": false}"#, "policies.p.response"),
        ] {
            assert_eq!(policy(doc).unwrap_err()[0].path, place, "{doc}");
        }
    }
}
