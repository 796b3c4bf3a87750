//! A change as a client asks for it, and who may have something against it.

use model::{Change, Config, Kind, Name, Op, Revision, Violation};

/// What the rest of the node knows to be wrong with a change, asked on the leader before it is proposed.
pub trait Admission: Send + Sync + 'static {
    /// Every violation that `change` would bring into `config`.
    fn check(&self, config: &Config, change: &Change) -> Vec<Violation>;
}

/// A change as a client asks for it.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// What to do, all of it or nothing.
    pub ops: Vec<Op>,
    /// What must be so.
    pub expect: Vec<Expect>,
    /// The config's revision must be this one.
    pub base: Option<Revision>,
    /// Who asks, for the audit log.
    pub author: String,
    /// A second edit with the same key gets the outcome of the first; one of other operations is refused.
    pub idempotency_key: Option<String>,
}

/// What an object must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The revision that last changed it; none: there must be no such object.
    pub changed: Option<Revision>,
}
