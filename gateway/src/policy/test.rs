//! What the tests of policies share: a policy from its JSON, and a request to run it on.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response};
use model::{Config, Kind, Name, Violation};

use super::{Policy, compress::Memory};
use crate::{
    after::{About, After},
    body::ResponseBody,
    error::Fault,
    exchange::{Exchange, Refusal, Reply, Verdict},
    lease::Lease,
    plan::{Head, Plan},
    rate_limits::RateLimits,
};

/// The id of every request here.
static ID: HeaderValue = HeaderValue::from_static("id");

/// The policy `p` of this JSON.
pub(crate) fn policy(doc: &str) -> Result<Arc<dyn Policy>, Vec<Violation>> {
    super::build(&Name::new("p").unwrap(), &serde_json::from_str(doc).unwrap(), super::Context::default())
}

/// A config of these objects, in which a route takes everything.
pub(crate) fn config(objects: &[(Kind, &str, &str)]) -> Config {
    let mut config = Config::default();
    let route = (Kind::Route, "all", r#"{"respond":{"status":200}}"#);
    for (kind, name, doc) in objects.iter().chain([&route]) {
        let stored = model::config::Stored {
            created: model::Revision(1),
            changed: model::Revision(1),
            doc: doc.as_bytes().into(),
        };
        config.insert(*kind, Name::new(name).unwrap(), stored);
    }
    config
}

/// What a process has besides its Plan.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) lease: Lease,
    pub(crate) rates: Option<Arc<RateLimits>>,
}

/// Runs the policy on `GET /`, after `prepare`.
pub(crate) fn run(policy: &dyn Policy, prepare: impl FnOnce(&mut Exchange<'_>)) -> Result<(), Refusal> {
    let plan = Plan::empty().install(&config(&[])).unwrap();
    run_in(&plan, policy, prepare, |_| ())
}

/// Runs the policy in this Plan, and shows what became of the exchange.
pub(crate) fn run_in(
    plan: &Plan,
    policy: &dyn Policy,
    prepare: impl FnOnce(&mut Exchange<'_>),
    seen: impl FnOnce(&Exchange<'_>),
) -> Result<(), Refusal> {
    run_under(&World::default(), plan, policy, prepare, |exchange| seen(exchange))
}

/// The same, in such a process.
pub(crate) fn run_under(
    world: &World,
    plan: &Plan,
    policy: &dyn Policy,
    prepare: impl FnOnce(&mut Exchange<'_>),
    seen: impl FnOnce(&mut Exchange<'_>),
) -> Result<(), Refusal> {
    let answer = judge(world, plan, policy, prepare, seen)?;
    assert_eq!(answer, None, "it is answered");
    Ok(())
}

/// What a response like this becomes after the policy has seen a request, or its answer in the response's place.
pub(crate) fn respond(
    policy: &dyn Policy,
    prepare: impl FnOnce(&mut Exchange<'_>),
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    respond_to(policy, prepare, response, None)
}

/// The same of a response that is the gateway's problem document with this code.
pub(crate) fn respond_to(
    policy: &dyn Policy,
    prepare: impl FnOnce(&mut Exchange<'_>),
    response: Response<ResponseBody>,
    problem: Option<&'static str>,
) -> Response<ResponseBody> {
    let plan = Plan::empty().install(&config(&[])).unwrap();
    let mut after = After::default();
    let moved = |exchange: &mut Exchange<'_>| std::mem::swap(exchange.after, &mut after);
    let answer = judge(&World::default(), &plan, policy, prepare, moved);
    let (mut response, problem) = match answer {
        Ok(None) => (response, problem),
        Ok(Some(reply)) => (reply.into(), None),
        Err(refusal) => {
            let fault = Fault::refusal(refusal.code, refusal.detail, refusal.form);
            (fault.response(&ID), fault.problem())
        }
    };
    let about = About { problem, id: &ID, metrics: &Arc::default(), encoders: &Memory::new(usize::MAX) };
    after.finish(&mut response, &about, &RateLimits::alone(), || 0);
    response
}

fn judge(
    world: &World,
    plan: &Plan,
    policy: &dyn Policy,
    prepare: impl FnOnce(&mut Exchange<'_>),
    seen: impl FnOnce(&mut Exchange<'_>),
) -> Result<Option<Reply>, Refusal> {
    let (mut headers, mut after) = (HeaderMap::new(), After::default());
    let (none, alone) = (HeaderMap::new(), RateLimits::alone());
    let head = Head { method: &Method::GET, host: "h", path: "/", query: None, headers: &none };
    let mut exchange = Exchange {
        plan,
        route: plan.route(&head).unwrap().route,
        method: &Method::GET,
        host: "h",
        path: "/",
        query: None,
        headers: &mut headers,
        id: &ID,
        client: [127, 0, 0, 1].into(),
        certificate: None,
        now_us: 1_000_000_000,
        lease: &world.lease,
        rates: world.rates.as_ref().unwrap_or(&alone),
        consumer: None,
        groups: &[],
        key: None,
        after: &mut after,
    };
    prepare(&mut exchange);
    let result = policy.request(&mut exchange);
    seen(&mut exchange);
    result.map(|verdict| match verdict {
        Verdict::Pass => None,
        Verdict::Answer(reply) => Some(*reply),
    })
}
