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

use anyhow::Context as _;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use chitchat::{
    ChitchatMessage, Serializable,
    transport::{Socket, Transport},
};
use model::NodeId;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::{net::UdpSocket, sync::mpsc};

use super::seal::{ADDED_BYTES, Boot, Drop, Keyring, Kind, Sealer};

/// The largest UDP datagram over IPv4.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Who the members are and where; replaced whole when it changes.
pub(super) struct Members {
    pub(super) keyring: Keyring,
    /// One more for each new [`Keyring`].
    pub(super) version: u64,
    pub(super) addresses: BTreeMap<NodeId, Option<SocketAddr>>,
}

/// When each member's last good datagram came, and from where, for when its name can't be looked up.
pub(super) type Heard = Arc<Mutex<HashMap<NodeId, Contact>>>;

/// A member's last good datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
}

/// What went over the wire, for `/metrics`.
#[derive(Clone)]
pub(super) struct Metrics {
    sent: IntCounter,
    pub(super) received: IntCounter,
    dropped: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            sent: IntCounter::new("phalanx_gossip_sent_total", "Gossip datagrams sent.")?,
            received: IntCounter::new("phalanx_gossip_received_total", "Gossip datagrams taken.")?,
            dropped: IntCounterVec::new(
                Opts::new("phalanx_gossip_dropped_total", "Gossip datagrams dropped, by reason."),
                &["reason"],
            )?,
        };
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        for reason in Drop::ALL {
            metrics.dropped.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    pub(super) fn dropped(&self) -> Vec<(&'static str, u64)> {
        let count = |drop: Drop| (drop.as_str(), self.dropped.with_label_values(&[drop.as_str()]).get());
        Drop::ALL.map(count).to_vec()
    }

    pub(super) fn drop(&self, reason: Drop) {
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
    pub(super) boot: Boot,
    pub(super) members: Arc<ArcSwap<Members>>,
    pub(super) metrics: Metrics,
    pub(super) heard: Heard,
    /// What the reader has opened; taken by the end.
    pub(super) messages: Mutex<Option<Messages>>,
}

/// chitchat's messages as they come, with who sent them; an error where the socket is broken.
pub(super) type Messages = mpsc::Receiver<io::Result<(NodeId, ChitchatMessage)>>;

#[async_trait]
impl Transport for Sealed {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(End {
            outlet: Outlet::new(Kind::Gossip, self.node, self.boot, self.socket.clone(), self.heard.clone()),
            members: self.members.clone(),
            metrics: self.metrics.clone(),
            messages: messages.context("gossip is opened once")?,
        }))
    }
}

struct End {
    outlet: Outlet,
    members: Arc<ArcSwap<Members>>,
    metrics: Metrics,
    messages: Messages,
}

#[async_trait]
impl Socket for End {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let Some(node) = node_of(to) else { return Ok(()) };
        let body = message.serialize_to_vec();
        if body.len() + ADDED_BYTES > DATAGRAM_BYTES_MAX {
            self.metrics.drop(Drop::Size);
            return Ok(());
        }
        let members = self.members.load_full();
        let Some(datagram) = self.outlet.seal(&members, &body) else { return Ok(()) };
        let Some(address) = self.outlet.address(&members, node) else { return Ok(()) };
        match self.outlet.socket.send_to(&datagram, address).await {
            Ok(_) => self.metrics.sent.inc(),
            // A peer that is down or cut off is what gossip is there to notice.
            Err(error) => tracing::debug!(%node, %address, %error, "gossip was not sent"),
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        let (node, message) = self.messages.recv().await.context("the socket is not read any more")??;
        Ok((made_up(node), message))
    }
}

/// Seals bodies of one kind, and knows where to send them.
pub(super) struct Outlet {
    pub(super) socket: Arc<UdpSocket>,
    sealer: Sealer,
    /// The version of the members that the sealer knows.
    version: u64,
    heard: Heard,
}

impl Outlet {
    pub(super) fn new(kind: Kind, node: NodeId, boot: Boot, socket: Arc<UdpSocket>, heard: Heard) -> Self {
        Self { socket, sealer: Sealer::new(kind, node, boot), version: 0, heard }
    }

    /// The datagram for this body; none while there is no key.
    pub(super) fn seal(&mut self, members: &Members, body: &[u8]) -> Option<Vec<u8>> {
        if members.version != self.version {
            self.version = members.version;
            self.sealer.rekey(&members.keyring);
        }
        self.sealer.seal(&members.keyring, body)
    }

    /// Where this member is, or else was last; none of one that was removed, though chitchat still knows it for a while.
    pub(super) fn address(&self, members: &Members, node: NodeId) -> Option<SocketAddr> {
        let last = || {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.get(&node).map(|contact| contact.from)
        };
        members.addresses.get(&node)?.or_else(last)
    }
}

pub(super) fn transient(error: &io::Error) -> bool {
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
