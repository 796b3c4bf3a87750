//! Clients of all nodes, who ask all at once until they are stopped.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{History, Operation, Plant, Told, client::Client};
use crate::{Member, dice::Dice, until};

/// How much is asked.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Clients, each of which asks any node.
    pub clients: u32,
    /// For how many milliseconds a client rests after each answer.
    pub rest_ms: Range<u64>,
}

impl Pace {
    /// As much as a small cluster on a small machine answers.
    pub const BUSY: Self = Self { clients: 8, rest_ms: 0..10 };
    /// So that other things on the machine are not slowed down.
    pub const STEADY: Self = Self { clients: 6, rest_ms: 50..150 };
}

/// What is written down so far.
#[derive(Default)]
struct Written {
    operations: Mutex<Vec<Operation>>,
    done: AtomicUsize,
    acknowledged: AtomicUsize,
    stop: AtomicBool,
}

/// The clients. Nobody else may change the config meanwhile: revisions are dense, and the judge counts them.
pub struct Recording {
    began: Instant,
    written: Arc<Written>,
    clients: Vec<JoinHandle<()>>,
}

impl Recording {
    /// Starts clients of these nodes, who write routes whose names begin with `prefix`, of which there are none yet.
    pub fn start(members: &[Member], prefix: &str, seed: u64, pace: &Pace) -> Self {
        Self::start_with(Plant::Nothing, members, prefix, seed, pace)
    }

    /// The same with a fault in the clients, to see that the judge finds it.
    pub fn start_with(plant: Plant, members: &[Member], prefix: &str, seed: u64, pace: &Pace) -> Self {
        let (began, written, numbers) =
            (Instant::now(), Arc::<Written>::default(), Arc::<AtomicU64>::default());
        let client = |number| {
            let mut client = Client {
                number,
                members: members.to_vec(),
                prefix: prefix.to_owned(),
                dice: Dice::new(seed, number.into()),
                began,
                numbers: numbers.clone(),
                known: Default::default(),
                newest: 0,
                plant,
                avoided: Default::default(),
            };
            let (written, rest_ms) = (written.clone(), pace.rest_ms.clone());
            thread::spawn(move || {
                while !written.stop.load(Ordering::Relaxed) {
                    if let Some(operation) = client.act() {
                        written.add(operation);
                    }
                    thread::park_timeout(client.dice.ms(rest_ms.clone()));
                }
            })
        };
        let clients = (0..pace.clients).map(client).collect();
        Self { began, written, clients }
    }

    /// Microseconds since it began, as its operations count them.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many operations have ended.
    pub fn done(&self) -> usize {
        self.written.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes were acknowledged.
    pub fn goes_on(&self, more: usize) {
        let acknowledged = || self.written.acknowledged.load(Ordering::Relaxed);
        let enough = acknowledged() + more;
        until("writes are acknowledged", || (acknowledged() >= enough).then_some(()));
    }

    /// Waits until so many operations have ended since it began.
    pub fn reaches(&self, operations: usize) {
        while self.done() < operations {
            let more = (self.done() + 1_000).min(operations);
            until("clients are answered", || (self.done() >= more).then_some(()));
        }
    }

    /// Ends it; gives everything that was asked and told.
    pub fn stop(self) -> History {
        self.written.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        let mut operations =
            std::mem::take(&mut *self.written.operations.lock().unwrap_or_else(PoisonError::into_inner));
        operations.sort_by_key(|operation| (operation.called_us, operation.returned_us));
        History { operations }
    }
}

impl Written {
    fn add(&self, operation: Operation) {
        let acknowledged = matches!(operation.told, Told::Made(_));
        self.acknowledged.fetch_add(usize::from(acknowledged), Ordering::Relaxed);
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}
