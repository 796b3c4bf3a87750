//! Nodes of one simulated cluster: their disks outlive their processes.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{
    Change, Config, NodeId, Violation,
    cluster::{
        AdminToken, ClusterChange, ClusterOutcome, Founding, GossipKey, JoinToken, Node, Role, Secret,
    },
};
use tokio::time::Instant;

use super::{
    disk::{Disk, SimStore},
    net::{Net, SimDial},
    runtime::ms,
};
use crate::{
    Admission, Consensus, Error, Identity, Settings, Storage, files::SystemFiles, snapshot::Snapshots,
    store::high_water::HighWater,
};

const CLUSTER: &str = "simulated";
/// For a change to the cluster itself.
const PATIENCE: Duration = Duration::from_secs(30);

struct Anything;

impl Admission for Anything {
    fn check(&self, _: &Config, _: &Change) -> Vec<Violation> {
        Vec::new()
    }
}

/// A node from its start to its crash.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) consensus: Consensus,
    pub(crate) alive: Arc<AtomicBool>,
}

/// A member of the cluster, or one that was.
pub(crate) struct Member {
    pub(crate) disk: Arc<Disk>,
    address: String,
    pub(crate) process: Option<Process>,
    pub(crate) removed: bool,
}

/// The nodes and what is between them.
pub(crate) struct Group {
    pub(crate) net: Arc<Net>,
    pub(crate) members: RefCell<BTreeMap<NodeId, Member>>,
    settings: Settings,
    dir: tempfile::TempDir,
    addresses: Cell<u64>,
    began: Instant,
    trace: RefCell<Vec<String>>,
    violations: RefCell<BTreeSet<String>>,
}

fn node(address: &str) -> Node {
    Node {
        name: address.to_owned(),
        address: address.to_owned(),
        admin: String::new(),
        public_key: address.to_owned(),
        version: "0".into(),
        joined_at_ms: 0,
    }
}

impl Group {
    /// No nodes yet.
    pub(crate) fn new(settings: Settings) -> Self {
        // In memory where the machine has such a folder: what is simulated is not the machine's disk.
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.exists() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self {
            net: Arc::default(),
            members: RefCell::default(),
            settings,
            dir: dir.expect("a temporary folder"),
            addresses: Cell::new(0),
            began: Instant::now(),
            trace: RefCell::default(),
            violations: RefCell::default(),
        }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes what happens.
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.trace.borrow_mut().push(format!("{:>7} {}", self.now(), what.into()));
    }

    /// Notes a promise that was broken.
    pub(crate) fn violate(&self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violations.borrow_mut().insert(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.borrow().iter().cloned().collect()
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.borrow().clone()
    }

    /// Those that run.
    pub(crate) fn running(&self) -> Vec<(NodeId, Process)> {
        let members = self.members.borrow();
        let running = members.iter().filter_map(|(id, member)| Some((*id, member.process.clone()?)));
        running.filter(|(_, process)| process.alive.load(Ordering::SeqCst)).collect()
    }

    /// Those that are members.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        let members = self.members.borrow();
        members.iter().filter(|(_, member)| !member.removed).map(|(id, _)| *id).collect()
    }

    fn next_address(&self) -> String {
        self.addresses.set(self.addresses.get() + 1);
        format!("node{}:7000", self.addresses.get())
    }

    fn add(&self, id: NodeId, address: String) {
        let disk = Arc::<Disk>::default();
        let member = Member { disk, address, process: None, removed: false };
        if self.members.borrow_mut().insert(id, member).is_some() {
            self.violate(format!("node id {id} was given twice"));
        }
    }

    /// Starts the process of this node from what is on its disk.
    pub(crate) async fn start(&self, id: NodeId) {
        let alive = Arc::new(AtomicBool::new(true));
        let (disk, address) = {
            let members = self.members.borrow();
            (members[&id].disk.clone(), members[&id].address.clone())
        };
        match self.begin(id, disk, &address, alive.clone()).await {
            Ok(consensus) => {
                self.net.listen(
                    &address,
                    id,
                    alive.clone(),
                    consensus.routes(tonic::service::Routes::default()),
                );
                self.note(format!("node {id} starts"));
                if let Some(member) = self.members.borrow_mut().get_mut(&id) {
                    member.process = Some(Process { consensus, alive });
                }
            }
            // The fuse was in its way.
            Err(_) if !alive.load(Ordering::SeqCst) => {
                self.note(format!("node {id} crashes while it starts"))
            }
            Err(error) => self.violate(format!("node {id} refuses to start: {error}")),
        }
    }

    async fn begin(
        &self,
        id: NodeId,
        disk: Arc<Disk>,
        address: &str,
        alive: Arc<AtomicBool>,
    ) -> Result<Consensus, Error> {
        let folder = self.dir.path().join(address);
        let snapshots = folder.join("snapshots");
        let files = Arc::new(SystemFiles);
        let snapshots = Snapshots::open(files.clone(), snapshots)?;
        let store = Arc::new(SimStore { disk, alive: alive.clone() });
        let mark = folder.join("high-water");
        let high_water = HighWater::open(&*files, &mark, !mark.exists())?;
        let (storage, worker) = Storage::over(store, high_water, snapshots)?;
        tokio::spawn(worker.simulate(alive.clone(), || ms(0, 8)));
        let identity = Identity { node_id: id, cluster_id: CLUSTER.into(), epoch: 1 };
        let dial = Arc::new(SimDial { net: self.net.clone(), node: id, alive });
        Consensus::start_over(storage, identity, dial, Arc::new(Anything), self.settings.clone()).await
    }

    /// Ends the process of this node as a power failure does.
    pub(crate) fn crash(&self, id: NodeId) {
        let mut members = self.members.borrow_mut();
        let Some(member) = members.get_mut(&id) else { return };
        if let Some(process) = member.process.take() {
            process.alive.store(false, Ordering::SeqCst);
            // What is left of it reaches neither disk nor network; it is swept away.
            tokio::spawn(async move { process.consensus.abandon().await });
        }
        member.disk.lose_power();
        drop(members);
        self.note(format!("node {id} crashes"));
    }

    /// Whether the fuse of this node's disk has ended its process.
    pub(crate) fn has_blown(&self, id: NodeId) -> bool {
        let members = self.members.borrow();
        members[&id].process.as_ref().is_some_and(|process| !process.alive.load(Ordering::SeqCst))
    }

    /// Forms the cluster of one node.
    pub(crate) async fn form(&self) {
        let (id, address) = (NodeId(1), self.next_address());
        self.add(id, address.clone());
        self.start(id).await;
        let change = ClusterChange::Form {
            founding: Founding {
                cluster_id: CLUSTER.into(),
                epoch: 1,
                ca_certificate: String::new(),
                ca_key: Secret(String::new()),
                pepper: Secret("ab".repeat(32)),
            },
            node_id: id,
            node: node(&address),
            admin_token_id: "a".into(),
            admin_token: AdminToken {
                digest: String::new(),
                role: Role::Admin,
                label: "first".into(),
                expires_at_ms: None,
            },
            gossip_key: GossipKey { id: 1, secret: Secret("cd".repeat(32)) },
        };
        let consensus = self.running()[0].1.consensus.clone();
        consensus.form(&address, change).await.expect("one node forms a cluster");
        let token = JoinToken { digest: "d".into(), expires_at_ms: u64::MAX, uses_left: 1_000 };
        let change = ClusterChange::PutJoinToken { id: "j".into(), token };
        consensus.cluster_change(change, "sim", None, PATIENCE).await.expect("a join token");
    }

    /// Has one more node join; gives its id, if it was admitted in time.
    pub(crate) async fn join(&self, through: &Consensus) -> Option<NodeId> {
        let address = self.next_address();
        let admit =
            ClusterChange::Admit { token_id: "j".into(), token_digest: "d".into(), node: node(&address) };
        match through.cluster_change(admit, "sim", None, PATIENCE).await {
            Ok(ClusterOutcome::Admitted(id)) => {
                self.note(format!("node {id} is admitted at {address}"));
                self.add(id, address);
                self.start(id).await;
                Some(id)
            }
            other => {
                self.note(format!("a node is not admitted: {other:?}"));
                None
            }
        }
    }

    /// Learns from what is agreed who is a member: a join or removal whose answer got lost may have happened.
    pub(crate) async fn learn(&self) {
        let newest =
            self.running().into_iter().max_by_key(|(_, process)| process.consensus.status().applied_index);
        let Some((_, newest)) = newest else { return };
        let nodes = newest.consensus.cluster().borrow().nodes.clone();
        let applied = newest.consensus.status().applied_index;
        for (id, member) in &mut *self.members.borrow_mut() {
            if member.removed || nodes.contains_key(id) || Some(id.0) > applied {
                continue;
            }
            self.note(format!("node {id} turns out to be removed"));
            member.removed = true;
        }
        for (id, node) in nodes {
            if !self.members.borrow().contains_key(&id) {
                self.note(format!("node {id} turns out to be admitted"));
                self.add(id, node.address);
                self.start(id).await;
            }
        }
    }

    /// Ends those that were removed.
    pub(crate) fn end_removed(&self) {
        for (id, member) in &mut *self.members.borrow_mut() {
            if let Some(process) = member.process.take_if(|_| member.removed) {
                process.alive.store(false, Ordering::SeqCst);
                self.note(format!("node {id} is gone"));
                tokio::spawn(async move { process.consensus.abandon().await });
            }
        }
    }

    /// Takes a node out of the cluster.
    pub(crate) async fn remove(&self, through: &Consensus, id: NodeId) {
        let change = ClusterChange::Remove { node_id: id };
        let removed = through.cluster_change(change, "sim", None, PATIENCE).await;
        self.note(format!("node {id} is to go: {removed:?}"));
        if matches!(removed, Ok(ClusterOutcome::Done))
            && let Some(member) = self.members.borrow_mut().get_mut(&id)
        {
            member.removed = true;
        }
    }
}
