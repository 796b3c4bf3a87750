//! UDP through a relay.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Carrier, Shared};

/// The largest UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// On their way to a node at a time; more are dropped.
const UNDER_WAY_MAX: usize = 4_096;
/// Between looks at whether the relay is still needed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Which arrives first is the greatest: when it is due, its number, where it goes, and what it says.
type Datagram = Reverse<(Instant, u64, SocketAddr, Vec<u8>)>;

/// Takes what comes for the node at this place until the links are gone.
pub(super) fn relay(shared: &Arc<Shared>, socket: &UdpSocket, place: usize) {
    let (take, taken) = mpsc::sync_channel(UNDER_WAY_MAX);
    let sender = socket.try_clone().expect("a socket can be had twice");
    thread::spawn(move || deliver(&sender, &taken));
    receive(shared, socket, place, &take);
}

fn receive(shared: &Shared, socket: &UdpSocket, place: usize, take: &SyncSender<Datagram>) {
    socket.set_read_timeout(Some(LOOK_INTERVAL)).expect("it is not zero");
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for number in 0.. {
        let received = socket.recv_from(&mut buffer);
        let mut state = shared.lock();
        if state.closed {
            break;
        }
        // An error is a timeout, or an ICMP answer to what was sent to a node that is down.
        let Ok((length, from)) = received else { continue };
        let Some(sender) = state.ends.iter().position(|end| end.address == from) else { continue };
        let (way, to) = ([sender, place], state.ends[place].address);
        if state.cut.contains(&(Carrier::Udp, way)) {
            continue;
        }
        let weather = state.weather(Carrier::Udp, way);
        let delay = weather.datagram(&mut state.dice);
        drop(state);
        if let Some(delay) = delay {
            let datagram = Reverse((Instant::now() + delay, number, to, buffer[..length].to_vec()));
            // A queue that is full drops, as a router's does.
            let _ = take.try_send(datagram);
        }
    }
}

/// Sends each when it is due, until no more can come.
fn deliver(socket: &UdpSocket, taken: &Receiver<Datagram>) {
    let mut under_way = BinaryHeap::<Datagram>::new();
    loop {
        let next = under_way.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        if next.is_some_and(|wait| wait.is_zero()) {
            if let Some(Reverse((_, _, to, bytes))) = under_way.pop() {
                // Datagrams may get lost.
                let _ = socket.send_to(&bytes, to);
            }
            continue;
        }
        match taken.recv_timeout(next.unwrap_or(LOOK_INTERVAL)) {
            Ok(datagram) if under_way.len() < UNDER_WAY_MAX => under_way.push(datagram),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}
