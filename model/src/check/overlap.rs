//! That no two routes take exactly the same requests: of two such, one would never be used.

use std::hash::{BuildHasher, Hash, Hasher};

use ahash::{HashMap, HashSet, RandomState};

use super::Notes;
use crate::{
    Change, Config, Kind, Name, Op, Route,
    route::{Match, PathMatch, ValueMatch},
};

/// Of each host and match of a route, the hash; equal ones of two routes are compared in full.
fn claims<'r>(route: &'r Route, hashing: &RandomState) -> Vec<(u64, &'r str, &'r Match)> {
    static EVERYTHING: Match = Match {
        path: None,
        methods: Vec::new(),
        headers: std::collections::BTreeMap::new(),
        query: std::collections::BTreeMap::new(),
    };
    let hosts = route.hosts.iter().map(String::as_str).chain(route.hosts.is_empty().then_some("*"));
    let matches = || route.matches.iter().chain(route.matches.is_empty().then_some(&EVERYTHING));
    hosts
        .flat_map(|host| matches().map(move |matching| (claim_hash(host, matching, hashing), host, matching)))
        .collect()
}

fn claim_hash(host: &str, matching: &Match, hashing: &RandomState) -> u64 {
    let mut hasher = hashing.build_hasher();
    host.hash(&mut hasher);
    path(matching).hash(&mut hasher);
    (matching.methods.len(), matching.headers.len(), matching.query.len()).hash(&mut hasher);
    hasher.finish()
}

/// The path's type and text; `/a` and `/a/` are one prefix, and none is the prefix `/`.
fn path(matching: &Match) -> (u8, &str) {
    match &matching.path {
        None => (1, ""),
        Some(PathMatch::Exact(path)) => (0, path),
        Some(PathMatch::Prefix(path)) => (1, path.trim_end_matches('/')),
        Some(PathMatch::Regex(regex)) => (2, regex),
        Some(PathMatch::Template(path)) => (3, path),
    }
}

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
    path(one) == path(other)
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
    if put.is_empty() {
        return;
    }
    let hashing = RandomState::new();
    let mut wanted: HashMap<u64, Vec<(&Name, &str, &Match)>> = HashMap::default();
    for name in &put {
        let Some(entry) = after.routes.get(*name) else { continue };
        for (hash, host, matching) in claims(&entry.spec, &hashing) {
            wanted.entry(hash).or_default().push((name, host, matching));
        }
    }
    // Of 100,000 routes most share no host with the new ones: those cost a comparison of names each, no more.
    let hosts: HashSet<&str> = wanted.values().flatten().map(|(_, host, _)| *host).collect();
    let shares = |route: &Route| match route.hosts.is_empty() {
        true => hosts.contains("*"),
        false => route.hosts.iter().any(|host| hosts.contains(host.as_str())),
    };
    for (other, entry) in after.routes.iter().filter(|(_, entry)| shares(&entry.spec)) {
        for (hash, other_host, other_match) in claims(&entry.spec, &hashing) {
            for (name, host, matching) in wanted.get(&hash).into_iter().flatten() {
                // Of two new ones, each would tell of the other: the later name does.
                let once = !put.contains(other) || *name > other;
                if *name != other && once && *host == other_host && same(matching, other_match) {
                    notes.at(Kind::Route, name);
                    let (_, path) = path(matching);
                    let path = if path.is_empty() { "/" } else { path };
                    notes.note(
                        "match",
                        format!("takes the same requests as route {other}: host {host}, path {path}"),
                    );
                }
            }
        }
    }
}
