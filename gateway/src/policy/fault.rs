//! Policy `fault`: some requests are held up, or answered with an error, to see what becomes of those who depend on them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header};
use model::{
    Code, Name,
    route::{Match, ValueMatch},
};
use serde::Deserialize;

use super::{Context, Policy};
use crate::{
    chance,
    exchange::{Exchange, Refusal, Reply, Verdict},
    plan::{Head, matcher::CompiledMatch},
    state::Figures,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "fault";
/// The fields of its body that groups may override.
pub(crate) const OVERRIDABLE: &[&str] = &["delay", "abort"];

/// The longest time for which a request may be held up.
const DELAY_MAX: Duration = Duration::from_secs(300);
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TOLD: &str = "The fault is made on purpose.";
/// The names of gRPC's status codes from 1 on (grpc/doc/statuscodes.md).
const GRPC_CODES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// The requests that it may come upon; without it, all.
    #[serde(default)]
    when: When,
    /// Hold it up.
    delay: Option<DelaySpec>,
    /// Answer it with an error.
    abort: Option<AbortSpec>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct When {
    methods: Vec<String>,
    headers: BTreeMap<String, ValueMatch>,
    query: BTreeMap<String, ValueMatch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelaySpec {
    #[serde(default = "all")]
    percent: f64,
    #[serde(with = "model::duration")]
    duration: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AbortSpec {
    #[serde(default = "all")]
    percent: f64,
    /// An HTTP status, 400 to 599.
    status: Option<u16>,
    /// The name of a gRPC status, in its place.
    grpc: Option<String>,
}

fn all() -> f64 {
    100.0
}

#[derive(Debug)]
struct Fault {
    name: Name,
    when: CompiledMatch,
    delay: Option<(f64, Duration)>,
    abort: Option<(f64, Abort)>,
    figures: Arc<Figures>,
}

#[derive(Debug)]
enum Abort {
    Http(StatusCode),
    Grpc(u8),
}

pub(super) fn build(name: &Name, policy: &model::Policy, context: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let path = format!("policies.{name}");
    let mut violations = Violations::default();
    let When { methods, headers, query } = spec.when;
    let when = Match { methods, headers, query, path: None };
    let when = CompiledMatch::compile(&when, &format!("{path}.when"), &mut violations);
    if spec.delay.is_none() && spec.abort.is_none() {
        violations.add(path.clone(), "needs delay or abort, or both".to_owned());
    }
    let percents = [
        ("delay", spec.delay.as_ref().map(|delay| delay.percent)),
        ("abort", spec.abort.as_ref().map(|abort| abort.percent)),
    ];
    for (field, percent) in percents {
        if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            violations.add(format!("{path}.{field}.percent"), "must be 0 to 100".to_owned());
        }
    }
    if spec.delay.as_ref().is_some_and(|delay| delay.duration > DELAY_MAX) {
        violations.add(format!("{path}.delay.duration"), "must be 5m or less".to_owned());
    }
    let abort = spec.abort.and_then(|abort| abort.compile(&format!("{path}.abort"), &mut violations));
    match when {
        Some(when) if violations.len() == 0 => Ok(Arc::new(Fault {
            name: name.clone(),
            when,
            delay: spec.delay.map(|delay| (delay.percent, delay.duration)),
            abort,
            figures: context.figures.cloned().unwrap_or_default(),
        })),
        _ => Err(violations.into_vec()),
    }
}

impl AbortSpec {
    fn compile(self, path: &str, violations: &mut Violations) -> Option<(f64, Abort)> {
        let abort = match (self.status, self.grpc) {
            (Some(status), None) => {
                let good = StatusCode::from_u16(status).ok().filter(|_| (400..600).contains(&status));
                if good.is_none() {
                    violations.add(format!("{path}.status"), "must be 400 to 599".to_owned());
                }
                Abort::Http(good?)
            }
            (None, Some(name)) => match (1..).zip(GRPC_CODES).find(|(_, known)| *known == name) {
                Some((code, _)) => Abort::Grpc(code),
                None => {
                    let message = format!("{name:?} is no status of gRPC: one of {}", GRPC_CODES.join(", "));
                    violations.add(format!("{path}.grpc"), message);
                    return None;
                }
            },
            _ => {
                violations.add(path.to_owned(), "needs either status or grpc".to_owned());
                return None;
            }
        };
        Some((self.percent, abort))
    }
}

/// True for so many of a hundred.
fn happens(percent: f64) -> bool {
    const BITS: u32 = 53;
    let fraction = (chance::number() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64;
    fraction * 100.0 < percent
}

impl Policy for Fault {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let head = Head {
            method: exchange.method,
            host: exchange.host,
            path: exchange.path,
            query: exchange.query.as_deref(),
            headers: exchange.headers,
        };
        if !self.when.takes_rest(&head) {
            return Ok(Verdict::Pass);
        }
        if let Some((percent, duration)) = self.delay
            && happens(percent)
        {
            exchange.after.delay = Some(duration);
        }
        match &self.abort {
            Some((percent, abort)) if happens(*percent) => {
                self.figures.refuse();
                abort.stop()
            }
            _ => {
                self.figures.admit();
                Ok(Verdict::Pass)
            }
        }
    }

    fn figures(&self) -> Option<&Arc<Figures>> {
        Some(&self.figures)
    }
}

impl Abort {
    fn stop(&self) -> Result<Verdict, Refusal> {
        match self {
            Self::Http(status) => {
                let mut refusal = Refusal::new(code(*status), "fault", TOLD);
                let form = refusal.form.insert(Box::default());
                form.status = Some(*status);
                form.named = Some(("fault", "The request met with a fault"));
                Err(refusal)
            }
            Self::Grpc(status) => {
                // A response of trailers alone, which are its head (gRPC over HTTP/2, "Responses").
                let mut reply = Reply::new(StatusCode::OK);
                reply.headers.insert(header::CONTENT_TYPE, GRPC);
                reply.headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(*status)));
                reply.headers.insert(GRPC_MESSAGE, HeaderValue::from_static(TOLD));
                Ok(Verdict::Answer(Box::new(reply)))
            }
        }
    }
}

/// The outcome that comes nearest to a status.
fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::Denied,
        404 => Code::NotFound,
        409 => Code::Conflict,
        429 => Code::Exhausted,
        408 | 504 => Code::Timeout,
        ..500 => Code::Invalid,
        _ => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        body::ResponseBody,
        plan::Plan,
        policy::test::{config, policy, respond, run, run_in},
    };

    #[test]
    fn all_are_answered_with_the_error_or_none() {
        let with = |percent: &str| {
            policy(&format!(r#"{{"type": "fault", "abort": {{"percent": {percent}, "status": 503}}}}"#))
                .unwrap()
        };
        for _ in 0..100 {
            let refusal = run(&*with("100"), |_| ()).unwrap_err();
            assert_eq!(
                (refusal.code, refusal.form.unwrap().status.unwrap().as_u16()),
                (Code::Unavailable, 503)
            );
            assert_eq!(run(&*with("0"), |_| ()), Ok(()));
        }
        let half = with("50.0");
        let stopped = (0..1_000).filter(|_| run(&*half, |_| ()).is_err()).count();
        assert!((350..650).contains(&stopped), "{stopped}");
        assert_eq!(half.figures().unwrap().sums(), [1_000 - stopped as u64, stopped as u64, 0]);
    }

    #[test]
    fn some_are_held_up_and_those_that_are_not_meant_are_left_alone() {
        let doc = r#"{"type": "fault", "when": {"headers": {"x-chaos": {"exact": "yes"}}}, "delay": {"duration": "2s"},
            "abort": {"percent": 0, "status": 500}}"#;
        let plan = Plan::empty().install(&config(&[])).unwrap();
        for (value, delay) in [("yes", Some(Duration::from_secs(2))), ("no", None)] {
            let prepare = |exchange: &mut Exchange<'_>| {
                exchange.headers.insert("x-chaos", HeaderValue::from_static(value));
            };
            let seen = |exchange: &Exchange<'_>| assert_eq!(exchange.after.delay, delay);
            run_in(&plan, &*policy(doc).unwrap(), prepare, seen).unwrap();
        }
    }

    #[test]
    fn a_grpc_client_gets_a_status_of_its_own() {
        let doc = r#"{"type": "fault", "abort": {"grpc": "unavailable"}}"#;
        let nothing = http::Response::new(ResponseBody::empty());
        let response = respond(&*policy(doc).unwrap(), |_| (), nothing);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[GRPC_STATUS], "14");
        assert_eq!(response.headers()[header::CONTENT_TYPE], GRPC);
    }

    #[test]
    fn what_is_wrong_names_its_place() {
        for (doc, places) in [
            (r#"{"type": "fault"}"#, &["policies.p"][..]),
            (r#"{"type": "fault", "abort": {}}"#, &["policies.p.abort"]),
            (r#"{"type": "fault", "abort": {"status": 200}}"#, &["policies.p.abort.status"]),
            (r#"{"type": "fault", "abort": {"grpc": "ok"}}"#, &["policies.p.abort.grpc"]),
            (
                r#"{"type": "fault", "when": {"methods": ["A B"]}, "delay": {"percent": 101, "duration": "1h"}}"#,
                &["policies.p.when.methods[0]", "policies.p.delay.percent", "policies.p.delay.duration"],
            ),
        ] {
            let found: Vec<String> =
                policy(doc).unwrap_err().into_iter().map(|violation| violation.path).collect();
            assert_eq!(found, places, "{doc}");
        }
    }
}
