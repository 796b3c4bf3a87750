//! That no two routes take exactly the same requests or connections: of two such, one would never be used.

use ahash::HashSet;

use super::Notes;
use crate::{
    Change, Config, Kind, Name, Op,
    claims::{self, Claim, Claims, TcpClaim},
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
    let put = put(change, Kind::Route);
    for name in &put {
        let Some(entry) = after.routes.get(*name) else { continue };
        notes.at(Kind::Route, name);
        for claim in claims::of(&entry.spec) {
            for other in others(&after.claims, claim.hash, name, &put) {
                note_if_same(after, claim, other, notes);
            }
        }
    }
    let put = self::put(change, Kind::TcpRoute);
    for name in &put {
        let Some(entry) = after.tcp_routes.get(*name) else { continue };
        notes.at(Kind::TcpRoute, name);
        for claim in claims::of_tcp(&entry.spec) {
            for other in others(&after.tcp_claims, claim.hash, name, &put) {
                note_if_same_tcp(after, claim, other, notes);
            }
        }
    }
}

/// What of this kind the change puts in.
fn put(change: &Change, wanted: Kind) -> HashSet<&Name> {
    let ops = change.ops.iter().filter_map(|op| match op {
        Op::Put { kind, name, .. } if *kind == wanted => Some(name),
        _ => None,
    });
    ops.collect()
}

/// Who else may have this claim, beside the new one of this name.
fn others<'c>(
    claims: &'c Claims,
    hash: u64,
    name: &Name,
    put: &HashSet<&Name>,
) -> impl Iterator<Item = &'c Name> {
    // Of two new ones, each would tell of the other: the later name does.
    claims.holders(hash).filter(move |other| *other != name && (!put.contains(other) || name > *other))
}

/// Notes the claim of the TCP route `other` that is the same as this one.
fn note_if_same_tcp(after: &Config, claim: TcpClaim<'_>, other: &Name, notes: &mut Notes) {
    let Some(entry) = after.tcp_routes.get(other) else { return };
    if claims::of_tcp(&entry.spec).any(|held| held == claim) {
        let TcpClaim { listener, host, .. } = claim;
        let message =
            format!("takes the same connections as tcp_route {other}: listener {listener}, host {host}");
        notes.note("hosts", message);
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
