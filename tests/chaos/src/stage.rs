//! A cluster under traffic and writes, on which one fault is wrought, and everything that is seen of it.

mod end;

use std::{
    io,
    time::{Duration, Instant},
};

use phalanx_tests::{
    Admin, Keys, Member, Origin, Watch,
    dice::Dice,
    history::{Pace, Recording},
    http,
    invariant::{Burden, Damaged, Retried, Spell},
    links::Links,
    until,
};
use serde_json::{Value, json};

pub use self::end::Ended;
use crate::{
    disk::Loss,
    disks::Disks,
    figures::{Figure, Figures},
    nodes::{Nodes, Site},
    target::Targets,
    traffic::Traffic,
};

/// What is written: routes of this prefix.
const PREFIX: &str = "r";
/// So that faults fall into writes, and traffic is not slowed down.
const PACE: Pace = Pace { clients: 6, rest_ms: 5..30 };
/// Writes that are acknowledged before a fault and after it.
const WRITES: usize = 40;

/// Below which two targets are asked that may be broken, and have 300 ms to answer.
pub const BRITTLE: &str = "/brittle";

/// Everything around a fault.
pub struct Stage {
    /// Where the nodes run.
    pub site: Site,
    /// The nodes.
    pub nodes: Box<dyn Nodes>,
    disks: Option<Disks>,
    /// What comes from the run's seed.
    pub dice: Dice,
    /// What is measured.
    pub figures: Figures,
    /// Damages, and what came of them.
    pub damaged: Vec<Damaged>,
    /// What was asked twice.
    pub retried: Vec<Retried>,
    /// What clients of nodes are given.
    pub traffic: Traffic,
    /// What answers to [`BRITTLE`], and may not.
    pub targets: Targets,
    /// Clients of the admin API.
    pub recording: Recording,
    keys: Keys,
    /// The term in which the fault begins, and elections that it calls for.
    term: (u64, u64),
    spells: Vec<Spell>,
    watch: Watch,
    _origin: Origin,
}

impl Stage {
    /// Forms a cluster, has traffic go through all nodes and writes come in by all, and waits until it does.
    ///
    /// # Errors
    /// Where this machine does not mount disks of ours, if there are to be any.
    pub fn set(site: Site, nodes: usize, disks: bool, seed: u64) -> io::Result<Self> {
        let disks = disks.then(|| Disks::mount(nodes)).transpose()?;
        let nodes = site.form(nodes, disks.as_ref(), seed);
        let origin = nodes.route_to_origin();
        let targets = Targets::start(2, nodes.host());
        route_brittle(nodes.admin(0), &targets);
        Keys::furnish(nodes.admin(0));
        let recording = Recording::start(&nodes.members(), PREFIX, seed, &PACE);
        let began = Instant::now() - recording.elapsed();
        let keys = Keys::start(&nodes.members(), began, seed);
        let (traffic, watch) = (Traffic::new(began), Watch::new(began, PREFIX));
        let term = (nodes.term(), 0);
        let mut stage = Self {
            site,
            nodes,
            disks,
            dice: Dice::new(seed, u64::MAX),
            figures: Figures::default(),
            damaged: Vec::new(),
            retried: Vec::new(),
            traffic,
            targets,
            recording,
            keys,
            term,
            spells: Vec::new(),
            watch,
            _origin: origin,
        };
        stage.nodes.members().into_iter().for_each(|member| stage.watches(member));
        stage.goes_on();
        stage.term.0 = stage.nodes.term();
        Ok(stage)
    }

    /// Has clients ask the node at this place, which is a new member, and looks at it.
    pub fn looks_at(&mut self, place: usize) {
        let member = self.nodes.member(place);
        self.keys.add(member.clone());
        self.watches(member);
    }

    fn watches(&mut self, member: Member) {
        self.traffic.add(&member);
        self.watch.add(member);
    }

    /// The relays between the nodes, which must be there.
    pub fn links(&self) -> &Links {
        self.nodes.links().expect("the fault needs relays")
    }

    /// The nodes' disks, which must be ours.
    pub fn disks(&self) -> &Disks {
        self.disks.as_ref().expect("the fault needs disks of ours")
    }

    /// All power fails, and comes back. The nodes' disks must be ours.
    pub fn lose_power(&mut self, loss: Loss) {
        let disks = self.disks.as_ref().expect("the fault needs disks of ours");
        disks.lose_power(&mut *self.nodes, loss);
    }

    /// Waits until some more writes were acknowledged.
    pub fn goes_on(&self) {
        self.recording.goes_on(WRITES);
    }

    /// Waits for so long, while everything goes on.
    pub fn lasts(&self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
    }

    /// The fault calls for so many elections.
    pub fn expects_elections(&mut self, elections: u64) {
        self.term.1 += elections;
    }

    /// What was up to now is no part of the fault.
    pub fn begins_now(&mut self) {
        self.term = (self.nodes.term(), 0);
        self.figures = Figures::default();
    }

    /// From now on the node at this place has this to bear.
    pub fn bears(&mut self, place: usize, burden: Burden) {
        let node = format!("node{}", place + 1);
        let from_us = self.recording.now_us();
        self.spells.push(Spell { node, burden, from_us, to_us: u64::MAX });
    }

    /// From now on it has nothing more to bear.
    pub fn is_free(&mut self, place: usize) {
        let (node, now_us) = (format!("node{}", place + 1), self.recording.now_us());
        let open = self.spells.iter_mut().filter(|spell| spell.node == node && spell.to_us == u64::MAX);
        open.for_each(|spell| spell.to_us = now_us);
    }

    /// Measures until there is a leader among these, and gives its place.
    pub fn elects_among(&mut self, places: &[usize], since: Instant) -> usize {
        let leader = self.nodes.leader_among(places);
        self.measure(Figure::NewLeader, since);
        leader
    }

    /// Starts a node that was killed, and measures from the beginning of its process, which docker takes seconds to come to on a
    /// busy machine, until it serves clients and has what the others have now.
    pub fn comes_back(&mut self, place: usize) {
        self.nodes.start(place);
        let since = self.nodes.began(place);
        self.serves(place);
        self.is_free(place);
        self.catches_up(place, since);
    }

    /// Waits until the node at this place serves clients.
    pub fn serves(&self, place: usize) {
        let proxy = self.nodes.member(place).proxy;
        until("the node serves clients", || {
            http::get(proxy, "/load", &[]).ok().filter(|answer| answer.status == 200)
        });
    }

    /// Measures until the node at this place has what the others have now, and knows who leads.
    pub fn catches_up(&mut self, place: usize, since: Instant) {
        let others = self.nodes.others(place);
        let revision = |place: usize| self.nodes.admin(place).status()["revision"].as_u64();
        let newest = others.into_iter().filter_map(revision).max();
        until("the node has caught up", || {
            let status = self.nodes.admin(place).status();
            (status["revision"].as_u64() >= newest && status["quorum"] == true).then_some(())
        });
        self.measure(Figure::CaughtUp, since);
    }

    /// Measures until all have what one has now, and agree on a leader.
    pub fn converges(&mut self, since: Instant) {
        let all = self.nodes.places();
        let status = |place: usize| self.nodes.admin(place).status();
        let newest = all.iter().filter_map(|place| status(*place)["revision"].as_u64()).max();
        until("all nodes have the newest config, and agree on a leader", || {
            let said: Vec<_> = all.iter().copied().map(status).collect();
            let agree = |it: &Value| {
                it["revision"].as_u64() >= newest && it["quorum"] == true && it["leader"] == said[0]["leader"]
            };
            said.iter().all(agree).then_some(())
        });
        self.measure(Figure::CaughtUp, since);
    }

    /// Counts these, which say why requests failed, and tells of some.
    pub fn failed<'a>(&mut self, why: impl Iterator<Item = &'a String>) {
        let mut count = 0_u32;
        for why in why {
            if count < 5 {
                println!("  a request failed: {why}");
            }
            count += 1;
        }
        self.figures.add(Figure::Failed, count.into());
    }

    /// Takes the time since then as this figure.
    pub fn measure(&mut self, figure: Figure, since: Instant) {
        self.figures.add(figure, since.elapsed().as_secs_f64());
    }
}

fn route_brittle(admin: &Admin, targets: &Targets) {
    let addresses: Vec<Value> =
        targets.addresses().map(|address| json!({"address": address.to_string()})).collect();
    let document = json!({
        "version": 1,
        "upstreams": {"brittle": {"targets": addresses, "timeout": {"response": "300ms"}}},
        "routes": {"brittle": {"match": [{"path": {"prefix": BRITTLE}}], "upstream": "brittle"}},
    });
    let body = json!({"document": document.to_string()});
    admin.must("POST", "/v1/apply?wait=all", &body);
}
