//! What a cluster promises at any time, whatever is done to it: a file for each promise, with the check of what was observed.
//!
//! Each check finds a violation that its test plants. They are numbered as in docs/reliability.md.

mod atomic;
mod autonomy;
mod corruption;
mod durability;
mod full;
mod idempotent;
mod leaders;
mod prefix;
mod restored;
mod revocation;
#[cfg(test)]
mod samples;
mod unknown;

use std::fmt;

pub use self::{
    corruption::Damaged,
    idempotent::Retried,
    restored::{Restored, State},
    revocation::{Revoked, Shown},
};
use crate::{
    history::{History, Operation, judge},
    watch::Seen,
};

/// What a node has to bear for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burden {
    /// It does not run, is held, or is told to stop: clients can't count on it.
    Down,
    /// It reaches no majority: it serves clients, and acknowledges nothing.
    Apart,
    /// Its disk takes no writes: it serves clients.
    Full,
}

/// From when to when a node has to bear something, in microseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// What people call it.
    pub node: String,
    /// What it bears.
    pub burden: Burden,
    /// Since when.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
}

/// A client's request that was not served, in microseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which node was asked.
    pub node: String,
    /// When.
    pub began_us: u64,
    /// When it was given up.
    pub ended_us: u64,
    /// What came of it.
    pub why: String,
}

/// Everything that was seen of a cluster from the beginning until it was left in peace again.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// What clients of the admin API asked and were told.
    pub history: History,
    /// What nodes said of themselves all the while.
    pub seen: Seen,
    /// All routes, read last through each node, everything considered that was acknowledged.
    pub finals: Vec<Operation>,
    /// What nodes had to bear.
    pub spells: Vec<Spell>,
    /// Requests of clients that failed.
    pub failures: Vec<Failure>,
    /// What was asked twice.
    pub retried: Vec<Retried>,
    /// Files that were damaged.
    pub damaged: Vec<Damaged>,
    /// Keys that were revoked.
    pub revoked: Vec<Revoked>,
    /// What was restored from what it had.
    pub restored: Option<Restored>,
}

impl Observed {
    /// The spells of such burdens.
    fn bearing(&self, burden: Burden) -> impl Iterator<Item = &Spell> {
        self.spells.iter().filter(move |spell| spell.burden == burden)
    }

    /// Requests that failed where clients could count on the node.
    pub fn failures_of_healthy(&self) -> impl Iterator<Item = &Failure> {
        let excused = |failure: &Failure| self.bearing(Burden::Down).any(|spell| spell.meets(failure));
        self.failures.iter().filter(move |failure| !excused(failure))
    }

    /// Acknowledged writes that are not there at the end.
    pub fn lost(&self) -> usize {
        durability::check(self).len()
    }

    /// Everything that breaks a promise.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (invariant, check) in CHECKS {
            violations.extend(check(self).into_iter().map(|what| Violation { invariant: *invariant, what }));
        }
        violations
    }
}

impl Spell {
    /// Whether some of the request fell into it.
    fn meets(&self, failure: &Failure) -> bool {
        self.node == failure.node && failure.began_us <= self.to_us && self.from_us <= failure.ended_us
    }

    /// Failed requests that fell wholly into it.
    fn failures<'a>(&'a self, observed: &'a Observed) -> impl Iterator<Item = &'a Failure> {
        let within = |failure: &&Failure| {
            failure.node == self.node && self.from_us <= failure.began_us && failure.ended_us <= self.to_us
        };
        // It may be down besides.
        observed.failures_of_healthy().filter(within)
    }
}

type Check = fn(&Observed) -> Vec<String>;

/// By the number of the promise; 0 is the judge of histories, which is about several.
const CHECKS: &[(u8, Check)] = &[
    (0, |observed| judge(&observed.history).into_iter().map(|violation| violation.0).collect()),
    (1, durability::check),
    (2, prefix::check),
    (3, atomic::check),
    (4, unknown::check),
    (5, autonomy::check),
    (6, revocation::check),
    (7, leaders::check),
    (8, idempotent::check),
    (9, full::check),
    (10, corruption::check),
    (11, restored::check),
];

/// One way in which a promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of which promise; 0: the history as a whole could not be.
    pub invariant: u8,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.invariant {
            0 => write!(f, "history: {}", self.what),
            number => write!(f, "promise {number}: {}", self.what),
        }
    }
}
