//! The nodes of a cluster on which faults are wrought, be they processes or containers, and what can be done to them.
//!
//! A node is named by its place, from 0, in the order in which they joined.

mod containers;
mod process;
mod processes;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Instant,
};

use phalanx_tests::{
    Admin, Cluster, Member, Origin,
    links::{Carrier, Links},
    member, until,
};

use crate::{
    compose::{Compose, NodeOptions, Options, Ways},
    disks::Disks,
};

/// Where nodes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Processes of this machine, which reach each other through relays.
    Processes,
    /// Containers of `docker-compose.cluster.yml`.
    Containers(Ways),
}

impl Site {
    /// Forms a cluster of so many nodes, on these disks if there are any. What bad weather does comes from the seed.
    pub fn form(self, nodes: usize, disks: Option<&Disks>, seed: u64) -> Box<dyn Nodes> {
        let folders = disks.map(Disks::paths).unwrap_or_default();
        match self {
            Self::Processes => Box::new(Cluster::form_linked_in(nodes, folders, seed)),
            Self::Containers(ways) => {
                let on = |data| NodeOptions { data: Some(data), ..NodeOptions::default() };
                let on_disks = folders.into_iter().map(on);
                // As processes are told, so that figures can be compared.
                let environment = [
                    ("PHALANX_PROMOTE_AFTER", "200ms"),
                    // Ports that docker forwards: a balancer can't tell a listener that is closed from one that breaks off.
                    ("PHALANX_SHUTDOWN_DELAY", "500ms"),
                ];
                let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
                let nodes_options = on_disks.enumerate().collect();
                let options = Options {
                    ways,
                    seed,
                    environment,
                    origins: false,
                    nodes: nodes_options,
                    ..Options::default()
                };
                Box::new(Compose::up(nodes, options))
            }
        }
    }
}

/// The nodes. They end when this is dropped.
pub trait Nodes {
    /// How many there are, those that were removed among them.
    fn count(&self) -> usize;

    /// The node at this place as its clients see it.
    fn member(&self, place: usize) -> Member;

    /// Its admin API.
    fn admin(&self, place: usize) -> &Admin;

    /// Its data folder, as this process sees it.
    fn data(&self, place: usize) -> &Path;

    /// Its data folder, as the node calls it.
    fn folder(&self, place: usize) -> &Path;

    /// What it has written to its log.
    fn log(&self, place: usize) -> String;

    /// Where other nodes reach it, as `HOST:PORT`.
    fn peer(&self, place: usize) -> String;

    /// The id of its process; none if it does not run.
    fn pid(&self, place: usize) -> Option<u32>;

    /// The address at which nodes reach this process.
    fn host(&self) -> IpAddr;

    /// The relays between nodes; none if they reach each other directly.
    fn links(&self) -> Option<&Links>;

    /// Starts one more node, which is in no cluster yet; gives its place.
    fn add(&mut self) -> usize;

    /// Starts a node, and waits until it answers on its socket or has ended by itself.
    ///
    /// # Errors
    /// The exit code, if it has ended.
    fn try_start(&mut self, place: usize) -> Result<(), i32>;

    /// Ends nodes with SIGKILL, all at once.
    fn kill(&mut self, places: &[usize]);

    /// Tells a node to stop with SIGTERM, and waits until it has; gives its exit code.
    fn stop(&mut self, place: usize) -> i32;

    /// Waits until a node has ended by itself; gives its exit code.
    fn ended(&mut self, place: usize) -> i32;

    /// Holds a node: it neither runs nor closes what it has open.
    fn pause(&self, place: usize);

    /// Lets a node that is held go on.
    fn resume(&self, place: usize);

    /// Removes everything in the data folder of a node that was killed. It is in no cluster once it is started.
    fn wipe(&mut self, place: usize);

    /// Which gwnode it is: a program, or an image.
    fn build(&self, place: usize) -> String;

    /// Makes it another gwnode from its next start. It must have ended.
    fn set_build(&mut self, place: usize, build: &str);

    /// Sets a variable of its environment from its next start. It must have ended.
    fn set_variable(&mut self, place: usize, name: &str, value: &str);

    /// Cuts the way from the node at one place to that at another for what one of them carries; the way back stays.
    fn cut_carrier(&self, carrier: Carrier, from: usize, to: usize);

    /// Opens all ways, and makes the weather fair.
    fn heal(&self);

    /// Cuts such a way for everything.
    fn cut(&self, from: usize, to: usize) {
        Carrier::ALL.into_iter().for_each(|carrier| self.cut_carrier(carrier, from, to));
    }

    /// Cuts the node at this place off from all others; clients and this process still reach it.
    fn isolate(&self, place: usize) {
        for other in self.others(place) {
            self.cut(place, other);
            self.cut(other, place);
        }
    }

    /// Starts a node, and waits until it answers on its socket.
    fn start(&mut self, place: usize) {
        let started = self.try_start(place);
        assert!(started.is_ok(), "the node ended: {started:?}\n{}", self.log(place));
    }

    /// When the process of a node that runs began.
    fn began(&self, place: usize) -> Instant {
        let pid = self.pid(place).expect("the node runs");
        let now = Instant::now();
        now.checked_sub(process::age(pid)).unwrap_or(now)
    }

    /// Starts several, and waits until all answer on their sockets.
    fn start_all(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.start(*place));
    }

    /// All places.
    fn places(&self) -> Vec<usize> {
        (0..self.count()).collect()
    }

    /// All places but this one.
    fn others(&self, place: usize) -> Vec<usize> {
        (0..self.count()).filter(|other| *other != place).collect()
    }

    /// All nodes as their clients see them.
    fn members(&self) -> Vec<Member> {
        (0..self.count()).map(|place| self.member(place)).collect()
    }

    /// Where all serve clients.
    fn proxies(&self) -> Vec<SocketAddr> {
        self.members().iter().map(|member| member.proxy).collect()
    }

    /// The place of the leader among these, once there is one.
    fn leader_among(&self, places: &[usize]) -> usize {
        until("there is a leader", || {
            places.iter().copied().find(|place| member::leads(&self.admin(*place).status()))
        })
    }

    /// The place of the leader.
    fn leader(&self) -> usize {
        self.leader_among(&self.places())
    }

    /// The place of one that follows.
    fn follower(&self) -> usize {
        (self.leader() + 1) % self.count()
    }

    /// The newest term that a node knows of.
    fn term(&self) -> u64 {
        let terms = self.places().into_iter().filter_map(|place| self.admin(place).status()["term"].as_u64());
        terms.max().expect("a node is in the cluster")
    }

    /// Starts an origin, routes everything to it, and waits until all nodes do.
    fn route_to_origin(&self) -> Origin {
        let origin = Origin::start_at(self.host());
        self.admin(0).route_to(&origin);
        origin
    }
}
