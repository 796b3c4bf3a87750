//! A Plan: a Config compiled for the data plane, sharing with the Plan before it all that did not change.

use std::{collections::BTreeSet, sync::Arc};

use ahash::RandomState;
use aws_lc_rs::hmac;
use imbl::{GenericHashMap, OrdMap, OrdSet, shared_ptr::DefaultSharedPtr};
use model::{Config, Key, Name, Revision};

use crate::{
    names::Names,
    policy::Grouped,
    router::Router,
    state::Figures,
    tls::{certificates::Certificates, tickets::Tickets},
};

pub mod changes;
pub mod endpoint;
pub mod matcher;
pub(crate) mod pattern;
pub mod route;
pub(crate) mod tcp;
pub mod transport;
pub mod upstream;

pub use matcher::Head;
pub use route::{Action, CompiledRoute};
pub use upstream::CompiledUpstream;

/// A hash map that shares structure with its clones, hashed under a key of chance.
pub(crate) type Map<K, V> = GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// HMAC-SHA256(pepper, credential).
pub(crate) type Digest = [u8; 32];

/// A Config compiled for the data plane. [`Plan::install`] makes the next one from it.
#[derive(Clone)]
pub struct Plan {
    pub(crate) config: Config,
    // Trees: with many small entries they take a quarter of a persistent hash map's memory, and neither is asked more
    // than once a request.
    pub(crate) routes: OrdMap<Name, Arc<CompiledRoute>>,
    pub(crate) keys: OrdMap<Digest, (Name, Arc<Key>)>,
    pub(crate) upstreams: Map<Name, Arc<CompiledUpstream>>,
    /// The upstreams whose targets are checked.
    pub(crate) checked: OrdSet<Name>,
    pub(crate) policies: Map<Name, Arc<Grouped>>,
    /// How many of the upstreams tell their targets of clients' connections.
    pub(crate) announcing: usize,
    pub(crate) pepper: Option<hmac::Key>,
    /// The secret under which keys of rate limits are digests, derived from the pepper: the same on all nodes.
    pub(crate) rate_secret: (u64, u64),
    pub(crate) router: Router,
    pub(crate) certificates: Certificates,
    pub(crate) tcp: tcp::TcpRoutes,
    pub(crate) around: Surroundings,
}

/// What a Plan is compiled with besides the config.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// What the names of targets stand for.
    pub(crate) names: Arc<Names>,
    /// Where this node is.
    pub(crate) zone: Option<String>,
    /// The names of this node's listeners, where that is known.
    pub(crate) listeners: Option<Arc<BTreeSet<String>>>,
    /// The secret of keys and cookies by which targets are chosen, derived from the pepper: the same on all nodes.
    pub(crate) secret: (u64, u64),
}

impl Surroundings {
    /// Those of a node in this zone, for targets whose names stand for what these say.
    pub(crate) fn new(names: Arc<Names>, zone: Option<String>) -> Self {
        Self { names, zone, listeners: None, secret: (0, 0) }
    }

    /// Whether this node has a listener of this name, or may have it.
    pub(crate) fn has_listener(&self, name: &str) -> bool {
        self.listeners.as_ref().is_none_or(|listeners| listeners.contains(name))
    }
}

/// The route that takes a request.
#[derive(Debug, Clone, Copy)]
pub struct Matched<'p> {
    /// The route.
    pub route: &'p Arc<CompiledRoute>,
    /// Which of its matches, from 0.
    pub index: usize,
}

impl Plan {
    /// The Plan of the empty Config. No name of a target is ever looked up for those that are made from it.
    pub fn empty() -> Self {
        Self::beginning(Tickets::off(), Surroundings::new(Names::new().0, None))
    }

    /// The Plan of the empty Config, and with it these tickets and surroundings.
    pub(crate) fn beginning(tickets: Arc<Tickets>, around: Surroundings) -> Self {
        let hasher = RandomState::new();
        Self {
            config: Config::default(),
            routes: OrdMap::new(),
            upstreams: Map::with_hasher(hasher.clone()),
            checked: OrdSet::new(),
            policies: Map::with_hasher(hasher.clone()),
            announcing: 0,
            keys: OrdMap::new(),
            pepper: None,
            rate_secret: (0, 0),
            router: Router::new(hasher.clone()),
            certificates: Certificates::new(tickets, hasher.clone()),
            tcp: tcp::TcpRoutes::new(hasher),
            around,
        }
    }

    /// The revision it was compiled from.
    pub fn revision(&self) -> Revision {
        self.config.revision
    }

    /// The Config it was compiled from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The route that takes a request, if one does. Costs the same for any number of routes, and allocates nothing.
    pub fn route(&self, head: &Head<'_>) -> Option<Matched<'_>> {
        let (route, index) = self.router.route(head)?;
        Some(Matched { route, index })
    }

    /// The upstream of this name.
    pub fn upstream(&self, name: &Name) -> Option<&Arc<CompiledUpstream>> {
        self.upstreams.get(name)
    }

    /// The upstreams whose targets are checked.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &Arc<CompiledUpstream>> {
        self.checked.iter().filter_map(|name| self.upstreams.get(name))
    }

    /// Every endpoint of every upstream, each with its upstream: what there is to be checked, and what state there is to be kept. In time
    /// proportional to their number.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Arc<CompiledUpstream>, &endpoint::Endpoint)> {
        let upstreams = self.upstreams.values();
        upstreams.flat_map(|upstream| upstream.endpoints.all().iter().map(move |one| (upstream, one)))
    }

    /// The route's policies in the order in which they run. One that is missing ends the list with none, on which the
    /// request must be refused; installing makes sure that there is none.
    pub fn policies<'p>(&'p self, route: &'p CompiledRoute) -> impl Iterator<Item = Option<&'p Grouped>> {
        route.policies.iter().map(|name| self.policies.get(name).map(|policy| &**policy))
    }

    /// What each policy has done that counts it, by its name.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&Name, &Arc<Figures>)> {
        self.policies.iter().filter_map(|(name, policy)| Some((name, policy.figures()?)))
    }

    /// The name and the stored form of a credential, if there is one.
    pub fn key(&self, credential: &str) -> Option<&(Name, Arc<Key>)> {
        let tag = hmac::sign(self.pepper.as_ref()?, credential.as_bytes());
        let digest: &Digest = tag.as_ref().try_into().ok()?;
        self.keys.get(digest)
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("revision", &self.config.revision).finish_non_exhaustive()
    }
}
