//! What the other members ask of this one: each call's certificate and header are checked before anything is done.

use cluster_proto::{
    PROTOCOL_MAX, PROTOCOL_MIN,
    common::Header,
    raft::{self as proto, append_reply::Outcome, raft_server::Raft as RaftService},
};
use model::NodeId;
use openraft::{
    errors::{Fatal, RaftError},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    },
    storage::{Snapshot, SnapshotMeta},
};
use tonic::{Request, Response, Status, Streaming};

use crate::{Error, blocking, consensus::Consensus, convert_error, peers::Identity, serve::PeerId, wire};

/// The largest snapshot, in bytes, that is taken in.
const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) consensus: Consensus,
}

/// Refuses a call that is not from a member to this node of this cluster. Gives the member.
pub(crate) fn check(
    consensus: &Consensus,
    peer: Option<&PeerId>,
    header: Option<Header>,
) -> Result<NodeId, Status> {
    let header = header.ok_or_else(|| Status::invalid_argument("the request has no header"))?;
    let Identity { node_id, cluster_id, epoch } = consensus.identity();
    if header.cluster_id != *cluster_id || header.epoch != *epoch {
        return Err(Status::failed_precondition(format!(
            "this node is of cluster {cluster_id}, epoch {epoch}; the request is for {}, epoch {}",
            header.cluster_id, header.epoch
        )));
    }
    if header.to != node_id.0 {
        return Err(Status::failed_precondition(format!("this is node {node_id}, not {}", header.to)));
    }
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&header.protocol) {
        return Err(Status::failed_precondition(format!(
            "this node speaks protocols {PROTOCOL_MIN} to {PROTOCOL_MAX}, and the request is of {}",
            header.protocol
        )));
    }
    let from = NodeId(header.from);
    match peer {
        Some(PeerId(Some(certified))) if *certified == from => {}
        Some(PeerId(Some(certified))) => {
            return Err(Status::permission_denied(format!(
                "the certificate is node {certified}'s, not {from}'s"
            )));
        }
        _ => return Err(Status::unauthenticated("a member's certificate is needed")),
    }
    // One that is to go may lead or vote until the group has let it go: refused before, it could not hand over.
    if consensus.was_removed(from) && !consensus.is_in_group(from) {
        return Err(Status::permission_denied(format!("node {from} was removed from the cluster")));
    }
    Ok(from)
}

fn internal(error: &Error) -> Status {
    Status::internal(error.to_string())
}

fn fatal(error: &Fatal<crate::types::Types>) -> Status {
    Status::unavailable(format!("consensus has stopped: {error}"))
}

fn raft_error(error: &RaftError<crate::types::Types>) -> Status {
    Status::unavailable(format!("consensus has stopped: {error}"))
}

fn missing(what: &'static str) -> Status {
    Status::invalid_argument(format!("the request has no {what}"))
}

fn vote_request(message: &proto::VoteRequest) -> Result<VoteRequest<crate::types::Types>, Status> {
    let vote = message.vote.ok_or_else(|| missing("vote"))?;
    Ok(VoteRequest {
        vote: wire::read_vote(vote),
        last_log_id: message.last.map(wire::read_log_id),
        leadership_transfer: message.leader_transfer,
    })
}

fn vote_reply(reply: openraft::raft::VoteResponse<crate::types::Types>) -> Response<proto::VoteReply> {
    Response::new(proto::VoteReply {
        vote: Some(wire::vote(&reply.vote)),
        granted: reply.vote_granted,
        last: reply.last_log_id.as_ref().map(wire::log_id_message),
    })
}

#[tonic::async_trait]
impl RaftService for Service {
    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        let from = check(&self.consensus, peer.as_ref(), message.header.take())?;
        let entries = message.entries.into_iter().map(wire::read_entry).collect::<Result<_, _>>();
        let rpc = AppendEntriesRequest {
            vote: wire::read_vote(message.vote.ok_or_else(|| missing("vote"))?),
            prev_log_id: message.prev.map(wire::read_log_id),
            entries: entries.map_err(convert_error)?,
            leader_commit: message.committed.map(wire::read_log_id),
        };
        let reply = self.consensus.raft().append_entries(rpc).await.map_err(|error| raft_error(&error))?;
        if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
            self.consensus.heard_from_leader(from);
        }
        let outcome = match reply {
            AppendEntriesResponse::Success => Outcome::Success(true),
            AppendEntriesResponse::PartialSuccess(Some(id)) => Outcome::Partial(wire::log_id_message(&id)),
            // Nothing of it was stored: for the leader the same as a conflict, from which it goes back.
            AppendEntriesResponse::PartialSuccess(None) | AppendEntriesResponse::Conflict => {
                Outcome::Conflict(true)
            }
            AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(wire::vote(&vote)),
        };
        Ok(Response::new(proto::AppendReply { outcome: Some(outcome) }))
    }

    async fn vote(&self, request: Request<proto::VoteRequest>) -> Result<Response<proto::VoteReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header.take())?;
        let reply = self.consensus.raft().vote(vote_request(&message)?).await;
        Ok(vote_reply(reply.map_err(|error| raft_error(&error))?))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header.take())?;
        let reply = self.consensus.raft().pre_vote(vote_request(&message)?).await;
        Ok(vote_reply(reply.map_err(|error| raft_error(&error))?))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut chunks = request.into_inner();
        let mut chunk = chunks.message().await?.ok_or_else(|| missing("first chunk"))?;
        let mut head = chunk.head.take().ok_or_else(|| missing("head"))?;
        check(&self.consensus, peer.as_ref(), head.header.take())?;
        if head.bytes > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted(format!("a snapshot of {} bytes", head.bytes)));
        }
        let failed =
            |error: std::io::Error| Status::internal(format!("the snapshot can't be stored: {error}"));
        let snapshot = self.consensus.snapshots().temporary();
        let file = snapshot.create().map_err(failed)?;
        let mut bytes = 0;
        loop {
            let at = bytes;
            bytes += chunk.data.len() as u64;
            if bytes > head.bytes {
                return Err(Status::invalid_argument("the snapshot is longer than it said"));
            }
            let to = file.clone();
            let written = blocking::run(move || to.write_at(&chunk.data, at)).await;
            written.map_err(|error| internal(&error))?.map_err(failed)?;
            match chunks.message().await? {
                Some(next) => chunk = next,
                None => break,
            }
        }
        blocking::run(move || file.sync()).await.map_err(|error| internal(&error))?.map_err(failed)?;
        if bytes < head.bytes {
            return Err(Status::data_loss("the snapshot is shorter than it said"));
        }
        // Checked before openraft sees it, which would stop this node over a damaged one.
        let checking = blocking::run(move || snapshot.check().map(|_| snapshot)).await;
        let snapshot = checking.map_err(|error| internal(&error))?;
        let snapshot = snapshot.map_err(|error| Status::data_loss(error.to_string()))?;
        let membership = head.membership.ok_or_else(|| missing("membership"))?;
        let meta = SnapshotMeta {
            last_log_id: head.last.map(wire::read_log_id),
            last_membership: wire::read_stored_membership(membership).map_err(convert_error)?,
        };
        let vote = wire::read_vote(head.vote.ok_or_else(|| missing("vote"))?);
        let reply = self.consensus.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        let reply = reply.map_err(|error| fatal(&error))?;
        Ok(Response::new(proto::SnapshotReply { vote: Some(wire::vote(&reply.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header.take())?;
        let from = wire::read_vote(message.from.ok_or_else(|| missing("vote"))?);
        let rpc = TransferLeaderRequest::new(from, message.to, message.last.map(wire::read_log_id));
        let reply = self.consensus.raft().handle_transfer_leader(rpc).await.map_err(|error| fatal(&error))?;
        let (accepted, vote) = match reply {
            Ok(()) => (true, None),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => (false, Some(wire::vote(&actual))),
            Err(TransferLeaderError::LogNotFlushed { .. }) => (false, None),
        };
        Ok(Response::new(proto::TransferLeaderReply { vote, accepted }))
    }
}
