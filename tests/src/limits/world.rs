//! The nodes, the network between them, what befalls them, and the central limiter.

use std::{collections::BTreeMap, num::NonZeroU64, ops::Range, sync::Arc};

use limits::{Decision, Limiter, Pusher, Record, Rule, Settings};

use super::{
    measure::Windows,
    scenario::{Arrival, Scenario},
};
use crate::dice::Dice;

/// Microseconds since the Unix epoch at which a run begins: an edge of all windows.
const START_US: u64 = 20_000 * 86_400_000_000;
/// The digest of the only key.
const KEY: NonZeroU64 = NonZeroU64::new(0x5EED_0FAC_ADE5).unwrap();

/// The network between nodes, and their clocks.
#[derive(Debug, Clone)]
pub struct Net {
    /// How long a datagram takes, in microseconds.
    pub delay_us: Range<u64>,
    /// How long who tells the others takes to wake up once something is due, in microseconds.
    pub wake_us: Range<u64>,
    /// How many get lost, in percent.
    pub loss: u64,
    /// How far clocks are off, at the most, in microseconds.
    pub skew_us: u64,
}

impl Default for Net {
    fn default() -> Self {
        Self { delay_us: 300..1_500, wake_us: 20..300, loss: 1, skew_us: 2_000 }
    }
}

/// What befalls the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// So many nodes, from the first on, are each cut off from all others.
    Isolate(usize),
    /// All nodes know who reaches whom: those without a majority have the part of the limit that is theirs by their number.
    Detect,
    /// Everybody reaches everybody.
    Heal,
    /// This node starts anew, with nothing in its memory.
    Restart(usize),
}

struct Node {
    limiter: Arc<Limiter>,
    pusher: Pusher,
    /// Its clock's time at the beginning.
    start_us: u64,
    /// When it is to be polled next.
    poll_at_us: Option<u64>,
    /// Which peer it is to the others; another after each start.
    peer: usize,
    /// Which nodes it reaches: those of the same number.
    group: usize,
}

enum Event {
    Poll(usize),
    Deliver { to: usize, peer: usize, record: Record },
    Fault(Fault),
}

/// One limiter for all requests, of two windows, by the book: it shares no code with what it judges.
struct Central {
    rule: Rule,
    window: u64,
    current: f64,
    previous: f64,
}

impl Central {
    fn admits(&mut self, at_us: u64) -> bool {
        let window_us = u64::from(self.rule.window_ms()) * 1_000;
        let (window, gone) = (at_us / window_us, (at_us % window_us) as f64 / window_us as f64);
        if window != self.window {
            self.previous = if window == self.window + 1 { self.current } else { 0.0 };
            (self.window, self.current) = (window, 0.0);
        }
        let fits = self.current + 1.0 + self.previous * (1.0 - gone) <= f64::from(self.rule.limit());
        self.current += if fits { 1.0 } else { 0.0 };
        fits
    }
}

/// A cluster, and the central limiter.
pub struct World {
    nodes: Vec<Node>,
    central: Central,
    rule: Rule,
    net: Net,
    dice: Dice,
    /// By when they are due, and in the order in which they came up.
    events: BTreeMap<(u64, u64), Event>,
    number: u64,
    /// When something was asked last.
    last_us: Option<u64>,
    /// Records that were sent.
    pub sent: u64,
    /// What was admitted.
    pub windows: Windows,
}

/// One of so many nodes, which start anew once at the most.
fn limiter(nodes: usize, seed: u64) -> (Arc<Limiter>, Pusher) {
    Limiter::new(Settings { keys: 64, shared_keys: 16, peers: 2 * nodes, seed })
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

impl World {
    fn new(nodes: usize, rule: Rule, windows: u64, net: Net, seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let skews = 2 * net.skew_us + 1;
        let node = |number: usize| {
            let (limiter, pusher) = limiter(nodes, seed * 1_000 + number as u64);
            limiter.set_nodes(count(nodes), 1.0);
            let start_us = START_US + dice.below(skews) - net.skew_us;
            Node { limiter, pusher, start_us, poll_at_us: None, peer: number, group: 0 }
        };
        let nodes: Vec<Node> = (0..nodes).map(node).collect();
        let central = Central { rule, window: 0, current: 0.0, previous: 0.0 };
        Self {
            nodes,
            central,
            rule,
            net,
            dice,
            events: BTreeMap::new(),
            number: 0,
            last_us: None,
            sent: 0,
            windows: Windows::new(windows),
        }
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.events.insert((at_us, self.number), event);
    }

    /// Has everything happen that is due before this time.
    fn until(&mut self, end_us: u64) {
        while let Some(next) = self.events.first_entry().filter(|next| next.key().0 < end_us) {
            let ((at_us, _), event) = next.remove_entry();
            match event {
                Event::Poll(node) if self.nodes[node].poll_at_us == Some(at_us) => self.poll(node, at_us),
                // It was polled since.
                Event::Poll(_) => {}
                Event::Deliver { to, peer, record } => {
                    let node = &mut self.nodes[to];
                    node.pusher.receive(peer, &record, node.start_us + at_us);
                    self.poll(to, at_us);
                }
                Event::Fault(fault) => self.befall(&fault),
            }
        }
    }

    fn befall(&mut self, fault: &Fault) {
        let all = self.nodes.len();
        match fault {
            Fault::Isolate(nodes) => {
                (1..).zip(&mut self.nodes).take(*nodes).for_each(|(group, node)| node.group = group);
            }
            Fault::Heal => self.nodes.iter_mut().for_each(|node| node.group = 0),
            Fault::Detect => {
                for node in &self.nodes {
                    let reached = self.nodes.iter().filter(|other| other.group == node.group).count();
                    let part = if reached > all / 2 { 1.0 } else { reached as f32 / all as f32 };
                    node.limiter.set_nodes(count(reached), part);
                }
            }
            Fault::Restart(place) => {
                let node = &mut self.nodes[*place];
                (node.limiter, node.pusher) = limiter(all, node.peer as u64);
                node.limiter.set_nodes(count(all), 1.0);
                node.peer += all;
                node.poll_at_us = None;
            }
        }
    }

    fn poll(&mut self, number: usize, now_us: u64) {
        let node = &mut self.nodes[number];
        let mut records = Vec::new();
        let next = node.pusher.poll(node.start_us + now_us, |record| records.push(record));
        node.poll_at_us = next.map(|at_us| at_us.saturating_sub(node.start_us).max(now_us + 1));
        let (peer, group, poll_at_us) = (node.peer, node.group, node.poll_at_us);
        if let Some(at_us) = poll_at_us {
            self.schedule(at_us, Event::Poll(number));
        }
        for record in records {
            for to in (0..self.nodes.len()).filter(|to| *to != number) {
                self.sent += 1;
                let Range { start, end } = self.net.delay_us;
                let delay_us = start + self.dice.below(end - start);
                if !self.dice.percent(self.net.loss) && self.nodes[to].group == group {
                    self.schedule(now_us + delay_us, Event::Deliver { to, peer, record });
                }
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        self.until(arrival.at_us);
        let window_us = u64::from(self.rule.window_ms()) * 1_000;
        let window = usize::try_from(arrival.at_us / window_us).unwrap_or_default();
        let rested = self.last_us.is_none_or(|last_us| arrival.at_us - last_us >= window_us / 2);
        self.windows.cold[window] |= rested;
        self.last_us = Some(arrival.at_us);
        self.windows.central[window] += u64::from(self.central.admits(arrival.at_us));
        let node = &self.nodes[arrival.node];
        let mut is_due = false;
        let decision = node.limiter.acquire(KEY, self.rule, 1, node.start_us + arrival.at_us, &mut is_due);
        self.windows.cluster[window] += u64::from(matches!(decision, Decision::Admit { .. }));
        if is_due {
            self.wake(arrival.node, arrival.at_us);
        }
    }

    /// Has this node be polled soon, unless it is anyway.
    fn wake(&mut self, number: usize, now_us: u64) {
        let Range { start, end } = self.net.wake_us;
        let at_us = now_us + start + self.dice.below(end - start);
        let node = &mut self.nodes[number];
        if node.poll_at_us.is_none_or(|planned_us| planned_us > at_us) {
            node.poll_at_us = Some(at_us);
            self.schedule(at_us, Event::Poll(number));
        }
    }
}

/// Has a cluster of so many nodes answer this scenario for so many windows, while these faults befall it, each so many
/// microseconds after the beginning.
pub fn run(
    scenario: Scenario,
    nodes: usize,
    rule: Rule,
    windows: u64,
    net: Net,
    faults: Vec<(u64, Fault)>,
    seed: u64,
) -> World {
    let mut world = World::new(nodes, rule, windows, net, seed);
    faults.into_iter().for_each(|(at_us, fault)| world.schedule(at_us, Event::Fault(fault)));
    let window_us = u64::from(rule.window_ms()) * 1_000;
    for arrival in scenario.arrivals(rule.limit(), window_us, windows, nodes, &mut Dice::new(seed, 2)) {
        world.arrive(arrival);
    }
    world
}
