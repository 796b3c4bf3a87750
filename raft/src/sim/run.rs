//! One run: clients ask, faults happen, someone looks on; at the end all is healed, and it must add up.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use model::{NodeId, Revision};

use super::{
    disk::Liar,
    fuse::Counts,
    group::Group,
    history::{Contents, History, Told},
    runtime::{below, seed},
};
use crate::{Consensus, Settings};

const CLIENTS: usize = 4;

/// A fault in the code itself, planted to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    Nothing,
    /// The disks of all nodes lie about what is durable.
    Disk(Liar),
    /// Reads do not ask the leader.
    StaleRead,
    /// Clients are told of writes that were never made.
    LostAcknowledgement,
}

/// What a run came to.
pub(super) struct Ran {
    pub(super) violations: Vec<String>,
    pub(super) trace: Vec<String>,
    pub(super) blown: Counts,
    /// Of everything that was noted.
    pub(super) digest: u64,
    pub(super) acknowledged: usize,
}

pub(super) struct Simulation {
    pub(super) group: Group,
    pub(super) history: RefCell<History>,
    pub(super) leaders: RefCell<BTreeMap<u64, NodeId>>,
    pub(super) newest: RefCell<BTreeMap<NodeId, Revision>>,
    pub(super) values: Cell<u64>,
    pub(super) over: Cell<bool>,
    pub(super) plant: Plant,
}

pub(super) fn contents(consensus: &Consensus) -> (Revision, Contents) {
    let config = consensus.config();
    let config = config.borrow();
    let objects = config.upstreams.iter();
    let objects = objects.map(|(name, entry)| {
        (name.to_string(), (entry.changed, String::from_utf8_lossy(&entry.doc).into_owned()))
    });
    (config.revision, objects.collect())
}

impl Simulation {
    pub(super) fn new(plant: Plant) -> Self {
        let settings = Settings {
            snapshot_after_entries: 10 + below(60),
            log_kept_entries: below(20),
            promote_after: Duration::from_secs(1),
            ..Settings::default()
        };
        Self {
            group: Group::new(settings),
            history: RefCell::default(),
            leaders: RefCell::default(),
            newest: RefCell::default(),
            values: Cell::new(0),
            over: Cell::new(false),
            plant,
        }
    }

    pub(super) fn anyone(&self) -> Option<Consensus> {
        let running = self.group.running();
        if running.is_empty() {
            return None;
        }
        let chosen = usize::try_from(below(running.len() as u64)).unwrap_or_default();
        Some(running[chosen].1.consensus.clone())
    }

    async fn run(&self, nodes: u64) {
        self.group.form().await;
        while (self.group.ids().len() as u64) < nodes {
            let founder = self.group.running()[0].1.consensus.clone();
            self.group.join(&founder).await;
        }
        if let Plant::Disk(liar) = self.plant {
            self.group.members.borrow().values().for_each(|member| member.disk.lie(liar));
        }
        let clients = futures::future::join_all((0..CLIENTS).map(|_| self.client()));
        let busy = async {
            self.faults().await;
            self.heal();
        };
        let end = async {
            tokio::join!(busy, clients);
            self.settle().await;
        };
        tokio::select! {
            biased;
            () = end => {}
            () = self.restarts() => {}
            () = self.looks() => {}
        }
        for wrong in self.history.borrow().check() {
            self.group.violate(wrong);
        }
    }
}

pub(super) fn simulate(number: u64, plant: Plant) -> Ran {
    seed(number);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true);
    // Else the order in which tokio wakes those who wait is not the seed's.
    #[cfg(tokio_unstable)]
    runtime.rng_seed(tokio::runtime::RngSeed::from_bytes(&number.to_be_bytes()));
    let runtime = runtime.build().expect("a runtime");
    runtime.block_on(async {
        let simulation = Simulation::new(plant);
        let nodes = [1, 3, 3, 3, 5][usize::try_from(below(5)).unwrap_or_default()];
        Box::pin(simulation.run(nodes)).await;
        let group = &simulation.group;
        group.net.close();
        let mut blown = Counts::new();
        for member in group.members.borrow().values() {
            for (step, count) in member.disk.blown() {
                *blown.entry(step).or_default() += count;
            }
        }
        let trace = group.trace();
        let mut hasher = DefaultHasher::new();
        trace.hash(&mut hasher);
        let history = simulation.history.borrow();
        let acknowledged = history.asked.iter().filter(|asked| matches!(asked.told, Told::Done(_))).count();
        Ran { violations: group.violations(), trace, blown, digest: hasher.finish(), acknowledged }
    })
}
