//! The ways between nodes: relays that can be cut, slow and lossy.
//!
//! Each node advertises a relay instead of its own peer port. A relay passes on what comes over TCP and UDP;
//! while the way from the node that sends to the one behind it is cut, it holds TCP back and drops datagrams, as
//! a network does that loses packets: nobody is told, and calls time out. In bad [`Weather`], datagrams are late
//! or lost; TCP, which sends again what was lost, is late. Who sends is known by the address, if each node has
//! its own; else by the socket: gossip's from its port, and that of a TCP connection from `/proc`, where Linux
//! says which process holds the other end.

mod connections;
mod datagrams;
mod sender;
mod weather;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    thread,
    time::Duration,
};

use self::sender::End;
pub use self::weather::Weather;
use crate::dice::Dice;

/// From the node at one place to that at another.
pub type Way = [usize; 2];

/// What carries messages between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// Raft, joining and forwarded writes.
    Tcp,
    /// Gossip.
    Udp,
}

impl Carrier {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];
}

struct State {
    /// By place.
    ends: Vec<End>,
    /// Where the relays listen.
    relays: Vec<SocketAddr>,
    cut: BTreeSet<(Carrier, Way)>,
    /// Where nothing else is said.
    everywhere: Weather,
    weather: BTreeMap<(Carrier, Way), Weather>,
    dice: Dice,
    closed: bool,
}

impl State {
    fn weather(&self, carrier: Carrier, way: Way) -> Weather {
        self.weather.get(&(carrier, way)).unwrap_or(&self.everywhere).clone()
    }
}

struct Shared {
    state: Mutex<State>,
    healed: Condvar,
}

/// The relays of a cluster. They end when this is dropped.
pub struct Links {
    shared: Arc<Shared>,
}

impl Links {
    /// Without any relay yet. Which packets fare badly in bad weather comes from this seed, and from when they
    /// are sent.
    pub fn new(seed: u64) -> Self {
        let state = State {
            ends: Vec::new(),
            relays: Vec::new(),
            cut: BTreeSet::new(),
            everywhere: Weather::default(),
            weather: BTreeMap::new(),
            dice: Dice::new(seed, 0),
            closed: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), healed: Condvar::new() }) }
    }

    /// Starts a relay at `relay`, or at a free port if its port is 0, to the node that listens at `address`,
    /// which is the next in place. If nodes share an IP address, `pid` is its process. Gives the relay's address.
    pub fn lead_to(&self, relay: SocketAddr, address: SocketAddr, pid: Option<Arc<AtomicU32>>) -> SocketAddr {
        let (tcp, udp) = bind_both(relay);
        let relay = tcp.local_addr().expect("it is bound");
        let place = {
            let mut state = self.shared.lock();
            state.ends.push(End { address, pid });
            state.relays.push(relay);
            state.ends.len() - 1
        };
        let shared = self.shared.clone();
        thread::spawn(move || datagrams::relay(&shared, &udp, place));
        let shared = self.shared.clone();
        thread::spawn(move || connections::relay(&shared, &tcp, place));
        relay
    }

    /// Cuts the way from the node at one place to that at another; the way back stays.
    pub fn cut(&self, from: usize, to: usize) {
        for carrier in Carrier::ALL {
            self.cut_carrier(carrier, from, to);
        }
    }

    /// Cuts such a way for what one of them carries.
    pub fn cut_carrier(&self, carrier: Carrier, from: usize, to: usize) {
        self.shared.lock().cut.insert((carrier, [from, to]));
    }

    /// Opens the way from the node at one place to that at another.
    pub fn mend(&self, from: usize, to: usize) {
        self.shared.lock().cut.retain(|(_, way)| *way != [from, to]);
        self.shared.healed.notify_all();
    }

    /// Makes this the weather on all ways.
    pub fn set_weather(&self, weather: &Weather) {
        let mut state = self.shared.lock();
        state.weather.clear();
        state.everywhere = weather.clone();
    }

    /// Makes this the weather on one way, for what one of them carries.
    pub fn set_weather_on(&self, carrier: Carrier, from: usize, to: usize, weather: &Weather) {
        self.shared.lock().weather.insert((carrier, [from, to]), weather.clone());
    }

    /// Opens all ways, and makes the weather fair.
    pub fn heal(&self) {
        self.set_weather(&Weather::default());
        self.shared.lock().cut.clear();
        self.shared.healed.notify_all();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let relays = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.relays)
        };
        self.shared.healed.notify_all();
        for relay in relays {
            // Wakes the one that waits for connections there. An error means that nobody does.
            let _ = TcpStream::connect(relay);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until connections can use these ways, for so long at most; gives whether they can.
    fn wait_until_open(&self, ways: &[Way], patience: Option<Duration>) -> bool {
        let shut = |state: &mut State| {
            !state.closed && ways.iter().any(|way| state.cut.contains(&(Carrier::Tcp, *way)))
        };
        let mut state = match patience {
            None => self.healed.wait_while(self.lock(), shut).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.healed.wait_timeout_while(self.lock(), patience, shut);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        !state.closed && !shut(&mut state)
    }
}

fn bind_both(address: SocketAddr) -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind(address).unwrap_or_else(|error| panic!("relay at {address}: {error}"));
        match UdpSocket::bind(tcp.local_addr().expect("it is bound")) {
            Ok(udp) => return (tcp, udp),
            Err(error) => assert!(address.port() == 0, "relay datagrams at {address}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
