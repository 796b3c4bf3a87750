//! What revisions say: they are dense and in the order in which everything happened, so that no search is needed.
//!
//! What is checked is strict serialisability (Papadimitriou, "The Serializability of Concurrent Database Updates", 1979, in the
//! order of real time) of the whole config as one object: what porcupine checks route by route does not see that two routes
//! are written together.

use std::collections::BTreeMap;

use super::{Asked, Condition, History, Operation, Told, Value};

/// Every way in which the revisions can't be so.
pub(super) fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let made = made(history, &mut wrong);
    gaps(history, &made, &mut wrong);
    real_time(history, &mut wrong);
    bases(history, &mut wrong);
    contents(history, &made, &history.operations, &mut wrong);
    wrong
}

/// Every way in which what was seen at a revision can't be what the writes up to it made.
pub(crate) fn seen(history: &History, reads: &[Operation]) -> Vec<String> {
    let mut wrong = Vec::new();
    let made = made(history, &mut wrong);
    contents(history, &made, reads, &mut wrong);
    wrong
}

type Made<'a> = BTreeMap<u64, &'a Operation>;

/// The writes by the revision that they made, of which no two are the same.
fn made<'a>(history: &'a History, wrong: &mut Vec<String>) -> Made<'a> {
    let mut made = Made::new();
    for operation in &history.operations {
        let Told::Made(revision) = operation.told else { continue };
        if let Some(other) = made.insert(revision, operation) {
            wrong.push(format!("two writes made revision {revision}: {other} and {operation}"));
        }
    }
    made
}

/// Each revision that nobody was told of is that of a write whose outcome nobody knows.
fn gaps(history: &History, made: &Made<'_>, wrong: &mut Vec<String>) {
    let (Some((first, _)), Some((last, _))) = (made.first_key_value(), made.last_key_value()) else { return };
    let gaps = last - first + 1 - made.len() as u64;
    let open = history.operations.iter().filter(|operation| operation.is_open()).count() as u64;
    if gaps > open {
        let told = format!("{gaps} of the revisions {first} to {last} are no write's that was acknowledged");
        wrong.push(format!("{told}, and {open} writes alone are of unknown outcome"));
    }
}

/// What began after something had ended has no older revision.
fn real_time(history: &History, wrong: &mut Vec<String>) {
    let mut ended: Vec<&Operation> =
        history.operations.iter().filter(|operation| operation.revision().is_some()).collect();
    ended.sort_by_key(|operation| operation.returned_us);
    let (mut ended, mut newest) = (ended.into_iter().peekable(), None::<&Operation>);
    let mut calls: Vec<&Operation> = history.operations.iter().collect();
    calls.sort_by_key(|operation| operation.called_us);
    for operation in calls {
        while let Some(before) = ended.next_if(|before| before.returned_us < operation.called_us) {
            if newest.is_none_or(|newest| newest.revision() < before.revision()) {
                newest = Some(before);
            }
        }
        let (Some(newest), Some(revision)) = (newest, operation.revision()) else { continue };
        let writes = matches!(operation.told, Told::Made(_));
        if Some(revision) < newest.revision() || (writes && Some(revision) == newest.revision()) {
            wrong.push(format!("{operation} is older than what had ended before: {newest}"));
        }
    }
}

/// A write on a base made the revision after it; one that was refused for its base could have been.
fn bases(history: &History, wrong: &mut Vec<String>) {
    for operation in &history.operations {
        let Asked::Write { only_if: Condition::Base(base), .. } = operation.asked else { continue };
        match operation.told {
            Told::Made(revision) if revision != base + 1 => {
                wrong.push(format!("{operation} is not on its base"))
            }
            Told::Unmet => {
                let newer = |other: &&Operation| {
                    let may = match other.told {
                        Told::Made(revision) => revision > base,
                        _ => other.is_open(),
                    };
                    may && other.called_us <= operation.returned_us
                };
                if !history.operations.iter().any(|other| newer(&other)) {
                    wrong.push(format!("{operation}: nothing had changed since"));
                }
            }
            _ => {}
        }
    }
}

/// A read of all routes at a revision saw what the writes up to it made.
fn contents(history: &History, made: &Made<'_>, reads: &[Operation], wrong: &mut Vec<String>) {
    for operation in reads {
        let (Asked::ReadAll, Told::Saw(seen, Some(revision))) = (&operation.asked, &operation.told) else {
            continue;
        };
        for (route, (value, at)) in last_writes(made, *revision) {
            let have = seen.get(route).copied().flatten();
            // A write of unknown outcome has a revision that no other has.
            let gap = (at + 1..=*revision).any(|revision| !made.contains_key(&revision));
            let overwritten = gap
                && history
                    .operations
                    .iter()
                    .any(|other| other.is_open() && other.writes(route) == Some(have));
            if have != value && !overwritten {
                wrong.push(format!("{operation}: {route} was made {value:?} in revision {at}"));
            }
        }
    }
}

/// What each route was last made in revisions up to this one, and in which.
fn last_writes<'a>(made: &Made<'a>, revision: u64) -> BTreeMap<&'a String, (Value, u64)> {
    let mut last = BTreeMap::new();
    for (at, operation) in made.range(..=revision) {
        let Asked::Write { values, .. } = &operation.asked else { continue };
        last.extend(values.iter().map(|(route, value)| (route, (*value, *at))));
    }
    last
}
