//! The numbers under which the limiter knows other nodes: another one for each start of a node, since one that starts anew has counted
//! nothing, and what it counted before counts on.

use std::time::Instant;

use model::{NodeId, usage::Start};

/// Nodes and former starts of nodes that are known at the same time.
pub(crate) const NUMBERS_MAX: usize = 64;

/// Who has which number.
#[derive(Default)]
pub(super) struct Numbers {
    holders: Vec<Holder>,
}

struct Holder {
    node: NodeId,
    boot_ms: u64,
    heard_at: Instant,
}

impl Numbers {
    /// A number for this start of a node, and whether another had it; none if all are of other members' newest starts.
    pub(super) fn give(
        &mut self,
        node: NodeId,
        boot_ms: u64,
        is_member: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> Option<(usize, bool)> {
        let holder = Holder { node, boot_ms, heard_at: now };
        let of = |holder: &Holder| holder.node == node && holder.boot_ms == boot_ms;
        if let Some(number) = self.holders.iter().position(of) {
            return Some((number, false));
        }
        if self.holders.len() < NUMBERS_MAX {
            self.holders.push(holder);
            return Some((self.holders.len() - 1, false));
        }
        let is_former = |one: &Holder| {
            one.node == node
                || !is_member(one.node)
                || self.holders.iter().any(|other| other.node == one.node && other.boot_ms > one.boot_ms)
        };
        let former = self.holders.iter().enumerate().filter(|(_, holder)| is_former(holder));
        let (number, _) = former.min_by_key(|(_, holder)| holder.heard_at)?;
        self.holders[number] = holder;
        Some((number, true))
    }

    /// Whoever has this number was heard.
    pub(super) fn heard(&mut self, number: usize, now: Instant) {
        self.holders[number].heard_at = now;
    }

    /// The start of a node that each number stands for, and whether it was heard since a time.
    pub(super) fn starts(&self, since: Option<Instant>) -> impl Iterator<Item = (Start, bool)> + '_ {
        self.holders.iter().map(move |holder| {
            let start = Start { node: holder.node, at_ms: holder.boot_ms };
            (start, since.is_none_or(|since| holder.heard_at >= since))
        })
    }

    /// The number of this start of a node.
    pub(super) fn find(&self, start: Start) -> Option<usize> {
        self.holders.iter().position(|holder| holder.node == start.node && holder.boot_ms == start.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_start_has_a_number_of_its_own_and_the_longest_silent_former_one_loses_it() {
        let (mut numbers, now) = (Numbers::default(), Instant::now());
        let at = |s| now + Duration::from_secs(s);
        assert_eq!(numbers.give(NodeId(1), 10, |_| true, at(0)), Some((0, false)));
        assert_eq!(numbers.give(NodeId(1), 10, |_| true, at(0)), Some((0, false)));
        assert_eq!(numbers.give(NodeId(1), 11, |_| true, at(1)), Some((1, false)));
        for node in 2..64 {
            assert_eq!(
                numbers.give(NodeId(node), 1, |_| true, at(2)),
                Some((usize::try_from(node).unwrap(), false))
            );
        }
        assert_eq!(
            numbers.give(NodeId(64), 1, |_| true, at(3)),
            Some((0, true)),
            "that of node 1's start before"
        );
        assert_eq!(numbers.give(NodeId(65), 1, |_| true, at(3)), None);
        assert_eq!(
            numbers.give(NodeId(65), 1, |node| node != NodeId(9), at(3)),
            Some((9, true)),
            "9 is gone"
        );
        assert_eq!(
            numbers.give(NodeId(5), 2, |_| true, at(3)),
            Some((5, true)),
            "a node's own former number"
        );
        assert_eq!(numbers.starts(None).count(), NUMBERS_MAX);
        assert_eq!(numbers.find(Start { node: NodeId(5), at_ms: 2 }), Some(5));
    }
}
