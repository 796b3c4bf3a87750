//! Everything that is wrong with a history.

use std::{collections::BTreeSet, fmt, time::Duration};

use porcupine_rs::{CheckResult, check_operations_timeout};

use super::{Asked, History, Operation, Told, order, register};

/// For the search of one route. One that takes longer is not decided, which is a failure of the check.
const SEARCH: Duration = Duration::from_secs(120);

/// One way in which a history could not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong: route by route whether it is linearizable (Herlihy and Wing, 1990; the search is porcupine's, after Wing and
/// Gong, 1993, and Lowe, 2017); over all of them what the revisions say; and answers that nobody understands.
pub fn judge(history: &History) -> Vec<Violation> {
    let odd = history.operations.iter().filter(|operation| matches!(operation.told, Told::Odd(_)));
    let odd = odd.map(|operation| format!("no client understands this: {operation}"));
    let routes = routes(history);
    let linearizable = routes.iter().filter_map(|route| linearizable(history, route).err());
    odd.chain(order::check(history)).chain(linearizable).map(Violation).collect()
}

fn routes(history: &History) -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for operation in &history.operations {
        match &operation.asked {
            Asked::Write { values, .. } => routes.extend(values.keys().cloned()),
            Asked::Read(route) => drop(routes.insert(route.clone())),
            Asked::ReadAll => {}
        }
    }
    routes
}

fn search(history: &History, route: &str, until_us: u64) -> CheckResult {
    check_operations_timeout(&register::events(&history.operations, route, until_us), SEARCH)
}

fn linearizable(history: &History, route: &str) -> Result<(), String> {
    match search(history, route, u64::MAX) {
        CheckResult::Ok => Ok(()),
        CheckResult::Unknown => {
            Err(format!("whether {route} is linearizable is not found out in {SEARCH:?}"))
        }
        CheckResult::Illegal => Err(culprit(history, route)),
    }
}

/// The first answer that could not be. What could not be so far can't be with what comes after it either (Herlihy and Wing:
/// linearizability is closed under prefixes), so that it is found by halving.
fn culprit(history: &History, route: &str) -> String {
    let mut ends: Vec<&Operation> = history.operations.iter().collect();
    ends.sort_by_key(|operation| operation.returned_us);
    let bad =
        ends.partition_point(|operation| search(history, route, operation.returned_us) == CheckResult::Ok);
    match ends.get(bad) {
        Some(operation) => format!("{route} is not linearizable from this answer on: {operation}"),
        None => format!("{route} is not linearizable"),
    }
}
