//! Connections to the other members: mutual TLS, one channel a member, the member's certificate checked for its id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use cluster_proto::{PROTOCOL, common::Header};
use hyper_util::rt::TokioIo;
use model::NodeId;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// Until a connection to a member stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A member that answers no ping for this long is taken for gone, and the next call connects anew.
const KEEPALIVE: Duration = Duration::from_secs(5);

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
    tls: TlsConnector,
    channels: Arc<Mutex<HashMap<(NodeId, String), Channel>>>,
}

impl Peers {
    pub(crate) fn new(identity: Arc<Identity>, tls: &PeerTls) -> Self {
        let mut config = (*tls.client).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { identity, tls: TlsConnector::from(Arc::new(config)), channels: Arc::default() }
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

    /// The channel to this member at this address; it connects with the first call, and again after a failure.
    pub(crate) fn channel(&self, to: NodeId, address: &str) -> Result<Channel, Error> {
        let mut channels = self.channels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(channel) = channels.get(&(to, address.to_owned())) {
            return Ok(channel.clone());
        }
        let bad = |error: &dyn std::fmt::Display| Error::Refused {
            code: model::Code::Invalid,
            reason: format!("node {to} can't be dialled at {address:?}: {error}"),
        };
        let name =
            ServerName::try_from(server_name(to, &self.identity.cluster_id)).map_err(|error| bad(&error))?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| bad(&error))?
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let (tls, dialled) = (self.tls.clone(), address.to_owned());
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (tls, name, address) = (tls.clone(), name.clone(), dialled.clone());
            async move {
                let connect = async {
                    let tcp = TcpStream::connect(&address).await?;
                    tcp.set_nodelay(true)?;
                    tls.connect(name, tcp).await
                };
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
                stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map(TokioIo::new)
            }
        }));
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
