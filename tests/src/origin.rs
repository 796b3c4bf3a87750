//! An origin that answers every request and counts them, and holds some back until told or until its client has gone.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Where a request is held back until [`Origin::release`].
pub const HELD: &str = "/held";

/// How often it is looked whether the client of a request that is held back is still there.
const LOOK: Duration = Duration::from_millis(10);

/// An origin. Its threads end with the test's process.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    served: AtomicUsize,
    /// How many requests wait.
    held: Mutex<usize>,
    released: Condvar,
    /// How many clients have gone while their requests were held back.
    left: AtomicUsize,
    holds_none: AtomicBool,
}

impl Origin {
    /// Starts one on a free port of loopback.
    pub fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Starts one on a free port of this address.
    pub fn start_at(host: IpAddr) -> Self {
        Self::start_on(SocketAddr::new(host, 0))
    }

    /// Starts one at this address.
    pub fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serve(stream, &serving));
            }
        });
        Self { address, shared }
    }

    /// How many requests it has answered.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// From now on none is held back.
    pub fn hold_none(&self) {
        self.shared.holds_none.store(true, Ordering::Relaxed);
        self.release();
    }

    /// How many clients have gone while their requests were held back.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::Relaxed)
    }

    /// How many requests are held back.
    pub fn held(&self) -> usize {
        *self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what is held back.
    pub fn release(&self) {
        *self.shared.held.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.shared.released.notify_all();
    }
}

impl Shared {
    /// Holds a request back; false if its client has gone meanwhile.
    fn hold(&self, client: &TcpStream) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held += 1;
        loop {
            let waited = self.released.wait_timeout_while(held, LOOK, |held| *held > 0);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            held = guard;
            if !waited.timed_out() {
                return true;
            }
            if has_gone(client) {
                *held -= 1;
                self.left.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        }
    }
}

/// Whether a client that sends nothing more has closed its connection.
fn has_gone(client: &TcpStream) -> bool {
    let looking = client.set_nonblocking(true).and_then(|()| client.peek(&mut [0]));
    let stays = client.set_nonblocking(false);
    stays.is_err() || looking.map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |bytes| bytes == 0)
}

/// Answers requests without bodies with their own head, until the connection ends.
fn serve(stream: TcpStream, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let is_held = head.split(' ').nth(1) == Some(HELD) && !shared.holds_none.load(Ordering::Relaxed);
        if is_held && !shared.hold(stream.get_ref()) {
            return;
        }
        shared.served.fetch_add(1, Ordering::Relaxed);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
