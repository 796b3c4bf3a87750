//! A change: one atomic transaction on a config, and what came of it.

use std::{fmt, sync::Arc};

use crate::{Config, Kind, Name, Revision, config::Stored};

/// One atomic transaction in the log: all of its operations, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// The revision it was checked against; it applies to no other.
    pub base: Revision,
    /// What to do, in order.
    pub ops: Vec<Op>,
}

/// One step of a [`Change`].
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Make the object of this kind and name have this JSON document.
    Put {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: Name,
        /// Its JSON, in the form of [`crate::document::canonical`].
        doc: Arc<[u8]>,
    },
    /// Make there be no such object.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: Name,
    },
}

// Not the document, which may be a secret's.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.target();
        match self {
            Self::Put { doc, .. } => write!(f, "Put({kind} {name}, {} bytes)", doc.len()),
            Self::Delete { .. } => write!(f, "Delete({kind} {name})"),
        }
    }
}

impl Op {
    /// The kind and name it is about.
    pub fn target(&self) -> (Kind, &Name) {
        match self {
            Self::Put { kind, name, .. } | Self::Delete { kind, name } => (*kind, name),
        }
    }
}

/// What applying a [`Change`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It made this revision.
    Applied(Revision),
    /// It asked for what is there already; the revision stays.
    Unchanged(Revision),
    /// It was checked against another revision than this current one; nothing changed.
    Conflict(Revision),
}

impl Config {
    /// Applies a committed change. Total and deterministic: it compares the base revision and bytes, and nothing else,
    /// since nodes of different versions must never diverge. On a conflict nothing changes.
    pub fn apply(&mut self, change: &Change) -> Outcome {
        if change.base != self.revision {
            return Outcome::Conflict(self.revision);
        }
        let revision = self.revision.next();
        let mut changed = false;
        for op in &change.ops {
            changed |= match op {
                Op::Put { kind, name, doc } => self.put(*kind, name, doc, revision),
                Op::Delete { kind, name } => self.remove(*kind, name),
            };
        }
        if changed {
            self.revision = revision;
            Outcome::Applied(revision)
        } else {
            Outcome::Unchanged(self.revision)
        }
    }

    fn put(&mut self, kind: Kind, name: &Name, doc: &Arc<[u8]>, revision: Revision) -> bool {
        let created = match self.get(kind, name) {
            Some(old) if old.doc == *doc => return false,
            Some(old) => old.created,
            None => revision,
        };
        self.insert(kind, name.clone(), Stored { created, changed: revision, doc: doc.clone() });
        true
    }
}
