//! Clients of every node, all the while: what failed, and how long answers took.
//!
//! Those of an origin, without a gateway, tell what the machine itself takes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use phalanx_tests::{Member, http, invariant::Failure};

/// Clients of each node, each on a connection that stays.
const CLIENTS: u32 = 2;
/// From one request of a client to the next.
const PAUSE: Duration = Duration::from_millis(10);

/// What clients were given, in microseconds since the beginning.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Requests that failed.
    pub failures: Vec<Failure>,
    /// Of those that were served: by which node, in the order in which nodes came in, when each began, and how long it took.
    pub latencies: Vec<(usize, u64, u64)>,
}

struct Shared {
    began: Instant,
    served: Mutex<Served>,
    stop: AtomicBool,
}

/// The clients.
pub struct Traffic {
    shared: Arc<Shared>,
    places: usize,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins with nobody. Times are since `began`.
    pub fn new(began: Instant) -> Self {
        let shared = Shared { began, served: Mutex::default(), stop: AtomicBool::new(false) };
        Self { shared: Arc::new(shared), places: 0, clients: Vec::new() }
    }

    /// Asks this node, too.
    pub fn add(&mut self, member: &Member) {
        self.ask(&member.name, member.proxy);
    }

    /// Asks what listens at this address, too. Gives its place.
    pub fn ask(&mut self, name: &str, address: SocketAddr) -> usize {
        let place = self.places;
        self.places += 1;
        for _ in 0..CLIENTS {
            let (shared, node) = (self.shared.clone(), name.to_owned());
            self.clients.push(thread::spawn(move || {
                let mut connection = None;
                while !shared.stop.load(Ordering::Relaxed) {
                    let began_us = shared.now_us();
                    let answer = http::get_on(&mut connection, address, "/load");
                    let ended_us = shared.now_us();
                    let why = match answer {
                        Ok(answer) if answer.status == 200 => None,
                        Ok(answer) => Some(format!("status {}", answer.status)),
                        Err(error) => Some(error.to_string()),
                    };
                    let node = node.clone();
                    match why {
                        None => shared.lock().latencies.push((place, began_us, ended_us - began_us)),
                        Some(why) => shared.lock().failures.push(Failure { node, began_us, ended_us, why }),
                    }
                    thread::park_timeout(PAUSE);
                }
            }));
        }
        place
    }

    /// How long the half of the requests took at most that began in this time, in microseconds, at the one that came in
    /// in this place, or at any; none: there were none.
    pub fn median_us(&self, place: Option<usize>, from_us: u64, to_us: u64) -> Option<u64> {
        let served = self.shared.lock();
        let within = served.latencies.iter().filter(|(at, began, _)| {
            place.is_none_or(|place| place == *at) && (from_us..to_us).contains(began)
        });
        let mut took: Vec<u64> = within.map(|(_, _, took)| *took).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }

    /// Ends it; gives what clients were given.
    pub fn stop(self) -> Served {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        std::mem::take(&mut *self.shared.lock())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
