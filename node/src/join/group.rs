//! What joining and renewing need of consensus.

use std::time::Duration;

use async_trait::async_trait;
use model::{
    NodeId,
    cluster::{ClusterChange, ClusterOutcome},
};
use raft::Consensus;

/// For a proposal to be committed and applied.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The group of voters, as one of its members sees it.
#[async_trait]
pub(crate) trait Group: Clone + Send + Sync + 'static {
    /// The leader, if there is one.
    fn leader(&self) -> Option<NodeId>;

    /// To another member, mutually authenticated.
    fn channel(&self, node: NodeId) -> Result<raft::Channel, raft::Error>;

    /// Proposes a change and waits until it is applied here.
    async fn propose(&self, change: ClusterChange, author: &str) -> Result<ClusterOutcome, raft::Error>;
}

#[async_trait]
impl Group for Consensus {
    fn leader(&self) -> Option<NodeId> {
        self.status().leader
    }

    fn channel(&self, node: NodeId) -> Result<raft::Channel, raft::Error> {
        Consensus::channel(self, node)
    }

    async fn propose(&self, change: ClusterChange, author: &str) -> Result<ClusterOutcome, raft::Error> {
        self.cluster_change(change, author, None, PROPOSE_TIMEOUT).await
    }
}
