//! Active checks: each target of an upstream that has them is asked now and then whether it is well, by one worker for all.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::upstream::Active;

use super::probe::{self, Ill};
use crate::{chance, connection::Connection, plan::CompiledUpstream, timer, worker::Worker};

/// How often it is looked which checks are due.
const TICK: Duration = Duration::from_millis(50);
/// The same, while no upstream has checks.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked which targets there are, in milliseconds.
const LIST_MS: u64 = 500;
/// The most checks at once.
const RUNNING_MAX: usize = 256;

/// A target that is checked.
struct Checked {
    upstream: RefCell<Arc<CompiledUpstream>>,
    /// Its place among the upstream's.
    at: Cell<usize>,
    due_ms: Cell<u64>,
    is_running: Cell<bool>,
    /// Checks in a row that came out alike, and how.
    in_a_row: Cell<(bool, u32)>,
}

/// Checks targets, for as long as it is run.
pub(crate) async fn run(worker: Rc<Worker>) {
    let mut all: HashMap<u64, Rc<Checked>> = HashMap::new();
    let running = Rc::new(Cell::new(0));
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let connection = Rc::new(Connection::new(nobody, false, 0, false));
    let mut listed_at_ms = 0;
    loop {
        tokio::time::sleep(if all.is_empty() { REST } else { TICK }).await;
        timer::refresh();
        let now_ms = timer::now_ms();
        if all.is_empty() || now_ms.saturating_sub(listed_at_ms) >= LIST_MS {
            listed_at_ms = now_ms;
            list(&worker, &mut all);
        }
        for checked in all.values() {
            if checked.due_ms.get() > now_ms || checked.is_running.get() || running.get() >= RUNNING_MAX {
                continue;
            }
            checked.is_running.set(true);
            running.set(running.get() + 1);
            let (worker, connection, checked) = (worker.clone(), connection.clone(), checked.clone());
            let running = running.clone();
            tokio::task::spawn_local(async move {
                check(&worker, &connection, &checked).await;
                checked.is_running.set(false);
                running.set(running.get() - 1);
            });
        }
    }
}

/// What there is to be checked, by the Plan in use.
fn list(worker: &Rc<Worker>, all: &mut HashMap<u64, Rc<Checked>>) {
    let plan = worker.plan();
    let mut there = HashSet::new();
    for upstream in plan.checked() {
        let Some(active) = &upstream.spec.health.active else { continue };
        for (at, endpoint) in upstream.endpoints.all().iter().enumerate() {
            let id = endpoint.state.id;
            there.insert(id);
            let checked = all.entry(id).or_insert_with(|| {
                // Not all at once, on all nodes, after a change.
                let due_ms = timer::now_ms() + chance::below(timer::millis(active.interval) / 4);
                Rc::new(Checked {
                    upstream: RefCell::new(upstream.clone()),
                    at: Cell::new(at),
                    due_ms: Cell::new(due_ms),
                    is_running: Cell::new(false),
                    in_a_row: Cell::new((true, 0)),
                })
            });
            if !Arc::ptr_eq(&checked.upstream.borrow(), upstream) {
                *checked.upstream.borrow_mut() = upstream.clone();
                checked.at.set(at);
                let next_ms = timer::now_ms() + timer::millis(active.interval);
                checked.due_ms.set(checked.due_ms.get().min(next_ms));
            }
        }
    }
    all.retain(|id, checked| {
        let is_there = there.contains(id);
        if !is_there && let Some(endpoint) = checked.upstream.borrow().endpoints.all().get(checked.at.get()) {
            // Nobody will find out that it is well again.
            endpoint.state.unhealthy.store(false, Relaxed);
        }
        is_there
    });
}

async fn check(worker: &Rc<Worker>, connection: &Connection, checked: &Checked) {
    let (upstream, at) = (checked.upstream.borrow().clone(), checked.at.get());
    let Some((active, target)) = upstream.spec.health.active.as_ref().zip(upstream.endpoints.all().get(at))
    else {
        return;
    };
    let interval_ms = timer::millis(active.interval);
    let spread_ms = chance::below(interval_ms / 5);
    checked.due_ms.set(timer::now_ms() + interval_ms - interval_ms / 10 + spread_ms);
    let asked = probe::ask(worker, connection, &upstream, target, active).await;
    timer::refresh();
    let Some(found) = asked else { return };
    let figures = super::super::figures(worker, &upstream);
    figures.checks.add(1);
    if found.is_err() {
        figures.checks_failed.add(1);
    }
    // Whoever has taken it out of the config meanwhile has the last word.
    if Arc::ptr_eq(&checked.upstream.borrow(), &upstream) {
        let before = target.state.unhealthy.load(Relaxed);
        let after = verdict(active, &checked.in_a_row, before, found.is_ok());
        conclude(&upstream, at, before, after, found.err());
    }
}

/// Whether a target is unhealthy after a check, of which it is known how those before it came out.
fn verdict(active: &Active, in_a_row: &Cell<(bool, u32)>, unhealthy: bool, good: bool) -> bool {
    let count = match in_a_row.get() {
        (before, count) if before == good => count.saturating_add(1),
        _ => 1,
    };
    in_a_row.set((good, count));
    match good {
        true => unhealthy && count < active.healthy,
        false => unhealthy || count >= active.unhealthy,
    }
}

fn conclude(upstream: &CompiledUpstream, at: usize, before: bool, after: bool, ill: Option<Ill>) {
    let Some(endpoint) = upstream.endpoints.all().get(at) else { return };
    let (upstream, target, state) = (&upstream.name, &endpoint.label, &endpoint.state);
    if let Some(ill) = ill {
        if !before && after {
            tracing::warn!(%upstream, %target, reason = %ill, "a target is out of use: its checks fail");
        }
        if after {
            state.why.store(Some(Arc::new(ill.into_owned())));
        }
    } else if before && !after {
        state.in_use_since_ms.store(timer::now_ms(), Relaxed);
        tracing::info!(%upstream, %target, "a target is in use again: its checks are good");
    }
    state.unhealthy.store(after, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_row_decide() {
        let active = Active { healthy: 2, unhealthy: 3, ..Active::default() };
        let in_a_row = Cell::new((true, 0));
        let mut unhealthy = false;
        let mut after = |good: bool| {
            unhealthy = verdict(&active, &in_a_row, unhealthy, good);
            unhealthy
        };
        let results = [false, false, true, false, false, false, true, false, true, true, true];
        let wanted = [false, false, false, false, false, true, true, true, true, false, false];
        assert_eq!(results.map(&mut after), wanted);
    }
}
