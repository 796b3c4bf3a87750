//! Who is at the other end of a connection.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// A node that a relay leads to.
#[derive(Clone)]
pub(super) struct End {
    /// Where it listens, and what its datagrams come from.
    pub(super) address: SocketAddr,
    /// Its process, if it shares its IP address with other nodes.
    pub(super) pid: Option<Arc<AtomicU32>>,
}

/// The place among these of the node that made this connection.
pub(super) fn dialler(ends: &[End], stream: &TcpStream) -> Option<usize> {
    let (from, to) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let alone = |end: &End| end.pid.is_none() && end.address.ip() == from.ip();
    if let Some(place) = ends.iter().position(alone) {
        return Some(place);
    }
    let socket = format!("socket:[{}]", inode(from, to)?);
    let pid = |end: &End| end.pid.as_ref().map(|pid| pid.load(Ordering::Relaxed));
    ends.iter().position(|end| pid(end).is_some_and(|pid| holds(pid, &socket)))
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
