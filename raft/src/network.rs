//! What openraft sends to another member, as RPC.

use std::{future::Future, time::Duration};

use cluster_proto::{
    MESSAGE_BYTES_MAX,
    raft::{self as proto, append_reply::Outcome, raft_client::RaftClient},
};
use model::NodeId;
use openraft::{
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    storage::Snapshot,
};
use tonic::{Request, Response, Status};

use crate::{
    Channel, blocking,
    files::OpenFile,
    peers::Peers,
    snapshot::SnapshotFile,
    types::{CommittedLeaderId, LogId, PeerNode, Types, Vote},
    wire,
};

/// Bytes of entries in one append; what is over goes with the next.
const APPEND_BYTES_MAX: usize = 16 << 20;
/// For the reply to a heartbeat, at the least.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(500);
/// For the reply to entries, at the least: a few syncs of a disk that takes seconds for each. A link that is cut is noticed sooner,
/// by its keepalive.
const DISK_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// Makes the [`Link`]s.
pub(crate) struct Network {
    pub(crate) peers: Peers,
}

/// To one member.
pub(crate) struct Link {
    peers: Peers,
    to: NodeId,
    address: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Link {
        Link { peers: self.peers.clone(), to: NodeId(target), address: node.address.clone() }
    }
}

type RpcError = RPCError<Types>;

fn unreachable(error: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

fn network(status: &Status) -> RpcError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::PermissionDenied => unreachable(status),
        _ => RPCError::Network(NetworkError::from_string(status)),
    }
}

fn read_chunk(file: &dyn OpenFile, at: u64) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0; CHUNK_BYTES];
    let read = file.read_at(&mut data, at)?;
    data.truncate(read);
    Ok(data)
}

fn missing(what: &str) -> RpcError {
    RPCError::Network(NetworkError::from_string(format!("the reply has no {what}")))
}

impl Link {
    fn client(&self) -> Result<RaftClient<Channel>, RpcError> {
        let channel = self.peers.channel(self.to, &self.address).map_err(unreachable)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn call<T>(
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        let reply = tokio::time::timeout(timeout, call).await;
        let reply = reply.map_err(|_| RPCError::Network(NetworkError::from_string("no reply in time")))?;
        reply.map(Response::into_inner).map_err(|status| network(&status))
    }

    fn vote_request(&self, rpc: &VoteRequest<Types>) -> proto::VoteRequest {
        proto::VoteRequest {
            header: Some(self.peers.header(self.to)),
            vote: Some(wire::vote(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(wire::log_id_message),
            leader_transfer: rpc.leadership_transfer,
        }
    }
}

fn vote_response(reply: proto::VoteReply) -> Result<VoteResponse<Types>, RpcError> {
    let vote = wire::read_vote(reply.vote.ok_or_else(|| missing("vote"))?);
    Ok(VoteResponse { vote, vote_granted: reply.granted, last_log_id: reply.last.map(wire::read_log_id) })
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        let total = rpc.entries.len();
        let mut bytes = 0;
        let mut entries = Vec::with_capacity(total);
        let mut last: Option<LogId> = rpc.prev_log_id;
        for entry in &rpc.entries {
            let message = wire::entry(entry);
            bytes += prost::Message::encoded_len(&message);
            if bytes > APPEND_BYTES_MAX && !entries.is_empty() {
                break;
            }
            last = Some(entry.log_id);
            entries.push(message);
        }
        let sent = entries.len();
        let request = proto::AppendRequest {
            header: Some(self.peers.header(self.to)),
            vote: Some(wire::vote(&rpc.vote)),
            prev: rpc.prev_log_id.as_ref().map(wire::log_id_message),
            entries,
            committed: rpc.leader_commit.as_ref().map(wire::log_id_message),
        };
        // A heartbeat must fail fast. Entries are acknowledged when they are on the disk: given up before, they would be sent
        // again for as long as the disk is slow, and never be acknowledged.
        let disk = if sent == 0 { HEARTBEAT_TIMEOUT } else { DISK_TIMEOUT };
        let timeout = option.hard_ttl().max(disk) + Duration::from_millis(bytes as u64 / 4_096);
        let mut client = self.client()?;
        let reply = Self::call(timeout, client.append(request)).await?;
        Ok(match reply.outcome.ok_or_else(|| missing("outcome"))? {
            Outcome::Success(_) if sent < total => AppendEntriesResponse::PartialSuccess(last),
            Outcome::Success(_) => AppendEntriesResponse::Success,
            Outcome::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(wire::read_log_id(id))),
            Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
            Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(wire::read_vote(vote)),
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = self.vote_request(&rpc);
        let mut client = self.client()?;
        vote_response(Self::call(option.hard_ttl(), client.vote(request)).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = self.vote_request(&rpc);
        let mut client = self.client()?;
        vote_response(Self::call(option.hard_ttl(), client.pre_vote(request)).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, u64, PeerNode, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let failed = |error: std::io::Error| StreamingError::Network(NetworkError::from_string(error));
        let file = snapshot.snapshot.open().map_err(failed)?;
        let head = proto::SnapshotHead {
            header: Some(self.peers.header(self.to)),
            vote: Some(wire::vote(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(wire::log_id_message),
            membership: Some(wire::stored_membership(&snapshot.meta.last_membership)),
            bytes: file.length().map_err(failed)?,
        };
        let (chunks, stream) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
        // Ends with the file or with the call, whichever is first; what can't be read shows as a short snapshot, which is
        // refused at the other end.
        let reading = async move {
            let (mut head, mut at) = (Some(head), 0);
            loop {
                let from = file.clone();
                let Ok(Ok(data)) = blocking::run(move || read_chunk(&*from, at)).await else { return };
                at += data.len() as u64;
                let last = data.is_empty();
                let chunk = proto::SnapshotChunk { head: head.take(), data: data.into() };
                if chunks.send(chunk).await.is_err() || last {
                    return;
                }
            }
        };
        let mut client = self.client().map_err(StreamingError::from)?;
        let request = Request::new(tokio_stream::wrappers::ReceiverStream::new(stream));
        let sending = async { tokio::join!(client.snapshot(request), reading).0 };
        let reply = tokio::select! {
            biased;
            reply = tokio::time::timeout(option.hard_ttl(), sending) => reply,
            closed = cancel => return Err(closed.into()),
        };
        let reply =
            reply.map_err(|_| StreamingError::Network(NetworkError::from_string("no reply in time")))?;
        let reply = reply.map_err(|status| StreamingError::from(network(&status)))?.into_inner();
        let vote = reply.vote.ok_or_else(|| StreamingError::from(missing("vote")))?;
        Ok(SnapshotResponse::new(wire::read_vote(vote)))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let request = proto::TransferLeaderRequest {
            header: Some(self.peers.header(self.to)),
            from: Some(wire::vote(rpc.from_leader())),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().map(wire::log_id_message),
        };
        let mut client = self.client()?;
        let reply = Self::call(option.hard_ttl(), client.transfer_leader(request)).await?;
        if reply.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(match reply.vote {
            Some(vote) => TransferLeaderError::VoteChanged {
                expected: *rpc.from_leader(),
                actual: wire::read_vote(vote),
            },
            None => TransferLeaderError::LogNotFlushed { expected: rpc.last_log_id().copied(), actual: None },
        }))
    }
}
