//! Targets of an upstream that refuse, hang or reset when they are told to.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

/// What a target does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It answers requests.
    Serves,
    /// It reads a request, and never answers.
    Hangs,
    /// It reads a request, and closes the connection.
    Resets,
    /// It closes the connection at once.
    Refuses,
}

/// What targets have seen.
#[derive(Default)]
struct Book {
    /// When a broken one was asked last.
    asked: Option<Instant>,
    /// How often each POST came, by its path.
    posts: BTreeMap<String, u32>,
}

struct Target {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Targets that can be broken. Their threads end with the process.
pub struct Targets {
    targets: Vec<Target>,
    book: Arc<Mutex<Book>>,
}

impl Targets {
    /// So many that serve, at this address.
    pub fn start(count: usize, host: IpAddr) -> Self {
        let book = Arc::default();
        Self { targets: (0..count).map(|_| target(host, &book)).collect(), book }
    }

    /// Where they listen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.targets.iter().map(|target| target.address)
    }

    /// Has the one at this place do this from now on.
    pub fn breaks(&self, place: usize, way: Way) {
        *lock(&self.targets[place].way) = way;
    }

    /// When a broken one was asked last.
    pub fn asked_broken(&self) -> Option<Instant> {
        lock(&self.book).asked
    }

    /// How many requests came more than once that may be sent once.
    pub fn repeated(&self) -> u32 {
        lock(&self.book).posts.values().map(|times| u32::from(*times > 1)).sum()
    }
}

fn target(host: IpAddr, book: &Arc<Mutex<Book>>) -> Target {
    let listener = TcpListener::bind((host, 0)).expect("the address has a free port");
    let address = listener.local_addr().expect("it is bound");
    let way = Arc::new(Mutex::new(Way::Serves));
    let (book, ways) = (book.clone(), way.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (book, ways) = (book.clone(), ways.clone());
            thread::spawn(move || serve(stream, &book, &ways));
        }
    });
    Target { address, way }
}

fn serve(stream: TcpStream, book: &Mutex<Book>, ways: &Mutex<Way>) {
    if *lock(ways) == Way::Refuses {
        lock(book).asked = Some(Instant::now());
        return;
    }
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let length = head.to_ascii_lowercase();
        let length =
            length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if stream.read_exact(&mut vec![0; length.unwrap_or(0)]).is_err() {
            return;
        }
        let mut words = head.split(' ');
        if let (Some("POST"), Some(path)) = (words.next(), words.next()) {
            *lock(book).posts.entry(path.to_owned()).or_default() += 1;
        }
        let way = *lock(ways);
        if way != Way::Serves {
            lock(book).asked = Some(Instant::now());
        }
        match way {
            Way::Serves => {}
            Way::Hangs => until_closed(&mut stream),
            Way::Resets | Way::Refuses => return,
        }
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn until_closed(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while matches!(stream.read_line(&mut line), Ok(read) if read > 0) {}
}
