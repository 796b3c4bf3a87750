//! Gossip: which members are alive, and a few slow facts about each, by chitchat over sealed datagrams.
//!
//! Nobody but the task in here touches chitchat, which has one lock for everything: [`Gossip::peers`] reads a copy, and
//! [`Gossip::announce`] leaves word.

mod directory;
mod reader;
mod seal;
mod transport;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};
use model::{NodeId, Revision, cluster::Cluster, usage::Start};
use prometheus::Registry;
use tokio::{
    net::UdpSocket,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use self::{
    directory::Directory,
    reader::Reader,
    seal::Boot,
    transport::{Heard, Members, Metrics, Sealed, made_up},
};
use crate::{counters::Counters, findings::Findings, identity};

/// Between rounds; in each, a node gossips with three others.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between copies of what chitchat knows.
const COPY_INTERVAL: Duration = Duration::from_millis(200);
/// Unheard of for this long, a suspect is down.
const DOWN_AFTER: Duration = Duration::from_secs(10);
/// Unheard of for this long, a former boot of a node is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The longest fact that is believed, in bytes.
const FACT_BYTES_MAX: usize = 256;

/// What a node says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// `starting`, `ready` or `draining`.
    pub(crate) phase: String,
    /// Its version.
    pub(crate) version: String,
    /// The revision that its state machine has applied.
    pub(crate) applied: Revision,
    /// The revision that its data plane has installed.
    pub(crate) installed: Revision,
    /// The leader it sees.
    pub(crate) leader: Option<NodeId>,
    /// Milliseconds since the Unix epoch at which its certificate ends.
    pub(crate) certificate_expires_at_ms: u64,
    /// `host:port` at which peers reach it.
    pub(crate) advertise: String,
    /// `host:port` of its admin API.
    pub(crate) admin: String,
}

/// Whether a member is alive, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is heard as often as it should be.
    Healthy,
    /// Not for a little while.
    Suspect,
    /// Not for 10 seconds, or never.
    Down,
}

impl Health {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// One other member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    /// Which.
    pub(crate) node_id: NodeId,
    /// Whether it is alive.
    pub(crate) health: Health,
    /// When it was last heard, itself or through others; none if never.
    pub(crate) last_contact: Option<Instant>,
    /// What it said last; none if it never said anything.
    pub(crate) facts: Option<Facts>,
}

/// This node's gossip.
pub(crate) struct Gossip {
    announced: watch::Sender<Facts>,
    peers: Arc<ArcSwap<Vec<PeerFacts>>>,
    metrics: Metrics,
    closed: watch::Receiver<Option<String>>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Starts gossiping on this UDP socket with the members of the cluster, whoever they are at the time, sealed with
    /// the cluster's keys; silent while there are none. `data` is where the time of the last start is kept; `rates` and `findings` are told
    /// and heard on the same socket.
    #[expect(clippy::too_many_arguments, reason = "the parts that a node is made of")]
    pub(crate) async fn start(
        node_id: NodeId,
        cluster_id: &str,
        data: &Path,
        socket: UdpSocket,
        cluster: watch::Receiver<Arc<Cluster>>,
        facts: Facts,
        (rates, findings): (Counters, Findings),
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let boot = Boot::new(started_ms(data)?);
        let metrics = Metrics::new(registry).context("gossip metrics")?;
        let address = socket.local_addr().context("the gossip socket")?;
        let heard = Heard::default();
        let mut directory = Directory::new(node_id, cluster_id, address, cluster);
        let socket = Arc::new(socket);
        let (who, members) = ((node_id, boot), directory.members.clone());
        rates.view().set_start(Start { node: node_id, at_ms: boot.started_ms });
        let (reader, messages) =
            Reader::new(socket.clone(), who, members, metrics.clone(), heard.clone(), (rates, findings));
        let transport = Sealed {
            socket,
            node: node_id,
            boot,
            members: directory.members.clone(),
            metrics: metrics.clone(),
            heard: heard.clone(),
            messages: Mutex::new(Some(messages)),
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(node_id.to_string(), boot.started_ms, made_up(node_id)),
            cluster_id: cluster_id.to_owned(),
            gossip_interval: INTERVAL,
            listen_addr: address,
            seed_nodes: Vec::new(), // the task below introduces the members to each other, as they come and go
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: 8.0,
                sampling_window_size: 200,
                max_interval: Duration::from_secs(2),
                initial_interval: Duration::from_millis(200),
                dead_node_grace_period: FORGET_AFTER,
            },
            marked_for_deletion_grace_period: FORGET_AFTER,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let handle = spawn_chitchat(config, write(&facts), &transport).await?;
        let reading = tokio::spawn(reader.run());
        let peers = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let (announced, announcements) = watch::channel(facts);
        let (closing, closed) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let mut task =
            Task { node_id, handle, announcements, peers: peers.clone(), heard, beats: HashMap::new() };
        let task = tokio::spawn(async move {
            let ended = task.handle.termination_watcher();
            tokio::select! {
                () = task.run(&mut directory) => {}
                _ = stopped => {
                    if let Err(error) = task.handle.shutdown().await {
                        tracing::warn!(%error, "gossip did not end cleanly");
                    }
                }
                why = ended => {
                    let why = why.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
                    tracing::error!(%why, "gossip has failed");
                    closing.send_replace(Some(why));
                }
            }
            // It ends by itself where chitchat has ended.
            reading.abort();
        });
        Ok(Self { announced, peers, metrics, closed, address, stop, task })
    }

    /// Says this about the node from now on; others hear it within a few hundred milliseconds.
    pub(crate) fn announce(&self, facts: Facts) {
        self.announced.send_if_modified(|before| {
            let changed = *before != facts;
            *before = facts;
            changed
        });
    }

    /// Every other member, in the order of their ids; up to 200 ms old.
    pub(crate) fn peers(&self) -> Arc<Vec<PeerFacts>> {
        self.peers.load_full()
    }

    /// How many datagrams were dropped, by reason.
    pub(crate) fn dropped(&self) -> Vec<(&'static str, u64)> {
        self.metrics.dropped()
    }

    /// Where its socket is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Becomes why gossip has failed, if it does: its socket is broken.
    pub(crate) fn failed(&self) -> watch::Receiver<Option<String>> {
        self.closed.clone()
    }

    /// Stops gossiping.
    pub(crate) async fn leave(self) {
        // An error means that the task has ended by itself, which it has told.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// Later than this node's last start, whatever its clock says: peers refuse what comes from an earlier one.
fn started_ms(data: &Path) -> anyhow::Result<u64> {
    let file = data.join("boot.json");
    // It is no more than a number that must grow: a corrupt one is as good as none.
    let last = identity::read_file::<u64>(&file).ok().flatten().unwrap_or(0);
    let started = identity::now_ms().max(last.saturating_add(1));
    identity::write_file(&file, &started)?;
    Ok(started)
}

struct Task {
    node_id: NodeId,
    handle: ChitchatHandle,
    announcements: watch::Receiver<Facts>,
    peers: Arc<ArcSwap<Vec<PeerFacts>>>,
    heard: Heard,
    /// The newest heartbeat of each boot, and when it was seen.
    beats: HashMap<ChitchatId, (u64, Instant)>,
}

impl Task {
    async fn run(&mut self, directory: &mut Directory) {
        let mut copy = tokio::time::interval(COPY_INTERVAL);
        copy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let members = directory.members.clone();
        let looking_up = directory.keep();
        tokio::pin!(looking_up);
        loop {
            tokio::select! {
                never = &mut looking_up => never,
                _ = copy.tick() => {
                    let peers = self.copy(&members.load()).await;
                    self.introduce(&peers);
                    self.peers.store(Arc::new(peers));
                }
                Ok(()) = self.announcements.changed() => {
                    let facts = write(&self.announcements.borrow_and_update());
                    let chitchat = self.handle.chitchat();
                    let mut chitchat = chitchat.lock().await;
                    for (key, value) in facts {
                        chitchat.self_node_state().set(key, value);
                    }
                }
            }
        }
    }

    /// Speaks to those members that chitchat does not hear: it knows of none before it has heard them.
    fn introduce(&self, peers: &[PeerFacts]) {
        for peer in peers.iter().filter(|peer| peer.health != Health::Healthy) {
            // An error means that chitchat has ended, which its watcher tells.
            let _ = self.handle.gossip(made_up(peer.node_id));
        }
    }

    async fn copy(&mut self, members: &Members) -> Vec<PeerFacts> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let now = Instant::now();
        let states = chitchat.node_states();
        self.beats.retain(|id, _| states.contains_key(id));
        let mut newest = BTreeMap::<NodeId, (&ChitchatId, &NodeState)>::new();
        for (id, state) in states {
            let beat = u64::from(state.heartbeat());
            let seen = self.beats.entry(id.clone()).or_insert((beat, now));
            if beat > seen.0 {
                *seen = (beat, now);
            }
            let Ok(node) = id.node_id.parse().map(NodeId) else { continue };
            // States are in the order of their ids and then boots, so the last one is the newest boot.
            newest.insert(node, (id, state));
        }
        let live: Vec<&ChitchatId> = chitchat.live_nodes().collect();
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let others = members.addresses.keys().filter(|node| **node != self.node_id);
        let peer = |node: &NodeId| {
            let state = newest.get(node);
            let beat = state.and_then(|(id, _)| self.beats.get(*id)).map(|(_, at)| *at);
            // A heartbeat that was never seen to grow may be hearsay from long ago.
            let alive = state.is_some_and(|(id, _)| live.contains(id));
            let last_contact = heard.get(node).map(|contact| contact.at).max(beat.filter(|_| alive));
            let recent = last_contact.is_some_and(|at| now.duration_since(at) < DOWN_AFTER);
            let health = match (alive, recent) {
                (true, true) => Health::Healthy,
                (false, true) => Health::Suspect,
                (_, false) => Health::Down,
            };
            PeerFacts {
                node_id: *node,
                health,
                last_contact,
                facts: state.and_then(|(_, state)| read(state)),
            }
        };
        others.map(peer).collect()
    }
}

fn write(facts: &Facts) -> Vec<(String, String)> {
    let text = [
        ("phase", facts.phase.clone()),
        ("version", facts.version.clone()),
        ("applied", facts.applied.to_string()),
        ("installed", facts.installed.to_string()),
        ("leader", facts.leader.map(|leader| leader.to_string()).unwrap_or_default()),
        ("certificate_expires_at_ms", facts.certificate_expires_at_ms.to_string()),
        ("advertise", facts.advertise.clone()),
        ("admin", facts.admin.clone()),
    ];
    text.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

fn read(state: &NodeState) -> Option<Facts> {
    let text =
        |key: &str| state.get(key).filter(|text| text.len() <= FACT_BYTES_MAX).unwrap_or_default().to_owned();
    let number = |key: &str| text(key).parse::<u64>().unwrap_or(0);
    state.get("phase")?;
    Some(Facts {
        phase: text("phase"),
        version: text("version"),
        applied: Revision(number("applied")),
        installed: Revision(number("installed")),
        leader: text("leader").parse().ok().map(NodeId),
        certificate_expires_at_ms: number("certificate_expires_at_ms"),
        advertise: text("advertise"),
        admin: text("admin"),
    })
}

#[cfg(test)]
mod tests;
