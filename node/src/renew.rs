//! Node certificates are renewed on their own: the leader signs anew for a member that shows its present one.
//!
//! And the other small things that members ask of each other.

use std::{sync::Arc, time::Duration};

use cluster_proto::{
    common::Header,
    peer::{
        AwaitReply, AwaitRequest, RenewReply, RenewRequest,
        peer_client::PeerClient,
        peer_server::{Peer, PeerServer},
    },
};
use model::{Code, NodeId, Revision, cluster::Cluster};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use crate::{
    identity::{self, Error, LIFETIME_S, NodeIdentity},
    join::{Group, JoinService, code_of, status},
    tokens,
};

/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// For one attempt.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that [`Peer::await_installed`] waits.
const AWAIT_MAX: Duration = Duration::from_secs(60);
/// Between looks at the clock, which may be set meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Reads who calls, from what the listener found in the client's certificate.
pub(crate) type Caller = fn(&Extensions) -> Option<NodeId>;

/// What a member serves on its peer port beside consensus: joining, renewing and waiting for what is installed.
pub(crate) fn routes(
    consensus: &raft::Consensus,
    identity: &NodeIdentity,
    installed: watch::Receiver<Revision>,
) -> tonic::service::Routes {
    let cluster = consensus.cluster();
    let by_certificate: Caller = |extensions| extensions.get::<raft::PeerId>().and_then(|peer| peer.0);
    let joins = JoinService::new(consensus.clone(), identity.clone(), cluster.clone());
    let peers = PeerService::new(consensus.clone(), identity.clone(), cluster, installed, by_certificate);
    tonic::service::Routes::new(joins.server()).add_service(peers.server())
}

/// The peer service of a member.
pub(crate) struct PeerService<G> {
    group: G,
    identity: NodeIdentity,
    cluster: watch::Receiver<Arc<Cluster>>,
    installed: watch::Receiver<Revision>,
    caller: Caller,
}

impl<G: Group> PeerService<G> {
    /// Of this member, whose data plane has `installed`.
    pub(crate) fn new(
        group: G,
        identity: NodeIdentity,
        cluster: watch::Receiver<Arc<Cluster>>,
        installed: watch::Receiver<Revision>,
        caller: Caller,
    ) -> Self {
        Self { group, identity, cluster, installed, caller }
    }

    /// To be mounted on the peer port.
    pub(crate) fn server(self) -> PeerServer<Self> {
        PeerServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// The member that calls, once its certificate, its header and the cluster agree on who it is.
    fn caller<T>(&self, request: &Request<T>, header: Option<&Header>) -> Result<NodeId, Status> {
        let denied = |reason: &str| Err(status(Code::Denied, reason));
        let Some(node) = (self.caller)(request.extensions()) else {
            return Err(status(Code::Unauthenticated, "a member's certificate is needed"));
        };
        let Some(header) = header else { return Err(status(Code::Invalid, "the header is missing")) };
        if header.from != node.0 || header.to != self.identity.node_id.0 {
            return denied("the request is of another node than its certificate, or for another one");
        }
        if header.cluster_id != self.identity.cluster_id || header.epoch != self.identity.epoch {
            return denied("the request is of another cluster or epoch");
        }
        if !self.cluster.borrow().nodes.contains_key(&node) {
            return denied("the node is no member, or not any more");
        }
        Ok(node)
    }
}

#[tonic::async_trait]
impl<G: Group> Peer for PeerService<G> {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let node = self.caller(&request, request.get_ref().header.as_ref())?;
        if self.group.leader() != Some(self.identity.node_id) {
            return Err(status(Code::Unavailable, "this node is not the leader: ask again"));
        }
        let cluster = self.cluster.borrow().clone();
        let certificate_pem = sign(&cluster, node, &request.get_ref().csr_der)
            .map_err(|error| status(error.code(), error.to_string()))?;
        tracing::info!(%node, "a certificate was renewed");
        Ok(Response::new(RenewReply { certificate_pem }))
    }

    async fn await_installed(&self, request: Request<AwaitRequest>) -> Result<Response<AwaitReply>, Status> {
        self.caller(&request, request.get_ref().header.as_ref())?;
        let AwaitRequest { revision, timeout_ms, .. } = request.into_inner();
        let mut installed = self.installed.clone();
        let limit = Duration::from_millis(timeout_ms).min(AWAIT_MAX);
        // However it ends, the answer is what is installed then.
        let _ = timeout(limit, installed.wait_for(|installed| installed.0 >= revision)).await;
        let installed = installed.borrow().0;
        Ok(Response::new(AwaitReply { installed }))
    }
}

/// Signs anew for a member's own key.
fn sign(cluster: &Cluster, id: NodeId, csr_der: &[u8]) -> Result<String, Error> {
    let refused = |code, reason: &str| Error::Refused { code, reason: reason.to_owned() };
    let node =
        cluster.nodes.get(&id).ok_or_else(|| refused(Code::Denied, "the node is no member any more"))?;
    if identity::csr_public_key(csr_der)? != node.public_key {
        return Err(refused(Code::Denied, "the key is not the one that the node joined with"));
    }
    identity::authority(cluster)?.sign(csr_der, id, node)
}

/// At the head of a request from this node to another.
pub(crate) fn header(identity: &NodeIdentity, to: NodeId) -> Header {
    Header {
        cluster_id: identity.cluster_id.clone(),
        epoch: identity.epoch,
        from: identity.node_id.0,
        to: to.0,
        protocol: cluster_proto::PROTOCOL,
    }
}

/// Waits until another member has installed this revision, or for so long; which one it has then.
pub(crate) async fn await_installed<G: Group>(
    group: &G,
    identity: &NodeIdentity,
    node: NodeId,
    revision: Revision,
    limit: Duration,
) -> Result<Revision, Error> {
    let channel = group.channel(node).map_err(|error| of_raft(&error))?;
    let request = AwaitRequest {
        header: Some(header(identity, node)),
        revision: revision.0,
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    let late = || Error::Unreachable {
        address: format!("node {node}"),
        reason: format!("no answer within {limit:?}"),
    };
    let mut client = PeerClient::new(channel);
    let reply = timeout(limit, client.await_installed(request)).await.map_err(|_| late())?;
    reply.map(|reply| Revision(reply.into_inner().installed)).map_err(|status| of_status(&status))
}

/// Renews this node's certificate once a third of its life is left, again and again, until it is told to stop.
pub(crate) async fn keep_renewed<G: Group>(
    group: G,
    identity: NodeIdentity,
    cluster: watch::Receiver<Arc<Cluster>>,
    stop: CancellationToken,
) {
    let renewing = async {
        loop {
            // Not all nodes at once, though they may have been formed at once: up to half a day earlier.
            let jitter_ms = u64::from(u16::from_be_bytes(tokens::random())) * 659;
            let due_ms =
                identity.certificate_expires_at_ms().saturating_sub(LIFETIME_S * 1000 / 3 + jitter_ms);
            while let left @ 1.. = due_ms.saturating_sub(identity::now_ms()) {
                sleep(Duration::from_millis(left).min(LOOK_INTERVAL)).await;
            }
            let mut wait = RETRY_FIRST;
            while let Err(error) = renew(&group, &identity, &cluster).await {
                tracing::warn!(%error, ends_at_ms = identity.certificate_expires_at_ms(), "the certificate was not renewed");
                sleep(wait.mul_f64(0.5 + f64::from(tokens::random::<1>()[0]) / 256.0)).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
            tracing::info!(ends_at_ms = identity.certificate_expires_at_ms(), "the certificate was renewed");
        }
    };
    tokio::select! {
        never = renewing => never,
        () = stop.cancelled() => {}
    }
}

/// Has the leader sign anew, stores the certificate and uses it from then on.
pub(crate) async fn renew<G: Group>(
    group: &G,
    identity: &NodeIdentity,
    cluster: &watch::Receiver<Arc<Cluster>>,
) -> Result<(), Error> {
    let csr_der = identity.csr()?;
    let no_leader =
        || Error::Refused { code: Code::Unavailable, reason: "there is no leader now".to_owned() };
    let leader = group.leader().ok_or_else(no_leader)?;
    let certificate = if leader == identity.node_id {
        let cluster = cluster.borrow().clone();
        sign(&cluster, leader, &csr_der)?
    } else {
        let channel = group.channel(leader).map_err(|error| of_raft(&error))?;
        let request = RenewRequest { header: Some(header(identity, leader)), csr_der: csr_der.into() };
        let late =
            || Error::Unreachable { address: format!("node {leader}"), reason: "no answer".to_owned() };
        let mut client = PeerClient::new(channel);
        let reply = timeout(RENEW_TIMEOUT, client.renew(request)).await.map_err(|_| late())?;
        reply.map_err(|status| of_status(&status))?.into_inner().certificate_pem
    };
    identity.renew(&certificate)
}

fn of_raft(error: &raft::Error) -> Error {
    Error::Refused { code: error.code(), reason: error.to_string() }
}

fn of_status(status: &Status) -> Error {
    Error::Refused { code: code_of(status), reason: status.message().to_owned() }
}
