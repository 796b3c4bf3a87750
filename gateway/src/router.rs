//! Finds the route of a request: host, then path, then the few predicates left, for any number of routes.
//!
//! Every host keeps the shapes of the patterns it has (exact; prefixes by depth; templates by where their wildcards
//! stand) in the order of precedence. A look-up goes through the shapes and asks one hash map for the patterns of that
//! shape that can take the path, so it costs by how many shapes there are and not by how many routes. Expressions can
//! only be tried one after another.

use std::{
    borrow::Cow,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    sync::Arc,
};

use ahash::RandomState;
use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};
use smallvec::SmallVec;

use crate::plan::{
    CompiledRoute, Head, Map,
    matcher::CompiledMatch,
    pattern::{SEGMENTS_MAX, Shape},
};

/// The most labels of a host name: 253 bytes hold 127.
const LABELS_MAX: usize = 127;

/// The routes by host and path. A clone shares everything with its original.
#[derive(Clone)]
pub(crate) struct Router {
    /// By exact name, by `.suffix` for a wildcard, by nothing for any host.
    hosts: Map<HostKey, Arc<HostTable>>,
    /// How many wildcards there are of so many labels: the others need no look.
    wildcards: Arc<[u32; LABELS_MAX + 1]>,
    /// How many in all. Where there are none, no suffix needs a look.
    wildcards_in_all: u32,
    /// Candidates by the hash of their host, shape and literals.
    buckets: GenericHashMap<u64, Bucket, BuildHasherDefault<Hashed>, DefaultSharedPtr>,
    hasher: RandomState,
    next_host: u32,
}

/// The bytes of a host pattern, most of them in their place.
type HostKey = SmallVec<[u8; 24]>;

/// What is known of one host pattern.
#[derive(Clone, Default)]
struct HostTable {
    id: u32,
    /// The shapes of its patterns and how many there are, the first in precedence first.
    shapes: SmallVec<[(Shape, u32); 2]>,
    /// Its expressions in their order.
    regexes: Vec<Candidate>,
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

/// Passes a hash through.
#[derive(Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Candidate {
    fn matcher(&self) -> &CompiledMatch {
        &self.route.matches[usize::from(self.index)]
    }

    /// The order of those whose host and path are as specific.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        precedence((&self.route, self.index.into()), (&other.route, other.index.into()))
    }

    fn is_of(&self, route: &Arc<CompiledRoute>) -> bool {
        Arc::ptr_eq(&self.route, route)
    }
}

/// The order of two matches whose host and path are as specific: expressions by length, then method, headers, query,
/// age, name, and place in the route.
pub(crate) fn precedence(
    (a, a_index): (&CompiledRoute, usize),
    (b, b_index): (&CompiledRoute, usize),
) -> std::cmp::Ordering {
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
            hosts: Map::with_hasher(hasher.clone()),
            wildcards: Arc::new([0; LABELS_MAX + 1]),
            wildcards_in_all: 0,
            buckets: GenericHashMap::with_hasher(BuildHasherDefault::default()),
            hasher,
            next_host: 0,
        }
    }

    /// The route that takes the request, and which of its matches.
    pub(crate) fn route(&self, head: &Head<'_>) -> Option<(&Arc<CompiledRoute>, usize)> {
        let segments = Segments::of(head.path);
        let find =
            |key: &str| self.hosts.get(key.as_bytes()).and_then(|table| self.find(table, head, &segments));
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

    fn find<'t>(
        &'t self,
        table: &'t HostTable,
        head: &Head<'_>,
        segments: &Segments<'_>,
    ) -> Option<&'t Candidate> {
        let takes = |candidate: &&Candidate| {
            let matcher = candidate.matcher();
            candidate.host == table.id && matcher.path.takes(head.path) && matcher.takes_rest(head)
        };
        for (shape, _) in &table.shapes {
            let Some(key) = self.probe(table.id, *shape, segments) else { continue };
            let found = match self.buckets.get(&key) {
                None => None,
                Some(Bucket::One(candidate)) => Some(candidate).filter(takes),
                Some(Bucket::Several(candidates)) => candidates.iter().find(takes),
            };
            if found.is_some() {
                return found;
            }
        }
        table.regexes.iter().find(takes)
    }

    /// The hash under which a pattern of this shape that takes the path would be; none if the path is too short or
    /// long for the shape.
    fn probe(&self, host: u32, shape: Shape, segments: &Segments<'_>) -> Option<u64> {
        let mut hash = self.hash(host, shape);
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

    fn hash(&self, host: u32, shape: Shape) -> ahash::AHasher {
        let mut hash = self.hasher.build_hasher();
        hash.write_u32(host);
        match shape {
            Shape::Exact => hash.write_u8(0),
            Shape::Prefix(inverse) => hash.write_u8(1 + inverse),
            Shape::Template(code) => hash.write_u128(code),
        }
        hash
    }

    /// The hash under which this match is kept, or none for an expression.
    fn key(&self, host: u32, matcher: &CompiledMatch) -> Option<(Shape, u64)> {
        let shape = matcher.path.shape()?;
        let mut hash = self.hash(host, shape);
        for literal in matcher.path.literals() {
            piece(&mut hash, literal);
        }
        Some((shape, hash.finish()))
    }

    /// Puts a route in.
    pub(crate) fn insert(&mut self, route: &Arc<CompiledRoute>) {
        for pattern in distinct_hosts(route) {
            let host = host_key(&pattern);
            let mut table = match self.hosts.get(host.as_bytes()) {
                Some(table) => table.clone(),
                None => {
                    let id = self.next_host;
                    self.next_host = self.next_host.wrapping_add(1);
                    self.count_wildcard(host, 1);
                    Arc::new(HostTable { id, ..HostTable::default() })
                }
            };
            let before = Arc::as_ptr(&table);
            for (index, matcher) in (0u16..).zip(&route.matches) {
                let candidate = Candidate { route: route.clone(), host: table.id, index };
                let Some((shape, key)) = self.key(table.id, matcher) else {
                    insert_sorted(&mut Arc::make_mut(&mut table).regexes, candidate);
                    continue;
                };
                let shapes = &mut Arc::make_mut(&mut table).shapes;
                match shapes.binary_search_by_key(&shape, |(shape, _)| *shape) {
                    Ok(at) => shapes[at].1 += 1,
                    Err(at) => shapes.insert(at, (shape, 1)),
                }
                match self.buckets.get_mut(&key) {
                    None => {
                        self.buckets.insert(key, Bucket::One(candidate));
                    }
                    Some(Bucket::Several(several)) => insert_sorted(Arc::make_mut(several), candidate),
                    Some(bucket @ Bucket::One(_)) => {
                        let Bucket::One(one) = bucket.clone() else { continue };
                        let mut several = vec![one];
                        insert_sorted(&mut several, candidate);
                        *bucket = Bucket::Several(Arc::new(several));
                    }
                }
            }
            if !std::ptr::eq(before, Arc::as_ptr(&table)) || !self.hosts.contains_key(host.as_bytes()) {
                self.hosts.insert(host.as_bytes().into(), table);
            }
        }
    }

    /// Takes a route out.
    pub(crate) fn remove(&mut self, route: &Arc<CompiledRoute>) {
        for pattern in distinct_hosts(route) {
            let host = host_key(&pattern);
            let Some(mut table) = self.hosts.get(host.as_bytes()).cloned() else { continue };
            for matcher in &route.matches {
                let Some((shape, key)) = self.key(table.id, matcher) else { continue };
                let shapes = &mut Arc::make_mut(&mut table).shapes;
                if let Ok(at) = shapes.binary_search_by_key(&shape, |(shape, _)| *shape) {
                    shapes[at].1 -= 1;
                    if shapes[at].1 == 0 {
                        shapes.remove(at);
                    }
                }
                let left = match self.buckets.get(&key) {
                    Some(Bucket::Several(several)) => {
                        several.iter().filter(|candidate| !candidate.is_of(route)).cloned().collect()
                    }
                    Some(Bucket::One(one)) if !one.is_of(route) => continue,
                    _ => Vec::new(),
                };
                match <[Candidate; 1]>::try_from(left) {
                    Ok([one]) => self.buckets.insert(key, Bucket::One(one)),
                    Err(left) if left.is_empty() => self.buckets.remove(&key),
                    Err(left) => self.buckets.insert(key, Bucket::Several(Arc::new(left))),
                };
            }
            if table.regexes.iter().any(|candidate| candidate.is_of(route)) {
                Arc::make_mut(&mut table).regexes.retain(|candidate| !candidate.is_of(route));
            }
            if table.shapes.is_empty() && table.regexes.is_empty() {
                self.hosts.remove(host.as_bytes());
                self.count_wildcard(host, -1);
            } else {
                self.hosts.insert(host.as_bytes().into(), table);
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
