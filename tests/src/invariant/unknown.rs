//! Promise 4: what is said to have changed nothing has changed nothing, and what may have happened happens once at most.

use std::collections::{BTreeMap, BTreeSet};

use super::Observed;
use crate::history::{Asked, Operation, Told};

/// Values of refused writes that were seen, and values that came back after others: each is written by one write alone.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let refused = refused(observed);
    let mut wrong = Vec::new();
    let mut by_revision = BTreeMap::<u64, BTreeMap<&str, u64>>::new();
    let reads = observed.history.operations.iter().chain(&observed.seen.views).chain(&observed.finals);
    for read in reads {
        let Told::Saw(values, revision) = &read.told else { continue };
        for (route, value) in values.iter().filter_map(|(route, value)| Some((route, (*value)?))) {
            if let Some(write) = refused.get(&value) {
                wrong.push(format!("{read} saw what is said to have changed nothing: {write}"));
            }
            if let (Asked::ReadAll, Some(revision)) = (&read.asked, revision) {
                by_revision.entry(*revision).or_default().insert(route, value);
            }
        }
    }
    // By route, what it is, and all that it was before.
    let mut past = BTreeMap::<&str, (Option<u64>, BTreeSet<u64>)>::new();
    let routes: BTreeSet<&str> = by_revision.values().flat_map(|values| values.keys().copied()).collect();
    for (revision, values) in &by_revision {
        for route in &routes {
            let (now, before) = past.entry(route).or_default();
            let value = values.get(route).copied();
            if value != *now {
                before.extend(now.take());
                *now = value;
            }
            if value.is_some_and(|value| before.contains(&value)) {
                wrong
                    .push(format!("{route} is {value:?} again at revision {revision}: it was written twice"));
            }
        }
    }
    wrong
}

/// By their values, the writes that were said to have changed nothing.
fn refused(observed: &Observed) -> BTreeMap<u64, &Operation> {
    let mut refused = BTreeMap::new();
    for operation in &observed.history.operations {
        let Asked::Write { values, .. } = &operation.asked else { continue };
        if matches!(operation.told, Told::Refused(_) | Told::Unmet | Told::Absent) {
            refused.extend(values.values().filter_map(|value| Some(((*value)?, operation))));
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{observed, read, write},
        *,
    };

    #[test]
    fn a_refused_write_that_happened_is_found() {
        let mut observed = observed();
        observed.history.operations.push(write(30, "b", Some(9), Told::Refused(String::new())));
        assert_eq!(check(&observed), Vec::<String>::new());
        observed.seen.views.push(read("node1", 50, 3, &[("a", 2), ("b", 9)]));
        assert_eq!(check(&observed).len(), 1);
    }

    #[test]
    fn a_write_that_happened_twice_is_found() {
        let mut observed = observed();
        observed.seen.views.push(read("node1", 50, 3, &[("a", 1)]));
        assert_eq!(check(&observed).len(), 1);
    }
}
