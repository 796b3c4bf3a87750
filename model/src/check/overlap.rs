//! That no two routes take exactly the same requests: of two such, one would never be used.

use ahash::HashSet;

use super::Notes;
use crate::{
    Change, Config, Kind, Name, Op,
    claims::{self, Claim},
    route::{Match, ValueMatch},
};

fn same(one: &Match, other: &Match) -> bool {
    fn sorted(methods: &[String]) -> Vec<&str> {
        let mut methods: Vec<&str> = methods.iter().map(String::as_str).collect();
        methods.sort_unstable();
        methods.dedup();
        methods
    }
    let lower = |matching: &Match| -> Vec<(String, ValueMatch)> {
        let headers = matching.headers.iter();
        let mut headers: Vec<_> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        headers.sort_by(|one, other| one.0.cmp(&other.0));
        headers
    };
    claims::path(one) == claims::path(other)
        && sorted(&one.methods) == sorted(&other.methods)
        && one.query == other.query
        && lower(one) == lower(other)
}

pub(super) fn check(after: &Config, change: &Change, notes: &mut Notes) {
    let put: HashSet<&Name> = change
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::Put { kind: Kind::Route, name, .. } => Some(name),
            _ => None,
        })
        .collect();
    for name in &put {
        let Some(entry) = after.routes.get(*name) else { continue };
        notes.at(Kind::Route, name);
        for claim in claims::of(&entry.spec) {
            // Of two new ones, each would tell of the other: the later name does.
            let others = after.claims.holders(claim.hash);
            for other in others.filter(|other| other != name && (!put.contains(other) || *name > other)) {
                note_if_same(after, claim, other, notes);
            }
        }
    }
}

/// Notes each claim of the route `other` that is the same as this one.
fn note_if_same(after: &Config, claim: Claim<'_>, other: &Name, notes: &mut Notes) {
    let Some(entry) = after.routes.get(other) else { return };
    let same = |held: &Claim<'_>| {
        held.hash == claim.hash && held.host == claim.host && same(held.matching, claim.matching)
    };
    for _ in claims::of(&entry.spec).filter(same) {
        let (_, path) = claims::path(claim.matching);
        let path = if path.is_empty() { "/" } else { path };
        let host = claim.host;
        notes.note("match", format!("takes the same requests as route {other}: host {host}, path {path}"));
    }
}
