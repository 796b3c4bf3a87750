//! The one place that names openraft's type parameters.

use std::fmt;

use cluster_proto::{command, convert};
use model::{
    Change, Outcome,
    cluster::{ClusterChange, ClusterOutcome},
    usage::Used,
};

/// openraft's types, as this crate fills them in: standard Raft, one leader a term.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Request;
    type R = Response;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::impls::EntryPayload<Request, u64, PeerNode>;
    type Entry = openraft::impls::Entry<CommittedLeaderId, Self::Payload>;
    #[cfg(not(test))]
    type AsyncRuntime = openraft::impls::TokioRuntime;
    #[cfg(test)]
    type AsyncRuntime = crate::sim::runtime::Seeded;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type CommittedLeaderId =
    <openraft::impls::leader_id_std::LeaderId<u64, u64> as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// A log id's term.
pub(crate) fn term(id: &LogId) -> u64 {
    **id.committed_leader_id()
}

/// Where a member of the Raft group is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerNode {
    /// `host:port`.
    pub address: String,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What an entry of the log asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Under this key the outcome is kept, and a second request with the same key gets it.
    pub idempotency_key: Option<String>,
    /// Who asks, for the audit log.
    pub author: String,
    /// Milliseconds since the Unix epoch, by the proposer's clock.
    pub at_ms: u64,
    /// Where it stands among the changes to the config.
    pub link: Link,
    /// What to do.
    pub command: Command,
}

/// Where a change stands among those before it.
///
/// A leader checks changes ahead of what is in flight, and gives each the revision that it expects to be made by then. Where
/// another change comes in between, that number may be made by the other one; so the change names its predecessor as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Unlike that of any other change.
    pub id: u64,
    /// The id of the change that made the revision it was checked against, 0 where nothing was made yet. It applies after no
    /// other.
    pub after: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives in a log entry, which openraft holds by the hundred at most"
)]
pub enum Command {
    /// Change the config.
    Change(Change),
    /// Change what the members agree on besides.
    Cluster(ClusterChange),
    /// Take up what was used of quotas.
    Usage(Vec<Used>),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Command::Change(change) => {
                write!(f, "{} operations on revision {}", change.ops.len(), change.base)
            }
            Command::Cluster(_) => f.write_str("a change to the cluster"),
            Command::Usage(report) => write!(f, "what was used of {} quotas", report.len()),
        }
    }
}

/// What came of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It was none of ours.
    None,
    /// Of a [`Command::Change`].
    Change(Outcome),
    /// Of a [`Command::Cluster`], or a [`Command::Usage`].
    Cluster(ClusterOutcome),
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl From<&Request> for command::Request {
    fn from(request: &Request) -> Self {
        use command::request::Command as To;
        Self {
            idempotency_key: request.idempotency_key.clone().unwrap_or_default(),
            author: request.author.clone(),
            at_ms: request.at_ms,
            id: request.link.id,
            after: request.link.after,
            command: Some(match &request.command {
                Command::Change(change) => To::Change(change.into()),
                Command::Cluster(change) => To::Cluster(convert::cluster_change_bytes(change)),
                Command::Usage(report) => To::Usage(usage_report(report)),
            }),
        }
    }
}

impl TryFrom<command::Request> for Request {
    type Error = convert::Error;

    fn try_from(request: command::Request) -> Result<Self, convert::Error> {
        use command::request::Command as From;
        Ok(Self {
            idempotency_key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
            author: request.author,
            at_ms: request.at_ms,
            link: Link { id: request.id, after: request.after },
            command: match request.command.ok_or(convert::Error::Missing("a log entry's command"))? {
                From::Change(change) => Command::Change(change.try_into()?),
                From::Cluster(json) => Command::Cluster(convert::cluster_change(&json)?),
                From::Usage(report) => Command::Usage(read_usage_report(report)),
            },
        })
    }
}

/// A report as it goes over the wire and into the log.
pub(crate) fn usage_report(report: &[Used]) -> command::UsageReport {
    command::UsageReport { used: report.iter().map(Into::into).collect() }
}

/// The report of this message.
pub(crate) fn read_usage_report(report: command::UsageReport) -> Vec<Used> {
    report.used.into_iter().map(Into::into).collect()
}

impl From<&Response> for command::Response {
    fn from(response: &Response) -> Self {
        match response {
            Response::None => Self::default(),
            Response::Change(outcome) => outcome.into(),
            Response::Cluster(outcome) => outcome.into(),
        }
    }
}

impl TryFrom<command::Response> for Response {
    type Error = convert::Error;

    fn try_from(response: command::Response) -> Result<Self, convert::Error> {
        if response.outcome.is_none() {
            return Ok(Self::None);
        }
        Ok(match response.try_into()? {
            convert::Said::Change(outcome) => Self::Change(outcome),
            convert::Said::Cluster(outcome) => Self::Cluster(outcome),
        })
    }
}
