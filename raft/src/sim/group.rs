//! Nodes of one simulated cluster: their disks outlive their processes.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use model::{Change, Config, NodeId, Violation};
use tokio::time::Instant;

use super::{
    disk::{Disk, End, Mount},
    files::SimFiles,
    net::{Net, SimDial},
    records::SimStores,
    runtime::{below, ms, percent},
};
use crate::{Admission, Consensus, Error, Identity, Settings, Storage, storage::Ground};

pub(super) const CLUSTER: &str = "simulated";

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
    pub(crate) mount: Mount,
}

/// A member of the cluster, or one that was.
pub(crate) struct Member {
    pub(crate) disk: Arc<Disk>,
    pub(super) address: String,
    pub(crate) process: Option<Process>,
    pub(crate) removed: bool,
}

/// The nodes and what is between them.
pub(crate) struct Group {
    pub(crate) net: Arc<Net>,
    pub(crate) members: RefCell<BTreeMap<NodeId, Member>>,
    settings: Settings,
    addresses: Cell<u64>,
    began: Instant,
    trace: RefCell<Vec<String>>,
    violations: RefCell<BTreeSet<String>>,
}

impl Group {
    /// No nodes yet.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            net: Arc::default(),
            members: RefCell::default(),
            settings,
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

    pub(super) fn next_address(&self) -> String {
        self.addresses.set(self.addresses.get() + 1);
        format!("node{}:7000", self.addresses.get())
    }

    /// A node that has never been started.
    pub(super) fn add(&self, id: NodeId, address: String) {
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
        let mount = Mount::new(disk.clone(), alive.clone());
        match self.begin(id, mount.clone(), alive.clone()).await {
            Ok(consensus) => {
                let routes = consensus.routes(tonic::service::Routes::default());
                self.net.listen(&address, id, alive.clone(), routes);
                self.note(format!("node {id} starts"));
                if let Some(member) = self.members.borrow_mut().get_mut(&id) {
                    member.process = Some(Process { consensus, alive, mount });
                }
            }
            // The fuse was in its way.
            Err(_) if !alive.load(Ordering::SeqCst) => {
                let end = self.some_end();
                disk.lose(end);
                self.note(format!("node {id} ends while it starts: {end:?}"));
            }
            // What supervises it starts it again.
            Err(Error::Io { .. } | Error::Fatal(_)) if mount.has_refused() => {
                disk.lose(End::Kill);
                self.note(format!("node {id} finds its disk full as it starts"));
            }
            Err(error) => self.violate(format!("node {id} refuses to start: {error}")),
        }
    }

    async fn begin(&self, id: NodeId, mount: Mount, alive: Arc<AtomicBool>) -> Result<Consensus, Error> {
        let ground = Ground {
            files: Arc::new(SimFiles::new(mount.clone())),
            boot: mount.boot(),
            stores: Arc::new(SimStores { mount }),
            // Small, so that there are many.
            segment_bytes: 1_024 << below(5),
        };
        let (storage, worker) = Storage::open_over(ground, Path::new("simulated"))?;
        tokio::spawn(worker.simulate(alive.clone(), || ms(0, 8)));
        let identity = Identity { node_id: id, cluster_id: CLUSTER.into(), epoch: 1 };
        let dial = Arc::new(SimDial { net: self.net.clone(), node: id, alive });
        Consensus::start_over(storage, identity, dial, Arc::new(Anything), self.settings.clone()).await
    }

    /// How a process ends whose fuse has blown.
    pub(super) fn some_end(&self) -> End {
        if percent(60) { End::Power } else { End::Kill }
    }

    /// Ends the process of this node, if it runs; with the power, what its disk has not made durable is lost anyway.
    pub(crate) fn end(&self, id: NodeId, end: End) {
        let mut members = self.members.borrow_mut();
        let Some(member) = members.get_mut(&id) else { return };
        if let Some(process) = member.process.take() {
            process.alive.store(false, Ordering::SeqCst);
            // What is left of it reaches neither disk nor network; it is swept away.
            tokio::spawn(async move { process.consensus.abandon().await });
        }
        member.disk.lose(end);
        drop(members);
        self.note(format!("node {id} ends: {end:?}"));
    }

    /// Ends what is left of a node's process, and starts it again if told to.
    pub(crate) async fn restart(&self, id: NodeId, start: bool) {
        if self.has_blown(id) {
            self.end(id, self.some_end());
        }
        if self.has_given_up(id) {
            self.end(id, End::Kill);
        }
        let down = self.members.borrow()[&id].process.is_none();
        if down && start {
            self.start(id).await;
        }
    }

    /// Whether the fuse of this node's disk has ended its process.
    fn has_blown(&self, id: NodeId) -> bool {
        let members = self.members.borrow();
        members[&id].process.as_ref().is_some_and(|process| !process.alive.load(Ordering::SeqCst))
    }

    /// Whether consensus has ended on this node since its disk was full: then its process ends too (node/src/member.rs).
    fn has_given_up(&self, id: NodeId) -> bool {
        let members = self.members.borrow();
        members[&id].process.as_ref().is_some_and(|process| {
            process.mount.has_refused() && process.consensus.fatal().borrow().is_some()
        })
    }
}
