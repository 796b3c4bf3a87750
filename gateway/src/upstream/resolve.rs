//! Targets' addresses: written as such, or by a name that is looked up in the background.

use std::{cell::RefCell, collections::HashMap, io, net::SocketAddr, rc::Rc};

use crate::timer;

/// How long a name's addresses are good.
const FRESH_MS: u64 = 5_000;
/// The most names kept; a config with more looks some up anew.
const NAMES_MAX: usize = 10_000;

#[derive(Debug, Clone)]
struct Known {
    addresses: Rc<[SocketAddr]>,
    next: usize,
    at_ms: u64,
    refreshing: bool,
}

/// A worker's names and their addresses.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    known: RefCell<HashMap<String, Known, ahash::RandomState>>,
}

impl Resolver {
    /// The address of `host:port`. A name that has been looked up before is answered at once, from what was found then,
    /// and looked up again in the background when that is old; so a name server that fails harms nothing known.
    pub(crate) async fn resolve(self: &Rc<Self>, target: &str) -> io::Result<SocketAddr> {
        if let Ok(address) = target.parse() {
            return Ok(address);
        }
        if let Some(address) = self.known(target) {
            return Ok(address);
        }
        let addresses: Rc<[SocketAddr]> = tokio::net::lookup_host(target).await?.collect();
        let first = addresses.first().copied();
        self.learn(target, addresses);
        first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    fn known(self: &Rc<Self>, target: &str) -> Option<SocketAddr> {
        let mut known = self.known.borrow_mut();
        let entry = known.get_mut(target)?;
        if timer::now_ms().saturating_sub(entry.at_ms) > FRESH_MS && !entry.refreshing {
            entry.refreshing = true;
            let (resolver, target) = (self.clone(), target.to_owned());
            tokio::task::spawn_local(async move {
                match tokio::net::lookup_host(&target).await {
                    Ok(addresses) => resolver.learn(&target, addresses.collect()),
                    Err(error) => {
                        tracing::warn!(%target, %error, "a target's name can't be looked up; its last addresses stay");
                        let mut known = resolver.known.borrow_mut();
                        if let Some(entry) = known.get_mut(&target) {
                            entry.at_ms = timer::now_ms();
                            entry.refreshing = false;
                        }
                    }
                }
            });
        }
        entry.next = entry.next.wrapping_add(1);
        entry.addresses.get(entry.next % entry.addresses.len().max(1)).copied()
    }

    fn learn(&self, target: &str, addresses: Rc<[SocketAddr]>) {
        if addresses.is_empty() {
            return;
        }
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        let entry = Known { addresses, next: 0, at_ms: timer::now_ms(), refreshing: false };
        known.insert(target.to_owned(), entry);
    }
}
