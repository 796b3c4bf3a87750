//! What an upstream must be.

use std::time::Duration;

use super::{Notes, health, text, transport};
use crate::{
    Upstream,
    upstream::{After, Backoff, Hedge, Limits, Retry, Timeout},
};

const TARGETS_MAX: usize = 1_000;
const ATTEMPTS_MAX: u32 = 10;
const LIST_MAX: usize = 32;
const BODY_BYTES_MAX: u32 = 1 << 20;
const MIN_PER_S_MAX: u32 = 10_000;
const LIMIT_MAX: u32 = 1_000_000;
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const HEDGES_MAX: u32 = 4;
const PERCENTS: std::ops::RangeInclusive<u8> = 50..=99;
const FLOOR_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// A day: of an exchange as a whole, and of silence in a stream.
pub(super) const TOTAL_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    let targets = &upstream.targets;
    if targets.is_empty() {
        notes.note("targets", "is empty: an upstream has one target at least");
    }
    if targets.len() > TARGETS_MAX {
        notes.note("targets", format!("has {}, and may have {TARGETS_MAX}", targets.len()));
    }
    super::balance::check(upstream, notes);
    if !targets.is_empty() && targets.iter().all(|target| target.weight == 0) {
        notes.note("targets", "all have the weight 0: none would get a request");
    }
    let mut seen = std::collections::BTreeSet::new();
    for (at, target) in targets.iter().enumerate() {
        if let Err(error) = text::address(&target.address) {
            notes.note(format!("targets[{at}].address"), error);
        }
        if !seen.insert(&target.address) {
            notes.note(format!("targets[{at}].address"), format!("{:?} is there twice", target.address));
        }
    }
    retry(&upstream.retry, notes);
    if let Some(hedge) = &upstream.hedge {
        self::hedge(hedge, upstream, notes);
    }
    timeout(&upstream.timeout, notes);
    limits(&upstream.limits, notes);
    transport::check(upstream, notes);
    health::check(upstream, notes);
}

fn retry(retry: &Retry, notes: &mut Notes) {
    let mut at_most = |place: &str, have: u32, most: u32| {
        if have > most {
            notes.note(format!("retry.{place}"), format!("is {have}, and may be {most}"));
        }
    };
    at_most("attempts", retry.attempts, ATTEMPTS_MAX);
    at_most("body_bytes_max", retry.body_bytes_max, BODY_BYTES_MAX);
    at_most("budget.percent", retry.budget.percent, 100);
    at_most("budget.min_per_s", retry.budget.min_per_s, MIN_PER_S_MAX);
    if retry.on.len() > LIST_MAX {
        notes.note("retry.on", format!("has {}, and may have {LIST_MAX}", retry.on.len()));
    }
    if retry.methods.len() > LIST_MAX {
        notes.note("retry.methods", format!("has {}, and may have {LIST_MAX}", retry.methods.len()));
    }
    for (at, method) in retry.methods.iter().enumerate() {
        if let Err(error) = text::method(method) {
            notes.note(format!("retry.methods[{at}]"), error);
        }
    }
    let Backoff { base, max } = retry.backoff;
    if max > BACKOFF_MAX {
        notes.note("retry.backoff.max", "must be at most 1m");
    }
    if base > max {
        notes.note("retry.backoff.base", "must not be above max");
    }
}

fn hedge(hedge: &Hedge, upstream: &Upstream, notes: &mut Notes) {
    let Timeout { response, attempt, .. } = upstream.timeout;
    let is_too_late = |after: Duration| after >= response || (!attempt.is_zero() && after >= attempt);
    match hedge.after {
        After::Time(after) if after.is_zero() || is_too_late(after) => {
            notes.note("hedge.after", "must be from 1ms, and below timeout.response and timeout.attempt");
        }
        After::Percentile(percent) if !PERCENTS.contains(&percent) => {
            notes.note("hedge.after", format!("is p{percent}, and may be p50 to p99"));
        }
        After::Time(_) | After::Percentile(_) => {}
    }
    if hedge.floor.is_zero() || hedge.floor > FLOOR_MAX {
        notes.note("hedge.floor", "must be from 1ms to 1m");
    }
    if !(1..=HEDGES_MAX).contains(&hedge.max) {
        notes.note("hedge.max", format!("is {}, and may be 1 to {HEDGES_MAX}", hedge.max));
    } else if hedge.max > upstream.retry.attempts {
        let attempts = upstream.retry.attempts;
        notes.note("hedge.max", format!("is more than retry.attempts ({attempts}), of which each takes one"));
    }
}

fn timeout(timeout: &Timeout, notes: &mut Notes) {
    for (place, timeout) in [("connect", timeout.connect), ("response", timeout.response)] {
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            notes.note(format!("timeout.{place}"), "must be from 1ms to 1h");
        }
    }
    for (place, timeout, most) in [
        ("attempt", timeout.attempt, TIMEOUT_MAX),
        ("idle", timeout.idle, TOTAL_MAX),
        ("total", timeout.total, TOTAL_MAX),
    ] {
        if timeout > most {
            let most = crate::duration::format(most);
            notes.note(format!("timeout.{place}"), format!("must be at most {most}; 0s is no limit"));
        }
    }
}

fn limits(limits: &Limits, notes: &mut Notes) {
    for (place, limit) in
        [("requests", limits.requests), ("connections", limits.connections), ("pending", limits.pending)]
    {
        if limit > LIMIT_MAX {
            notes.note(format!("limits.{place}"), format!("is {limit}, and may be {LIMIT_MAX}"));
        }
    }
}
