//! How a member is reached: mutual TLS, its certificate checked for its id.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use model::NodeId;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{body::Body, transport::Endpoint};
use tower::util::BoxCloneSyncService;

use crate::{Error, peers::server_name};

/// Until a connection to a member stands, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A member that answers no ping for this long is taken for gone, and the next call connects anew.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Carries calls to a member. Cheap to clone.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, CallError>;

/// Why a call could not be carried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Makes the channels.
pub(crate) trait Dial: Send + Sync + 'static {
    /// The channel to this member at this address; it connects with the first call, and again after a failure.
    fn dial(&self, to: NodeId, address: &str) -> Result<Channel, Error>;
}

/// The members of a cluster, over TCP and TLS.
pub(crate) struct TlsDial {
    cluster_id: String,
    tls: TlsConnector,
}

impl TlsDial {
    pub(crate) fn new(cluster_id: &str, client: &rustls::ClientConfig) -> Self {
        let mut config = client.clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { cluster_id: cluster_id.to_owned(), tls: TlsConnector::from(std::sync::Arc::new(config)) }
    }
}

impl Dial for TlsDial {
    fn dial(&self, to: NodeId, address: &str) -> Result<Channel, Error> {
        let bad = |error: &dyn std::fmt::Display| Error::Refused {
            code: model::Code::Invalid,
            reason: format!("node {to} can't be dialled at {address:?}: {error}"),
        };
        let name = ServerName::try_from(server_name(to, &self.cluster_id)).map_err(|error| bad(&error))?;
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
        Ok(Channel::new(tower::ServiceExt::map_err(channel, |error| CallError(error.into()))))
    }
}
