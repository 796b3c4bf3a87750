//! What a load balancer in front of the nodes does: it polls their readiness, sends each request to a node
//! that is ready, and gives a request to another node where that is harmless.

use std::{
    io::{self, BufReader, ErrorKind},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    Admin, Member,
    http::{self, Answer},
};

/// Between two looks at a node's readiness.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

struct Backend {
    proxy: SocketAddr,
    admin: Admin,
    ready: AtomicBool,
}

/// A balancer.
pub(crate) struct Balancer {
    backends: Arc<Vec<Backend>>,
}

impl Balancer {
    /// In front of these nodes, until told to stop.
    pub(crate) fn start(nodes: &[Member], stop: Arc<AtomicBool>) -> Self {
        let backend = |node: &Member| Backend {
            proxy: node.proxy,
            admin: node.admin.clone(),
            ready: AtomicBool::new(node.admin.is_ready()),
        };
        let backends: Arc<Vec<Backend>> = Arc::new(nodes.iter().map(backend).collect());
        let polled = backends.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for backend in &*polled {
                    backend.ready.store(backend.admin.is_ready(), Ordering::Relaxed);
                }
                thread::park_timeout(POLL_INTERVAL);
            }
        });
        Self { backends }
    }

    /// A client that begins with the backend at this place.
    pub(crate) fn client(&self, at: usize) -> Client {
        let kept = self.backends.iter().map(|_| None).collect();
        Client { backends: self.backends.clone(), kept, turn: at }
    }
}

/// One that asks through the balancer.
pub(crate) struct Client {
    backends: Arc<Vec<Backend>>,
    /// By backend, the connection from the last request.
    kept: Vec<Option<BufReader<TcpStream>>>,
    turn: usize,
}

impl Client {
    /// Gets something from the next node that is ready. On a connection that could not be made, or was kept
    /// and has ended without an answer (RFC 9112, section 9.3.1), nothing was done, and the next node is
    /// asked.
    pub(crate) fn get(&mut self, target: &str) -> Result<Answer, String> {
        let mut failures = Vec::new();
        for _ in 0..self.backends.len() * 2 {
            self.turn = (self.turn + 1) % self.backends.len();
            let backend = &self.backends[self.turn];
            let connection = &mut self.kept[self.turn];
            if !backend.ready.load(Ordering::Relaxed) {
                *connection = None;
                continue;
            }
            let was_kept = connection.is_some();
            match http::get_on(connection, backend.proxy, target) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let harmless = error.kind() == ErrorKind::ConnectionRefused || was_kept && ended(&error);
                    failures.push(format!("{}: {error}", backend.proxy));
                    if !harmless {
                        break;
                    }
                }
            }
        }
        Err(format!("no node answered: {failures:?}"))
    }
}

/// Whether the connection ended before an answer began.
fn ended(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
