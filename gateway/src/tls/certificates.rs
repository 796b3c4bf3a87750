//! All certificates of a Plan, and which of them a client gets.

use std::sync::Arc;

use ahash::RandomState;
use imbl::OrdMap;
use model::Name;
use rustls::{SignatureScheme, server::ClientHello, sign::CertifiedKey};

use super::{
    certificate::Served,
    tickets::{Context, Tickets},
};
use crate::plan::{
    Map,
    tcp::{EXACT, Exactness},
};

/// Certificates that are for the same host: the one that is good for the longest first, then by name.
type Candidates = Arc<[Arc<Served>]>;

/// All certificates of a Plan. Shares structure with its clones.
#[derive(Clone)]
pub(crate) struct Certificates {
    pub(crate) tickets: Arc<Tickets>,
    by_name: OrdMap<Name, Arc<Served>>,
    exact: Map<Box<str>, Candidates>,
    /// By what is behind `*.`.
    wildcard: Map<Box<str>, Candidates>,
    default: Option<Candidates>,
    /// How many ask clients for a certificate.
    asking: usize,
}

impl Certificates {
    pub(crate) fn new(tickets: Arc<Tickets>, hasher: RandomState) -> Self {
        Self {
            tickets,
            by_name: OrdMap::new(),
            exact: Map::with_hasher(hasher.clone()),
            wildcard: Map::with_hasher(hasher),
            default: None,
            asking: 0,
        }
    }

    /// Puts a certificate in, in the place of the one of its name.
    pub(crate) fn insert(&mut self, served: Arc<Served>) {
        self.remove(&served.name.clone());
        for host in &served.hosts {
            let (map, key) = self.place(host);
            let with = with(map.get(key), &served);
            map.insert(key.into(), with);
        }
        if served.default {
            self.default = Some(with(self.default.as_ref(), &served));
        }
        self.asking += usize::from(served.asks());
        self.by_name.insert(served.name.clone(), served);
    }

    /// Takes the certificate of this name out.
    pub(crate) fn remove(&mut self, name: &Name) {
        let Some(served) = self.by_name.remove(name) else { return };
        self.asking -= usize::from(served.asks());
        for host in &served.hosts {
            let (map, key) = self.place(host);
            match map.get(key).and_then(|candidates| without(candidates, name)) {
                Some(left) => drop(map.insert(key.into(), left)),
                None => drop(map.remove(key)),
            }
        }
        self.default = self.default.take().and_then(|candidates| without(&candidates, name));
    }

    fn place<'h>(&mut self, host: &'h str) -> (&mut Map<Box<str>, Candidates>, &'h str) {
        match host.strip_prefix("*.") {
            Some(behind) => (&mut self.wildcard, behind),
            None => (&mut self.exact, host),
        }
    }

    /// The certificate for a client: the one for exactly the host that it names, or for any host one label below the rest of
    /// it (RFC 9525, section 6.3), or the default. Of several, one whose signature the client understands.
    pub(crate) fn of(&self, hello: &ClientHello<'_>) -> Option<&Arc<Served>> {
        let candidates = match hello.server_name() {
            Some(name) => self.for_host(&name.to_ascii_lowercase()),
            None => None,
        };
        choose(candidates.or(self.default.as_ref())?, hello.signature_schemes())
    }

    /// Whether a request for this host may come on a connection on which the client has proved this: not, if the host's
    /// certificate asks for more. Otherwise a client would name one host in its handshake and ask for another.
    pub(crate) fn may_serve(&self, host: &str, proved: Context) -> bool {
        if self.asking == 0 {
            return true;
        }
        let Some(candidates) = self.for_host(host).or(self.default.as_ref()) else { return true };
        candidates.iter().any(|served| served.context == proved)
            || candidates.iter().all(|served| !served.asks())
    }

    /// How exactly a certificate is for this host, the default aside; none if none is.
    pub(crate) fn exactness(&self, host: &str) -> Option<Exactness> {
        if self.exact.contains_key(host) {
            return Some(EXACT);
        }
        let (_, behind) = host.split_once('.')?;
        self.wildcard.contains_key(behind).then_some(behind.len())
    }

    /// Whether there is one for a client that names this host, or none.
    pub(crate) fn has_any_for(&self, host: Option<&str>) -> bool {
        self.default.is_some() || host.is_some_and(|host| self.for_host(host).is_some())
    }

    fn for_host(&self, host: &str) -> Option<&Candidates> {
        let behind = || host.split_once('.').and_then(|(_, behind)| self.wildcard.get(behind));
        self.exact.get(host).or_else(behind)
    }

    /// The chain and key of this name.
    pub(crate) fn key(&self, name: &Name) -> Option<Arc<CertifiedKey>> {
        self.by_name.get(name).map(|served| served.key.clone())
    }

    /// Until when each is good, in seconds since the Unix epoch.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.by_name.iter().map(|(name, served)| (name, served.not_after_s))
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn choose<'c>(candidates: &'c Candidates, schemes: &[SignatureScheme]) -> Option<&'c Arc<Served>> {
    let fits = |served: &&Arc<Served>| served.key.key.choose_scheme(schemes).is_some();
    match &candidates[..] {
        [one] => Some(one),
        several => several.iter().find(fits).or(several.first()),
    }
}

fn with(candidates: Option<&Candidates>, served: &Arc<Served>) -> Candidates {
    let mut all: Vec<_> = candidates.into_iter().flat_map(|candidates| candidates.iter().cloned()).collect();
    // A certificate may name a host twice.
    all.retain(|other| other.name != served.name);
    all.push(served.clone());
    all.sort_by(|a, b| b.not_after_s.cmp(&a.not_after_s).then_with(|| a.name.cmp(&b.name)));
    all.into()
}

fn without(candidates: &Candidates, name: &Name) -> Option<Candidates> {
    let left: Candidates = candidates.iter().filter(|served| served.name != *name).cloned().collect();
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate::{compile, tests::made};

    fn of(certificates: &Certificates, host: Option<&str>) -> Option<String> {
        let candidates = host.and_then(|host| certificates.for_host(host)).or(certificates.default.as_ref());
        Some(choose(candidates?, &[SignatureScheme::ECDSA_NISTP256_SHA256])?.name.to_string())
    }

    #[test]
    fn exact_goes_before_wildcard_and_wildcard_before_default() {
        let mut all = Certificates::new(Tickets::off(), RandomState::new());
        assert_eq!(of(&all, Some("a.example")), None);
        let put = |all: &mut Certificates, name: &str, spec: model::Certificate| {
            all.insert(Arc::new(compile(&Name::new(name).unwrap(), &spec, &Tickets::off()).unwrap()));
        };
        put(&mut all, "wild", made(&["*.example"], false));
        put(&mut all, "exact", made(&["a.example", "a.example"], false));
        put(&mut all, "default", made(&["d.example"], true));
        for (host, name) in [
            (Some("a.example"), "exact"),
            (Some("b.example"), "wild"),
            (Some("d.example"), "default"),
            (Some("b.a.example"), "default"),
            (Some("example"), "default"),
            (None, "default"),
        ] {
            assert_eq!(of(&all, host).as_deref(), Some(name), "{host:?}");
        }
        let before = all.clone();
        put(&mut all, "exact", made(&["c.example"], false));
        assert_eq!(of(&all, Some("a.example")).as_deref(), Some("wild"));
        all.remove(&Name::new("default").unwrap());
        all.remove(&Name::new("wild").unwrap());
        assert_eq!((of(&all, None), of(&all, Some("a.example"))), (None, None));
        assert_eq!(of(&all, Some("c.example")).as_deref(), Some("exact"));
        assert_eq!(of(&before, Some("a.example")).as_deref(), Some("exact"), "a Plan in use stays as it is");
    }

    #[test]
    fn of_two_for_a_host_the_one_good_for_longer_is_used() {
        let mut all = Certificates::new(Tickets::off(), RandomState::new());
        for (name, not_after_s) in [("a", 5), ("b", 7), ("c", 6)] {
            let name = Name::new(name).unwrap();
            let served = compile(&name, &made(&["a.example"], false), &Tickets::off()).unwrap();
            all.insert(Arc::new(Served { not_after_s, ..served }));
        }
        assert_eq!(of(&all, Some("a.example")).as_deref(), Some("b"));
        all.remove(&Name::new("b").unwrap());
        assert_eq!(of(&all, Some("a.example")).as_deref(), Some("c"));
    }
}
