//! The listener for other members: TLS, then HTTP/2, with the certificate's node beside every request.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use model::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::{Error, PeerTls, peers};

/// Until TLS stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time; members hold a few each, and those who join one.
const CONNECTIONS_MAX: usize = 1_024;
/// For calls in progress to finish, once told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Which node the connection's certificate is of; none where it showed none. In the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerId(pub Option<NodeId>);

/// A connection and whose it is.
pub(crate) struct PeerStream {
    inner: TlsStream<TcpStream>,
    peer: PeerId,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Connected for PeerStream {
    type ConnectInfo = PeerId;

    fn connect_info(&self) -> PeerId {
        self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The node of this cluster that a certificate is of.
fn certified(certificate: &[u8], cluster_id: &str) -> Option<NodeId> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => peers::node_of(name, cluster_id),
        _ => None,
    })
}

async fn handshake(
    tcp: TcpStream,
    tls: TlsAcceptor,
    cluster_id: &str,
    slot: tokio::sync::OwnedSemaphorePermit,
) -> io::Result<PeerStream> {
    tcp.set_nodelay(true)?;
    let inner =
        tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await.map_err(io::Error::other)??;
    let certificate = inner.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = PeerId(certificate.and_then(|certificate| certified(certificate, cluster_id)));
    Ok(PeerStream { inner, peer, _slot: slot })
}

/// Serves these routes until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: &PeerTls,
    cluster_id: String,
    routes: tonic::service::Routes,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut config = (*tls.server).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, cluster_id) = (TlsAcceptor::from(Arc::new(config)), Arc::<str>::from(cluster_id));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (ready, streams) = mpsc::channel::<io::Result<PeerStream>>(16);
    let stop = shutdown.clone();
    let accepting = async move {
        let mut handshakes = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
                Some(_) = handshakes.join_next() => continue,
            };
            let Ok((tcp, from)) = accepted else {
                // Out of descriptors, most likely: let some close before the next try.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                tracing::warn!(%from, "refused a peer connection: {CONNECTIONS_MAX} are open");
                continue;
            };
            let (acceptor, cluster_id, ready) = (acceptor.clone(), cluster_id.clone(), ready.clone());
            handshakes.spawn(async move {
                match handshake(tcp, acceptor, &cluster_id, slot).await {
                    Ok(stream) => drop(ready.send(Ok(stream)).await),
                    Err(error) => tracing::debug!(%from, %error, "a peer connection failed in its handshake"),
                }
            });
        }
    };
    let incoming = tokio_stream::wrappers::ReceiverStream::new(streams);
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let stopped = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        (served, ()) = async { tokio::join!(serving, accepting) } => {
            served.map_err(|error| Error::Fatal(format!("the peer listener: {error}")))
        }
        () = stopped => Ok(()),
    }
}
