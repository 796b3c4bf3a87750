//! The TCP routes of a Plan, and which of them takes a connection.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use ahash::RandomState;
use imbl::OrdMap;
use model::{Name, Revision, tcp_route::PROXY_TLS};

use super::{Map, route::Weighted};
use crate::{metrics::Count, tls::certificates::Certificates, upstream::figures::ByWorker};

/// A TCP route, ready to be obeyed. It names its upstreams, which the Plan resolves.
#[derive(Debug)]
pub(crate) struct CompiledTcpRoute {
    pub(crate) name: Name,
    pub(crate) created: Revision,
    pub(crate) spec: Arc<model::TcpRoute>,
    pub(crate) to: Weighted,
    /// What outlives this Plan.
    pub(crate) state: Arc<TcpState>,
}

impl CompiledTcpRoute {
    /// Of this spec, with the state of `old`, if there was one of its name.
    pub(crate) fn compile(name: &Name, entry: &model::Entry<model::TcpRoute>, old: Option<&Self>) -> Self {
        Self {
            name: name.clone(),
            created: entry.created,
            spec: entry.spec.clone(),
            to: Weighted::of(entry.spec.shares().map(|(upstream, weight)| (upstream, weight.into()))),
            state: old.map_or_else(Arc::default, |old| old.state.clone()),
        }
    }
}

/// What is known of a TCP route beside its config; kept for as long as there is one of its name.
#[derive(Debug, Default)]
pub(crate) struct TcpState {
    /// Connections now, counted where they are limited.
    open: AtomicU32,
    pub(crate) figures: ByWorker<TcpFigures>,
}

/// What one worker has counted of one TCP route.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct TcpFigures {
    /// Connections that it has taken.
    pub(crate) connections: Count,
    /// Those of them that are there now.
    pub(crate) open: Count,
    /// Bytes of clients.
    pub(crate) bytes_in: Count,
    /// Bytes of targets.
    pub(crate) bytes_out: Count,
}

/// A connection's place among those that a TCP route may have, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<TcpState>);

impl Place {
    /// None if there are as many as there may be.
    pub(crate) fn take(state: &Arc<TcpState>, max: u32) -> Option<Self> {
        let more = |open| (open < max).then_some(open + 1);
        state.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(state.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// How exactly a host is meant: the bytes behind the `*.` of a wildcard; the most there is for an exact name.
pub(crate) type Exactness = usize;

/// Of an exact name.
pub(crate) const EXACT: Exactness = Exactness::MAX;

/// All TCP routes of a Plan. Shares structure with its clones.
#[derive(Clone)]
pub(crate) struct TcpRoutes {
    by_name: OrdMap<Name, Arc<CompiledTcpRoute>>,
    listeners: OrdMap<Box<str>, Listener>,
    hasher: RandomState,
}

/// The TCP routes of one listener, by host.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    exact: Map<Box<str>, Arc<CompiledTcpRoute>>,
    /// By what is behind `*.`.
    wildcard: Map<Box<str>, Arc<CompiledTcpRoute>>,
    any: Option<Arc<CompiledTcpRoute>>,
}

impl TcpRoutes {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self { by_name: OrdMap::new(), listeners: OrdMap::new(), hasher }
    }

    pub(crate) fn get(&self, name: &Name) -> Option<&Arc<CompiledTcpRoute>> {
        self.by_name.get(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<CompiledTcpRoute>> {
        self.by_name.values()
    }

    /// Puts a route in, in the place of the one of its name.
    pub(crate) fn insert(&mut self, route: &Arc<CompiledTcpRoute>) {
        self.remove(&route.name);
        for name in route.spec.on() {
            let mut listener = self.listeners.remove(name).unwrap_or_else(|| Listener {
                exact: Map::with_hasher(self.hasher.clone()),
                wildcard: Map::with_hasher(self.hasher.clone()),
                any: None,
            });
            for pattern in route.spec.patterns() {
                match (pattern, pattern.strip_prefix("*.")) {
                    ("*", _) => listener.any = Some(route.clone()),
                    (_, Some(behind)) => drop(listener.wildcard.insert(behind.into(), route.clone())),
                    (host, None) => drop(listener.exact.insert(host.into(), route.clone())),
                }
            }
            self.listeners.insert(name.into(), listener);
        }
        self.by_name.insert(route.name.clone(), route.clone());
    }

    /// Takes the route of this name out.
    pub(crate) fn remove(&mut self, name: &Name) {
        let Some(route) = self.by_name.remove(name) else { return };
        // What another has taken over within the same change is its.
        let is_its = |held: Option<&Arc<CompiledTcpRoute>>| held.is_some_and(|held| held.name == *name);
        for on in route.spec.on() {
            let Some(mut listener) = self.listeners.remove(on) else { continue };
            for pattern in route.spec.patterns() {
                match (pattern, pattern.strip_prefix("*.")) {
                    ("*", _) if is_its(listener.any.as_ref()) => listener.any = None,
                    ("*", _) => {}
                    (_, Some(behind)) if is_its(listener.wildcard.get(behind)) => {
                        listener.wildcard.remove(behind);
                    }
                    (host, None) if is_its(listener.exact.get(host)) => drop(listener.exact.remove(host)),
                    _ => {}
                }
            }
            if listener.reads_hello() || listener.any.is_some() {
                self.listeners.insert(on.into(), listener);
            }
        }
    }

    /// Those of this listener, if there are any.
    pub(crate) fn on(&self, listener: &str) -> Option<&Listener> {
        self.listeners.get(listener)
    }

    /// The route that takes a connection of the listener for TLS, whose client names this host, if it is not to be ended here: where a
    /// certificate is for the host more exactly than any route is, it is; where nothing is for the host, what takes any host does.
    pub(crate) fn of_tls(
        &self,
        host: Option<&str>,
        certificates: &Certificates,
    ) -> Option<&Arc<CompiledTcpRoute>> {
        let listener = self.on(PROXY_TLS)?;
        let named = host.and_then(|host| {
            let (route, exactness) = listener.named(host)?;
            certificates.exactness(host).is_none_or(|other| other <= exactness).then_some(route)
        });
        named.or_else(|| listener.any.as_ref().filter(|_| !certificates.has_any_for(host)))
    }
}

impl Listener {
    /// Whether a connection is read until its client has named a host.
    pub(crate) fn reads_hello(&self) -> bool {
        !(self.exact.is_empty() && self.wildcard.is_empty())
    }

    /// The route that takes a connection whose client names this host, or none.
    pub(crate) fn of(&self, host: Option<&str>) -> Option<&Arc<CompiledTcpRoute>> {
        host.and_then(|host| self.named(host)).map(|(route, _)| route).or(self.any.as_ref())
    }

    /// The route that takes what no other does.
    pub(crate) fn any(&self) -> Option<&Arc<CompiledTcpRoute>> {
        self.any.as_ref()
    }

    /// The route that is for this host by name, the most exactly, and how exactly.
    fn named(&self, host: &str) -> Option<(&Arc<CompiledTcpRoute>, Exactness)> {
        if let Some(route) = self.exact.get(host) {
            return Some((route, EXACT));
        }
        let behind = host.char_indices().filter(|(_, letter)| *letter == '.').map(|(at, _)| &host[at + 1..]);
        behind.filter(|_| !host.starts_with('.')).find_map(|behind| {
            let route = self.wildcard.get(behind)?;
            Some((route, behind.len()))
        })
    }
}

/// A host as it is matched: in lower case, without the dot that says that it is whole.
pub(crate) fn host(named: &str) -> String {
    named.strip_suffix('.').unwrap_or(named).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::tickets::Tickets;

    fn compiled(name: &str, spec: &str) -> Arc<CompiledTcpRoute> {
        let spec = Arc::new(serde_json::from_str(spec).unwrap());
        let entry = model::Entry { created: Revision(1), changed: Revision(1), doc: Arc::from([]), spec };
        Arc::new(CompiledTcpRoute::compile(&Name::new(name).unwrap(), &entry, None))
    }

    fn routes(all: &[(&str, &str)]) -> TcpRoutes {
        let mut routes = TcpRoutes::new(RandomState::new());
        all.iter().for_each(|(name, spec)| routes.insert(&compiled(name, spec)));
        routes
    }

    fn taken<'r>(routes: &'r TcpRoutes, on: &str, host: Option<&str>) -> Option<&'r str> {
        Some(routes.on(on)?.of(host)?.name.as_str())
    }

    #[test]
    fn the_more_specific_host_goes_first() {
        let routes = routes(&[
            ("exact", r#"{"hosts":["a.b.example"],"upstream":"u"}"#),
            ("near", r#"{"hosts":["*.b.example"],"upstream":"u"}"#),
            ("far", r#"{"hosts":["*.example"],"upstream":"u"}"#),
            ("rest", r#"{"listeners":["proxy-tls"],"upstream":"u"}"#),
        ]);
        for (host, name) in [
            (Some("a.b.example"), "exact"),
            (Some("x.b.example"), "near"),
            (Some("x.y.b.example"), "near"),
            (Some("b.example"), "far"),
            (Some("example"), "rest"),
            (Some(".example"), "rest"),
            (Some("example.org"), "rest"),
            (None, "rest"),
        ] {
            assert_eq!(taken(&routes, PROXY_TLS, host), Some(name), "{host:?}");
        }
        assert_eq!(taken(&routes, "other", None), None);
        assert_eq!(host("A.Example."), "a.example");
    }

    #[test]
    fn a_route_goes_and_leaves_nothing_and_what_others_took_over_stays() {
        let mut all = routes(&[("one", r#"{"hosts":["a.example","*.a.example"],"upstream":"u"}"#)]);
        let two = compiled("two", r#"{"hosts":["a.example"],"listeners":["proxy-tls","x"],"upstream":"u"}"#);
        all.insert(&two);
        all.insert(&compiled("one", r#"{"listeners":["y"],"upstream":"u"}"#));
        assert_eq!(taken(&all, PROXY_TLS, Some("a.example")), Some("two"));
        assert_eq!(taken(&all, PROXY_TLS, Some("b.a.example")), None);
        assert_eq!((taken(&all, "y", None), taken(&all, "x", Some("a.example"))), (Some("one"), Some("two")));
        assert!(!all.on("y").unwrap().reads_hello() && all.on("x").unwrap().reads_hello());
        for name in ["one", "two"] {
            all.remove(&Name::new(name).unwrap());
        }
        assert!(all.listeners.is_empty() && all.by_name.is_empty());
    }

    #[test]
    fn connections_have_places_and_give_them_back() {
        let state = Arc::<TcpState>::default();
        let two = [Place::take(&state, 2), Place::take(&state, 2)];
        assert!(two.iter().all(Option::is_some) && Place::take(&state, 2).is_none());
        drop(two);
        assert!(Place::take(&state, 1).is_some());
    }

    #[test]
    fn without_certificates_what_is_left_goes_through_on_the_listener_for_tls() {
        let certificates = Certificates::new(Tickets::off(), RandomState::new());
        let all = routes(&[
            ("db", r#"{"hosts":["db.example"],"upstream":"u"}"#),
            ("rest", r#"{"listeners":["proxy-tls"],"upstream":"u"}"#),
        ]);
        let of = |host| all.of_tls(host, &certificates).map(|route| route.name.as_str());
        assert_eq!(
            (of(Some("db.example")), of(Some("x")), of(None)),
            (Some("db"), Some("rest"), Some("rest"))
        );
    }

    proptest! {
        /// What is found by maps is what one finds who tries every pattern.
        #[test]
        fn all_agree_with_who_tries_everything(
            patterns in prop::collection::btree_set("(\\*\\.)?[ab](\\.[ab]){0,3}", 1..12),
            host in "[ab](\\.[ab]){0,4}",
        ) {
            let patterns: Vec<_> = patterns.into_iter().collect();
            let mut all = TcpRoutes::new(RandomState::new());
            for (at, pattern) in patterns.iter().enumerate() {
                all.insert(&compiled(&format!("r{at}"), &format!(r#"{{"hosts":["{pattern}"],"upstream":"u"}}"#)));
            }
            let takes = |pattern: &&String| match pattern.strip_prefix('*') {
                Some(behind) => host.len() > behind.len() && host.ends_with(behind),
                None => **pattern == host,
            };
            let best = patterns.iter().filter(takes).max_by_key(|p| (!p.starts_with('*'), p.len()));
            let best = best.map(|best| format!("r{}", patterns.iter().position(|p| p == best).unwrap()));
            prop_assert_eq!(taken(&all, PROXY_TLS, Some(&host)), best.as_deref());
        }
    }
}
