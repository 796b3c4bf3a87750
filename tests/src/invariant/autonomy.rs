//! Promise 5: without a quorum a node serves clients on, and acknowledges no write.

use super::{Burden, Observed};
use crate::history::{Asked, Told};

/// Requests that failed at nodes without a quorum, and writes that such nodes acknowledged.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    for spell in observed.bearing(Burden::Apart) {
        for failure in spell.failures(observed) {
            wrong.push(format!("{} has no quorum, and fails a request: {}", spell.node, failure.why));
        }
        for operation in &observed.history.operations {
            let within = spell.from_us <= operation.called_us && operation.returned_us <= spell.to_us;
            let acknowledged =
                matches!((&operation.asked, &operation.told), (Asked::Write { .. }, Told::Made(_)));
            if within && acknowledged && operation.node == spell.node {
                wrong.push(format!("{} has no quorum, and acknowledges: {operation}", spell.node));
            }
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
    fn what_is_acknowledged_or_fails_without_a_quorum_is_found() {
        let mut observed = observed();
        observed.spells = vec![Spell { node: "node1".into(), burden: Burden::Apart, from_us: 18, to_us: 30 }];
        assert_eq!(check(&observed).len(), 1);
        let why = "status 503".to_owned();
        observed.failures = vec![Failure { node: "node1".into(), began_us: 20, ended_us: 21, why }];
        assert_eq!(check(&observed).len(), 2);
    }
}
