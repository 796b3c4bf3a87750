//! The cluster: its state, forming and joining it, leaving, removing, and moving the leadership.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use model::{
    NodeId,
    api::{ClusterStatus, InitRequest, JoinRequest, MemberStatus, TransferRequest},
    cluster::{ClusterChange, ClusterOutcome},
};

use crate::{
    admin::{
        Answer, Asked,
        reply::{self, Refusal},
        write::{Manner, may_write},
    },
    member::Member,
    node::Node,
};

/// Proposes a change to the cluster.
pub(super) async fn propose(member: &Member, asked: &Asked, change: ClusterChange) -> Result<(), Refusal> {
    let manner = Manner::read(asked)?;
    may_write(member)?;
    let author = &asked.caller.label;
    let what = format!("{change:?}").split(' ').next().unwrap_or_default().to_owned();
    let outcome =
        member.consensus.cluster_change(change, author, manner.idempotency_key(), manner.timeout()).await;
    tracing::info!(target: "audit", author, what, outcome = ?outcome, "cluster");
    match outcome? {
        ClusterOutcome::Done | ClusterOutcome::Admitted(_) => Ok(()),
        ClusterOutcome::Refused { code, reason } => Err(Refusal::of_code(code, reason)),
    }
}

/// `GET /v1/cluster`
pub(super) async fn status(node: Arc<Node>, _: Asked) -> Answer {
    let member = node.member.read().await;
    let Some(member) = &*member else {
        return Err(Refusal::not_in_cluster());
    };
    reply::json(StatusCode::OK, &describe(&node, member))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn describe(node: &Node, member: &Member) -> ClusterStatus {
    let (status, me) = (member.consensus.status(), member.identity.node_id);
    let config = member.consensus.config().borrow().clone();
    let cluster = member.consensus.cluster().borrow().clone();
    let peers = member.gossip.peers();
    let newest = peers
        .iter()
        .filter_map(|peer| peer.facts.as_ref().map(|facts| facts.applied))
        .chain([config.revision])
        .max()
        .unwrap_or_default();
    let members = cluster.nodes.iter().map(|(id, known)| {
        let peer = peers.iter().find(|peer| peer.node_id == *id);
        let facts = peer.and_then(|peer| peer.facts.clone());
        let role = match (status.leader == Some(*id), status.voters.contains(id)) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let mine = *id == me;
        let applied = if mine { Some(config.revision) } else { facts.as_ref().map(|facts| facts.applied) };
        let installed = match mine {
            true => Some(*node.installed.borrow()),
            false => facts.as_ref().map(|facts| facts.installed),
        };
        let phase = facts.as_ref().map(|facts| facts.phase.clone()).unwrap_or_default();
        let expires = facts.as_ref().map(|facts| facts.certificate_expires_at_ms);
        MemberStatus {
            id: *id,
            name: known.name.clone(),
            address: known.address.clone(),
            admin: known.admin.clone(),
            role: role.to_owned(),
            health: if mine { "healthy" } else { peer.map_or("down", |peer| peer.health.as_str()) }
                .to_owned(),
            phase: if mine { node.phase().as_str().to_owned() } else { phase },
            last_contact_ms: match mine {
                true => Some(0),
                false => peer.and_then(|peer| peer.last_contact).map(|at| ms(at.elapsed())),
            },
            applied,
            installed,
            lag: installed.map(|installed| newest.0.saturating_sub(installed.0)),
            version: match mine {
                true => env!("CARGO_PKG_VERSION").to_owned(),
                false => facts.map_or_else(|| known.version.clone(), |facts| facts.version),
            },
            certificate_expires_at_ms: match mine {
                true => Some(member.identity.certificate_expires_at_ms()),
                false => expires,
            },
        }
    });
    let members: Vec<MemberStatus> = members.collect();
    let voters = status.voters.len();
    let alive = members.iter().filter(|m| status.voters.contains(&m.id) && m.health == "healthy").count();
    ClusterStatus {
        cluster_id: Some(member.identity.cluster_id.clone()),
        epoch: member.identity.epoch,
        node_id: Some(me),
        leader: status.leader,
        term: status.term,
        quorum: status.quorum,
        removed: member.consensus.was_removed_itself(),
        tolerates: alive.saturating_sub(voters / 2 + 1),
        revision: config.revision,
        leader_contact_ms: status.leader_contact.map(ms),
        confirmed_ms: node.lease.age().map(ms),
        members,
    }
}

/// `POST /v1/cluster/init`
pub(super) async fn init(node: Arc<Node>, asked: Asked) -> Answer {
    let request: InitRequest = asked.json()?;
    let formed = node.form(request.advertise).await?;
    tracing::info!(target: "audit", author = asked.caller.label, cluster = formed.cluster_id, "formed");
    reply::json(StatusCode::CREATED, &formed)
}

/// `POST /v1/cluster/join`
pub(super) async fn join(node: Arc<Node>, asked: Asked) -> Answer {
    let request: JoinRequest = asked.json()?;
    let joined = node.join(&request.address, &request.token, request.advertise).await?;
    tracing::info!(target: "audit", author = asked.caller.label, id = %joined.node_id, "joined");
    reply::json(StatusCode::CREATED, &joined)
}

/// `POST /v1/cluster/leave`: the answering node leaves.
pub(super) async fn leave(node: Arc<Node>, asked: Asked) -> Answer {
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let node_id = member.identity.node_id;
    // The others answer no call of one that has left; leaving is done twice as well as once.
    if !member.consensus.was_removed_itself() {
        last_one_stays(member, node_id)?;
        let left = propose(member, &asked, ClusterChange::Remove { node_id }).await;
        // Asked again by one that was let go meanwhile, the others say that it is no member.
        let is_done = |why: &Refusal| member.consensus.was_removed_itself() && !why.is_unknown();
        left.or_else(|why| if is_done(&why) { Ok(()) } else { Err(why) })?;
    }
    reply::done()
}

/// `DELETE /v1/cluster/members/ID`
pub(super) async fn remove(node: Arc<Node>, asked: Asked) -> Answer {
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let id = asked.arguments.first().and_then(|id| id.parse().ok()).map(NodeId);
    let node_id = id.ok_or_else(|| Refusal::invalid("a node's id is a number"))?;
    last_one_stays(member, node_id)?;
    // Of one that is gone already, there is nothing to say: removing is done twice as well as once.
    propose(member, &asked, ClusterChange::Remove { node_id }).await?;
    reply::done()
}

fn last_one_stays(member: &Member, node_id: NodeId) -> Result<(), Refusal> {
    let cluster = member.consensus.cluster().borrow().clone();
    if cluster.nodes.len() == 1 && cluster.nodes.contains_key(&node_id) {
        return Err(Refusal::of_code(
            model::Code::Conflict,
            "it is the last node of the cluster: stop it instead",
        ));
    }
    Ok(())
}

/// `POST /v1/cluster/transfer`
pub(super) async fn transfer(node: Arc<Node>, asked: Asked) -> Answer {
    let request: TransferRequest = asked.json()?;
    let manner = Manner::read(&asked)?;
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    may_write(member)?;
    let leader = member.consensus.transfer(request.to, manner.timeout()).await?;
    tracing::info!(target: "audit", author = asked.caller.label, %leader, "leadership moved");
    reply::json(StatusCode::OK, &serde_json::json!({ "leader": leader }))
}
