//! Between the messages of commands and the model.

use std::sync::Arc;

use model::{
    Change, Code, Kind, Name, NodeId, Op, Outcome, Revision,
    cluster::{ClusterChange, ClusterOutcome},
    usage::{Start, Used},
};

use crate::command;

/// Why a message is nothing that this version understands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A field that every version sends is not there.
    #[error("{0} is missing: the sender is broken, or of a version out of this one's window")]
    Missing(&'static str),
    /// A field's value means nothing here.
    #[error("{what} is not understood: {value}: was it written by a newer version?")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value, cut to 80 characters.
        value: String,
    },
}

fn unknown(what: &'static str, value: impl ToString) -> Error {
    Error::Unknown { what, value: value.to_string().chars().take(80).collect() }
}

/// The kind whose plural this is.
pub fn kind(plural: &str) -> Result<Kind, Error> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.plural() == plural)
        .ok_or_else(|| unknown("an object's kind", plural))
}

/// A name.
pub fn name(text: &str) -> Result<Name, Error> {
    Name::new(text).map_err(|error| unknown("an object's name", error))
}

impl From<&Op> for command::Op {
    fn from(op: &Op) -> Self {
        let (kind, name) = op.target();
        let doc = match op {
            Op::Put { doc, .. } => Some(bytes::Bytes::copy_from_slice(doc)),
            Op::Delete { .. } => None,
        };
        Self { kind: kind.plural().to_owned(), name: name.to_string(), doc }
    }
}

impl TryFrom<command::Op> for Op {
    type Error = Error;

    fn try_from(op: command::Op) -> Result<Self, Error> {
        let (kind, name) = (kind(&op.kind)?, name(&op.name)?);
        Ok(match op.doc {
            Some(doc) => Self::Put { kind, name, doc: Arc::from(&doc[..]) },
            None => Self::Delete { kind, name },
        })
    }
}

impl From<&Change> for command::Change {
    fn from(change: &Change) -> Self {
        Self { base: change.base.0, ops: change.ops.iter().map(Into::into).collect() }
    }
}

impl TryFrom<command::Change> for Change {
    type Error = Error;

    fn try_from(change: command::Change) -> Result<Self, Error> {
        let ops = change.ops.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(Self { base: Revision(change.base), ops })
    }
}

/// A cluster change's JSON.
///
/// # Panics
///
/// If it has none, which can't be: all that is in it is texts and numbers. An entry of the log with nothing in it, which no
/// node could apply, would be worse than the end of this one.
pub fn cluster_change_bytes(change: &ClusterChange) -> bytes::Bytes {
    serde_json::to_vec(change).expect("a change to the cluster has its JSON").into()
}

/// The cluster change in this JSON.
pub fn cluster_change(json: &[u8]) -> Result<ClusterChange, Error> {
    serde_json::from_slice(json).map_err(|error| unknown("a change to the cluster", error))
}

impl From<&Used> for command::Used {
    fn from(used: &Used) -> Self {
        let counts = used.counts.iter().map(|(start, count)| command::UsageCount {
            node: start.node.0,
            at_ms: start.at_ms,
            count: *count,
        });
        Self {
            key: used.key,
            period: used.period,
            ends_at_s: used.ends_at_s,
            policy: used.policy.clone(),
            limit_name: used.limit_name.clone(),
            by: used.by.clone(),
            limit: used.limit,
            counts: counts.collect(),
        }
    }
}

impl From<command::Used> for Used {
    fn from(used: command::Used) -> Self {
        let counts = used
            .counts
            .iter()
            .map(|count| (Start { node: NodeId(count.node), at_ms: count.at_ms }, count.count));
        Self {
            key: used.key,
            period: used.period,
            ends_at_s: used.ends_at_s,
            counts: counts.collect(),
            policy: used.policy,
            limit_name: used.limit_name,
            by: used.by,
            limit: used.limit,
        }
    }
}

impl From<&Outcome> for command::Response {
    fn from(outcome: &Outcome) -> Self {
        use command::response::Outcome as To;
        Self {
            outcome: Some(match outcome {
                Outcome::Applied(revision) => To::Applied(revision.0),
                Outcome::Unchanged(revision) => To::Unchanged(revision.0),
                Outcome::Conflict(revision) => To::Conflict(revision.0),
            }),
        }
    }
}

impl From<&ClusterOutcome> for command::Response {
    fn from(outcome: &ClusterOutcome) -> Self {
        use command::cluster_outcome::Outcome as To;
        let outcome = match outcome {
            ClusterOutcome::Done => To::Done(true),
            ClusterOutcome::Admitted(id) => To::Admitted(id.0),
            ClusterOutcome::Refused { code, reason } => {
                To::Refused(command::Refused { code: code.as_str().to_owned(), reason: reason.clone() })
            }
        };
        let outcome = command::ClusterOutcome { outcome: Some(outcome) };
        Self { outcome: Some(command::response::Outcome::Cluster(outcome)) }
    }
}

/// What a response says: of a change, or of a cluster change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Of a [`Change`].
    Change(Outcome),
    /// Of a [`ClusterChange`].
    Cluster(ClusterOutcome),
}

impl TryFrom<command::Response> for Said {
    type Error = Error;

    fn try_from(response: command::Response) -> Result<Self, Error> {
        use command::response::Outcome as From;
        Ok(match response.outcome.ok_or(Error::Missing("a response's outcome"))? {
            From::Applied(revision) => Self::Change(Outcome::Applied(Revision(revision))),
            From::Unchanged(revision) => Self::Change(Outcome::Unchanged(Revision(revision))),
            From::Conflict(revision) => Self::Change(Outcome::Conflict(Revision(revision))),
            From::Cluster(outcome) => Self::Cluster(cluster_outcome(outcome)?),
        })
    }
}

fn cluster_outcome(outcome: command::ClusterOutcome) -> Result<ClusterOutcome, Error> {
    use command::cluster_outcome::Outcome as From;
    Ok(match outcome.outcome.ok_or(Error::Missing("a cluster outcome"))? {
        From::Done(_) => ClusterOutcome::Done,
        From::Admitted(id) => ClusterOutcome::Admitted(NodeId(id)),
        From::Refused(refused) => {
            let code = Code::parse(&refused.code).ok_or_else(|| unknown("a code", &refused.code))?;
            ClusterOutcome::Refused { code, reason: refused.reason }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_named() {
        let op = command::Op { kind: "wombats".into(), name: "a".into(), doc: None };
        assert!(Op::try_from(op).unwrap_err().to_string().contains("wombats"));
        assert_eq!(Said::try_from(command::Response::default()), Err(Error::Missing("a response's outcome")));
    }
}
