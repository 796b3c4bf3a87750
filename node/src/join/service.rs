//! Joining a cluster: the side of the members.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cluster_proto::{
    PROTOCOL, PROTOCOL_MIN,
    peer::{
        JoinReply, JoinRequest,
        join_client::JoinClient,
        join_server::{Join, JoinServer},
    },
};
use model::{
    Code,
    cluster::{Cluster, ClusterChange, ClusterOutcome, Node},
};
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{Request, Response, Status};

use super::{ANY_NAME, Group, status};
use crate::{
    identity::{self, NodeIdentity},
    tokens,
};

/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The longest name, address or version, in bytes.
const TEXT_BYTES_MAX: usize = 300;
/// Joins at a time; more wait.
const JOINS_MAX: usize = 8;
/// Requests in each [`RATE_WINDOW`]: anyone may ask, and each costs a signature check.
const RATE_MAX: u32 = 200;
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// For the whole of a dial back.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(3);
/// On a request that a member has passed on to whom it took for the leader.
const FORWARDED: &str = "phalanx-forwarded";

/// The join service of a member. Its callers have no certificate; the token is all they show.
pub(crate) struct JoinService<G> {
    group: G,
    identity: NodeIdentity,
    cluster: watch::Receiver<Arc<Cluster>>,
    slots: Semaphore,
    rate: Mutex<(Instant, u32)>,
}

impl<G: Group> JoinService<G> {
    /// Of this member.
    pub(crate) fn new(group: G, identity: NodeIdentity, cluster: watch::Receiver<Arc<Cluster>>) -> Self {
        let rate = Mutex::new((Instant::now(), 0));
        Self { group, identity, cluster, slots: Semaphore::new(JOINS_MAX), rate }
    }

    /// To be mounted on the peer port.
    pub(crate) fn server(self) -> JoinServer<Self> {
        JoinServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    fn within_rate(&self) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.0.elapsed() >= RATE_WINDOW {
            *rate = (Instant::now(), 0);
        }
        rate.1 += 1;
        rate.1 <= RATE_MAX
    }

    async fn forward(&self, request: JoinRequest, forwarded: bool) -> Result<JoinReply, Status> {
        let nobody = || status(Code::Unavailable, "the cluster has no leader now: try again");
        let leader = self.group.leader().filter(|_| !forwarded).ok_or_else(nobody)?;
        let channel = self.group.channel(leader).map_err(|error| refusal(&error))?;
        let mut request = Request::new(request);
        request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        Ok(JoinClient::new(channel).join(request).await?.into_inner())
    }

    async fn admit(&self, request: JoinRequest, public_key: String) -> Result<JoinReply, Status> {
        let cluster = self.cluster.borrow().clone();
        let digest = tokens::sha256_hex(request.token_secret.as_bytes());
        check_token(&cluster, &request.token_id, &digest, &public_key)?;
        check_free(&cluster, &request.advertise, &public_key)?;
        let authority =
            identity::authority(&cluster).map_err(|error| status(error.code(), error.to_string()))?;
        dial_back(&request.advertise, &public_key).await.map_err(|reason| {
            let reason = format!(
                "address {} can't be dialled back: {reason}; check --advertise, and the ways between the nodes",
                request.advertise
            );
            status(Code::Invalid, reason)
        })?;
        let node = Node {
            name: request.name,
            address: request.advertise,
            admin: request.admin,
            public_key,
            version: request.version,
            joined_at_ms: 0, // set as it is applied
        };
        // Signed on trial first: a name that no certificate can hold must not be found out after the admission.
        let sign = |id| {
            let signed = authority.sign(&request.csr_der, id, &node);
            signed.map_err(|error| status(Code::Invalid, format!("no certificate can be made: {error}")))
        };
        sign(self.identity.node_id)?;
        let change =
            ClusterChange::Admit { token_id: request.token_id, token_digest: digest, node: node.clone() };
        let outcome = self.group.propose(change, "join").await.map_err(|error| refusal(&error))?;
        let id = match outcome {
            ClusterOutcome::Admitted(id) => id,
            ClusterOutcome::Refused { code, reason } => return Err(status(code, reason)),
            ClusterOutcome::Done => {
                return Err(status(Code::Unavailable, "the admission came to nothing: try again"));
            }
        };
        tracing::info!(node = %id, name = node.name, address = node.address, "a node was admitted");
        Ok(JoinReply {
            node_id: id.0,
            cluster_id: self.identity.cluster_id.clone(),
            epoch: self.identity.epoch,
            certificate_pem: sign(id)?,
            ca_pem: authority.certificate_pem.clone(),
            addresses: cluster.nodes.values().map(|node| node.address.clone()).collect(),
        })
    }
}

#[tonic::async_trait]
impl<G: Group> Join for JoinService<G> {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        if !self.within_rate() {
            return Err(status(Code::Exhausted, "too many nodes ask to join: try again in some seconds"));
        }
        let _slot = self.slots.acquire().await.map_err(|_| status(Code::Unavailable, "shutting down"))?;
        let forwarded = request.metadata().contains_key(FORWARDED);
        let request = request.into_inner();
        check_form(&request)?;
        let public_key = identity::csr_public_key(&request.csr_der)
            .map_err(|error| status(Code::Invalid, format!("the signing request is no good: {error}")))?;
        let reply = if self.group.leader() == Some(self.identity.node_id) {
            self.admit(request, public_key).await?
        } else {
            self.forward(request, forwarded).await?
        };
        Ok(Response::new(reply))
    }
}

/// That a request is of a version that this one understands, and in bounds.
fn check_form(request: &JoinRequest) -> Result<(), Status> {
    if request.protocol_min > PROTOCOL || request.protocol_max < PROTOCOL_MIN {
        let reason = format!(
            "version {} speaks protocols {} to {}, and this cluster {PROTOCOL_MIN} to {PROTOCOL}: \
             install a version that is nearer to {}",
            request.version.chars().take(40).collect::<String>(),
            request.protocol_min,
            request.protocol_max,
            env!("CARGO_PKG_VERSION"),
        );
        return Err(status(Code::Invalid, reason));
    }
    let texts = [&request.name, &request.advertise, &request.admin, &request.version, &request.token_id];
    if texts.iter().any(|text| text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control)) {
        return Err(status(
            Code::Invalid,
            "a name, address or version is longer than 300 bytes or not plain text",
        ));
    }
    for (what, address) in
        [("the advertised address", &request.advertise), ("the admin address", &request.admin)]
    {
        identity::check_address(what, address).map_err(|error| status(error.code(), error.to_string()))?;
    }
    Ok(())
}

/// That the token would admit this key now, before anything is done for a stranger; applying it decides.
fn check_token(cluster: &Cluster, id: &str, digest: &str, public_key: &str) -> Result<(), Status> {
    let refused = |reason: &str| Err(status(Code::Unauthenticated, reason));
    let Some(token) = cluster.join_tokens.get(id).filter(|token| tokens::same(&token.digest, digest)) else {
        return refused("the join token is unknown, or was deleted or used up long ago: make another");
    };
    if cluster.nodes.values().any(|node| node.public_key == public_key) {
        return Ok(());
    }
    if token.expires_at_ms <= identity::now_ms() {
        return refused("the join token has expired: make another");
    }
    if token.uses_left == 0 {
        return refused("the join token is used up: make another");
    }
    Ok(())
}

/// That no other member has this address.
fn check_free(cluster: &Cluster, address: &str, public_key: &str) -> Result<(), Status> {
    let holder =
        cluster.nodes.iter().find(|(_, node)| node.address == address && node.public_key != public_key);
    holder.map_or(Ok(()), |(id, _)| {
        let reason = format!("node {id} has the address {address} already: remove it first");
        Err(status(Code::Conflict, reason))
    })
}

/// That whoever answers at this address holds the private key to this public one.
async fn dial_back(address: &str, public_key: &str) -> Result<(), String> {
    let expected = public_key.to_owned();
    let check = move |leaf: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime| {
        match identity::leaf_public_key(leaf) {
            Ok(found) if found == expected => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    };
    let config = identity::client_checked_by(check).map_err(|error| error.to_string())?;
    let dialling = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(ANY_NAME).expect("it is a DNS name");
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    "another node or program answers there".to_owned()
                }
                _ => error.to_string(),
            }
        })
    };
    let dialled = timeout(DIAL_BACK_TIMEOUT, dialling).await;
    dialled.unwrap_or_else(|_| Err("no answer within 3 s".to_owned())).map(drop)
}

fn refusal(error: &raft::Error) -> Status {
    status(error.code(), error.to_string())
}
