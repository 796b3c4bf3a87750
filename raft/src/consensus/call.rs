//! What any node can ask of the group: a change, a read barrier, another leader.

use std::time::Duration;

use model::{
    NodeId, Outcome,
    cluster::{ClusterChange, ClusterOutcome},
    usage::Used,
};
use openraft::raft::ReadPolicy;
use tokio::time::Instant;

use super::{Consensus, Edit};
use crate::{
    Channel, Command, Error, Link, Request, Response,
    forward::{self, Forwarded},
    membership,
    outcomes::key_reused,
};

impl Consensus {
    /// Makes a change to the config, from any node: checked on the leader against the newest config, and committed.
    pub async fn change(&self, edit: Edit, timeout: Duration) -> Result<Outcome, Error> {
        let mut edit = edit;
        // A try whose answer got lost is made again under the same key, so that it can't happen twice.
        edit.idempotency_key.get_or_insert_with(random_key);
        let response = self
            .at_leader(timeout, |leader, left| {
                let edit = edit.clone();
                async move {
                    match leader {
                        None => self.inner.proposer.change(edit, left).await,
                        Some(leader) => {
                            forward::change(&self.leader_channel(leader)?, self.header(leader), edit, left)
                                .await
                        }
                    }
                }
            })
            .await?;
        match response {
            Response::Change(outcome) => Ok(outcome),
            Response::None | Response::Cluster(_) => Err(key_reused()),
        }
    }

    /// Makes a change to what the members agree on besides the config, from any node.
    pub async fn cluster_change(
        &self,
        change: ClusterChange,
        author: &str,
        idempotency_key: Option<String>,
        timeout: Duration,
    ) -> Result<ClusterOutcome, Error> {
        let request = Request {
            idempotency_key: Some(idempotency_key.unwrap_or_else(random_key)),
            author: author.to_owned(),
            at_ms: now_ms(),
            link: Link::default(),
            command: Command::Cluster(change),
        };
        let response = self
            .at_leader(timeout, |leader, left| {
                let request = request.clone();
                async move {
                    match leader {
                        None => membership::change_cluster(self, request, left).await,
                        Some(leader) => {
                            forward::cluster_change(
                                &self.leader_channel(leader)?,
                                self.header(leader),
                                request,
                                left,
                            )
                            .await
                        }
                    }
                }
            })
            .await?;
        match response {
            Response::Cluster(outcome) => Ok(outcome),
            Response::None | Response::Change(_) => Err(key_reused()),
        }
    }

    /// Has the nodes agree on what was used of quotas, from any node; 1,000 items at the most. What is told twice does no harm.
    ///
    /// # Errors
    /// No majority answers, or none in time.
    pub async fn report_usage(&self, report: Vec<Used>, timeout: Duration) -> Result<(), Error> {
        let report = &report;
        self.at_leader(timeout, |leader, left| async move {
            match leader {
                None => self.inner.proposer.request(usage_request(report.clone()), left).await,
                Some(leader) => {
                    let channel = self.leader_channel(leader)?;
                    forward::report_usage(&channel, self.header(leader), report, left).await
                }
            }
        })
        .await
        .map(drop)
    }

    /// The channel to the leader. A node that has just joined may not know yet where that is: then nothing was asked.
    fn leader_channel(&self, leader: NodeId) -> Result<Channel, Forwarded> {
        self.channel(leader).map_err(|_| Forwarded::NotReady)
    }

    /// Returns once everything that was committed before the call is applied here (ReadIndex: Ongaro, "Consensus", 6.4).
    pub async fn read_barrier(&self, timeout: Duration) -> Result<(), Error> {
        let until = Instant::now() + timeout;
        let index = self
            .at_leader(timeout, |leader, left| async move {
                match leader {
                    None => self.read_index(left).await,
                    Some(leader) => {
                        forward::read_index(&self.leader_channel(leader)?, self.header(leader), left).await
                    }
                }
            })
            .await
            // A question that got lost has no outcome to be unknown.
            .map_err(|error| if matches!(error, Error::TimedOut(_)) { Error::NoQuorum } else { error })?;
        let mut applied = self.inner.state_machine.applied();
        let reached = applied.wait_for(|applied| *applied >= Some(index));
        match tokio::time::timeout_at(until, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Fatal("the state machine is gone".into())),
            Err(_) => Err(Error::NoQuorum),
        }
    }

    /// On the leader: the index that a read must have seen.
    pub(crate) async fn read_index(&self, timeout: Duration) -> Result<u64, Forwarded> {
        let asked =
            tokio::time::timeout(timeout, self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex)).await;
        match asked {
            Ok(Ok((id, _))) => Ok(id.index()),
            // Deposed, no majority in time, or no answer: whatever it was, a read may be asked again.
            Ok(Err(_)) | Err(_) => Err(Forwarded::NotReady),
        }
    }

    /// Moves the leadership to this voter, or to the one that is furthest. Gives the new leader.
    pub async fn transfer(&self, to: Option<NodeId>, timeout: Duration) -> Result<NodeId, Error> {
        self.at_leader(timeout, |leader, left| async move {
            match leader {
                None => membership::transfer(self, to, left).await,
                Some(leader) => {
                    forward::transfer(&self.leader_channel(leader)?, self.header(leader), to, left).await
                }
            }
        })
        .await
    }
}

/// Items of a report of usage, at the most.
pub(crate) const USAGE_ITEMS_MAX: usize = 1_000;

/// The request that takes up a report of usage.
pub(crate) fn usage_request(report: Vec<Used>) -> Request {
    Request {
        idempotency_key: None,
        author: "usage".to_owned(),
        at_ms: now_ms(),
        link: Link::default(),
        command: Command::Usage(report),
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Unique, not secret: SipHash's output under keys that the system drew.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

fn random_key() -> String {
    format!("auto-{:016x}{:016x}", random(), random())
}
