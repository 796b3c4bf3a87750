//! What clients asked of a cluster all at once and what each was told, and whether it could be so.
//!
//! [`Recording`] has clients ask; [`judge`] says what is wrong with the [`History`] of it.

mod client;
pub(crate) mod facts;
mod file;
mod judge;
pub(crate) mod order;
mod recording;
mod register;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::{
    judge::{Violation, judge},
    recording::{Pace, Recording},
};

/// What a route is: the number that it answers with, which no other write gives it. None: there is no such route.
pub type Value = Option<u64>;

/// Routes and what they are.
pub type Values = BTreeMap<String, Value>;

/// What a write presumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing.
    Always,
    /// That the route, one alone, is this.
    Is(Value),
    /// That the config is at this revision.
    Base(u64),
}

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To have these be so, all or none.
    Write {
        /// What each is to be.
        values: Values,
        /// Only if this is so.
        only_if: Condition,
    },
    /// What this route is, everything considered that was acknowledged before.
    Read(String),
    /// What all routes are, likewise.
    ReadAll,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It was written, in this revision.
    Made(u64),
    /// What the write presumes is not so; nothing was changed.
    Unmet,
    /// There was nothing to delete.
    Absent,
    /// These are the values: of one route, and the revision that last changed it; of all routes, and the config's revision.
    Saw(Values, Option<u64>),
    /// Nothing was changed, or nothing can be said.
    Refused(String),
    /// It may have happened or may yet.
    Unknown(String),
    /// What no client understands.
    Odd(String),
}

/// A fault in what clients do, planted to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// None.
    Nothing,
    /// Reads are of what the node has, and not of what is newest.
    StaleRead,
    /// A write that was refused, or whose outcome is unknown, passes for acknowledged.
    LostAcknowledgement,
}

/// One thing that was asked, in microseconds since the recording began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client asked; each does one thing at a time.
    pub client: u32,
    /// The node that was asked, or the last of several.
    pub node: String,
    /// When it was asked.
    pub called_us: u64,
    /// When the answer was there.
    pub returned_us: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}

/// Everything that was asked, in the order in which it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

impl Operation {
    /// What a write was to make of this route, if it was one and is about it.
    fn writes(&self, route: &str) -> Option<Value> {
        match &self.asked {
            Asked::Write { values, .. } => values.get(route).copied(),
            Asked::Read(_) | Asked::ReadAll => None,
        }
    }

    /// The revision that a write made or that a read of all saw.
    pub fn revision(&self) -> Option<u64> {
        match (&self.asked, &self.told) {
            (_, Told::Made(revision)) | (Asked::ReadAll, Told::Saw(_, Some(revision))) => Some(*revision),
            _ => None,
        }
    }

    /// Whether it is a write whose outcome nobody knows.
    pub fn is_open(&self) -> bool {
        matches!((&self.asked, &self.told), (Asked::Write { .. }, Told::Unknown(_)))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| format!("{}.{:03} ms", us / 1_000, us % 1_000);
        let (from, to) = (ms(self.called_us), ms(self.returned_us));
        write!(
            f,
            "{from} to {to}, client {} at {}: {:?}: {:?}",
            self.client, self.node, self.asked, self.told
        )
    }
}
