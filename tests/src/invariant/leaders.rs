//! Promise 7: one leader a term, and ids that are never used again.

use std::collections::{BTreeMap, BTreeSet};

use super::Observed;

/// Terms with two leaders, whoever says so; ids of two nodes, of a node that had a later one, or of one that was removed.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut leaders = BTreeMap::<u64, (u64, &str)>::new();
    let mut holders = BTreeMap::<u64, &str>::new();
    let mut ids = BTreeMap::<&str, u64>::new();
    let mut known = BTreeMap::<(&str, u64), (BTreeSet<u64>, BTreeSet<u64>)>::new();
    for sample in &observed.seen.samples {
        let node = sample.node.as_str();
        if let Some(leader) = sample.leader {
            let (first, by) = *leaders.entry(sample.term).or_insert((leader, node));
            if first != leader {
                let term = sample.term;
                wrong.push(format!("term {term} has two leaders: {first} says {by}, {leader} says {node}"));
            }
        }
        let holder = *holders.entry(sample.id).or_insert(node);
        if holder != node {
            wrong.push(format!("{holder} and {node} have the id {}", sample.id));
        }
        let id = ids.entry(node).or_insert(sample.id);
        if sample.id < *id {
            wrong.push(format!("{node} has the id {} after {id}", sample.id));
        }
        *id = sample.id.max(*id);
        // What one node knows of the members goes forward.
        let (members, gone) = known.entry((node, sample.id)).or_default();
        gone.extend(members.difference(&sample.members));
        members.clone_from(&sample.members);
        if let Some(back) = members.intersection(gone).next() {
            wrong.push(format!("{node} sees the id {back} again, which was removed"));
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

#[cfg(test)]
mod tests {
    use super::{super::samples::observed, *};
    use crate::watch::Sample;

    fn found(plant: impl FnOnce(&mut Vec<Sample>)) -> usize {
        let mut observed = observed();
        plant(&mut observed.seen.samples);
        check(&observed).len()
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        assert_eq!(found(|samples| samples[1].leader = Some(2)), 1);
        assert_eq!(found(|samples| (samples[1].leader, samples[1].term) = (Some(2), 2)), 0);
    }

    #[test]
    fn an_id_that_is_used_again_is_found() {
        assert_eq!(found(|samples| samples[1].id = 1), 1);
        assert_eq!(found(|samples| samples[0].id = 4), 1);
        let back = |samples: &mut Vec<Sample>| {
            samples.push(samples[0].clone());
            samples[0].members.insert(4);
            samples[3].members.insert(4);
        };
        assert_eq!(found(back), 1);
    }
}
