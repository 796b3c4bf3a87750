//! Promise 6: a revoked key is refused by every node that knows, and by all of them in the end.

use super::Observed;

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its id.
    pub id: String,
    /// The revision without it; none where that is not known.
    pub revision: Option<u64>,
    /// When it was said to be revoked, in microseconds since the beginning.
    pub told_us: u64,
    /// What nodes said to it before and after.
    pub shown: Vec<Shown>,
    /// What each node said to it in the end.
    pub last: Vec<Shown>,
}

/// A node's answer to a request with a key, in microseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What people call the node.
    pub node: String,
    /// When it was asked.
    pub began_us: u64,
    /// When it had answered.
    pub ended_us: u64,
    /// The status of the answer.
    pub status: u16,
}

impl Shown {
    /// Whether the key opens nothing.
    pub fn is_refused(&self) -> bool {
        self.status == 401
    }
}

impl Observed {
    /// The longest that a node which had nothing to bear took to refuse a key after it was said to be revoked, in microseconds;
    /// none where no key was revoked. It is as long as it takes to elect a leader, where that is killed before it could tell.
    pub fn slowest_revocation_us(&self) -> Option<u64> {
        let refusals = self.revoked.iter().flat_map(|revoked| {
            let after = revoked.shown.iter().filter(move |shown| shown.ended_us >= revoked.told_us);
            after.filter(|shown| shown.is_refused()).map(move |shown| (shown, revoked.told_us))
        });
        let in_peace = refusals.filter(|(shown, told_us)| {
            let mut of_node = self.spells.iter().filter(|spell| spell.node == shown.node);
            of_node.all(|spell| spell.to_us < *told_us || shown.ended_us < spell.from_us)
        });
        in_peace.map(|(shown, told_us)| shown.ended_us - told_us).max()
    }
}

/// Revoked keys that were served by a node that had the revision without them, or are not refused in the end.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    for revoked in &observed.revoked {
        for shown in revoked.shown.iter().filter(|shown| !shown.is_refused()) {
            let knew = observed.seen.samples.iter().find(|sample| {
                let is_before = sample.node == shown.node && sample.at_us < shown.began_us;
                is_before && revoked.revision.is_some_and(|revision| sample.installed >= revision)
            });
            if let Some(knew) = knew {
                let (node, status, since) = (&shown.node, shown.status, knew.at_us);
                let what =
                    format!("{node} answers {status} to the key {} at {} µs", revoked.id, shown.began_us);
                wrong.push(format!("{what}, and has had the revision without it since {since} µs"));
            }
        }
        for shown in revoked.last.iter().filter(|shown| !shown.is_refused()) {
            let (node, status) = (&shown.node, shown.status);
            wrong.push(format!(
                "{node} answers {status} to the key {} in the end, which was revoked",
                revoked.id
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Burden, Spell, samples::observed},
        *,
    };

    fn shown(began_us: u64, status: u16) -> Shown {
        Shown { node: "node1".into(), began_us, ended_us: began_us + 1, status }
    }

    /// A key that was there until revision 5, which `node1` was seen to have at 10 µs.
    fn planted(statuses: &[(u64, u16)], last: u16) -> Observed {
        let shown_at = statuses.iter().map(|(at, status)| shown(*at, *status)).collect();
        let mut observed = observed();
        observed.revoked = vec![Revoked {
            id: "k".into(),
            revision: Some(5),
            told_us: 8,
            shown: shown_at,
            last: vec![shown(90, last)],
        }];
        observed
    }

    #[test]
    fn a_key_that_is_served_where_it_is_known_to_be_revoked_is_found() {
        assert_eq!(check(&planted(&[(5, 200), (9, 200), (12, 401)], 401)), Vec::<String>::new());
        assert_eq!(check(&planted(&[(5, 200), (12, 200)], 401)).len(), 1);
        assert_eq!(check(&planted(&[(12, 401), (14, 200)], 401)).len(), 1);
        assert_eq!(check(&planted(&[(12, 401)], 200)).len(), 1);
    }

    #[test]
    fn what_a_node_that_is_down_takes_is_not_counted() {
        let mut observed = planted(&[(5, 200), (9, 200), (12, 401)], 401);
        assert_eq!(observed.slowest_revocation_us(), Some(5));
        observed.spells = vec![Spell { node: "node1".into(), burden: Burden::Down, from_us: 9, to_us: 10 }];
        assert_eq!(observed.slowest_revocation_us(), None);
    }
}
