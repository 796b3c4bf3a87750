//! What tests of the checks are made of.

use super::Observed;
use crate::{
    history::{Asked, Condition, History, Operation, Told, Value, Values},
    watch::{Sample, Seen},
};

pub(super) fn values(values: &[(&str, u64)]) -> Values {
    values.iter().map(|(name, value)| ((*name).to_owned(), Some(*value))).collect()
}

pub(super) fn operation(node: &str, at_us: u64, asked: Asked, told: Told) -> Operation {
    Operation { client: 0, node: node.to_owned(), called_us: at_us, returned_us: at_us + 1, asked, told }
}

/// A write of one route through `node1`.
pub(super) fn write(at_us: u64, route: &str, value: Value, told: Told) -> Operation {
    let values = Values::from([(route.to_owned(), value)]);
    operation("node1", at_us, Asked::Write { values, only_if: Condition::Always }, told)
}

/// All routes, as they are seen at this revision.
pub(super) fn read(node: &str, at_us: u64, revision: u64, seen: &[(&str, u64)]) -> Operation {
    operation(node, at_us, Asked::ReadAll, Told::Saw(values(seen), Some(revision)))
}

pub(super) fn sample(node: &str, id: u64, at_us: u64) -> Sample {
    Sample {
        at_us,
        node: node.to_owned(),
        id,
        term: 1,
        leader: Some(1),
        revision: 5,
        installed: 5,
        quorum: true,
        members: [1, 2, 3].into(),
    }
}

/// `a` was made 1 and then 2, and so it is at the end.
pub(super) fn observed() -> Observed {
    let operations = vec![write(10, "a", Some(1), Told::Made(1)), write(20, "a", Some(2), Told::Made(2))];
    let views = vec![read("node2", 15, 1, &[("a", 1)]), read("node2", 30, 2, &[("a", 2)])];
    let samples = vec![sample("node1", 1, 10), sample("node2", 2, 10), sample("node1", 1, 20)];
    let finals = vec![read("node1", 40, 2, &[("a", 2)]), read("node2", 41, 2, &[("a", 2)])];
    let seen = Seen { samples, views };
    Observed { history: History { operations }, seen, finals, ..Observed::default() }
}

#[test]
fn nothing_is_wrong_with_what_is_right() {
    assert_eq!(observed().violations(), []);
}
