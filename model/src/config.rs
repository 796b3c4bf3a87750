//! Everything replicated that the data plane obeys, at one revision.

use std::{fmt, sync::Arc};

use imbl::OrdMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Certificate, Consumer, Group, Key, Name, Policy, Revision, Route, TcpRoute, Upstream,
    claims::{self, Claims},
};

/// The kinds of object in a [`Config`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Upstream`].
    Upstream,
    /// [`Policy`].
    Policy,
    /// [`Group`].
    Group,
    /// [`Consumer`].
    Consumer,
    /// [`Route`].
    Route,
    /// [`Key`].
    Key,
    /// [`Certificate`].
    Certificate,
    /// [`TcpRoute`].
    TcpRoute,
}

impl Kind {
    /// Every kind, what is referred to before what refers to it.
    pub const ALL: [Self; 8] = [
        Self::Upstream,
        Self::Policy,
        Self::Group,
        Self::Consumer,
        Self::Route,
        Self::Key,
        Self::Certificate,
        Self::TcpRoute,
    ];

    /// The word for one, as in messages and commands.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Policy => "policy",
            Self::Group => "group",
            Self::Consumer => "consumer",
            Self::Route => "route",
            Self::Key => "key",
            Self::Certificate => "certificate",
            Self::TcpRoute => "tcp_route",
        }
    }

    /// The word for many, as in documents and URLs.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Upstream => "upstreams",
            Self::Policy => "policies",
            Self::Group => "groups",
            Self::Consumer => "consumers",
            Self::Route => "routes",
            Self::Key => "keys",
            Self::Certificate => "certificates",
            Self::TcpRoute => "tcp_routes",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.singular())
    }
}

/// One object of a [`Config`]. Cheap to clone.
pub struct Entry<T> {
    /// The revision at which it came to be; a delete and a new put begin anew. Its age, in matching.
    pub created: Revision,
    /// The revision that last changed it.
    pub changed: Revision,
    /// Its JSON as it was proposed: what is stored and compared, fields that this version can't read included.
    pub doc: Arc<[u8]>,
    /// What this version reads in it.
    pub spec: Arc<T>,
}

// Not the document, which may be a secret's.
impl<T: fmt::Debug> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Entry");
        entry.field("created", &self.created).field("changed", &self.changed).field("spec", &self.spec);
        entry.finish_non_exhaustive()
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { created: self.created, changed: self.changed, doc: self.doc.clone(), spec: self.spec.clone() }
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.created == other.created && self.changed == other.changed && self.doc == other.doc
    }
}

/// An object whose document this version can't read, kept as it is.
#[derive(Clone, PartialEq)]
pub struct Unreadable {
    /// As in [`Entry::created`].
    pub created: Revision,
    /// As in [`Entry::changed`].
    pub changed: Revision,
    /// As in [`Entry::doc`].
    pub doc: Arc<[u8]>,
    /// Why it can't be read.
    pub error: String,
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unreadable = f.debug_struct("Unreadable");
        unreadable
            .field("created", &self.created)
            .field("changed", &self.changed)
            .field("error", &self.error);
        unreadable.finish_non_exhaustive()
    }
}

/// The cluster's secret under which keys are digested. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pepper(pub [u8; 32]);

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// Everything replicated that the data plane obeys, at one [`Revision`].
///
/// Its maps share structure: a clone costs nothing, and two configs that are close to each other are compared
/// ([`OrdMap::diff`]) in time proportional to what differs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Which one it is.
    pub revision: Revision,
    /// Pools of targets.
    pub upstreams: OrdMap<Name, Entry<Upstream>>,
    /// Traffic behaviours.
    pub policies: OrdMap<Name, Entry<Policy>>,
    /// Consumers that share tiers and limits.
    pub groups: OrdMap<Name, Entry<Group>>,
    /// Who calls.
    pub consumers: OrdMap<Name, Entry<Consumer>>,
    /// What goes where.
    pub routes: OrdMap<Name, Entry<Route>>,
    /// Credentials.
    pub keys: OrdMap<Name, Entry<Key>>,
    /// What clients are served over TLS with.
    pub certificates: OrdMap<Name, Entry<Certificate>>,
    /// What connections go through as they come.
    pub tcp_routes: OrdMap<Name, Entry<TcpRoute>>,
    /// Objects written by a newer version that this one can't read. A node with any keeps serving its last Plan.
    pub unreadable: OrdMap<(Kind, Name), Unreadable>,
    /// What keys are digested under; none before the cluster is formed.
    pub pepper: Option<Arc<Pepper>>,
    /// Of the routes.
    pub(crate) claims: Claims,
    /// Of the TCP routes.
    pub(crate) tcp_claims: Claims,
}

/// An object as it is stored, of whatever kind.
#[derive(Clone, PartialEq)]
pub struct Stored {
    /// As in [`Entry::created`].
    pub created: Revision,
    /// As in [`Entry::changed`].
    pub changed: Revision,
    /// As in [`Entry::doc`].
    pub doc: Arc<[u8]>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stored = f.debug_struct("Stored");
        stored.field("created", &self.created).field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl Config {
    /// The object of this kind and name, as it is stored.
    pub fn get(&self, kind: Kind, name: &Name) -> Option<Stored> {
        fn stored<T>(map: &OrdMap<Name, Entry<T>>, name: &Name) -> Option<Stored> {
            let Entry { created, changed, doc, .. } = map.get(name)?;
            Some(Stored { created: *created, changed: *changed, doc: doc.clone() })
        }
        let readable = match kind {
            Kind::Upstream => stored(&self.upstreams, name),
            Kind::Policy => stored(&self.policies, name),
            Kind::Group => stored(&self.groups, name),
            Kind::Consumer => stored(&self.consumers, name),
            Kind::Route => stored(&self.routes, name),
            Kind::Key => stored(&self.keys, name),
            Kind::Certificate => stored(&self.certificates, name),
            Kind::TcpRoute => stored(&self.tcp_routes, name),
        };
        readable.or_else(|| {
            let Unreadable { created, changed, doc, .. } = self.unreadable.get(&(kind, name.clone()))?;
            Some(Stored { created: *created, changed: *changed, doc: doc.clone() })
        })
    }

    /// Puts an object in as it was stored; for loading from disk and snapshots, and for [`Config::apply`].
    pub fn insert(&mut self, kind: Kind, name: Name, stored: Stored) {
        self.remove(kind, &name);
        let unreadable = match kind {
            Kind::Upstream => insert(&mut self.upstreams, &name, &stored),
            Kind::Policy => insert(&mut self.policies, &name, &stored),
            Kind::Group => insert(&mut self.groups, &name, &stored),
            Kind::Consumer => insert(&mut self.consumers, &name, &stored),
            Kind::Route => self.insert_route(&name, &stored),
            Kind::Key => insert(&mut self.keys, &name, &stored),
            Kind::Certificate => insert(&mut self.certificates, &name, &stored),
            Kind::TcpRoute => self.insert_tcp_route(&name, &stored),
        };
        if let Err(error) = unreadable {
            let Stored { created, changed, doc } = stored;
            self.unreadable.insert((kind, name), Unreadable { created, changed, doc, error });
        }
    }

    /// Takes an object out, and says whether it was there.
    pub fn remove(&mut self, kind: Kind, name: &Name) -> bool {
        let readable = match kind {
            Kind::Upstream => self.upstreams.remove(name).is_some(),
            Kind::Policy => self.policies.remove(name).is_some(),
            Kind::Group => self.groups.remove(name).is_some(),
            Kind::Consumer => self.consumers.remove(name).is_some(),
            Kind::Route => self.remove_route(name),
            Kind::Key => self.keys.remove(name).is_some(),
            Kind::Certificate => self.certificates.remove(name).is_some(),
            Kind::TcpRoute => self.remove_tcp_route(name),
        };
        readable || self.unreadable.remove(&(kind, name.clone())).is_some()
    }

    fn insert_route(&mut self, name: &Name, stored: &Stored) -> Result<(), String> {
        insert(&mut self.routes, name, stored)?;
        let route = self.routes.get(name).map(|entry| &*entry.spec);
        let hashes = route.into_iter().flat_map(claims::of).map(|claim| claim.hash);
        self.claims.insert(name, hashes);
        Ok(())
    }

    fn remove_route(&mut self, name: &Name) -> bool {
        let route = self.routes.remove(name).map(|entry| entry.spec);
        let hashes = route.iter().flat_map(|route| claims::of(route)).map(|claim| claim.hash);
        self.claims.remove(name, hashes);
        route.is_some()
    }

    fn insert_tcp_route(&mut self, name: &Name, stored: &Stored) -> Result<(), String> {
        insert(&mut self.tcp_routes, name, stored)?;
        let route = self.tcp_routes.get(name).map(|entry| &*entry.spec);
        let hashes = route.into_iter().flat_map(claims::of_tcp).map(|claim| claim.hash);
        self.tcp_claims.insert(name, hashes);
        Ok(())
    }

    fn remove_tcp_route(&mut self, name: &Name) -> bool {
        let route = self.tcp_routes.remove(name).map(|entry| entry.spec);
        let hashes = route.iter().flat_map(|route| claims::of_tcp(route)).map(|claim| claim.hash);
        self.tcp_claims.remove(name, hashes);
        route.is_some()
    }

    /// How many there are of this kind; unreadable ones are not among them.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Upstream => self.upstreams.len(),
            Kind::Policy => self.policies.len(),
            Kind::Group => self.groups.len(),
            Kind::Consumer => self.consumers.len(),
            Kind::Route => self.routes.len(),
            Kind::Key => self.keys.len(),
            Kind::Certificate => self.certificates.len(),
            Kind::TcpRoute => self.tcp_routes.len(),
        }
    }

    /// The names of this kind, in order; unreadable ones are not among them.
    pub fn names(&self, kind: Kind) -> Vec<Name> {
        match kind {
            Kind::Upstream => self.upstreams.keys().cloned().collect(),
            Kind::Policy => self.policies.keys().cloned().collect(),
            Kind::Group => self.groups.keys().cloned().collect(),
            Kind::Consumer => self.consumers.keys().cloned().collect(),
            Kind::Route => self.routes.keys().cloned().collect(),
            Kind::Key => self.keys.keys().cloned().collect(),
            Kind::Certificate => self.certificates.keys().cloned().collect(),
            Kind::TcpRoute => self.tcp_routes.keys().cloned().collect(),
        }
    }
}

fn insert<T: DeserializeOwned>(
    map: &mut OrdMap<Name, Entry<T>>,
    name: &Name,
    stored: &Stored,
) -> Result<(), String> {
    // Lenient on purpose: a field that only a newer version knows must not stop this one (see `document` for strict).
    let spec: T = serde_json::from_slice(&stored.doc).map_err(|error| error.to_string())?;
    let Stored { created, changed, doc } = stored.clone();
    map.insert(name.clone(), Entry { created, changed, doc, spec: Arc::new(spec) });
    Ok(())
}
