//! Requests that keep coming at a steady rate, and every failure among them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{Member, balancer::Balancer, http, until};

/// Makes one request, or says why it failed.
type Client = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Traffic from some clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients for each of these proxies, each on a connection that stays, with `rate`
    /// requests a second among them all.
    pub fn start(proxies: &[SocketAddr], clients: usize, rate: u32, target: &str) -> Self {
        let client = |proxy: SocketAddr| {
            let (mut connection, target) = (None, target.to_owned());
            Box::new(move || {
                let answer = http::get_on(&mut connection, proxy, &target);
                answer.map_err(|error| format!("{proxy}: {error}")).and_then(|answer| must_be_ok(&answer))
            }) as Client
        };
        let proxies = proxies.iter().flat_map(|proxy| std::iter::repeat_n(*proxy, clients));
        Self::keep_up(Arc::default(), proxies.map(client).collect(), rate)
    }

    /// Starts `clients` clients of a balancer in front of these nodes, with `rate` requests a second among
    /// them all.
    pub fn start_balanced(nodes: &[Member], clients: usize, rate: u32, target: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let balancer = Balancer::start(nodes, stop.clone());
        let client = |at| {
            let (mut client, target) = (balancer.client(at), target.to_owned());
            Box::new(move || client.get(&target).and_then(|answer| must_be_ok(&answer))) as Client
        };
        Self::keep_up(stop, (0..clients).map(client).collect(), rate)
    }

    fn keep_up(stop: Arc<AtomicBool>, clients: Vec<Client>, rate: u32) -> Self {
        let (done, failures) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let pause =
            Duration::from_secs(1) * u32::try_from(clients.len()).expect("a handful of clients") / rate;
        let clients = clients.into_iter().map(|mut client| {
            let (stop, done, failures) = (stop.clone(), done.clone(), failures.clone());
            thread::spawn(move || {
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(failure) = client() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    due += pause;
                    thread::park_timeout(due.saturating_duration_since(Instant::now()));
                }
            })
        });
        let clients = clients.collect();
        Self { stop, done, failures, clients }
    }

    /// How many requests were made so far.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more were made.
    pub fn goes_on(&self, more: usize) {
        let so_far = self.done();
        until("the traffic goes on", || (self.done() >= so_far + more).then_some(()));
    }

    /// Ends it; gives how many requests were made, and each failure.
    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        (self.done.load(Ordering::Relaxed), failures)
    }

    /// Ends it; not one request may have failed.
    pub fn stop_without_failure(self) {
        let (done, failures) = self.stop();
        let some = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} of {done} failed: {some:#?}", failures.len());
    }
}

fn must_be_ok(answer: &http::Answer) -> Result<(), String> {
    if answer.status == 200 { Ok(()) } else { Err(format!("status {}", answer.status)) }
}
