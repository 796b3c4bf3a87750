//! What is wrong with a change, before it is proposed: every violation at once, each with its path.
//!
//! A file a kind says what that kind's objects must be; `references` and `overlap` say what they must be to each other.

mod balance;
mod certificate;
mod health;
mod overlap;
mod references;
mod route;
mod tcp_route;
mod text;
mod transport;
mod upstream;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Change, Config, Kind, Name, Op};

/// The most violations that are told; who has more has seen enough to begin with.
const VIOLATIONS_MAX: usize = 1_000;
/// The most objects of a kind.
const OBJECTS_MAX: usize = 1_000_000;

/// One thing wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Violation {
    /// Where, as in `routes.orders.match[0].path.prefix`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Where violations are noted.
struct Notes {
    violations: Vec<Violation>,
    /// The path of the object at hand.
    object: String,
}

impl Notes {
    /// Notes what is wrong at a place in the object at hand; an empty place is the object itself.
    fn note(&mut self, place: impl fmt::Display, message: impl Into<String>) {
        if self.violations.len() < VIOLATIONS_MAX {
            let place = place.to_string();
            let dot = if place.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{place}", self.object);
            self.violations.push(Violation { path, message: message.into() });
        }
    }

    fn at(&mut self, kind: Kind, name: &Name) {
        self.object = format!("{}.{name}", kind.plural());
    }
}

/// Every violation that `change` would bring into `config`, but those of policy bodies, which the data plane's
/// catalogue knows. Costs in proportion to the change, but for what a deleted object was referred to by, for routes
/// that may take the same requests as a new one's, and for TCP routes where an upstream speaks TLS.
pub fn check(config: &Config, change: &Change) -> Vec<Violation> {
    let mut after = config.clone();
    after.apply(&Change { base: config.revision, ops: change.ops.clone() });
    let mut notes = Notes { violations: Vec::new(), object: String::new() };
    for op in &change.ops {
        let Op::Put { kind, name, .. } = op else { continue };
        notes.at(*kind, name);
        if let Some(unreadable) = after.unreadable.get(&(*kind, name.clone())) {
            notes.note("", unreadable.error.clone());
            continue;
        }
        match kind {
            Kind::Upstream => {
                after.upstreams.get(name).into_iter().for_each(|e| upstream::check(&e.spec, &mut notes))
            }
            Kind::Route => after.routes.get(name).into_iter().for_each(|e| route::check(&e.spec, &mut notes)),
            Kind::Key => after.keys.get(name).into_iter().for_each(|e| key(&e.spec, &mut notes)),
            Kind::Certificate => {
                after.certificates.get(name).into_iter().for_each(|e| certificate::check(&e.spec, &mut notes))
            }
            Kind::TcpRoute => {
                after.tcp_routes.get(name).into_iter().for_each(|e| tcp_route::check(&e.spec, &mut notes))
            }
            Kind::Policy | Kind::Group | Kind::Consumer => {}
        }
    }
    references::check(&after, change, &mut notes);
    tcp_route::check_upstreams(&after, change, &mut notes);
    overlap::check(&after, change, &mut notes);
    for kind in Kind::ALL {
        let (count, what) = (after.count(kind), kind.plural());
        if count > OBJECTS_MAX {
            notes.object = what.to_owned();
            notes.note("", format!("there would be {count} {what}, and there may be {OBJECTS_MAX}"));
        }
    }
    notes.violations
}

fn key(key: &crate::Key, notes: &mut Notes) {
    if key.digest.len() != 64 || !key.digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        notes.note("digest", "is not 64 lower-case hexadecimal digits");
    }
}

#[cfg(test)]
mod tests;
