//! chitchat's messages over sealed UDP, addressed by node id rather than by socket address.
//!
//! chitchat knows each node under one socket address for good. A node's real one may change, and may be a DNS name, so
//! chitchat is given a made-up address that only holds the node id, and this transport looks the real one up.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use chitchat::{
    ChitchatMessage, Deserializable, Serializable,
    transport::{Socket, Transport},
};
use model::NodeId;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::net::UdpSocket;

use super::seal::{ADDED_BYTES, Drop, Keyring, Opener, Sealer};

/// The largest UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Who the members are and where; replaced whole when it changes.
pub(super) struct Members {
    pub(super) keyring: Keyring,
    /// One more for each new [`Keyring`].
    pub(super) version: u64,
    pub(super) addresses: BTreeMap<NodeId, Option<SocketAddr>>,
}

/// When each member's last good datagram came.
pub(super) type Heard = Arc<Mutex<HashMap<NodeId, Instant>>>;

/// What went over the wire, for `/metrics`.
#[derive(Clone)]
pub(super) struct Counters {
    sent: IntCounter,
    received: IntCounter,
    dropped: IntCounterVec,
}

impl Counters {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = Self {
            sent: IntCounter::new("phalanx_gossip_sent_total", "Gossip datagrams sent.")?,
            received: IntCounter::new("phalanx_gossip_received_total", "Gossip datagrams taken.")?,
            dropped: IntCounterVec::new(
                Opts::new("phalanx_gossip_dropped_total", "Gossip datagrams dropped, by reason."),
                &["reason"],
            )?,
        };
        registry.register(Box::new(counters.sent.clone()))?;
        registry.register(Box::new(counters.received.clone()))?;
        registry.register(Box::new(counters.dropped.clone()))?;
        for reason in Drop::ALL {
            counters.dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(counters)
    }

    pub(super) fn dropped(&self) -> Vec<(&'static str, u64)> {
        let count = |drop: Drop| (drop.as_str(), self.dropped.with_label_values(&[drop.as_str()]).get());
        Drop::ALL.map(count).to_vec()
    }

    fn drop(&self, reason: Drop) {
        self.dropped.with_label_values(&[reason.as_str()]).inc();
    }
}

/// What chitchat takes for the address of this node.
pub(super) fn made_up(node: NodeId) -> SocketAddr {
    // fd00::/8: addresses that exist nowhere outside of a site (RFC 4193).
    SocketAddr::from((Ipv6Addr::from(0xfd << 120 | u128::from(node.0)), 1))
}

fn node_of(address: SocketAddr) -> Option<NodeId> {
    let SocketAddr::V6(address) = address else { return None };
    let bits = u128::from(*address.ip());
    let node = NodeId(u64::try_from(bits & u128::from(u64::MAX)).ok()?);
    (made_up(node) == SocketAddr::V6(address)).then_some(node)
}

/// One node's end. chitchat opens it once.
pub(super) struct Sealed {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) node: NodeId,
    pub(super) boot: super::seal::Boot,
    pub(super) members: Arc<ArcSwap<Members>>,
    pub(super) counters: Counters,
    pub(super) heard: Heard,
}

#[async_trait]
impl Transport for Sealed {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(End {
            socket: self.socket.clone(),
            members: self.members.clone(),
            version: 0,
            sealer: Sealer::new(self.node, self.boot),
            opener: Opener::default(),
            from: HashMap::new(),
            counters: self.counters.clone(),
            heard: self.heard.clone(),
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
        }))
    }
}

struct End {
    socket: Arc<UdpSocket>,
    members: Arc<ArcSwap<Members>>,
    /// The version of the members that the sealer and opener know.
    version: u64,
    sealer: Sealer,
    opener: Opener,
    /// Where each member's last datagram came from, for when its name can't be looked up.
    from: HashMap<NodeId, SocketAddr>,
    counters: Counters,
    heard: Heard,
    buffer: Vec<u8>,
}

impl End {
    fn members(&mut self) -> Arc<Members> {
        let members = self.members.load_full();
        if members.version != self.version {
            self.version = members.version;
            self.sealer.rekey(&members.keyring);
            self.opener.rekey(|node| members.addresses.contains_key(&node));
            self.from.retain(|node, _| members.addresses.contains_key(node));
        }
        members
    }

    fn take(&mut self, length: usize, from: SocketAddr) -> Result<(SocketAddr, ChitchatMessage), Drop> {
        let members = self.members();
        let datagram = &mut self.buffer[..length];
        let is_member = |node| members.addresses.contains_key(&node);
        let (node, mut body) = self.opener.open(&members.keyring, datagram, is_member)?;
        let message = ChitchatMessage::deserialize(&mut body).map_err(|_| Drop::Message)?;
        self.from.insert(node, from);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node, Instant::now());
        Ok((made_up(node), message))
    }
}

#[async_trait]
impl Socket for End {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let members = self.members();
        let Some(node) = node_of(to) else { return Ok(()) };
        // One that was removed has no address any more, though chitchat still knows it for a while.
        let Some(address) = members.addresses.get(&node) else { return Ok(()) };
        let Some(address) = address.or_else(|| self.from.get(&node).copied()) else { return Ok(()) };
        let body = message.serialize_to_vec();
        if body.len() + ADDED_BYTES > DATAGRAM_BYTES_MAX {
            self.counters.drop(Drop::Size);
            return Ok(());
        }
        let Some(datagram) = self.sealer.seal(&members.keyring, &body) else { return Ok(()) };
        match self.socket.send_to(&datagram, address).await {
            Ok(_) => self.counters.sent.inc(),
            // A peer that is down or cut off is what gossip is there to notice.
            Err(error) => tracing::debug!(%node, %address, %error, "gossip was not sent"),
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            match self.socket.recv_from(&mut self.buffer).await {
                Ok((length, from)) => match self.take(length, from) {
                    Ok(message) => {
                        self.counters.received.inc();
                        return Ok(message);
                    }
                    Err(reason) => {
                        self.counters.drop(reason);
                        tracing::debug!(%from, reason = reason.as_str(), "a gossip datagram was dropped");
                    }
                },
                // An ICMP answer to something sent earlier; the socket is as good as before.
                Err(error) if transient(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        OutOfMemory, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | OutOfMemory
            | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_addresses_hold_the_node_id() {
        for id in [0, 1, 77, u64::MAX] {
            assert_eq!(node_of(made_up(NodeId(id))), Some(NodeId(id)));
        }
        assert_eq!(node_of(SocketAddr::from(([127, 0, 0, 1], 1))), None);
        assert_eq!(node_of(SocketAddr::from((Ipv6Addr::LOCALHOST, 1))), None);
    }
}
