//! An origin that answers every request and counts them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// An origin. Its threads end with the test's process.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Origin {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let served = Arc::<AtomicUsize>::default();
        let counting = served.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counting = counting.clone();
                thread::spawn(move || serve(stream, &counting));
            }
        });
        Self { address, served }
    }

    /// How many requests it has answered.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

/// Answers requests without bodies with their own head, until the connection ends.
fn serve(stream: TcpStream, served: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        served.fetch_add(1, Ordering::Relaxed);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
