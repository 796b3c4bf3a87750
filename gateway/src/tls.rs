//! TLS to clients: the handshake, with the certificate for the host that the client names.

pub(crate) mod certificate;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod tickets;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::{HandshakeKind, server::Acceptor};
use tokio::net::TcpStream;
use tokio_rustls::{
    LazyConfigAcceptor,
    server::{StartHandshake, TlsStream},
};

use crate::{connection::Connection, settings::Limit, timer, watched::Watched, worker::Worker};

use certificate::Served;
use tickets::Context;

pub use certificate::Facts;
pub use client::ClientCertificate;

/// Between two lines in the log that say that there is no certificate, in milliseconds.
const WARN_MS: u64 = 60_000;

/// What a client proved in its handshake.
#[derive(Debug)]
pub(crate) struct Proved {
    pub(crate) context: Context,
    pub(crate) client: Option<Box<ClientCertificate>>,
}

/// A client's connection after its handshake.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<Watched<TcpStream>>,
    /// Whether it speaks HTTP/2.
    pub(crate) http2: bool,
}

/// Why there is no connection after a handshake.
enum Failed {
    /// There is no certificate for the client.
    NoCertificate,
    Io(io::Error),
}

/// A client's connection before its handshake.
pub(crate) enum Begun {
    /// Nothing of it was read.
    Not(Watched<TcpStream>),
    /// Its ClientHello was read.
    Hello(Box<StartHandshake<Watched<TcpStream>>>),
}

/// Does the handshake with a client within this time; none if it fails, takes too long, or the connection is to end.
pub(crate) async fn accept(
    worker: &Worker,
    begun: Begun,
    limit: Duration,
    connection: &Connection,
) -> Option<Accepted> {
    let shaking = connection.unless_ended(handshake(worker, begun));
    let metrics = &worker.metrics;
    match worker.deadlines.within(limit, std::pin::pin!(shaking)).await {
        Some(Some(Ok((stream, served)))) => {
            let (_, session) = stream.get_ref();
            let leaf = session.peer_certificates().and_then(<[_]>::first);
            let client = leaf.and_then(|leaf| ClientCertificate::of(leaf, served.whole)).map(Box::new);
            connection.proved(Proved { context: served.context, client });
            metrics.tls_handshakes.add(1);
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                metrics.tls_resumptions.add(1);
            }
            let http2 = session.alpn_protocol() == Some(b"h2");
            return Some(Accepted { stream, http2 });
        }
        Some(Some(Err(Failed::NoCertificate))) => {
            metrics.tls_no_certificate.add(1);
            tracing::debug!(peer = %connection.peer, "there is no certificate for the host that a client names");
        }
        Some(Some(Err(Failed::Io(error)))) => {
            metrics.tls_handshake_failures.add(1);
            tracing::debug!(peer = %connection.peer, %error, "a handshake failed");
        }
        Some(None) => {}
        None => {
            metrics.limited(Limit::HandshakeTimeout);
            tracing::debug!(peer = %connection.peer, "a handshake took too long");
        }
    }
    None
}

async fn handshake(
    worker: &Worker,
    begun: Begun,
) -> Result<(TlsStream<Watched<TcpStream>>, Arc<Served>), Failed> {
    let begun = match begun {
        Begun::Not(stream) => {
            LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(Failed::Io)?
        }
        Begun::Hello(begun) => *begun,
    };
    let served = {
        let plan = worker.plan();
        let served = plan.certificates.of(&begun.client_hello());
        if plan.certificates.is_empty() {
            warn_of_none();
        }
        served.cloned()
    };
    match served {
        Some(served) => {
            let stream = begun.into_stream(served.config.clone()).await.map_err(Failed::Io)?;
            Ok((stream, served))
        }
        None => {
            // Tells the client, by an alert, and ends.
            if let Some(config) = &*certificate::NONE {
                let _ = begun.into_stream(config.clone()).await;
            }
            Err(Failed::NoCertificate)
        }
    }
}

/// Says now and then that no client can be served over TLS.
fn warn_of_none() {
    static NEXT_MS: AtomicU64 = AtomicU64::new(0);
    let (now, next) = (timer::now_ms(), NEXT_MS.load(Relaxed));
    if now >= next && NEXT_MS.compare_exchange(next, now + WARN_MS, Relaxed, Relaxed).is_ok() {
        tracing::warn!("clients ask for TLS and there is no certificate: gwctl certificate add");
    }
}
