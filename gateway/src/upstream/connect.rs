//! How a connection to a target comes to be.

use std::{io, net::SocketAddr, pin::pin, rc::Rc};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    announce,
    breaker::Counted,
    http2,
    pool::{Pool, Whose, Wire},
    retry::Why,
    said::{Listened, Said},
    shared::Shared,
};
use crate::{
    h1::{client::Link, io::Io},
    plan::{
        CompiledUpstream,
        endpoint::Endpoint,
        transport::{self, Asked, Protocols, Tls},
    },
    server::KEEPALIVE,
    worker::Worker,
};

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unconnected {
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
    /// It speaks no HTTP/2, which is all that it should.
    #[error("it does not choose HTTP/2 by ALPN")]
    NoHttp2,
}

/// Which of the protocols that the upstream is spoken to in a target may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// Any.
    All,
    /// HTTP/1.1 alone, for what there is in no other.
    Http1,
}

impl Unconnected {
    /// The words for each in metrics.
    pub(crate) const REASONS: [&'static str; 5] = ["refused", "timeout", "certificate", "tls", "http"];

    /// The place in [`Self::REASONS`].
    pub(crate) fn reason(&self) -> usize {
        match self {
            Self::Refused(_) => 0,
            Self::Late => 1,
            Self::Untrusted(_) => 2,
            Self::Tls(_) | Self::Nameless => 3,
            Self::Http(_) | Self::NoHttp2 => 4,
        }
    }

    /// Whether it is not for the target alone to mend.
    pub(super) fn is_of_config(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Late)
    }

    fn of_handshake(error: io::Error) -> Self {
        let told = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match told {
            Some(rustls::Error::InvalidCertificate(error)) => Self::Untrusted(error.clone()),
            _ => Self::Tls(error),
        }
    }
}

/// A new connection to this target, for these alone if they are given, within the upstream's time for that, counted as
/// such until it ends. Why it can't be had is told here.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
    whose: Option<Box<Whose>>,
    counted: Option<Rc<Counted>>,
    offer: Offer,
) -> Result<Wire, Why> {
    // Large, and rare beside the requests that it would make large.
    let connecting = Box::pin(try_to(worker, upstream, target, pool, whose, counted, offer));
    let limit = upstream.spec.timeout.connect;
    let error = match worker.deadlines.within(limit, connecting).await.unwrap_or(Err(Unconnected::Late)) {
        Ok(wire) => {
            worker.metrics.upstream_connections_total.add(1);
            return Ok(wire);
        }
        Err(error) => error,
    };
    told(worker, upstream, target, pool, &error);
    Err(Why::Connect)
}

/// A new connection to this target, within the upstream's time for that, on which nothing was said. Why it can't be had is told here.
pub(super) async fn plain(
    worker: &Worker,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
) -> Result<TcpStream, Why> {
    let limit = upstream.spec.timeout.connect;
    let error = match worker.deadlines.within(limit, Box::pin(open(target.address))).await {
        Some(Ok(stream)) => {
            worker.metrics.upstream_connections_total.add(1);
            return Ok(stream);
        }
        Some(Err(error)) => Unconnected::Refused(error),
        None => Unconnected::Late,
    };
    told(worker, upstream, target, pool, &error);
    Err(Why::Connect)
}

fn told(worker: &Worker, upstream: &CompiledUpstream, target: &Endpoint, pool: &Pool, error: &Unconnected) {
    worker.metrics.unconnected(error);
    let (upstream, target) = (&upstream.name, &target.label);
    if error.is_of_config() && pool.may_tell() {
        tracing::warn!(%upstream, %target, %error, "a target can't be connected to");
    } else {
        tracing::debug!(%upstream, %target, %error, "a target can't be connected to");
    }
}

async fn try_to(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
    whose: Option<Box<Whose>>,
    counted: Option<Rc<Counted>>,
    offer: Offer,
) -> Result<Wire, Unconnected> {
    let mut stream = open(target.address).await.map_err(Unconnected::Refused)?;
    let client = whose.as_ref().and_then(|whose| whose.client);
    if let Some((version, (from, to))) = upstream.transport.proxy_protocol.zip(client) {
        let header = announce::header(version, from, to);
        stream.write_all(&header).await.map_err(Unconnected::Refused)?;
    }
    let only_http2 = upstream.transport.protocols == Protocols::Http2;
    let Some(tls) = &upstream.transport.tls else {
        return if only_http2 {
            begin_http2(worker, upstream, stream, pool, whose, counted).await
        } else {
            Ok(Wire::Own(Link::new(Io::Tcp(stream), whose, counted)))
        };
    };
    let name = name(tls, target, whose.as_deref()).ok_or(Unconnected::Nameless)?;
    let config = if offer == Offer::Http1 { &tls.http1 } else { &tls.config };
    let connecting = TlsConnector::from(config.clone()).connect(name, stream);
    let stream = connecting.await.map_err(Unconnected::of_handshake)?;
    match stream.get_ref().1.alpn_protocol() {
        Some(transport::HTTP2) => begin_http2(worker, upstream, stream, pool, whose, counted).await,
        _ if only_http2 => Err(Unconnected::NoHttp2),
        _ => Ok(Wire::Own(Link::new(Io::Layered(Box::new(stream)), whose, counted))),
    }
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
        Asked::Target => transport::server_name(&target.authority),
        Asked::Host => transport::server_name(whose?.host.as_deref()?),
    }
}

async fn begin_http2<S>(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    stream: S,
    pool: &Pool,
    whose: Option<Box<Whose>>,
    counted: Option<Rc<Counted>>,
) -> Result<Wire, Unconnected>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let spec = &upstream.transport.http2;
    let said = Said::nothing(pool.shares.streams_max.clone(), spec.streams_max as usize);
    let builder = http2::builder(&worker.settings.limits, spec);
    let handshake = builder.handshake(TokioIo::new(Listened::new(stream, said.clone())));
    let (sender, connection) = handshake.await.map_err(Unconnected::Http)?;
    let heard = said.clone();
    tokio::task::spawn_local(async move {
        let _open = counted;
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // It is polled for every request, and once the target's settings have come, which it says first (RFC 9113, section 3.4).
            let streams_max = connection.current_max_send_streams();
            heard.hear(streams_max, connection.is_extended_connect_protocol_enabled(), cx.waker());
            polled
        });
        if let Err(error) = ended.await {
            tracing::trace!(%error, "a connection to a target ended early");
        }
        heard.end();
    });
    Ok(Wire::Shared(Shared::new(sender, said, whose).slot()))
}
