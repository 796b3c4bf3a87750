//! What came of requests that carried an idempotency key, so that a retry gets the outcome of the first.
//!
//! Which requests are the same one is told by a fingerprint of what they ask for, as in the IETF draft
//! "The Idempotency-Key HTTP Header Field", section 2.4: a key that comes again with something else is refused, since
//! its caller would take the outcome of the first for that of the second.

use imbl::{HashMap, OrdMap};
use model::{Code, Op};
use prost::Message;

use crate::{Command, Error, Response, types::usage_report};

/// The most outcomes that are kept; the oldest goes first.
pub(crate) const OUTCOMES_MAX: usize = 10_000;

/// What came of one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub key: String,
    /// Of what was asked; none in a record of a version that did not keep it.
    pub fingerprint: Option<u32>,
    pub response: Response,
}

/// The last outcomes, each under the index of its entry in the log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes {
    kept: OrdMap<u64, Kept>,
    /// By idempotency key.
    index: HashMap<String, u64>,
}

impl Outcomes {
    /// What is known of this key; an error if it was used for something else.
    pub(crate) fn known(&self, key: &str, fingerprint: u32) -> Option<Result<Response, Error>> {
        let kept = self.kept.get(self.index.get(key)?)?;
        let same = kept.fingerprint.is_none_or(|first| first == fingerprint);
        Some(if same { Ok(kept.response.clone()) } else { Err(key_reused()) })
    }

    pub(crate) fn insert(&mut self, index: u64, kept: Kept) {
        self.index.insert(kept.key.clone(), index);
        self.kept.insert(index, kept);
    }

    /// Forgets the oldest, if there are too many. Gives its index.
    pub(crate) fn evict(&mut self) -> Option<u64> {
        if self.kept.len() <= OUTCOMES_MAX {
            return None;
        }
        let (oldest, kept) = self.kept.get_min().cloned()?;
        self.kept.remove(&oldest);
        self.index.remove(&kept.key);
        Some(oldest)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&u64, &Kept)> {
        self.kept.iter()
    }
}

/// Of what a command asks for, whatever revision it was checked against.
pub(crate) fn fingerprint(command: &Command) -> u32 {
    match command {
        Command::Change(change) => fingerprint_of_ops(&change.ops),
        Command::Cluster(change) => crc32fast::hash(&cluster_proto::convert::cluster_change_bytes(change)),
        Command::Usage(report) => crc32fast::hash(&usage_report(report).encode_to_vec()),
    }
}

/// [`fingerprint`] of a change of these operations.
pub(crate) fn fingerprint_of_ops(ops: &[Op]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for op in ops {
        let (kind, name) = op.target();
        let doc: &[u8] = if let Op::Put { doc, .. } = op { doc } else { &[] };
        // No part holds a zero byte, so that nothing else reads the same.
        for part in [kind.plural().as_bytes(), name.as_str().as_bytes(), doc] {
            hasher.update(part);
            hasher.update(&[0]);
        }
    }
    hasher.finalize()
}

pub(crate) fn key_reused() -> Error {
    Error::Refused {
        code: Code::Conflict,
        reason: "this idempotency key was used for another request; nothing was changed by this one".into(),
    }
}
