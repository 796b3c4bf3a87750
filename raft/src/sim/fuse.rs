//! The moment at which a process ends in the middle of something: an operation of its disk.

use std::collections::BTreeMap;

/// How often something happened at each step of the storage.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// Everything that a node asks of its disk, by what it is about. A crash at each is a case of its own.
pub(crate) const STEPS: [&str; 30] = [
    // The journal's: journal.rs, log.rs.
    "log create",
    "log head",
    "vote",
    "append",
    "truncate",
    "purge",
    "log sync",
    "log folder sync",
    "log remove",
    // The store's: state_machine.rs, storage.rs.
    "store make",
    "apply",
    "install records",
    "install switch",
    "forget records",
    "boot create",
    "boot write",
    "boot remove",
    // The files' beside them: snapshot.rs, high_water.rs.
    "snapshot create",
    "snapshot write",
    "snapshot sync",
    "snapshot rename",
    "snapshot folder sync",
    "snapshot remove",
    "new mark create",
    "new mark write",
    "new mark sync",
    "new mark rename",
    "folder sync",
    "mark write",
    "mark sync",
];

/// Steps that come so seldom that a fuse would hardly meet them, and how likely, in percent, each ends the process by itself.
const RARE_STEPS: [(&str, u64); 9] = [
    ("truncate", 60),
    ("store make", 2),
    ("install records", 3),
    ("install switch", 10),
    ("forget records", 10),
    ("boot create", 3),
    ("boot write", 3),
    ("boot remove", 5),
    ("snapshot remove", 20),
];

/// How likely, in percent, a process ends at this step by itself.
pub(super) fn frailty(step: &str) -> u64 {
    RARE_STEPS.iter().find(|(rare, _)| *rare == step).map_or(0, |(_, percent)| *percent)
}

/// When a fuse blows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fuse {
    #[default]
    Never,
    /// At this operation, counted from now.
    Operation(u64),
    /// At this step, when it comes for so many times from now.
    Step(&'static str, u64),
}

impl Fuse {
    /// Whether it blows at this operation. It is gone then.
    pub(super) fn blows(&mut self, at: &'static str) -> bool {
        match self {
            Self::Operation(left) => *left = left.saturating_sub(1),
            Self::Step(step, left) if *step == at => *left = left.saturating_sub(1),
            Self::Never | Self::Step(..) => {}
        }
        let blows = matches!(self, Self::Operation(0) | Self::Step(_, 0));
        if blows {
            *self = Self::Never;
        }
        blows
    }
}
