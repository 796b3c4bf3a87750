//! Finding the leader, and asking it until it answers for good.

use std::time::Duration;

use model::NodeId;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::Consensus;
use crate::{Error, forward::Forwarded};

/// How long a call waits for a leader before it says that there is none; an election takes less.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries to find a leader that can commit.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// The longest that one try of a forwarded call takes.
const TRY_MAX: Duration = Duration::from_secs(10);

impl Consensus {
    /// Calls `call` with the leader (none: this node) until it answers for good, or until the time is up.
    ///
    /// A leader that was just elected can't commit yet, so "no leader" and "not yet" are both waited out; but once a
    /// try got lost, no later one may say that nothing was changed.
    pub(super) async fn at_leader<T, F>(
        &self,
        timeout: Duration,
        call: impl Fn(Option<NodeId>, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Forwarded>>,
    {
        let until = Instant::now() + timeout;
        let mut leader_by = until.min(Instant::now() + LEADER_WAIT_MAX);
        let mut sent = false;
        let ended = loop {
            let leader = match self.leader(leader_by.saturating_duration_since(Instant::now())).await {
                Ok(leader) => Some(leader).filter(|leader| *leader != self.identity().node_id),
                Err(error) => break error,
            };
            let left = until.saturating_duration_since(Instant::now());
            match call(leader, left.min(TRY_MAX)).await {
                Ok(answer) => return Ok(answer),
                Err(Forwarded::Failed(error)) => break error,
                Err(Forwarded::NotReady) => {}
                Err(Forwarded::Lost) => {
                    sent = true;
                    leader_by = until.min(Instant::now() + LEADER_WAIT_MAX);
                }
            }
            if self.inner.raft.metrics().borrow_watched().running_state.is_err() {
                break ended_error();
            }
            // Whoever was asked can't lead, or not yet, or is gone.
            tokio::time::sleep(RETRY_PAUSE.min(leader_by.saturating_duration_since(Instant::now()))).await;
        };
        let unknown = sent && matches!(ended, Error::NoQuorum | Error::Fatal(_));
        Err(if unknown { Error::TimedOut(timeout) } else { ended })
    }

    /// The leader, once there is one that this node itself is or has heard lately. One that has gone silent is not
    /// asked: of a call that nobody answers, nobody could say what became of it.
    async fn leader(&self, wait: Duration) -> Result<NodeId, Error> {
        if wait.is_zero() {
            return Err(Error::NoQuorum);
        }
        let mut metrics = self.inner.raft.metrics();
        let known = async {
            loop {
                let leader = metrics.borrow_watched().current_leader.map(NodeId);
                let is_heard = || {
                    let silent = self.leader_silent_for();
                    silent.is_some_and(|silent| silent <= self.inner.settings.election_max)
                };
                if let Some(leader) = leader
                    && (leader == self.identity().node_id || is_heard())
                {
                    return Ok(leader);
                }
                // openraft doesn't tell that a leader is heard again.
                let changed = WatchReceiver::changed(&mut metrics);
                if let Ok(Err(_)) = tokio::time::timeout(self.inner.settings.heartbeat / 2, changed).await {
                    return Err(ended_error());
                }
            }
        };
        tokio::time::timeout(wait, known).await.unwrap_or(Err(Error::NoQuorum))
    }
}

fn ended_error() -> Error {
    Error::Fatal("consensus has ended".into())
}
