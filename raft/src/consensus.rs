//! Consensus as the rest of the node sees it: change, read, watch.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    Change, Config, Kind, Name, NodeId, Op, Outcome, Revision, Violation,
    cluster::{Cluster, ClusterChange, ClusterOutcome},
};
use openraft::{Instant as _, Raft, async_runtime::WatchReceiver, raft::ReadPolicy};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Channel, Command, Error, Identity, PeerNode, PeerTls, Request, Response, Storage,
    dial::{Dial, TlsDial},
    forward::{self, Forwarded},
    membership,
    network::Network,
    outcomes::key_reused,
    peers::Peers,
    proposer::Proposer,
    serve,
    service::Service,
    state_machine::StateMachine,
    types::Types,
};

/// How long a call waits for a leader before it says that there is none; an election takes less.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries to find a leader that can commit.
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// The longest that one try of a forwarded call takes.
const TRY_MAX: Duration = Duration::from_secs(10);

/// How the group keeps time.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between the leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest silence of the leader after which another stands for election.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// For a whole snapshot to be sent and installed.
    pub snapshot_timeout: Duration,
    /// Entries after which the log is cut behind a new snapshot.
    pub snapshot_after_entries: u64,
    /// Entries that the cut log keeps, for those who are a little behind.
    pub log_kept_entries: u64,
    /// How long a learner must have been up to date before it votes.
    pub promote_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_after_entries: 10_000,
            log_kept_entries: 1_000,
            promote_after: Duration::from_secs(10),
        }
    }
}

impl Settings {
    fn openraft(&self, cluster_id: &str) -> Result<openraft::Config, Error> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(self.snapshot_timeout),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            max_in_snapshot_log_to_keep: self.log_kept_entries,
            enable_pre_vote: Some(true),
            // An entry goes to the others before it is on the leader's own disk. A leader that lost it in a crash and led on
            // in the same term would put another in its place, under the same log id (docs/adr/0009).
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|error| Error::Fatal(format!("the group's timing is impossible: {error}")))
    }
}

/// What the rest of the node knows to be wrong with a change, asked on the leader before it is proposed.
pub trait Admission: Send + Sync + 'static {
    /// Every violation that `change` would bring into `config`.
    fn check(&self, config: &Config, change: &Change) -> Vec<Violation>;
}

/// A change as a client asks for it.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// What to do, all of it or nothing.
    pub ops: Vec<Op>,
    /// What must be so.
    pub expect: Vec<Expect>,
    /// The config's revision must be this one.
    pub base: Option<Revision>,
    /// Who asks, for the audit log.
    pub author: String,
    /// A second edit with the same key gets the outcome of the first; one of other operations is refused.
    pub idempotency_key: Option<String>,
}

/// What an object must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The revision that last changed it; none: there must be no such object.
    pub changed: Option<Revision>,
}

/// What this node does in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It follows the log without a vote.
    Learner,
}

/// The group as this node sees it.
#[derive(Debug, Clone)]
pub struct Status {
    /// What this node does in it.
    pub role: Role,
    /// Whom it follows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// The log's last entry.
    pub last_log_index: Option<u64>,
    /// The last entry that is applied here.
    pub applied_index: Option<u64>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
    /// On the leader: a majority has answered lately. Elsewhere: the leader was heard lately.
    pub quorum: bool,
    /// How long ago this node heard of a leader; none if never, zero on the leader itself.
    pub leader_contact: Option<Duration>,
}

struct Inner {
    raft: Raft<Types, StateMachine>,
    peers: Peers,
    state_machine: StateMachine,
    snapshots: std::path::PathBuf,
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
                            forward::change(&self.channel(leader)?, self.header(leader), edit, left).await
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
            command: Command::Cluster(change),
        };
        let response = self
            .at_leader(timeout, |leader, left| {
                let request = request.clone();
                async move {
                    match leader {
                        None => self.inner.proposer.request(request, left).await,
                        Some(leader) => {
                            forward::cluster_change(
                                &self.channel(leader)?,
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

    /// Returns once everything that was committed before the call is applied here (ReadIndex: Ongaro, "Consensus", 6.4).
    pub async fn read_barrier(&self, timeout: Duration) -> Result<(), Error> {
        let until = Instant::now() + timeout;
        let index = self
            .at_leader(timeout, |leader, left| async move {
                match leader {
                    None => self.read_index(left).await,
                    Some(leader) => {
                        forward::read_index(&self.channel(leader)?, self.header(leader), left).await
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
                    forward::transfer(&self.channel(leader)?, self.header(leader), to, left).await
                }
            }
        })
        .await
    }

    /// The group as this node sees it.
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = self.identity().node_id;
        let membership = metrics.membership_config.membership();
        let mut voters: Vec<_> = membership.voter_ids().map(NodeId).collect();
        voters.sort_unstable();
        voters.dedup();
        let leads = metrics.current_leader == Some(me.0);
        let heard = self.leader_silent_for();
        let acked = metrics.last_quorum_acked.map(|at| at.elapsed());
        let (leader_contact, contact) = if leads { (Some(Duration::ZERO), acked) } else { (heard, heard) };
        Status {
            role: match (leads, voters.contains(&me)) {
                (true, _) => Role::Leader,
                (false, true) => Role::Voter,
                (false, false) => Role::Learner,
            },
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.as_ref().map(|id| id.index),
            learners: membership.learner_ids().map(NodeId).collect(),
            quorum: metrics.current_leader.is_some()
                && (voters == [me] || contact.is_some_and(|ago| ago <= self.inner.settings.election_max)),
            voters,
            leader_contact,
        }
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

    pub(crate) fn snapshots(&self) -> &Path {
        &self.inner.snapshots
    }

    pub(crate) fn heard_from_leader(&self, _: NodeId) {
        let ms = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.inner.leader_heard_ms.store(ms + 1, Ordering::Relaxed);
    }

    /// How long ago a leader was last heard; none if never.
    fn leader_silent_for(&self) -> Option<Duration> {
        let at = self.inner.leader_heard_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.inner.started.elapsed().saturating_sub(Duration::from_millis(at)))
    }

    /// Whether this node itself was removed from its cluster, as far as it has heard.
    pub fn was_removed_itself(&self) -> bool {
        self.was_removed(self.identity().node_id)
    }

    /// Whether the Raft group, as this node knows it, has this node in it, with a vote or without.
    pub(crate) fn is_in_group(&self, node: NodeId) -> bool {
        let metrics = self.inner.raft.metrics();
        metrics.borrow_watched().membership_config.membership().get_node(&node.0).is_some()
    }

    /// Whether this node was a member and is none any more. An id is the log index that admitted it, so one above
    /// what is applied here may be a member that this node has not heard of yet.
    pub(crate) fn was_removed(&self, node: NodeId) -> bool {
        let cluster = self.inner.state_machine.cluster();
        let cluster = cluster.borrow();
        let applied = *self.inner.state_machine.applied().borrow();
        cluster.founding.is_some() && !cluster.nodes.contains_key(&node) && Some(node.0) <= applied
    }

    /// Calls `call` with the leader (none: this node) until it answers for good, or until the time is up.
    ///
    /// A leader that was just elected can't commit yet, so "no leader" and "not yet" are both waited out; but once a
    /// try got lost, no later one may say that nothing was changed.
    async fn at_leader<T, F>(
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

pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn ended_error() -> Error {
    Error::Fatal("consensus has ended".into())
}

fn random_key() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Unique, not secret: two SipHash outputs under keys that the system drew.
    let word = || RandomState::new().build_hasher().finish();
    format!("auto-{:016x}{:016x}", word(), word())
}
