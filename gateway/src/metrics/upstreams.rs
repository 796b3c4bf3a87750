//! What the workers have counted of each upstream of the present Plan.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use prometheus::{
    core::{Collector, Desc},
    proto::{Metric, MetricFamily, MetricType},
};

use super::{counter, family, gauge};
use crate::{
    plan::{CompiledUpstream, Plan},
    timer,
    upstream::{
        figures::{Figures, REASONS},
        health,
    },
};

/// The most upstreams that have figures of their own; those of the rest are added up.
const UPSTREAMS_MAX: usize = 1_000;
/// The label of the rest, which is no name.
const REST: &str = "(others)";

type Read = fn(&Figures) -> u64;

const COUNTERS: [(&str, &str, Read); 13] = [
    ("phalanx_upstream_requests_total", "Requests to be forwarded, by upstream.", |f| f.requests.get()),
    ("phalanx_upstream_attempts_total", "Attempts at targets, by upstream.", |f| f.attempts.get()),
    (
        "phalanx_upstream_attempt_failures_total",
        "Attempts that failed by a target's fault, by upstream.",
        |f| f.failures.get(),
    ),
    ("phalanx_upstream_retries_refused_total", "Retries that the budget did not allow, by upstream.", |f| {
        f.retries_refused.get()
    }),
    ("phalanx_upstream_hedges_total", "Attempts beside others without an answer yet, by upstream.", |f| {
        f.hedges.get()
    }),
    ("phalanx_upstream_hedges_won_total", "Hedges whose answer was passed on, by upstream.", |f| {
        f.hedges_won.get()
    }),
    ("phalanx_upstream_hedges_refused_total", "Hedges that the budget did not allow, by upstream.", |f| {
        f.hedges_refused.get()
    }),
    ("phalanx_upstream_overflows_total", "Requests above an upstream's limits, by upstream.", |f| {
        f.overflows.get()
    }),
    ("phalanx_upstream_ejections_total", "Targets ejected, by upstream.", |f| f.ejections.get()),
    ("phalanx_upstream_mirrors_total", "Copies of requests sent, by upstream.", |f| f.mirrors.get()),
    ("phalanx_upstream_mirrors_dropped_total", "Copies of requests left out, by upstream.", |f| {
        f.mirrors_dropped.get()
    }),
    ("phalanx_upstream_checks_total", "Checks of targets, by upstream.", |f| f.checks.get()),
    ("phalanx_upstream_checks_failed_total", "Checks that did not find a target well, by upstream.", |f| {
        f.checks_failed.get()
    }),
];
const RETRIES: (&str, &str) =
    ("phalanx_upstream_retries_total", "Attempts after a request's first, by upstream and reason.");

const TARGETS: (&str, &str) = ("phalanx_upstream_targets", "Targets in use and out of use, by upstream.");

const CHECKED: (&str, &str) =
    ("phalanx_upstream_checked_targets", "Targets with checks, by upstream and who checks them now.");

/// What the workers have counted of each upstream of the present Plan.
pub(crate) struct UpstreamFigures {
    plan: Arc<ArcSwap<Plan>>,
    descs: Vec<Desc>,
}

impl UpstreamFigures {
    pub(crate) fn new(plan: Arc<ArcSwap<Plan>>) -> Result<Self, prometheus::Error> {
        let desc = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.into(), help.into(), labels, HashMap::new())
        };
        let mut descs = vec![
            desc(RETRIES, &["upstream", "reason"])?,
            desc(TARGETS, &["upstream", "state"])?,
            desc(CHECKED, &["upstream", "by"])?,
        ];
        for (name, help, _) in COUNTERS {
            descs.push(desc((name, help), &["upstream"])?);
        }
        Ok(Self { plan, descs })
    }
}

/// The upstreams that ever had traffic or have checks, in the order of their names; some under the name that they have, the rest under
/// one.
fn used(plan: &Plan) -> Vec<(&str, Vec<&CompiledUpstream>)> {
    let all = plan.config().upstreams.keys().filter_map(|name| plan.upstream(name));
    let is_used = |one: &&CompiledUpstream| one.state.figures.is_used() || one.spec.health.active.is_some();
    let mut used = all.map(|upstream| &**upstream).filter(is_used);
    let mut named: Vec<_> =
        used.by_ref().take(UPSTREAMS_MAX).map(|upstream| (upstream.name.as_str(), vec![upstream])).collect();
    let rest: Vec<_> = used.collect();
    if !rest.is_empty() {
        named.push((REST, rest));
    }
    named
}

fn sum(upstreams: &[&CompiledUpstream], read: impl Fn(&Figures) -> u64) -> u64 {
    upstreams.iter().fold(0, |sum, upstream| sum.wrapping_add(upstream.state.figures.sum(&read)))
}

/// How many targets that have checks are checked here, and how many by others alone.
fn checked(used: &[(&str, Vec<&CompiledUpstream>)]) -> Vec<Metric> {
    let of_one = |(name, of): &(&str, Vec<&CompiledUpstream>)| {
        let checked = of.iter().filter(|upstream| upstream.spec.health.active.is_some());
        let endpoints: Vec<_> = checked.flat_map(|upstream| upstream.endpoints.all()).collect();
        let left = endpoints.iter().filter(|endpoint| endpoint.state.is_left_to_others.load(Relaxed)).count();
        [("here", endpoints.len() - left), ("others", left)]
            .map(|(by, count)| gauge(&[("upstream", name), ("by", by)], count as f64))
    };
    used.iter().flat_map(of_one).collect()
}

impl Collector for UpstreamFigures {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let plan = self.plan.load();
        let used = used(&plan);
        let mut families = Vec::with_capacity(self.descs.len());
        for (name, help, read) in COUNTERS {
            let metrics = used.iter().map(|(name, of)| counter(&[("upstream", name)], sum(of, read)));
            families.push(family((name, help), MetricType::COUNTER, metrics.collect()));
        }
        let retries = used.iter().flat_map(|(name, of)| {
            REASONS.iter().enumerate().map(move |(at, reason)| -> Metric {
                counter(&[("upstream", name), ("reason", reason)], sum(of, |f| f.retries[at].get()))
            })
        });
        families.push(family(RETRIES, MetricType::COUNTER, retries.collect()));
        timer::refresh();
        let targets = used.iter().flat_map(|(name, of)| {
            let endpoints = || of.iter().flat_map(|upstream| upstream.endpoints.all());
            let out = endpoints().filter(|endpoint| health::is_out(&endpoint.state)).count();
            [("in_use", endpoints().count() - out), ("out", out)]
                .map(|(state, count)| gauge(&[("upstream", name), ("state", state)], count as f64))
        });
        families.push(family(TARGETS, MetricType::GAUGE, targets.collect()));
        families.push(family(CHECKED, MetricType::GAUGE, checked(&used)));
        families
    }
}
