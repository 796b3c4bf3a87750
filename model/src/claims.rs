//! Which routes lay claim to which requests or connections, to find at once those that take the same.

use std::{collections::BTreeMap, hash::Hash, sync::LazyLock};

use ahash::RandomState;
use imbl::OrdSet;

use crate::{
    Name, Route, TcpRoute,
    route::{Match, PathMatch},
};

/// One host and match of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'r> {
    /// Equal for all that take the same requests, and nearly never for others.
    pub hash: u64,
    /// As the route has it; `*` for any.
    pub host: &'r str,
    pub matching: &'r Match,
}

/// The routes by the hashes of their claims; kept by [`crate::Config`] as routes come and go, so that a new
/// route is compared with those alone that may take the same requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Claims(OrdSet<(u64, Name)>);

impl Claims {
    pub(crate) fn insert(&mut self, name: &Name, hashes: impl Iterator<Item = u64>) {
        hashes.for_each(|hash| drop(self.0.insert((hash, name.clone()))));
    }

    pub(crate) fn remove(&mut self, name: &Name, hashes: impl Iterator<Item = u64>) {
        hashes.for_each(|hash| drop(self.0.remove(&(hash, name.clone()))));
    }

    /// The routes with a claim of this hash, by name.
    pub(crate) fn holders(&self, hash: u64) -> impl Iterator<Item = &Name> {
        self.0.range((hash, Name::least())..).take_while(move |(of, _)| *of == hash).map(|(_, name)| name)
    }
}

/// Every claim of a route.
pub(crate) fn of(route: &Route) -> impl Iterator<Item = Claim<'_>> {
    static EVERYTHING: Match =
        Match { path: None, methods: Vec::new(), headers: BTreeMap::new(), query: BTreeMap::new() };
    let hosts = route.hosts.iter().map(String::as_str).chain(route.hosts.is_empty().then_some("*"));
    hosts.flat_map(move |host| {
        let matches = route.matches.iter().chain(route.matches.is_empty().then_some(&EVERYTHING));
        matches.map(move |matching| Claim { hash: hash(host, matching), host, matching })
    })
}

/// One listener and host of a TCP route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpClaim<'r> {
    /// Equal for all that take the same connections, and nearly never for others.
    pub hash: u64,
    pub listener: &'r str,
    /// As the route has it; `*` for any.
    pub host: &'r str,
}

/// Every claim of a TCP route.
pub(crate) fn of_tcp(route: &TcpRoute) -> impl Iterator<Item = TcpClaim<'_>> {
    route.on().flat_map(move |listener| {
        route.patterns().map(move |host| TcpClaim { hash: keyed(&(listener, host)), listener, host })
    })
}

/// The path's type and text; `/a` and `/a/` are one prefix, and none is the prefix `/`.
pub(crate) fn path(matching: &Match) -> (u8, &str) {
    match &matching.path {
        None => (1, ""),
        Some(PathMatch::Exact(path)) => (0, path),
        Some(PathMatch::Prefix(path)) => (1, path.trim_end_matches('/')),
        Some(PathMatch::Regex(regex)) => (2, regex),
        Some(PathMatch::Template(path)) => (3, path),
    }
}

fn hash(host: &str, matching: &Match) -> u64 {
    keyed(&(host, path(matching), matching.headers.len(), matching.query.len()))
}

/// One key of chance for the process: nobody outside can make hashes collide, and equal configs have equal
/// claims.
fn keyed(what: &impl Hash) -> u64 {
    static HASHING: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHING.hash_one(what)
}
