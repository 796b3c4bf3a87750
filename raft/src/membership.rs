//! The leader's loop that makes the group's membership what the cluster's list of nodes says (docs/adr/0003).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use model::{
    Code, NodeId,
    cluster::{ClusterChange, ClusterOutcome},
};
use openraft::{ChangeMembers, Instant as _, async_runtime::WatchReceiver, metrics::RaftMetrics};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Command, Consensus, Error, PeerNode, Request, Response, forward::Forwarded, types::Types};

/// Between two looks, when nothing says that something changed.
const INTERVAL: Duration = Duration::from_millis(200);
/// The longest that one step may take; the next look tries it again.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that a learner may be behind and count as up to date.
const LAG_MAX: u64 = 100;

type Metrics = RaftMetrics<Types>;

/// One step of the membership towards what it should be.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Have the log sent to a node that is to join.
    Learn(u64, PeerNode),
    /// A member is reached elsewhere now.
    Move(u64, PeerNode),
    /// Give a learner a vote.
    Promote(u64),
    /// The leader is to go: another must lead first.
    HandOver,
    /// Take a member out.
    Remove(u64),
}

/// Runs until told to stop; does something only while this node leads.
pub(crate) async fn reconcile(consensus: Consensus, stop: CancellationToken) {
    let mut cluster = consensus.cluster();
    let mut healthy_since = HashMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = cluster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let step = next_step(&consensus, &mut healthy_since);
        let Some(step) = step else { continue };
        tracing::info!(?step, "membership");
        let taken = tokio::time::timeout(STEP_TIMEOUT, take(&consensus, step)).await;
        if let Err(error) = taken.unwrap_or_else(|_| Err("it took too long".into())) {
            tracing::warn!(%error, "a membership step failed; it is tried again");
        }
    }
}

fn next_step(consensus: &Consensus, healthy_since: &mut HashMap<u64, Instant>) -> Option<Step> {
    let cluster = consensus.cluster();
    let cluster = cluster.borrow();
    let metrics = consensus.raft().metrics();
    let metrics = metrics.borrow_watched();
    if metrics.current_leader != Some(metrics.id) || cluster.founding.is_none() {
        healthy_since.clear();
        return None;
    }
    note_health(&metrics, healthy_since);
    // One change at a time: what is not committed yet must be first.
    if metrics.membership_config != metrics.committed_membership_config {
        return None;
    }
    let wanted =
        cluster.nodes.iter().map(|(id, node)| (id.0, PeerNode { address: node.address.clone() })).collect();
    let ripe = |id: u64| {
        let promote_after = consensus.settings().promote_after;
        healthy_since.get(&id).is_some_and(|since| since.elapsed() >= promote_after)
    };
    decide(metrics.id, &wanted, metrics.membership_config.membership(), ripe)
}

fn decide(
    me: u64,
    wanted: &BTreeMap<u64, PeerNode>,
    membership: &crate::types::Membership,
    ripe: impl Fn(u64) -> bool,
) -> Option<Step> {
    for (id, node) in wanted {
        match membership.get_node(id) {
            None => return Some(Step::Learn(*id, node.clone())),
            Some(known) if known != node => return Some(Step::Move(*id, node.clone())),
            Some(_) => {}
        }
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    if let Some(id) = wanted.keys().find(|id| !voters.contains(id) && ripe(**id)) {
        return Some(Step::Promote(*id));
    }
    let gone = membership.nodes().map(|(id, _)| *id).filter(|id| !wanted.contains_key(id));
    // Others first: a leader that is to go takes them out while it still leads.
    let mut gone: Vec<u64> = gone.collect();
    gone.sort_unstable_by_key(|id| *id == me);
    match gone.first() {
        Some(id) if *id == me && voters.len() > 1 => Some(Step::HandOver),
        Some(id) if *id == me => None,
        Some(id) => Some(Step::Remove(*id)),
        None => None,
    }
}

/// Notes since when each learner has been up to date without a break.
fn note_health(metrics: &Metrics, healthy_since: &mut HashMap<u64, Instant>) {
    let last = metrics.last_log_index.unwrap_or_default();
    let learners: BTreeSet<u64> = metrics.membership_config.membership().learner_ids().collect();
    healthy_since.retain(|id, _| learners.contains(id));
    for id in learners {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|id| id.index));
        let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|at| at.elapsed()));
        let current = matched.is_some_and(|index| index + LAG_MAX >= last);
        if current && heard.is_some_and(|ago| ago < Duration::from_secs(2)) {
            healthy_since.entry(id).or_insert_with(Instant::now);
        } else {
            healthy_since.remove(&id);
        }
    }
}

async fn take(consensus: &Consensus, step: Step) -> Result<(), String> {
    let raft = consensus.raft();
    let changed = match step {
        Step::Learn(id, node) => raft.add_learner(id, node, false).await,
        Step::Move(id, node) => {
            raft.change_membership(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true).await
        }
        Step::Promote(id) => {
            raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
        }
        Step::Remove(id) => {
            let metrics = raft.metrics().borrow_watched().clone();
            let ids = BTreeSet::from([id]);
            if metrics.membership_config.voter_ids().any(|voter| voter == id) {
                raft.change_membership(ChangeMembers::RemoveVoters(ids), false).await
            } else {
                raft.change_membership(ChangeMembers::RemoveNodes(ids), false).await
            }
        }
        Step::HandOver => {
            return transfer(consensus, None, STEP_TIMEOUT)
                .await
                .map(drop)
                .map_err(|error| error.to_string());
        }
    };
    changed.map(drop).map_err(|error| error.to_string())
}

/// On the leader: makes a change to what the members agree on. A node that is to go is gone once this returns: until then the group
/// may need it to agree on anything, and whoever asked must not end it.
pub(crate) async fn change_cluster(
    consensus: &Consensus,
    request: Request,
    timeout: Duration,
) -> Result<Response, Forwarded> {
    let until = Instant::now() + timeout;
    let gone = match &request.command {
        Command::Cluster(ClusterChange::Remove { node_id }) => Some(*node_id),
        _ => None,
    };
    let response = consensus.proposer().request(request, timeout).await?;
    match (gone, &response) {
        (Some(node), Response::Cluster(ClusterOutcome::Done)) => {
            let out = tokio::time::timeout_at(until, out_of_group(consensus, node)).await;
            // The leader that comes next goes on with it, and knows.
            out.unwrap_or(Err(Forwarded::Lost)).map(|()| response)
        }
        _ => Ok(response),
    }
}

/// Returns once this node is in no membership that is agreed on.
async fn out_of_group(consensus: &Consensus, node: NodeId) -> Result<(), Forwarded> {
    let mut watched = consensus.raft().metrics();
    loop {
        {
            let metrics = watched.borrow_watched();
            if metrics.committed_membership_config.membership().get_node(&node.0).is_none() {
                return Ok(());
            }
            if metrics.current_leader != Some(metrics.id) {
                return Err(Forwarded::Lost);
            }
        }
        WatchReceiver::changed(&mut watched).await.map_err(|_| Forwarded::Lost)?;
    }
}

/// On the leader: moves the leadership to this voter, or to the one that is furthest and still in the cluster.
pub(crate) async fn transfer(
    consensus: &Consensus,
    to: Option<NodeId>,
    timeout: Duration,
) -> Result<NodeId, Forwarded> {
    let me = consensus.identity().node_id;
    let refused = |code, reason: String| Err(Forwarded::Failed(Error::Refused { code, reason }));
    let metrics = consensus.raft().metrics().borrow_watched().clone();
    if metrics.current_leader != Some(me.0) {
        return Err(Forwarded::NotReady);
    }
    let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let matched =
        |id: u64| metrics.replication.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|id| id.index));
    let stays = |id: &u64| consensus.cluster().borrow().nodes.contains_key(&NodeId(*id));
    let to = match to {
        Some(to) if to == me => return Ok(me),
        Some(to) if voters.contains(&to.0) => to,
        Some(to) => return refused(Code::Invalid, format!("node {to} is no voter")),
        None => {
            let others = voters.iter().filter(|id| **id != me.0 && stays(id));
            match others.max_by_key(|id| matched(**id)) {
                Some(id) => NodeId(*id),
                None => return refused(Code::Conflict, "there is no other voter to lead".into()),
            }
        }
    };
    let until = Instant::now() + timeout;
    let mut watched = consensus.raft().metrics();
    let asked = consensus.raft().trigger().transfer_leader(to.0).await;
    asked.map_err(|error| Error::Fatal(error.to_string()))?;
    loop {
        if let Some(leader) = watched.borrow_watched().current_leader.filter(|leader| *leader != me.0) {
            return Ok(NodeId(leader));
        }
        match tokio::time::timeout_at(until, WatchReceiver::changed(&mut watched)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::Fatal("consensus has ended".into()).into()),
            Err(_) => return Err(Error::TimedOut(timeout).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Membership;

    fn node(address: &str) -> PeerNode {
        PeerNode { address: address.into() }
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        let nodes = voters.iter().chain(learners).map(|id| (*id, node("a"))).collect::<BTreeMap<_, _>>();
        Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
    }

    fn wanted(ids: &[u64]) -> BTreeMap<u64, PeerNode> {
        ids.iter().map(|id| (*id, node("a"))).collect()
    }

    #[test]
    fn each_step_is_the_next_towards_what_is_wanted() {
        let step = |want: &[u64], voters: &[u64], learners: &[u64], ripe: bool| {
            decide(1, &wanted(want), &membership(voters, learners), |_| ripe)
        };
        assert_eq!(step(&[1], &[1], &[], true), None);
        assert_eq!(step(&[1, 5], &[1], &[], true), Some(Step::Learn(5, node("a"))));
        assert_eq!(step(&[1, 5], &[1], &[5], false), None);
        assert_eq!(step(&[1, 5], &[1], &[5], true), Some(Step::Promote(5)));
        assert_eq!(step(&[1], &[1, 5], &[], true), Some(Step::Remove(5)));
        assert_eq!(step(&[5], &[1, 5], &[], true), Some(Step::HandOver));
        assert_eq!(step(&[5], &[1, 5, 6], &[], true), Some(Step::Remove(6)));
        assert_eq!(step(&[], &[1], &[], true), None);
    }

    #[test]
    fn a_member_that_moved_is_moved() {
        let wanted = BTreeMap::from([(1, node("b"))]);
        assert_eq!(decide(1, &wanted, &membership(&[1], &[]), |_| true), Some(Step::Move(1, node("b"))));
    }
}
