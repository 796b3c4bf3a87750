//! The cluster of `docker-compose.cluster.yml` in containers, of three nodes or more, and what can be done to it.
//!
//! A node is named by its place, from 0; `node1` is at place 0. Its data folder is on this machine, and so is its
//! admin socket. Everything is removed when the [`Compose`] is dropped or its process ends, however that comes about.

mod leftovers;
mod membership;
mod node;
mod project;
mod ways;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use phalanx_tests::{
    Admin, Member,
    docker::{docker, must},
    links::Links,
    member::{is_whole, leads},
    until,
};
use serde_json::{Map, Value, json};

pub use self::ways::Ways;
use self::{leftovers::Guard, project::Project};

/// How the cluster is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image of nodes and origins: by default `$PHALANX_IMAGE`, or `phalanx:dev`.
    pub image: String,
    /// How nodes reach each other.
    pub ways: Ways,
    /// What the fate of packets comes from in bad weather.
    pub seed: u64,
    /// Settings of all nodes, as `PHALANX_LOG`.
    pub environment: BTreeMap<String, String>,
    /// Whether the two origins run, too.
    pub origins: bool,
    /// What is different for the node at a place.
    pub nodes: BTreeMap<usize, NodeOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image: std::env::var("PHALANX_IMAGE").unwrap_or_else(|_| "phalanx:dev".to_owned()),
            ways: Ways::default(),
            seed: 0,
            environment: BTreeMap::new(),
            origins: true,
            nodes: BTreeMap::new(),
        }
    }
}

/// How one node is to be.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Its image, if it is not the cluster's.
    pub image: Option<String>,
    /// Its data folder, which must be one that docker sees and the user of this process may write, as a mount of
    /// ours; by default one that is removed with the compose.
    pub data: Option<PathBuf>,
    /// Settings of its own.
    pub environment: BTreeMap<String, String>,
    /// With an empty data folder it is in no cluster, and waits to be told to join one.
    pub is_alone: bool,
    /// More of its service in the compose file, as `cpus` or `ulimits`.
    pub service: Map<String, Value>,
}

struct Node {
    member: Member,
    /// Its container.
    id: String,
    /// It was removed from the cluster.
    is_out: bool,
}

/// The cluster, and two origins, if wanted, that its nodes know as `origin1` and `origin2`.
pub struct Compose {
    ways: Ways,
    links: Option<Links>,
    cuts: ways::Cuts,
    nodes: Vec<Node>,
    project: Project,
    /// Dropped last.
    _guard: Guard,
}

impl Compose {
    /// Starts this many nodes, three at least, and waits until they have found together.
    pub fn up(nodes: usize, mut options: Options) -> Self {
        assert!(nodes >= 3, "the compose file has three nodes");
        Self::sweep();
        let mut project = Project::new(&options);
        let guard = Guard::new(&project.name);
        for place in 0..nodes {
            let join = project.plans.first().map(|first| first.advertise.clone());
            project.plan(options.ways, options.nodes.remove(&place).unwrap_or_default(), join);
        }
        project.create();
        let links = (options.ways == Ways::Relayed).then(|| Links::new(options.seed));
        let (ways, cuts) = (options.ways, ways::Cuts::default());
        let mut compose = Self { ways, links, cuts, nodes: Vec::new(), project, _guard: guard };
        for place in 0..nodes {
            compose.relay(place);
            let id = compose.project.id(&compose.project.plans[place].name);
            compose.take(place, id);
        }
        must(compose.project.compose().args(["up", "-d", "--no-recreate"]).args(compose.project.services()));
        compose.wait_until_whole();
        compose
    }

    /// Removes what clusters left behind whose processes are gone; gives the names of their projects.
    pub fn sweep() -> Vec<String> {
        leftovers::sweep().into_iter().collect()
    }

    /// Starts the relay to the node at this place, which is the next.
    fn relay(&self, place: usize) {
        if let Some(links) = &self.links {
            let advertise = &self.project.plans[place].advertise;
            let relay = advertise.parse().expect("an address of this machine");
            links.lead_to(relay, self.project.address(place), None);
        }
    }

    /// Takes in the node at this place, which is the next, and its container.
    fn take(&mut self, place: usize, id: String) {
        let plan = &self.project.plans[place];
        let member = Member { name: plan.name.clone(), admin: Admin::at(&plan.data), proxy: plan.proxy };
        self.nodes.push(Node { member, id, is_out: false });
    }

    /// How many nodes there are, those that were removed among them.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes in the cluster, as their clients see them, in the order of their places.
    pub fn members(&self) -> Vec<Member> {
        self.places().into_iter().map(|place| self.member(place).clone()).collect()
    }

    /// The places of the nodes in the cluster.
    pub fn places(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|place| !self.nodes[*place].is_out).collect()
    }

    /// All of them but these.
    pub fn others(&self, than: &[usize]) -> Vec<usize> {
        self.places().into_iter().filter(|place| !than.contains(place)).collect()
    }

    /// The place of the leader, once there is one.
    pub fn leader(&self) -> usize {
        until("there is a leader", || self.leader_of(&self.places()))
    }

    /// The place of the leader, if it is among these: whoever says so of itself in the highest term.
    pub fn leader_of(&self, places: &[usize]) -> Option<usize> {
        let says = places.iter().filter_map(|place| {
            let status = self.member(*place).admin.status();
            leads(&status).then(|| (status["term"].as_u64(), *place))
        });
        says.max().map(|(_, place)| place)
    }

    /// Waits until each node sees that all in the cluster vote and are healthy.
    pub fn wait_until_whole(&self) {
        let places = self.places();
        until("each node sees that all are healthy voters", || {
            let whole = |place: &usize| is_whole(&self.member(*place).admin.status(), places.len());
            places.iter().all(whole).then_some(())
        });
    }

    /// Where nodes reach this process, on the network that they share with clients and origins.
    pub fn host(&self) -> IpAddr {
        let network = format!("{}_clients", self.project.name);
        let gateway = docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", &network]);
        gateway.parse().unwrap_or_else(|error| panic!("{gateway:?}: {error}"))
    }

    /// Routes everything to both origins, and waits until all nodes do.
    pub fn route_to_origins(&self) {
        let targets = [json!({"address": "origin1:8080"}), json!({"address": "origin2:8080"})];
        let document = json!({
            "version": 1,
            "upstreams": {"origins": {"targets": targets}},
            "routes": {"all": {"upstream": "origins"}},
        });
        let body = json!({"document": document.to_string()});
        let applied = self.member(self.leader()).admin.must("POST", "/v1/apply?wait=all", &body);
        assert_eq!(applied["lagging"], Value::Null, "{applied}");
    }

    /// Where the nodes at these places serve clients.
    pub fn proxies(&self, places: &[usize]) -> Vec<SocketAddr> {
        places.iter().map(|place| self.member(*place).proxy).collect()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for place in 0..self.nodes.len() {
                let log = self.logs(place);
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- the end of the log of {}\n{}", self.member(place).name, last.join("\n"));
            }
        }
    }
}
