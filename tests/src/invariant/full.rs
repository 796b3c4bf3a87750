//! Promise 9: a node whose disk takes no writes serves clients on, and catches up once it does.

use super::{Burden, Observed};

/// Requests that failed at nodes with full disks, and nodes that are not read at the end.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    for spell in observed.bearing(Burden::Full) {
        for failure in spell.failures(observed) {
            wrong.push(format!("{} has a full disk, and fails a request: {}", spell.node, failure.why));
        }
        if !observed.finals.iter().any(|read| read.node == spell.node && read.revision().is_some()) {
            wrong.push(format!("{} had a full disk, and has not caught up", spell.node));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Failure, Spell, samples::observed},
        *,
    };

    #[test]
    fn a_request_that_fails_and_a_node_that_stays_behind_are_found() {
        let mut observed = observed();
        observed.spells = vec![Spell { node: "node2".into(), burden: Burden::Full, from_us: 18, to_us: 30 }];
        assert_eq!(check(&observed), Vec::<String>::new());
        let why = "status 503".to_owned();
        observed.failures = vec![Failure { node: "node2".into(), began_us: 20, ended_us: 21, why }];
        assert_eq!(check(&observed).len(), 1);
        observed.finals.truncate(1);
        assert_eq!(check(&observed).len(), 2);
    }
}
