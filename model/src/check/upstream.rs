//! What an upstream must be.

use std::time::Duration;

use super::{Notes, text, transport};
use crate::Upstream;

const TARGETS_MAX: usize = 1_000;
const ATTEMPTS_MAX: u32 = 10;
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
const EJECT_MAX: Duration = Duration::from_secs(3_600);

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    let targets = &upstream.targets;
    if targets.is_empty() {
        notes.note("targets", "is empty: an upstream has one target at least");
    }
    if targets.len() > TARGETS_MAX {
        notes.note("targets", format!("has {}, and may have {TARGETS_MAX}", targets.len()));
    }
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
    if upstream.retry.attempts > ATTEMPTS_MAX {
        notes.note("retry.attempts", format!("is {}, and may be {ATTEMPTS_MAX}", upstream.retry.attempts));
    }
    for (place, timeout) in [("connect", upstream.timeout.connect), ("response", upstream.timeout.response)] {
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            notes.note(format!("timeout.{place}"), "must be from 1ms to 1h");
        }
    }
    transport::check(upstream, notes);
    let eject = upstream.health.passive.eject;
    if eject.is_zero() || eject > EJECT_MAX {
        notes.note("health.passive.eject", "must be from 1ms to 1h");
    }
}
