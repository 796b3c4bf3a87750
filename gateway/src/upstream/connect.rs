//! How a connection to a target comes to be.

use std::{io, net::SocketAddr, rc::Rc};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    pool::{Link, Whose},
    stream::{HeldUp, Stream},
};
use crate::{
    plan::{
        CompiledUpstream,
        endpoint::Endpoint,
        transport::{self, Asked, Tls},
        upstream::TargetHost,
    },
    server::KEEPALIVE,
    worker::Worker,
};

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unconnected {
    /// Its name has no address.
    #[error("its name can't be looked up: {0}")]
    Name(io::Error),
    /// It takes none.
    #[error(transparent)]
    Refused(io::Error),
    /// It takes none, or does not finish the handshake, within the time that there is.
    #[error("that took too long")]
    Late,
    /// It does not prove to be who it should be.
    #[error("its certificate is not accepted: {0}")]
    Untrusted(rustls::CertificateError),
    /// It speaks no TLS, or none that both know, or wants to know who we are.
    #[error("no TLS with it: {0}")]
    Tls(io::Error),
    /// Neither its address nor the request's host is a name that can be asked for.
    #[error("there is no name to ask it for by TLS")]
    Nameless,
    /// It speaks no HTTP.
    #[error("no HTTP with it: {0}")]
    Http(hyper::Error),
}

impl Unconnected {
    /// The words for each in metrics.
    pub(crate) const REASONS: [&'static str; 6] =
        ["name", "refused", "timeout", "certificate", "tls", "http"];

    /// The place in [`Self::REASONS`].
    pub(crate) fn reason(&self) -> usize {
        match self {
            Self::Name(_) => 0,
            Self::Refused(_) => 1,
            Self::Late => 2,
            Self::Untrusted(_) => 3,
            Self::Tls(_) | Self::Nameless => 4,
            Self::Http(_) => 5,
        }
    }

    /// Whether it is not for the target alone to mend.
    pub(super) fn is_of_config(&self) -> bool {
        matches!(self, Self::Untrusted(_) | Self::Tls(_) | Self::Nameless | Self::Http(_))
    }

    fn of_handshake(error: io::Error) -> Self {
        let told = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match told {
            Some(rustls::Error::InvalidCertificate(error)) => Self::Untrusted(error.clone()),
            _ => Self::Tls(error),
        }
    }
}

/// A new connection to this target, for these alone if they are given, within the upstream's time for that.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    whose: Option<Box<Whose>>,
) -> Result<Link, Unconnected> {
    let connecting = async {
        let address: SocketAddr = match &target.host {
            TargetHost::Address(address) => *address,
            TargetHost::Dns(..) => worker.resolver.resolve(&target.label).await.map_err(Unconnected::Name)?,
        };
        let stream = open(address).await.map_err(Unconnected::Refused)?;
        let (stream, held_up) = Stream::new(stream);
        match &upstream.transport.tls {
            None => http1(worker, stream, held_up, whose).await,
            Some(tls) => {
                let name = name(tls, target, whose.as_deref()).ok_or(Unconnected::Nameless)?;
                let connecting = TlsConnector::from(tls.config.clone()).connect(name, stream);
                let stream = connecting.await.map_err(Unconnected::of_handshake)?;
                http1(worker, stream, held_up, whose).await
            }
        }
    };
    // Large, and rare beside the requests that it would make large.
    let connecting = Box::pin(connecting);
    let limit = upstream.spec.timeout.connect;
    worker.deadlines.within(limit, connecting).await.unwrap_or(Err(Unconnected::Late))
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

/// The name that the target is asked for.
fn name(tls: &Tls, target: &Endpoint, whose: Option<&Whose>) -> Option<ServerName<'static>> {
    match &tls.asked {
        Asked::Name(name) => Some(name.clone()),
        Asked::Target => transport::server_name(&target.label),
        Asked::Host => transport::server_name(&whose?.host),
    }
}

async fn http1<S>(
    worker: &Rc<Worker>,
    stream: S,
    held_up: HeldUp,
    whose: Option<Box<Whose>>,
) -> Result<Link, Unconnected>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = worker.client.handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(Unconnected::Http)?;
    worker.metrics.upstream_connections_total.add(1);
    // Its failure is told to the exchange that uses it; idle, it is just gone from the pool.
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a connection to a target ended early");
        }
    });
    Ok(Link { sender, task, held_up, whose })
}
