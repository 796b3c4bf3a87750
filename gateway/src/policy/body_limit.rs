//! Policy `body-limit`: requests with larger bodies are refused with 413, before they are read where they say how large they are.

use std::sync::Arc;

use http::header;
use model::Name;
use serde::Deserialize;

use super::{Context, Policy};
use crate::exchange::{Exchange, Refusal, Verdict};

/// Its type in a config.
pub(crate) const KIND: &str = "body-limit";
/// The fields of its body that groups may override.
pub(crate) const OVERRIDABLE: &[&str] = &["max"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// How many bytes a body may have.
    #[serde(with = "model::size")]
    max: u64,
}

#[derive(Debug)]
struct BodyLimit {
    name: Name,
    bytes_max: u64,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    Ok(Arc::new(BodyLimit { name: name.clone(), bytes_max: spec.max }))
}

impl Policy for BodyLimit {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let length = exchange.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.bytes_max) {
            return Err(Refusal::body_too_large(self.bytes_max));
        }
        // What does not say how large it is, is counted on its way.
        let lowest = exchange.after.body_bytes_max.map_or(self.bytes_max, |max| max.min(self.bytes_max));
        exchange.after.body_bytes_max = Some(lowest);
        Ok(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;
    use crate::{
        plan::Plan,
        policy::test::{config, policy, run, run_in},
    };

    #[test]
    fn what_says_that_it_is_larger_is_refused_at_once() {
        let limit = policy(r#"{"type": "body-limit", "max": "1KiB"}"#).unwrap();
        let of = |length: &'static str| {
            run(&*limit, |exchange| {
                exchange.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            })
        };
        assert_eq!(of("1024"), Ok(()));
        let refusal = of("1025").unwrap_err();
        assert_eq!(refusal.form.unwrap().status, Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(refusal.detail, "It may have 1KiB at the most.");
        assert!(of("18446744073709551615").is_err());
    }

    #[test]
    fn of_several_limits_the_lowest_holds() {
        let plan = Plan::empty().install(&config(&[])).unwrap();
        for (before, after) in [(None, 10), (Some(5), 5), (Some(20), 10)] {
            let limit = policy(r#"{"type": "body-limit", "max": 10}"#).unwrap();
            let prepare = |exchange: &mut Exchange<'_>| exchange.after.body_bytes_max = before;
            let seen = |exchange: &Exchange<'_>| assert_eq!(exchange.after.body_bytes_max, Some(after));
            run_in(&plan, &*limit, prepare, seen).unwrap();
        }
        assert_eq!(policy(r#"{"type": "body-limit"}"#).unwrap_err()[0].path, "policies.p");
        assert_eq!(policy(r#"{"type": "body-limit", "max": "1MB"}"#).unwrap_err()[0].path, "policies.p.max");
    }
}
