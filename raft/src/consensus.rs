//! Consensus as the rest of the node sees it: its start, what it is made of, its end.

mod call;
mod edit;
mod leader;
mod settings;
mod status;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use model::{
    Config, NodeId, Usage,
    cluster::{Cluster, ClusterChange, ClusterOutcome},
};
use openraft::{Raft, async_runtime::WatchReceiver};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::call::{USAGE_ITEMS_MAX, now_ms, random, usage_request};
pub use self::{
    edit::{Admission, Edit, Expect},
    settings::Settings,
    status::{Role, Status},
};
use crate::{
    Channel, Error, Identity, PeerNode, PeerTls, Storage,
    dial::{Dial, TlsDial},
    membership,
    network::Network,
    peers::Peers,
    proposer::Proposer,
    serve,
    service::Service,
    snapshot::Snapshots,
    state_machine::StateMachine,
    types::Types,
};

struct Inner {
    raft: Raft<Types, StateMachine>,
    peers: Peers,
    state_machine: StateMachine,
    snapshots: Snapshots,
    proposer: Proposer,
    settings: Settings,
    started: Instant,
    /// Milliseconds after `started` at which a leader was last heard, plus one; 0 is never.
    leader_heard_ms: AtomicU64,
    fatal: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// This node's part in the group. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

impl Consensus {
    /// Starts this node's part in the group. It takes part once [`Consensus::serve`] runs too.
    pub async fn start(
        storage: Storage,
        identity: Identity,
        tls: &PeerTls,
        admission: Arc<dyn Admission>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let dial = Arc::new(TlsDial::new(&identity.cluster_id, &tls.client));
        Self::start_over(storage, identity, dial, admission, settings).await
    }

    /// [`Consensus::start`] over another network than TLS.
    pub(crate) async fn start_over(
        storage: Storage,
        identity: Identity,
        dial: Arc<dyn Dial>,
        admission: Arc<dyn Admission>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let identity = Arc::new(identity);
        let config = Arc::new(settings.openraft(&identity.cluster_id)?);
        let peers = Peers::new(identity.clone(), dial);
        let network = Network { peers: peers.clone() };
        let state_machine = storage.state_machine.clone();
        let raft = Raft::new(identity.node_id.0, config, network, storage.log, storage.state_machine)
            .await
            .map_err(|error| Error::Fatal(error.to_string()))?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (proposer, proposing) = Proposer::new(
            raft.clone(),
            state_machine.clone(),
            admission,
            settings.election_max,
            stop.clone(),
        );
        tasks.spawn(proposing);
        let (died, fatal) = watch::channel(None);
        tasks.spawn(watch_fatal(raft.clone(), died, stop.clone()));
        let inner = Inner {
            raft,
            peers,
            state_machine,
            snapshots: storage.snapshots,
            proposer,
            settings,
            started: Instant::now(),
            leader_heard_ms: AtomicU64::new(0),
            fatal,
            stop: stop.clone(),
            tasks: tokio::sync::Mutex::new(tasks),
        };
        let consensus = Self { inner: Arc::new(inner) };
        consensus.inner.tasks.lock().await.spawn(membership::reconcile(consensus.clone(), stop));
        Ok(consensus)
    }

    /// Serves the other members on this listener until told to stop, `extra` beside consensus itself.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: &PeerTls,
        extra: tonic::service::Routes,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let routes = self.routes(extra);
        serve::serve(listener, tls, self.identity().cluster_id.clone(), routes, shutdown).await
    }

    /// `extra` and what the other members ask of this one.
    pub(crate) fn routes(&self, extra: tonic::service::Routes) -> tonic::service::Routes {
        let service = Service { consensus: self.clone() };
        extra
            .add_service(
                cluster_proto::raft::raft_server::RaftServer::new(service.clone())
                    .max_decoding_message_size(cluster_proto::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(cluster_proto::MESSAGE_BYTES_MAX),
            )
            .add_service(
                cluster_proto::forward::forward_server::ForwardServer::new(service)
                    .max_decoding_message_size(cluster_proto::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(cluster_proto::MESSAGE_BYTES_MAX),
            )
    }

    /// Makes a group of this node alone, reached at `address`, and proposes what the cluster is. Done again, it goes on
    /// where it stopped.
    pub async fn form(&self, address: &str, change: ClusterChange) -> Result<(), Error> {
        let fatal = |error: &dyn std::fmt::Display| Error::Fatal(error.to_string());
        if !self.inner.raft.is_initialized().await.map_err(|error| fatal(&error))? {
            let me = (self.identity().node_id.0, PeerNode { address: address.to_owned() });
            let members = std::collections::BTreeMap::from([me]);
            self.inner.raft.initialize(members).await.map_err(|error| fatal(&error))?;
        }
        match self.cluster_change(change, "init", None, Duration::from_secs(30)).await? {
            ClusterOutcome::Done | ClusterOutcome::Admitted(_) => Ok(()),
            ClusterOutcome::Refused { .. } if self.is_formed() => Ok(()),
            ClusterOutcome::Refused { code, reason } => Err(Error::Refused { code, reason }),
        }
    }

    fn is_formed(&self) -> bool {
        let cluster = self.inner.state_machine.cluster();
        let cluster = cluster.borrow();
        cluster.founding.as_ref().is_some_and(|founding| founding.cluster_id == self.identity().cluster_id)
    }

    /// The channel to a member, mutually authenticated; it connects with the first call.
    pub fn channel(&self, node: NodeId) -> Result<Channel, Error> {
        let cluster = self.inner.state_machine.cluster();
        let address = cluster.borrow().nodes.get(&node).map(|node| node.address.clone());
        let address = address.or_else(|| {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().get_node(&node.0).map(|node| node.address.clone())
        });
        let address = address.ok_or_else(|| Error::Refused {
            code: model::Code::NotFound,
            reason: format!("node {node} is not a member of the cluster"),
        })?;
        self.inner.peers.channel(node, &address)
    }

    /// What goes at the head of a request to this member.
    pub fn header(&self, to: NodeId) -> cluster_proto::common::Header {
        self.inner.peers.header(to)
    }

    /// Refuses a call that is not from a member to this node of this cluster. Gives the member.
    pub fn check_peer(
        &self,
        peer: Option<&crate::PeerId>,
        header: Option<cluster_proto::common::Header>,
    ) -> Result<NodeId, tonic::Status> {
        crate::service::check(self, peer, header)
    }

    /// Why consensus has stopped, once it has: then the process must end.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.clone()
    }

    /// The config as it is applied here.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.state_machine.config()
    }

    /// What the members agree on besides.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.inner.state_machine.cluster()
    }

    /// What was used of quotas, as that is applied here.
    pub fn usage(&self) -> watch::Receiver<Usage> {
        self.inner.state_machine.usage()
    }

    /// Hands over the leadership where this node has it, and stops. What was acknowledged is on the disk already.
    pub async fn shutdown(self) -> Result<(), Error> {
        let status = self.status();
        if status.role == Role::Leader && status.voters.len() > 1 {
            // Without it the others would find out by an election.
            if let Err(why) = membership::transfer(&self, None, Duration::from_secs(2)).await {
                tracing::warn!(%why, "leadership was not handed over");
            }
        }
        self.inner.stop.cancel();
        self.inner.raft.shutdown().await.map_err(|error| Error::Fatal(error.to_string()))?;
        let mut tasks = self.inner.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    /// Ends as a crash does: nothing is handed over, and no error matters.
    #[cfg(test)]
    pub(crate) async fn abandon(self) {
        self.inner.stop.cancel();
        let _ = self.inner.raft.shutdown().await;
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.inner.peers.identity()
    }

    pub(crate) fn raft(&self) -> &Raft<Types, StateMachine> {
        &self.inner.raft
    }

    pub(crate) fn proposer(&self) -> &Proposer {
        &self.inner.proposer
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn state(&self) -> crate::state::State {
        self.inner.state_machine.state()
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }
}

async fn watch_fatal(
    raft: Raft<Types, StateMachine>,
    died: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut metrics = raft.metrics();
    loop {
        if let Err(error) = &metrics.borrow_watched().running_state {
            if !stop.is_cancelled() {
                died.send_replace(Some(error.to_string()));
            }
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = WatchReceiver::changed(&mut metrics) => if changed.is_err() {
                died.send_replace(Some("it ended without a word, most likely in a panic".to_owned()));
                return;
            },
        }
    }
}
