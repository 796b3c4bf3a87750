//! Promise 3: whoever reads sees one revision whole.

use super::Observed;
use crate::history::order;

/// What nodes had at a revision and was not what the writes up to it made: half of a transaction, for one.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut reads = observed.seen.views.clone();
    reads.extend(observed.finals.iter().cloned());
    order::seen(&observed.history, &reads)
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{observed, operation, read, values},
        *,
    };
    use crate::history::{Asked, Condition, Told};

    #[test]
    fn half_of_a_transaction_is_found() {
        let mut observed = observed();
        let asked = Asked::Write { values: values(&[("a", 3), ("b", 4)]), only_if: Condition::Always };
        observed.history.operations.push(operation("node1", 50, asked, Told::Made(3)));
        observed.seen.views.push(read("node2", 60, 3, &[("a", 3), ("b", 4)]));
        assert_eq!(check(&observed), Vec::<String>::new());
        observed.seen.views.push(read("node2", 70, 3, &[("a", 3)]));
        assert_eq!(check(&observed).len(), 1);
    }
}
