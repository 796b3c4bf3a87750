//! TCP through a relay.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Carrier, Shared, Way, sender::dialler};

/// For how long a connection to where no way leads is tried: as long as Linux does by default (tcp(7),
/// `tcp_syn_retries`).
const CONNECT_PATIENCE: Duration = Duration::from_secs(127);
/// What is read at once.
const PART_BYTES_MAX: usize = 64 << 10;
/// Parts on their way in one direction of a connection; whoever sends more waits.
const UNDER_WAY_MAX: usize = 64;

/// Some bytes of a stream, and when they are there at the earliest; none are its end.
type Part = (Instant, Vec<u8>);

/// Takes connections for the node at this place until the links are gone.
pub(super) fn relay(shared: &Arc<Shared>, listener: &TcpListener, place: usize) {
    for stream in listener.incoming().flatten() {
        if shared.lock().closed {
            break;
        }
        let shared = shared.clone();
        // What goes wrong with one connection is seen at both its ends.
        thread::spawn(move || carry(&shared, stream, place));
    }
}

fn carry(shared: &Arc<Shared>, stream: TcpStream, place: usize) -> Option<()> {
    let ends = shared.lock().ends.clone();
    let dialler = dialler(&ends, &stream)?;
    let (there, back) = ([dialler, place], [place, dialler]);
    // A connection is made of packets in both directions.
    wait_until(Instant::now() + shared.delay(there) + shared.delay(back));
    if !shared.wait_until_open(&[there, back], Some(CONNECT_PATIENCE)) {
        return None;
    }
    let to = TcpStream::connect(ends[place].address).ok()?;
    for stream in [&stream, &to] {
        stream.set_nodelay(true).ok()?;
    }
    let (answering, asking) = (to.try_clone().ok()?, stream.try_clone().ok()?);
    pump(shared, answering, asking, back).ok()?;
    pump(shared, stream, to, there).ok()
}

/// Copies one direction to its end.
fn pump(shared: &Arc<Shared>, from: TcpStream, to: TcpStream, way: Way) -> std::io::Result<()> {
    let (take, taken) = mpsc::sync_channel(UNDER_WAY_MAX);
    let (reads, writes) = (shared.clone(), shared.clone());
    let source = from.try_clone()?;
    thread::spawn(move || read(&reads, source, &take, way));
    thread::spawn(move || {
        write(&writes, &taken, &to, way);
        // An error means that both directions are done already.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    });
    Ok(())
}

fn read(shared: &Shared, mut from: TcpStream, take: &SyncSender<Part>, way: Way) {
    let (mut buffer, mut due) = (vec![0; PART_BYTES_MAX], Instant::now());
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        // A part that is late holds up those after it.
        due = due.max(Instant::now() + shared.delay(way));
        if take.send((due, buffer[..length].to_vec())).is_err() || length == 0 {
            break;
        }
    }
}

/// Holds back what is due while the way is cut.
fn write(shared: &Shared, taken: &Receiver<Part>, mut to: &TcpStream, way: Way) {
    for (due, part) in taken {
        wait_until(due);
        let open = shared.wait_until_open(&[way], None);
        if !open || part.is_empty() || to.write_all(&part).is_err() {
            break;
        }
    }
}

impl Shared {
    /// How long a part takes on this way in this weather.
    fn delay(&self, way: Way) -> Duration {
        let mut state = self.lock();
        let weather = state.weather(Carrier::Tcp, way);
        weather.part(&mut state.dice)
    }
}

fn wait_until(due: Instant) {
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            break;
        }
        thread::park_timeout(wait);
    }
}
