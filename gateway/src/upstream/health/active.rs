//! Active checks: each target of an upstream that has them is asked now and then whether it is well, by one worker for all, or by
//! others who share the checks.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use super::{checked::Checked, probe};
use crate::{connection::Connection, timer, worker::Worker};

/// How often it is looked which checks are due.
const TICK: Duration = Duration::from_millis(50);
/// The same, while no upstream has checks.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked which targets there are, in milliseconds.
const LIST_MS: u64 = 500;
/// The most checks at once.
const RUNNING_MAX: usize = 256;

/// The targets that are checked.
#[derive(Default)]
struct All {
    by_id: HashMap<u64, Rc<Checked>>,
    /// The ids of those that others check alike.
    by_digest: HashMap<u64, u64>,
}

/// Checks targets, for as long as it is run.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mut all = All::default();
    let at_once = Rc::new(Cell::new(0));
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let connection = Rc::new(Connection::new(nobody, false, 0, false));
    let checks = worker.settings.checks.clone();
    let _running = checks.running();
    let mut listed_at_ms = 0;
    loop {
        tokio::time::sleep(if all.by_id.is_empty() { REST } else { TICK }).await;
        timer::refresh();
        let now_ms = timer::now_ms();
        if all.by_id.is_empty() || now_ms.saturating_sub(listed_at_ms) >= LIST_MS {
            listed_at_ms = now_ms;
            all.list(&worker);
        }
        while let Some((from, finding)) = checks.next_heard() {
            let id = all.by_digest.get(&finding.target);
            if let Some(checked) = id.and_then(|id| all.by_id.get(id)) {
                checked.hear(from, finding.is_well);
            }
        }
        let sharers = checks.sharers();
        for checked in all.by_id.values() {
            if at_once.get() >= RUNNING_MAX {
                break;
            }
            if !checked.begin(&sharers) {
                continue;
            }
            at_once.set(at_once.get() + 1);
            let (worker, connection, checked) = (worker.clone(), connection.clone(), checked.clone());
            let at_once = at_once.clone();
            tokio::task::spawn_local(async move {
                check(&worker, &connection, &checked).await;
                checked.end();
                at_once.set(at_once.get() - 1);
            });
        }
    }
}

impl All {
    /// Takes what there is to be checked by the Plan in use.
    fn list(&mut self, worker: &Rc<Worker>) {
        let plan = worker.plan();
        let is_shared = !worker.settings.checks.sharers().is_alone();
        let mut there = HashSet::new();
        for upstream in plan.checked() {
            let Some(active) = &upstream.spec.health.active else { continue };
            for (at, endpoint) in upstream.endpoints.all().iter().enumerate() {
                let id = endpoint.state.id;
                there.insert(id);
                let checked = self
                    .by_id
                    .entry(id)
                    .or_insert_with(|| Rc::new(Checked::new(upstream, at, active, is_shared)));
                checked.follow(upstream, at, active);
                self.by_digest.insert(checked.digest(), id);
            }
        }
        self.by_id.retain(|id, checked| {
            let is_there = there.contains(id);
            if !is_there {
                checked.forget();
            }
            is_there
        });
        let by_id = &self.by_id;
        let is_of = |digest: u64, id: &u64| by_id.get(id).is_some_and(|checked| checked.digest() == digest);
        self.by_digest.retain(|digest, id| is_of(*digest, id));
    }
}

async fn check(worker: &Rc<Worker>, connection: &Connection, checked: &Checked) {
    let (upstream, at) = checked.upstream();
    let Some((active, target)) = upstream.spec.health.active.as_ref().zip(upstream.endpoints.all().get(at))
    else {
        return;
    };
    let asked = probe::ask(worker, connection, &upstream, target, active).await;
    timer::refresh();
    let Some(found) = asked else { return };
    let figures = super::super::figures(worker, &upstream);
    figures.checks.add(1);
    if found.is_err() {
        figures.checks_failed.add(1);
    }
    // Whoever has taken it out of the config meanwhile has the last word.
    if checked.is_of(&upstream) {
        checked.conclude(&worker.settings.checks, found);
    }
}
