//! The ways between nodes: relays that can be cut.
//!
//! Each node advertises a relay instead of its own peer port. A relay passes on what comes over TCP and UDP;
//! while the way from the node that sends to the one behind it is cut, it holds TCP back and drops datagrams, as
//! a network does that loses packets: nobody is told, and calls time out. Who sends is known by the socket:
//! gossip's from its port, and that of a TCP connection from `/proc`, where Linux says which process holds the
//! other end.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// The largest UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// From the node at one place to that at another.
type Way = [usize; 2];

/// A node that a relay leads to.
struct End {
    address: SocketAddr,
    pid: Arc<AtomicU32>,
}

#[derive(Default)]
struct State {
    /// By place.
    ends: Vec<End>,
    /// The ways that are cut, each from one place to another.
    cut: BTreeSet<Way>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    healed: Condvar,
}

/// The relays of a cluster. Their threads end with the test's process.
#[derive(Default)]
pub struct Links {
    shared: Arc<Shared>,
}

impl Links {
    /// Starts a relay to the node that listens at `address` and runs as the process `pid`, which is the next
    /// in place. Gives the relay's address.
    pub(crate) fn lead_to(&self, address: SocketAddr, pid: Arc<AtomicU32>) -> SocketAddr {
        let (tcp, udp) = bind_both();
        let relay = tcp.local_addr().expect("it is bound");
        let place = {
            let mut state = self.shared.lock();
            state.ends.push(End { address, pid });
            state.ends.len() - 1
        };
        let shared = self.shared.clone();
        thread::spawn(move || relay_datagrams(&shared, &udp, place));
        let shared = self.shared.clone();
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let shared = shared.clone();
                // What goes wrong with one connection is seen at both its ends.
                thread::spawn(move || relay_connection(&shared, stream, place));
            }
        });
        relay
    }

    /// Cuts the way from the node at one place to that at another; the way back stays.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.shared.lock().cut.insert([from, to]);
    }

    /// Opens all ways.
    pub(crate) fn heal(&self) {
        self.shared.lock().cut.clear();
        self.shared.healed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_open(&self, ways: &[Way]) {
        let waiting =
            self.healed.wait_while(self.lock(), |state| ways.iter().any(|way| state.cut.contains(way)));
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// The place of the node that made this connection.
    fn dialler(&self, stream: &TcpStream) -> Option<usize> {
        let (from, to) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        let socket = format!("socket:[{}]", inode(from, to)?);
        let state = self.lock();
        state.ends.iter().position(|end| holds(end.pid.load(Ordering::Relaxed), &socket))
    }
}

/// The inode of the socket at `from` that is connected to `to`, by Linux' table of TCP sockets
/// (proc_pid_net(5)).
fn inode(from: SocketAddr, to: SocketAddr) -> Option<String> {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let (local, remote) = (port(from), port(to));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let same = fields.get(1)?.ends_with(&local) && fields.get(2)?.ends_with(&remote);
        same.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

/// Whether this process holds this socket.
fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target == Path::new(socket))
}

fn bind_both() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("it is bound")) {
            return (tcp, udp);
        }
    }
}

fn relay_datagrams(shared: &Shared, socket: &UdpSocket, place: usize) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is an ICMP answer to what was sent to a node that is down.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let to = {
            let state = shared.lock();
            let sender = state.ends.iter().position(|end| end.address == from);
            sender.filter(|sender| !state.cut.contains(&[*sender, place])).map(|_| state.ends[place].address)
        };
        if let Some(to) = to {
            // Datagrams may get lost.
            let _ = socket.send_to(&buffer[..length], to);
        }
    }
}

fn relay_connection(shared: &Arc<Shared>, stream: TcpStream, place: usize) -> Option<()> {
    let dialler = shared.dialler(&stream)?;
    let (there, back) = ([dialler, place], [place, dialler]);
    // A connection is made of packets in both directions.
    shared.wait_until_open(&[there, back]);
    let to = TcpStream::connect(shared.lock().ends[place].address).ok()?;
    for stream in [&stream, &to] {
        stream.set_nodelay(true).ok()?;
    }
    let (answering, asking) = (to.try_clone().ok()?, stream.try_clone().ok()?);
    let answers = shared.clone();
    thread::spawn(move || pump(&answers, answering, asking, back));
    pump(shared, stream, to, there);
    Some(())
}

/// Copies one direction to its end, holding back what is read while the way is cut.
fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, way: Way) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        shared.wait_until_open(&[way]);
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // An error means that both directions are done already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
