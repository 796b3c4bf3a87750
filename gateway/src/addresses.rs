//! How many connections each address of clients has, so that none has them all.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Parts that are locked each for itself. Only at the beginning and the end of a connection, where there is a limit.
const SHARDS: usize = 64;
/// Of an IPv6 address what counts: who has one, has all of its network.
const IPV6_NETWORK: u128 = !0 << 64;

/// How many connections each address has. Has no more entries than there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    max: usize,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<IpAddr, usize>>]>,
}

/// A connection's place among those of its address, for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Up to so many connections for each address.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A place for one more connection of this address; none if it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut shard = self.shard(address);
        let count = shard.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Place { addresses: self.clone(), address })
    }

    fn shard(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let at = usize::try_from(self.hasher.hash_one(address) % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.address);
        if let Entry::Occupied(mut entry) = shard.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What stands for an address: itself, or the network of one of IPv6.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & IPV6_NETWORK).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_no_more() {
        let addresses = Arc::new(Addresses::new(2));
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let first = enter("192.0.2.1");
        let second = enter("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some() && enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some(), "another address has its own");
        drop(first);
        let third = enter("192.0.2.1");
        assert!(third.is_some() && enter("192.0.2.1").is_none());
        let network = [enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(network.iter().all(Option::is_some) && enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        drop((second, third, network));
        assert!(addresses.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "nothing is kept");
    }
}
