//! An origin that answers every request and counts them, and holds some back until told.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Where a request is held back until [`Origin::release`].
pub const HELD: &str = "/held";

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
        if head.split(' ').nth(1) == Some(HELD) {
            let mut held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
            *held += 1;
            drop(shared.released.wait_while(held, |held| *held > 0));
        }
        shared.served.fetch_add(1, Ordering::Relaxed);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
