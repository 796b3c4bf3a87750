//! The ways between nodes: cut by relays of ours, or by iptables in the containers' network namespaces.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{Mutex, PoisonError},
};

use phalanx_tests::{
    docker::must,
    links::{Carrier, Links, Way},
};

use super::Compose;

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ways {
    /// Through relays of this process, which can also be slow and lossy. A cut holds back what is said: bytes of
    /// connections arrive when it is healed.
    #[default]
    Relayed,
    /// Directly. A cut drops packets, by iptables; acknowledgements among them. Needs root.
    Direct,
}

/// What is cut, where nodes reach each other directly.
pub(super) type Cuts = Mutex<BTreeSet<(Carrier, Way)>>;

impl Compose {
    /// Cuts the way from the node at one place to that at another; the way back stays.
    pub fn cut(&self, from: usize, to: usize) {
        for carrier in Carrier::ALL {
            self.cut_carrier(carrier, from, to);
        }
    }

    /// Cuts such a way for gossip alone.
    pub fn cut_datagrams(&self, from: usize, to: usize) {
        self.cut_carrier(Carrier::Udp, from, to);
    }

    /// Cuts such a way for what one of them carries.
    pub fn cut_carrier(&self, carrier: Carrier, from: usize, to: usize) {
        match &self.links {
            Some(links) => links.cut_carrier(carrier, from, to),
            None => {
                let new = self.cuts().insert((carrier, [from, to]));
                // At both ends, so that it stays when one of them starts again.
                for place in new.then_some([from, to]).into_iter().flatten() {
                    self.filter(place, carrier, [from, to]);
                }
            }
        }
    }

    /// Cuts every way between these places and the others, both there and back.
    pub fn part(&self, places: &[usize]) {
        for other in (0..self.nodes.len()).filter(|place| !places.contains(place)) {
            for place in places {
                self.cut(*place, other);
                self.cut(other, *place);
            }
        }
    }

    /// Opens all ways, and makes the weather fair.
    pub fn heal(&self) {
        match &self.links {
            Some(links) => links.heal(),
            None => {
                self.cuts().clear();
                for pid in (0..self.nodes.len()).filter_map(|place| self.pid(place)) {
                    iptables(pid, &["-F"]);
                }
            }
        }
    }

    /// The relays, for what can be done by them alone; none where the ways are direct.
    pub fn links(&self) -> Option<&Links> {
        self.links.as_ref()
    }

    fn cuts(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Carrier, Way)>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts at a node that has just started what was cut before: its rules were gone with its network namespace.
    pub(super) fn cut_again(&self, place: usize) {
        for (carrier, way) in self.cuts().iter().filter(|(_, way)| way.contains(&place)) {
            self.filter(place, *carrier, *way);
        }
    }

    /// Drops what goes this way, at the node at this place, which is one of its ends, if it runs.
    fn filter(&self, place: usize, carrier: Carrier, [from, to]: Way) {
        let Some(pid) = self.pid(place) else { return };
        let (chain, side, other) = if place == from { ("OUTPUT", "-d", to) } else { ("INPUT", "-s", from) };
        let address = self.project.address(other).ip().to_string();
        let protocol = match carrier {
            Carrier::Tcp => "tcp",
            Carrier::Udp => "udp",
        };
        iptables(pid, &["-A", chain, side, &address, "-p", protocol, "-j", "DROP"]);
    }
}

/// Runs iptables in the network namespace of this process, which may end meanwhile.
fn iptables(pid: u32, words: &[&str]) {
    let pid = pid.to_string();
    must(Command::new("nsenter").args(["-t", &pid, "-n", "iptables", "-w"]).args(words));
}
