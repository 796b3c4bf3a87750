//! What every node says of itself, asked all the while.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Member,
    history::{Asked, Operation, Told, facts},
    member::installed,
    until,
};

/// Between two looks at a node.
const INTERVAL: Duration = Duration::from_millis(50);
/// Of how many looks one is at all routes, too.
const VIEW_EACH: u32 = 4;
/// For an answer; a node that is paused gives none.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a node said of itself once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it had answered, in microseconds since the beginning.
    pub at_us: u64,
    /// What people call it.
    pub node: String,
    /// Its id.
    pub id: u64,
    /// The term it is in.
    pub term: u64,
    /// Who it says leads.
    pub leader: Option<u64>,
    /// The revision that it has applied.
    pub revision: u64,
    /// The revision by which it serves clients.
    pub installed: u64,
    /// Whether it says that there is a quorum.
    pub quorum: bool,
    /// The ids of the members that it knows.
    pub members: BTreeSet<u64>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What nodes said of themselves, each node's in its order.
    pub samples: Vec<Sample>,
    /// What routes each had at a revision: reads that need not be of the newest.
    pub views: Vec<Operation>,
}

struct Shared {
    began: Instant,
    prefix: String,
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

/// One who looks at nodes all the while.
pub struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins with nobody. Times are since `began`; of routes, those with this prefix are looked at.
    pub fn new(began: Instant, prefix: &str) -> Self {
        let (seen, stop) = (Mutex::default(), AtomicBool::new(false));
        let shared = Shared { began, prefix: prefix.to_owned(), seen, stop };
        Self { shared: Arc::new(shared), threads: Vec::new() }
    }

    /// Looks at this node, too.
    pub fn add(&mut self, member: Member) {
        let shared = self.shared.clone();
        self.threads.push(thread::spawn(move || {
            let mut turn = 0;
            while !shared.stop.load(Ordering::Relaxed) {
                shared.look(&member, turn % VIEW_EACH == 0);
                turn += 1;
                thread::park_timeout(INTERVAL);
            }
        }));
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().clone()
    }

    /// Ends it; gives everything that was seen.
    pub fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("who looks does not panic");
        }
        std::mem::take(&mut *self.shared.lock())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn look(&self, member: &Member, view: bool) {
        let admin = member.admin.within(PATIENCE);
        if let Some(sample) = sample(&member.name, &admin.status()) {
            // The time is taken under the lock, so that a node's samples are in its order.
            let mut seen = self.lock();
            seen.samples.push(Sample { at_us: self.now_us(), ..sample });
        }
        let called_us = self.now_us();
        if view && let Ok(answer) = admin.ask("GET", "/v1/routes?limit=10000", &Value::Null) {
            let told = facts::told(&Asked::ReadAll, &answer, &self.prefix);
            let (returned_us, node) = (self.now_us(), member.name.clone());
            let asked = Asked::ReadAll;
            self.lock().views.push(Operation { client: 0, node, called_us, returned_us, asked, told });
        }
    }
}

/// What this status says; none where there is no member.
fn sample(node: &str, status: &Value) -> Option<Sample> {
    let members = status["members"].as_array()?;
    Some(Sample {
        at_us: 0,
        node: node.to_owned(),
        id: status["node_id"].as_u64()?,
        term: status["term"].as_u64()?,
        leader: status["leader"].as_u64(),
        revision: status["revision"].as_u64()?,
        // One that was removed is not told of.
        installed: installed(status).unwrap_or_default(),
        quorum: status["quorum"].as_bool()?,
        members: members.iter().filter_map(|member| member["id"].as_u64()).collect(),
    })
}

/// All routes of this prefix as a node gives them, everything considered that was acknowledged; asked until a leader says so.
pub fn last_read(member: &Member, began: Instant, prefix: &str) -> Operation {
    let now_us = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (called_us, node) = (now_us(), member.name.clone());
    let target = "/v1/routes?limit=10000&consistency=linearizable";
    let told = until("a node can be read at the end", || {
        let answer = member.admin.ask("GET", target, &Value::Null).ok()?;
        let told = facts::told(&Asked::ReadAll, &answer, prefix);
        matches!(told, Told::Saw(..)).then_some(told)
    });
    Operation { client: 0, node, called_us, returned_us: now_us(), asked: Asked::ReadAll, told }
}
