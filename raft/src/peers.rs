//! The other members: a channel to each, and what goes at the head of a request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use cluster_proto::{PROTOCOL, common::Header};
use model::NodeId;

use crate::{
    Error,
    dial::{Channel, Dial},
};

/// Who this process is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub node_id: NodeId,
    /// The cluster's.
    pub cluster_id: String,
    /// The cluster's epoch.
    pub epoch: u64,
}

/// The two sides of TLS between members. ALPN is set here.
#[derive(Clone)]
pub struct PeerTls {
    /// For what is accepted. Client certificates are optional: one who joins has none yet.
    pub server: Arc<rustls::ServerConfig>,
    /// For what is dialled: it trusts the cluster's CA alone.
    pub client: Arc<rustls::ClientConfig>,
}

/// The name in the certificate of node `id`.
pub fn server_name(id: NodeId, cluster_id: &str) -> String {
    format!("node-{id}.{cluster_id}.phalanx.internal")
}

/// The node whose certificate has this name.
pub(crate) fn node_of(name: &str, cluster_id: &str) -> Option<NodeId> {
    let (node, cluster) = name.strip_suffix(".phalanx.internal")?.split_once('.')?;
    let id = node.strip_prefix("node-")?.parse().ok()?;
    (cluster == cluster_id).then_some(NodeId(id))
}

/// The channels, made when they are first needed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    identity: Arc<Identity>,
    dial: Arc<dyn Dial>,
    channels: Arc<Mutex<HashMap<(NodeId, String), Channel>>>,
}

impl Peers {
    pub(crate) fn new(identity: Arc<Identity>, dial: Arc<dyn Dial>) -> Self {
        Self { identity, dial, channels: Arc::default() }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What goes at the head of a request to this member.
    pub(crate) fn header(&self, to: NodeId) -> Header {
        let Identity { node_id, cluster_id, epoch } = &*self.identity;
        Header {
            cluster_id: cluster_id.clone(),
            epoch: *epoch,
            from: node_id.0,
            to: to.0,
            protocol: PROTOCOL,
        }
    }

    /// The channel to this member at this address.
    pub(crate) fn channel(&self, to: NodeId, address: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(channel) = channels.get(&(to, address.to_owned())) {
            return Ok(channel.clone());
        }
        let channel = self.dial.dial(to, address)?;
        // An address that a member no longer has is not kept.
        channels.retain(|(id, _), _| *id != to);
        channels.insert((to, address.to_owned()), channel.clone());
        Ok(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_name_says_which_node_of_which_cluster() {
        assert_eq!(node_of(&server_name(NodeId(7), "abc"), "abc"), Some(NodeId(7)));
        for bad in
            ["node-7.abd.phalanx.internal", "node-x.abc.phalanx.internal", "node-7.abc", "localhost", ""]
        {
            assert_eq!(node_of(bad, "abc"), None, "{bad}");
        }
    }
}
