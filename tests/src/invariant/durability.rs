//! Promise 1: a write that was acknowledged is there at the end, or what came after it is.

use std::collections::BTreeMap;

use super::Observed;
use crate::history::{Asked, Told, Value};

/// The last acknowledged write of each route, where a last read saw neither it nor one of unknown outcome, and reads that are
/// older than what was acknowledged.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut last = BTreeMap::<&str, (u64, Value)>::new();
    let mut open = Vec::<(&str, Value)>::new();
    let mut newest = 0;
    for operation in &observed.history.operations {
        let Asked::Write { values, .. } = &operation.asked else { continue };
        for (route, value) in values {
            match operation.told {
                Told::Made(revision) if last.get(route.as_str()).is_none_or(|(at, _)| *at < revision) => {
                    last.insert(route, (revision, *value));
                }
                Told::Unknown(_) => open.push((route, *value)),
                _ => {}
            }
        }
        if let Told::Made(revision) = operation.told {
            newest = newest.max(revision);
        }
    }
    let mut lost = Vec::new();
    for read in &observed.finals {
        let Told::Saw(seen, Some(revision)) = &read.told else {
            lost.push(format!("what {} has at the end can't be told: {:?}", read.node, read.told));
            continue;
        };
        if *revision < newest {
            lost.push(format!(
                "{} is at revision {revision} at the end; {newest} was acknowledged",
                read.node
            ));
        }
        for (route, (at, value)) in &last {
            let have = seen.get(*route).copied().flatten();
            if have != *value && !open.contains(&(route, have)) {
                let was = format!("{route} was made {value:?} in revision {at}");
                lost.push(format!("{was}, and {} has {have:?} at the end", read.node));
            }
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{observed, read, write},
        *,
    };

    #[test]
    fn an_acknowledged_write_that_is_gone_is_found() {
        let mut observed = observed();
        observed.finals[1] = read("node2", 41, 2, &[("a", 1)]);
        assert_eq!(check(&observed).len(), 1);
        // Unless it may have been overwritten.
        observed.history.operations.push(write(30, "a", Some(1), Told::Unknown(String::new())));
        assert_eq!(check(&observed), Vec::<String>::new());
    }

    #[test]
    fn a_node_that_is_older_than_what_was_acknowledged_is_found() {
        let mut observed = observed();
        observed.finals[0] = read("node1", 40, 1, &[("a", 2)]);
        assert_eq!(check(&observed).len(), 1);
    }
}
