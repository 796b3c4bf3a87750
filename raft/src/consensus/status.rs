//! The group as this node sees it: who leads, who is in it, and when a leader was last heard.

use std::{sync::atomic::Ordering, time::Duration};

use model::NodeId;
use openraft::{Instant as _, async_runtime::WatchReceiver};

use super::Consensus;

/// What this node does in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It follows the log without a vote.
    Learner,
}

/// The group as this node sees it.
#[derive(Debug, Clone)]
pub struct Status {
    /// What this node does in it.
    pub role: Role,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The log's last entry.
    pub last_log_index: Option<u64>,
    /// The last entry that is applied here.
    pub applied_index: Option<u64>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
    /// On the leader: a majority has answered lately. Elsewhere: the leader was heard lately.
    pub quorum: bool,
    /// How long ago this node heard of a leader; none if never, zero on the leader itself.
    pub leader_contact: Option<Duration>,
}

impl Consensus {
    /// The group as this node sees it.
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = self.identity().node_id;
        let membership = metrics.membership_config.membership();
        let mut voters: Vec<_> = membership.voter_ids().map(NodeId).collect();
        voters.sort_unstable();
        voters.dedup();
        let leads = metrics.current_leader == Some(me.0);
        let heard = self.leader_silent_for();
        let acked = metrics.last_quorum_acked.map(|at| at.elapsed());
        let (leader_contact, contact) = if leads { (Some(Duration::ZERO), acked) } else { (heard, heard) };
        Status {
            role: match (leads, voters.contains(&me)) {
                (true, _) => Role::Leader,
                (false, true) => Role::Voter,
                (false, false) => Role::Learner,
            },
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.as_ref().map(|id| id.index),
            learners: membership.learner_ids().map(NodeId).collect(),
            quorum: metrics.current_leader.is_some()
                && (voters == [me] || contact.is_some_and(|ago| ago <= self.inner.settings.election_max)),
            voters,
            leader_contact,
        }
    }

    pub(crate) fn heard_from_leader(&self, _: NodeId) {
        let ms = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.inner.leader_heard_ms.store(ms + 1, Ordering::Relaxed);
    }

    /// How long ago a leader was last heard; none if never.
    pub(super) fn leader_silent_for(&self) -> Option<Duration> {
        let at = self.inner.leader_heard_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.inner.started.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// Whether this node itself was removed from its cluster, as far as it has heard.
    pub fn was_removed_itself(&self) -> bool {
        self.was_removed(self.identity().node_id)
    }

    /// Whether the Raft group, as this node knows it, has this node in it, with a vote or without.
    pub(crate) fn is_in_group(&self, node: NodeId) -> bool {
        let metrics = self.inner.raft.metrics();
        metrics.borrow_watched().membership_config.membership().get_node(&node.0).is_some()
    }

    /// Whether this node was a member and is none any more. An id is the log index that admitted it, so one above
    /// what is applied here may be a member that this node has not heard of yet.
    pub(crate) fn was_removed(&self, node: NodeId) -> bool {
        let cluster = self.inner.state_machine.cluster();
        let cluster = cluster.borrow();
        let applied = *self.inner.state_machine.applied().borrow();
        cluster.founding.is_some() && !cluster.nodes.contains_key(&node) && Some(node.0) <= applied
    }
}
