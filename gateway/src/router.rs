//! Finds the route of a request: host, then path, then the few predicates left, for any number of routes.
//!
//! Every host keeps the shapes of the patterns it has (exact; prefixes by depth; templates by where their wildcards
//! stand) in the order of precedence. A look-up goes through the shapes and asks one hash map for the patterns of that
//! shape that can take the path, so it costs by how many shapes there are and not by how many routes. Expressions can
//! only be tried one after another.

use std::{
    borrow::Cow,
    cmp::Ordering,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use ahash::RandomState;
use compact_str::CompactString;
use smallvec::SmallVec;

use self::table::Table;
use crate::plan::{
    CompiledRoute, Head,
    matcher::CompiledMatch,
    pattern::{SEGMENTS_MAX, Shape},
};

mod table;

/// The most labels of a host name: 253 bytes hold 127.
const LABELS_MAX: usize = 127;

/// The routes by host and path. A clone shares everything with its original.
#[derive(Clone)]
pub(crate) struct Router {
    /// By exact name, by `.suffix` for a wildcard, by nothing for any host.
    hosts: Table<Host>,
    /// How many wildcards there are of so many labels: the others need no look.
    wildcards: Arc<[u32; LABELS_MAX + 1]>,
    /// How many in all. Where there are none, no suffix needs a look.
    wildcards_in_all: u32,
    /// Candidates by the hash of their host, shape and literals.
    buckets: Table<Bucket>,
    hasher: RandomState,
    next_host: u32,
}

/// What is known of one host pattern.
#[derive(Clone)]
struct Host {
    /// As [`host_key`] gives it.
    name: CompactString,
    id: u32,
    /// The shapes of its patterns and how many there are, the first in precedence first.
    shapes: SmallVec<[(Shape, u32); 2]>,
    /// Its expressions in their order.
    regexes: Option<Arc<Vec<Candidate>>>,
}

/// One match of a route at one of its hosts.
#[derive(Clone)]
struct Candidate {
    route: Arc<CompiledRoute>,
    host: u32,
    index: u16,
}

/// Candidates that share a hash: nearly always those of one host and pattern, in their order.
#[derive(Clone)]
enum Bucket {
    One(Candidate),
    Several(Arc<Vec<Candidate>>),
}

impl Host {
    fn new(key: &str, id: u32) -> Self {
        Self { name: key.into(), id, shapes: SmallVec::new(), regexes: None }
    }
}

impl Candidate {
    fn matcher(&self) -> &CompiledMatch {
        &self.route.matches[usize::from(self.index)]
    }

    /// The order of those whose host and path are as specific.
    fn order(&self, other: &Self) -> Ordering {
        precedence((&self.route, self.index.into()), (&other.route, other.index.into()))
    }

    fn is_of(&self, route: &Arc<CompiledRoute>) -> bool {
        Arc::ptr_eq(&self.route, route)
    }
}

impl Bucket {
    fn candidates(&self) -> &[Candidate] {
        match self {
            Self::One(candidate) => std::slice::from_ref(candidate),
            Self::Several(candidates) => candidates,
        }
    }

    fn insert(&mut self, candidate: Candidate) {
        match self {
            Self::One(one) => {
                let mut several = vec![one.clone()];
                insert_sorted(&mut several, candidate);
                *self = Self::Several(Arc::new(several));
            }
            Self::Several(several) => insert_sorted(Arc::make_mut(several), candidate),
        }
    }

    /// Takes out those of this route, and says how many are left; the bucket is to go if none is.
    fn remove(&mut self, route: &Arc<CompiledRoute>) -> usize {
        match self {
            Self::One(one) => usize::from(!one.is_of(route)),
            Self::Several(several) => {
                let several = Arc::make_mut(several);
                several.retain(|candidate| !candidate.is_of(route));
                let left = several.len();
                if let [one] = &several[..] {
                    *self = Self::One(one.clone());
                }
                left
            }
        }
    }
}

/// The order of two matches whose host and path are as specific: expressions by length, then method, headers, query,
/// age, name, and place in the route.
pub(crate) fn precedence(
    (a, a_index): (&CompiledRoute, usize),
    (b, b_index): (&CompiledRoute, usize),
) -> Ordering {
    let (a_match, b_match) = (&a.matches[a_index], &b.matches[b_index]);
    let by_length = b_match.path.regex_len().cmp(&a_match.path.regex_len());
    by_length
        .then_with(|| a_match.rank().cmp(&b_match.rank()))
        .then_with(|| a.created.cmp(&b.created))
        .then_with(|| a.name.cmp(&b.name))
        .then_with(|| a_index.cmp(&b_index))
}

impl Router {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            hosts: Table::new(),
            wildcards: Arc::new([0; LABELS_MAX + 1]),
            wildcards_in_all: 0,
            buckets: Table::new(),
            hasher,
            next_host: 0,
        }
    }

    /// The route that takes the request, and which of its matches.
    pub(crate) fn route(&self, head: &Head<'_>) -> Option<(&Arc<CompiledRoute>, usize)> {
        let segments = Segments::of(head.path);
        let find = |key: &str| self.find(self.host(key)?, head, &segments);
        let candidate = find(if head.host.starts_with('.') { "" } else { head.host })
            .or_else(|| self.suffixes(head.host).find_map(find))
            .or_else(|| find(""))?;
        Some((&candidate.route, candidate.index.into()))
    }

    /// The suffixes of a host that some wildcard has as many labels as, the longest first.
    fn suffixes<'h>(&self, host: &'h str) -> impl Iterator<Item = &'h str> {
        let any = self.wildcards_in_all > 0;
        let dots = if any { host.bytes().filter(|byte| *byte == b'.').count() } else { 0 };
        let places = host.bytes().enumerate().filter(|(place, byte)| *byte == b'.' && *place > 0);
        // A host that begins with a dot has no first label, and that dot is not among the places.
        let skipped = usize::from(host.starts_with('.'));
        places
            .take(if any { usize::MAX } else { 0 })
            .enumerate()
            .filter(move |(index, _)| {
                let labels = dots.saturating_sub(index + skipped);
                self.wildcards.get(labels).is_some_and(|count| *count > 0)
            })
            .map(|(_, (place, _))| &host[place..])
    }

    fn host(&self, key: &str) -> Option<&Host> {
        self.hosts.of(host_hash(&self.hasher, key)).find(|host| host.name == *key)
    }

    fn find<'t>(&'t self, host: &'t Host, head: &Head<'_>, segments: &Segments<'_>) -> Option<&'t Candidate> {
        let takes = |candidate: &&Candidate| {
            let matcher = candidate.matcher();
            candidate.host == host.id && matcher.path.takes(head.path) && matcher.takes_rest(head)
        };
        for (shape, _) in &host.shapes {
            let Some(hash) = self.probe(host.id, *shape, segments) else { continue };
            let found = self.buckets.of(hash).find_map(|bucket| bucket.candidates().iter().find(takes));
            if found.is_some() {
                return found;
            }
        }
        host.regexes.as_ref()?.iter().find(takes)
    }

    /// The hash under which a pattern of this shape that takes the path would be; none if the path is too short or
    /// long for the shape.
    fn probe(&self, host: u32, shape: Shape, segments: &Segments<'_>) -> Option<u64> {
        let mut hash = shape_hash(&self.hasher, host, shape);
        match shape {
            Shape::Exact => piece(&mut hash, segments.path),
            Shape::Prefix(inverse) => {
                piece(&mut hash, segments.first(SEGMENTS_MAX - usize::from(inverse))?);
            }
            Shape::Template(code) => {
                let mut place = 0;
                for kind in Shape::kinds(code) {
                    let segment = segments.get(place)?;
                    match kind {
                        1 => piece(&mut hash, segment),
                        2 if segment.is_empty() => return None,
                        2 => {}
                        _ => return Some(hash.finish()),
                    }
                    place += 1;
                }
                if segments.get(place).is_some() {
                    return None;
                }
            }
        }
        Some(hash.finish())
    }

    /// Puts a route in.
    pub(crate) fn insert(&mut self, route: &Arc<CompiledRoute>) {
        for pattern in distinct_hosts(route) {
            let key = host_key(&pattern);
            let hash = host_hash(&self.hasher, key);
            if self.host(key).is_none() {
                self.hosts.insert(hash, Host::new(key, self.next_host));
                self.next_host = self.next_host.wrapping_add(1);
                self.count_wildcard(key, 1);
            }
            let Some(host) = self.hosts.get_mut(hash, |host| host.name == key) else { continue };
            for (index, matcher) in (0u16..).zip(&route.matches) {
                let candidate = Candidate { route: route.clone(), host: host.id, index };
                let Some((shape, hash)) = pattern_hash(&self.hasher, host.id, matcher) else {
                    insert_sorted(Arc::make_mut(host.regexes.get_or_insert_default()), candidate);
                    continue;
                };
                match host.shapes.binary_search_by_key(&shape, |(shape, _)| *shape) {
                    Ok(at) => host.shapes[at].1 += 1,
                    Err(at) => host.shapes.insert(at, (shape, 1)),
                }
                match self.buckets.get_mut(hash, |_| true) {
                    Some(bucket) => bucket.insert(candidate),
                    None => self.buckets.insert(hash, Bucket::One(candidate)),
                }
            }
        }
    }

    /// Takes a route out.
    pub(crate) fn remove(&mut self, route: &Arc<CompiledRoute>) {
        for pattern in distinct_hosts(route) {
            let key = host_key(&pattern);
            let hash = host_hash(&self.hasher, key);
            let Some(host) = self.hosts.get_mut(hash, |host| host.name == key) else { continue };
            for matcher in &route.matches {
                let Some((shape, hash)) = pattern_hash(&self.hasher, host.id, matcher) else { continue };
                if let Ok(at) = host.shapes.binary_search_by_key(&shape, |(shape, _)| *shape) {
                    host.shapes[at].1 -= 1;
                    if host.shapes[at].1 == 0 {
                        host.shapes.remove(at);
                    }
                }
                let left = self.buckets.get_mut(hash, |_| true).map_or(1, |bucket| bucket.remove(route));
                if left == 0 {
                    self.buckets.remove(hash, |_| true);
                }
            }
            let is_there = |regexes: &&mut Arc<Vec<Candidate>>| regexes.iter().any(|one| one.is_of(route));
            if let Some(regexes) = host.regexes.as_mut().filter(is_there) {
                Arc::make_mut(regexes).retain(|candidate| !candidate.is_of(route));
            }
            host.regexes.take_if(|regexes| regexes.is_empty());
            if host.shapes.is_empty() && host.regexes.is_none() {
                self.hosts.remove(hash, |host| host.name == key);
                self.count_wildcard(key, -1);
            }
        }
    }

    fn count_wildcard(&mut self, host: &str, change: i32) {
        let labels = host.bytes().filter(|byte| *byte == b'.').count();
        if host.starts_with('.') && labels <= LABELS_MAX {
            let count = &mut Arc::make_mut(&mut self.wildcards)[labels];
            *count = count.saturating_add_signed(change);
            self.wildcards_in_all = self.wildcards_in_all.saturating_add_signed(change);
        }
    }
}

fn insert_sorted(candidates: &mut Vec<Candidate>, candidate: Candidate) {
    let at = candidates.partition_point(|other| other.order(&candidate).is_lt());
    candidates.insert(at, candidate);
}

fn host_hash(hasher: &RandomState, key: &str) -> u64 {
    let mut hash = hasher.build_hasher();
    hash.write(key.as_bytes());
    hash.finish()
}

/// The beginning of the hash of every pattern of this shape.
fn shape_hash(hasher: &RandomState, host: u32, shape: Shape) -> ahash::AHasher {
    let mut hash = hasher.build_hasher();
    hash.write_u32(host);
    match shape {
        Shape::Exact => hash.write_u8(0),
        Shape::Prefix(inverse) => hash.write_u8(1 + inverse),
        Shape::Template(code) => hash.write(&code),
    }
    hash
}

/// The shape of this match and the hash under which it is kept, or none for an expression.
fn pattern_hash(hasher: &RandomState, host: u32, matcher: &CompiledMatch) -> Option<(Shape, u64)> {
    let shape = matcher.path.shape()?;
    let mut hash = shape_hash(hasher, host, shape);
    for literal in matcher.path.literals() {
        piece(&mut hash, literal);
    }
    Some((shape, hash.finish()))
}

/// Ends each piece, so that `a`, `bc` and `ab`, `c` differ.
fn piece(hash: &mut ahash::AHasher, text: &str) {
    hash.write(text.as_bytes());
    hash.write_u8(b'/');
}

/// The hosts of a route as they are matched, each once.
fn distinct_hosts(route: &CompiledRoute) -> Vec<String> {
    let mut hosts: Vec<String> = route.hosts().map(pattern_host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// A host pattern as it is matched: in lower case, without a final dot.
pub(crate) fn pattern_host(pattern: &str) -> String {
    pattern.strip_suffix('.').unwrap_or(pattern).to_ascii_lowercase()
}

/// `*.example` is kept as `.example`, which no host can be.
fn host_key(pattern: &str) -> &str {
    pattern.strip_prefix('*').unwrap_or(pattern)
}

/// The host of an authority (`host` or `host:port`) as it is matched: in lower case, without port and final dot. None
/// if it can't be a host.
pub fn host(authority: &str) -> Option<Cow<'_, str>> {
    let host = if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, port) = authority.split_at(end);
        port_is_good(port).then_some(host)?
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        port_is_good(port).then_some(host)?
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            // No label is empty: `.example` is how a wildcard is kept.
            host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'))
                && host.split('.').all(|label| !label.is_empty())
        }
    };
    if host.is_empty() || host.len() > 253 || !good {
        return None;
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

/// Empty, or a colon and a port (RFC 3986, section 3.2.3, lets it be empty).
fn port_is_good(port: &str) -> bool {
    port.strip_prefix(':').map_or(port.is_empty(), |digits| {
        digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
    })
}

/// Where the segments of a path end; those past the most that a pattern can have are not looked at.
struct Segments<'a> {
    path: &'a str,
    ends: [u32; SEGMENTS_MAX + 1],
    count: usize,
}

impl<'a> Segments<'a> {
    fn of(path: &'a str) -> Self {
        let mut this = Self { path, ends: [0; SEGMENTS_MAX + 1], count: 0 };
        let slashes =
            path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(place, _)| place);
        for (end, place) in this.ends.iter_mut().zip(slashes.chain([path.len()])) {
            *end = u32::try_from(place).unwrap_or(u32::MAX);
            this.count += 1;
        }
        this
    }

    /// The first `depth` segments, each with the slash before it.
    fn first(&self, depth: usize) -> Option<&'a str> {
        match depth.checked_sub(1) {
            None => Some(""),
            Some(last) if last < self.count => self.path.get(..self.ends[last] as usize),
            Some(_) => None,
        }
    }

    /// The segment at this place, without its slash.
    fn get(&self, place: usize) -> Option<&'a str> {
        let end = *self.ends[..self.count].get(place)?;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        self.path.get(start as usize + 1..end as usize)
    }
}

#[cfg(test)]
mod tests;
