//! Requests that keep coming at a steady rate, and every failure among them.

use std::{
    io::BufReader,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{http, until};

/// Traffic through some proxies, each client on a connection that stays.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients for each of these proxies, with `rate` requests a second among them all.
    pub fn start(proxies: &[SocketAddr], clients: usize, rate: u32, target: &str) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let count = u32::try_from(proxies.len() * clients).expect("a handful of clients");
        let pause = Duration::from_secs(1) * count / rate;
        let clients = proxies.iter().flat_map(|proxy| std::iter::repeat_n(*proxy, clients)).map(|proxy| {
            let (stop, done, failures) = (stop.clone(), done.clone(), failures.clone());
            let target = target.to_owned();
            thread::spawn(move || {
                let mut connection: Option<BufReader<TcpStream>> = None;
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(failure) = one(&mut connection, proxy, &target) {
                        connection = None;
                        failures
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(format!("{proxy}: {failure}"));
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

fn one(connection: &mut Option<BufReader<TcpStream>>, proxy: SocketAddr, target: &str) -> Result<(), String> {
    let stream = match connection {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(proxy).map_err(|error| format!("connect: {error}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            connection.insert(BufReader::new(stream))
        }
    };
    let answer =
        http::exchange(stream, "GET", target, &[], b"").map_err(|error| format!("exchange: {error}"))?;
    if answer.status == 200 { Ok(()) } else { Err(format!("status {}", answer.status)) }
}
