//! A cluster under traffic, changes and faults for a long time: what its nodes need, minute by minute, and whether it grows.
//!
//! No node is killed: a new process needs what a new process needs. What clients of the admin API are told is judged each minute.

mod needs;
mod trend;

use std::time::{Duration, Instant};

use phalanx_tests::{
    dice::Dice,
    history::{self, Pace, Recording},
};
use serde_json::{Value, json};

pub use self::{
    needs::{Need, Needs},
    trend::{Trend, trend},
};
use crate::{
    nodes::{Nodes, Site},
    traffic::Traffic,
};

/// As much as leaves a small machine some rest.
const PACE: Pace = Pace { clients: 4, rest_ms: 20..60 };
const MINUTE: Duration = Duration::from_secs(60);
/// How long a fault lasts.
const SPELL: Duration = Duration::from_secs(6);

/// Large routes that are written each minute: some 4 MB, so that segments of the log, of 16 MiB, come and go in an hour.
const BALLAST: u64 = 200;
const BALLAST_BYTES: usize = 20 << 10;

/// What came of it.
pub struct Soaked {
    /// By node, what it needed each minute.
    pub needs: Vec<Vec<Needs>>,
    /// Requests that failed.
    pub failed: usize,
    /// Operations of clients of the admin API, and what is wrong with them.
    pub operations: usize,
    /// What could not be.
    pub violations: Vec<String>,
}

/// Has a cluster of so many run for so many minutes, and tells of each.
pub fn soak(site: Site, nodes: usize, minutes: usize, seed: u64) -> Soaked {
    let nodes = site.form(nodes, None, seed);
    let origin = nodes.route_to_origin();
    let began = Instant::now();
    let mut traffic = Traffic::new(began);
    nodes.members().iter().for_each(|member| traffic.add(member));
    let direct = traffic.ask("origin", origin.address);
    let mut dice = Dice::new(seed, u64::MAX);
    let mut soaked =
        Soaked { needs: vec![Vec::new(); nodes.count()], failed: 0, operations: 0, violations: Vec::new() };
    for minute in 0..minutes {
        // A minute's idempotency keys are its own, as its routes are.
        let prefix = format!("m{minute}-");
        let recording = Recording::start(&nodes.members(), &prefix, seed + minute as u64, &PACE);
        let (from_us, end) = (us(began), Instant::now() + MINUTE);
        while Instant::now() < end {
            rest(SPELL);
            hurt(&*nodes, &mut dice);
        }
        recording.goes_on(10);
        let history = recording.stop();
        soaked.operations += history.operations.len();
        soaked.violations.extend(history::judge(&history).into_iter().map(|violation| violation.0));
        clear(&*nodes, &prefix);
        fill(&*nodes, minute as u64);
        for (place, needs) in soaked.needs.iter_mut().enumerate() {
            let median_us = |place| traffic.median_us(Some(place), from_us, us(began)).unwrap_or_default();
            let percent = median_us(place) * 100 / median_us(direct).max(1);
            needs.push(Needs::of(nodes.pid(place), nodes.data(place), percent));
        }
        let last: Vec<_> = soaked.needs.iter().filter_map(|needs| needs.last()).collect();
        println!("minute {}: {last:?}", minute + 1);
    }
    soaked.failed = traffic.stop().failures.len();
    soaked
}

fn us(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn rest(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Does something to a node, for a while.
fn hurt(nodes: &dyn Nodes, dice: &mut Dice) {
    let place = *dice.one(&nodes.places());
    let other = (place + 1) % nodes.count();
    match dice.below(4) {
        0 => nodes.isolate(place),
        1 => nodes.others(place).into_iter().for_each(|other| nodes.cut(other, place)),
        2 => {
            nodes.cut(place, other);
            nodes.cut(other, place);
        }
        _ => {
            let to = json!({"node_id": nodes.admin(place).status()["node_id"]});
            // It may lead already, or nobody may.
            let _ = nodes.admin(other).ask("POST", "/v1/cluster/transfer", &to);
        }
    }
    rest(SPELL);
    nodes.heal();
}

/// Removes what was written, so that the config stays as large as it was.
fn clear(nodes: &dyn Nodes, prefix: &str) {
    let leader = nodes.leader();
    for name in nodes.admin(leader).routes().1.keys().filter(|name| name.starts_with(prefix)) {
        let admin = nodes.admin(leader);
        phalanx_tests::until("a route is deleted", || {
            let deleted = admin.ask("DELETE", &format!("/v1/routes/{name}"), &Value::Null).ok()?;
            matches!(deleted.status, 200 | 404).then_some(())
        });
    }
}

/// Writes one route again and again, whose content fills the log and leaves the config as large as it was.
fn fill(nodes: &dyn Nodes, minute: u64) {
    let admin = nodes.admin(nodes.leader());
    for number in 0..BALLAST {
        let body = format!("{minute}.{number} {}", "x".repeat(BALLAST_BYTES));
        let route =
            json!({"match": [{"path": {"exact": "/ballast"}}], "respond": {"status": 200, "body": body}});
        phalanx_tests::until("a large route is written", || {
            admin.ask("PUT", "/v1/routes/ballast", &route).ok().filter(|answer| answer.status < 300)
        });
    }
}
