//! Which members there are, where they are, and the keys between them, as it changes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use model::{NodeId, cluster::Cluster};
use tokio::{net::lookup_host, sync::watch, time::timeout};

use super::{seal::Keyring, transport::Members};

/// Between look-ups of the members' names.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(5);
/// A look-up takes no longer.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps [`Members`] in step with the cluster and with DNS.
pub(super) struct Directory {
    node_id: NodeId,
    cluster_id: String,
    /// The socket's own address, whose family the members' must have.
    local: SocketAddr,
    cluster: watch::Receiver<Arc<Cluster>>,
    pub(super) members: Arc<ArcSwap<Members>>,
}

impl Directory {
    pub(super) fn new(
        node_id: NodeId,
        cluster_id: &str,
        local: SocketAddr,
        cluster: watch::Receiver<Arc<Cluster>>,
    ) -> Self {
        let members =
            Members { keyring: Keyring::new(cluster_id, &[]), version: 0, addresses: BTreeMap::new() };
        let members = Arc::new(ArcSwap::from_pointee(members));
        Self { node_id, cluster_id: cluster_id.to_owned(), local, cluster, members }
    }

    /// Keeps them in step for as long as it is polled.
    pub(super) async fn keep<R>(&mut self) -> R {
        loop {
            self.refresh().await;
            let wait = timeout(LOOK_UP_INTERVAL, self.cluster.changed()).await;
            if wait.is_ok_and(|changed| changed.is_err()) {
                // The state machine is gone, and so will be this node: nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn refresh(&mut self) {
        let cluster = self.cluster.borrow_and_update().clone();
        let before = self.members.load_full();
        // Members are known at once, and their names looked up after: the wait must not keep a removed one in.
        let known = |node: &NodeId| before.addresses.get(node).copied().flatten();
        let parsed =
            cluster.nodes.iter().map(|(id, node)| (*id, node.address.parse().ok().or_else(|| known(id))));
        self.publish(&cluster, parsed.collect());
        let names = cluster.nodes.iter().filter(|(_, node)| node.address.parse::<SocketAddr>().is_err());
        let local = self.local;
        let look_ups = names.filter(|(id, _)| **id != self.node_id).map(|(id, node)| async move {
            let found = timeout(LOOK_UP_TIMEOUT, lookup_host(&node.address)).await.ok()?.ok()?;
            found
                .into_iter()
                .find(|address| address.is_ipv4() == local.is_ipv4())
                .map(|address| (*id, address))
        });
        let found = futures::future::join_all(look_ups).await;
        let mut addresses = self.members.load().addresses.clone();
        addresses.extend(found.into_iter().flatten().map(|(id, address)| (id, Some(address))));
        self.publish(&cluster, addresses);
    }

    fn publish(&self, cluster: &Cluster, addresses: BTreeMap<NodeId, Option<SocketAddr>>) {
        let version = self.members.load().version + 1;
        let keyring = Keyring::new(&self.cluster_id, &cluster.gossip_keys);
        self.members.store(Arc::new(Members { keyring, version, addresses }));
    }
}
