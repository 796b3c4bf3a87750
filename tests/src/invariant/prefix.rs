//! Promise 2: what a node has applied is the log up to its revision, which never goes back.

use std::collections::BTreeMap;

use super::Observed;
use crate::history::{Told, Values};

/// Revisions that went back, restarts included, and nodes that had different routes at one revision.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    // A node that joins anew has another id, and begins anew.
    let mut newest = BTreeMap::<(&str, u64), u64>::new();
    for sample in &observed.seen.samples {
        let before = newest.entry((&sample.node, sample.id)).or_default();
        if sample.revision < *before {
            let (node, at) = (&sample.node, sample.at_us / 1_000);
            wrong.push(format!("{node} went back from revision {before} to {}, at {at} ms", sample.revision));
        }
        *before = sample.revision.max(*before);
    }
    let mut contents = BTreeMap::<u64, (&str, &Values)>::new();
    for view in observed.seen.views.iter().chain(&observed.finals) {
        let Told::Saw(values, Some(revision)) = &view.told else { continue };
        let (node, first) = *contents.entry(*revision).or_insert((&view.node, values));
        if first != values {
            wrong.push(format!(
                "at revision {revision}, {node} has {first:?} and {} has {values:?}",
                view.node
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{observed, read},
        *,
    };

    #[test]
    fn a_revision_that_goes_back_is_found() {
        let mut observed = observed();
        observed.seen.samples[2].revision = 4;
        assert_eq!(check(&observed).len(), 1);
        // As another node it may be anything.
        observed.seen.samples[2].id = 4;
        assert_eq!(check(&observed), Vec::<String>::new());
    }

    #[test]
    fn nodes_that_differ_at_one_revision_are_found() {
        let mut observed = observed();
        observed.seen.views.push(read("node1", 16, 1, &[("a", 7)]));
        assert_eq!(check(&observed).len(), 1);
    }
}
