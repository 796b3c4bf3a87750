//! The health of targets, as people see it.

use std::sync::atomic::Ordering::Relaxed;

use model::{
    Name, NodeId,
    api::{TargetFound, TargetHealth, TargetsHealth},
};

use super::{is_ejected, is_out, opinion::fresh_ms};
use crate::{
    plan::{CompiledUpstream, Plan, endpoint::Endpoint},
    timer,
};

/// The most targets that are told of; those that are out of use first.
const TARGETS_MAX: usize = 1_000;

/// The targets of this upstream, or of all.
pub(crate) fn of(plan: &Plan, only: Option<&Name>) -> TargetsHealth {
    timer::refresh();
    let mut all: Vec<_> =
        plan.endpoints().filter(|(upstream, _)| only.is_none_or(|name| upstream.name == *name)).collect();
    let out = all.iter().filter(|(_, endpoint)| is_out(&endpoint.state)).count();
    let targets = all.len();
    all.sort_by_key(|(upstream, endpoint)| (!is_out(&endpoint.state), &upstream.name, &endpoint.label));
    all.truncate(TARGETS_MAX);
    let items = all.into_iter().map(|(upstream, endpoint)| told(upstream, endpoint)).collect();
    TargetsHealth { targets, out, items }
}

fn told(upstream: &CompiledUpstream, endpoint: &Endpoint) -> TargetHealth {
    let state = &endpoint.state;
    let why = || state.why.load().as_ref().map(|why| why.to_string());
    let (word, why, for_ms) = if state.unhealthy.load(Relaxed) {
        ("unhealthy", why(), None)
    } else if is_ejected(state) {
        ("ejected", why(), Some(state.ejected_until_ms.load(Relaxed).saturating_sub(timer::now_ms())))
    } else {
        ("in_use", None, None)
    };
    TargetHealth {
        upstream: upstream.name.clone(),
        target: endpoint.label.to_string(),
        state: word.to_owned(),
        why,
        back_in_ms: for_ms,
        failures: state.failures.load(Relaxed),
        checked: upstream.spec.health.active.is_some(),
        found: found(upstream, endpoint),
    }
}

/// What checks have found, as far as it is fresh.
fn found(upstream: &CompiledUpstream, endpoint: &Endpoint) -> Vec<TargetFound> {
    let Some(active) = &upstream.spec.health.active else { return Vec::new() };
    let (fresh_ms, now_ms) = (fresh_ms(active), timer::now_ms());
    let words = endpoint.state.found.load();
    let words = words.iter().flat_map(|words| words.iter());
    let found = words.map(|word| TargetFound {
        node_id: NodeId(word.by),
        well: word.is_well,
        age_ms: now_ms.saturating_sub(word.at_ms),
    });
    found.filter(|found| found.age_ms <= fresh_ms).collect()
}
