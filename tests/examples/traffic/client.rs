//! Clients of HTTP/1.1 and HTTP/2, with TLS and without.

use std::{cell::Cell, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::Kind;

const HOST: &str = "traffic.example";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1.
    Plain,
    /// The same with a connection for each request.
    PlainOnce,
    /// HTTP/1.1 over TLS.
    Tls,
    /// The same with a handshake for each request.
    TlsOnce,
    /// HTTP/2 over TLS.
    Http2,
}

/// Who asks for one thing after the other.
enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// How the node is reached.
pub(crate) struct Clients {
    plain: SocketAddr,
    tls: SocketAddr,
    connector: TlsConnector,
    connector_http2: TlsConnector,
}

impl Clients {
    pub(crate) fn new(plain: SocketAddr, tls: SocketAddr, trusted: CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(trusted).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { plain, tls, connector, connector_http2: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self, wire: Wire) -> Client {
        let (to, connector) = match wire {
            Wire::Plain | Wire::PlainOnce => (self.plain, None),
            Wire::Tls | Wire::TlsOnce => (self.tls, Some(&self.connector)),
            Wire::Http2 => (self.tls, Some(&self.connector_http2)),
        };
        let stream = TcpStream::connect(to).await.expect("the node listens");
        stream.set_nodelay(true).expect("it is a socket");
        let Some(connector) = connector else { return http1(stream).await };
        let name = ServerName::try_from(HOST).expect("it is a name");
        let stream = connector.connect(name, stream).await.expect("a handshake comes to its end");
        if wire == Wire::Http2 { http2(stream).await } else { http1(stream).await }
    }

    /// Leads this traffic through the node; gives how many answers were not what was asked for.
    pub(crate) async fn run(&self, kind: &Kind) -> usize {
        let (left, failed) = (Cell::new(kind.requests), Cell::new(0));
        let ask = async |mut client: Client| {
            while let Some(turn) = left.get().checked_sub(1) {
                left.set(turn);
                let path = kind.paths[turn % kind.paths.len()];
                let status = client.ask(kind, path).await;
                let is_good = status.is_some_and(|status| status.as_u16() < 400 || path == crate::MISSING);
                failed.set(failed.get() + usize::from(!is_good));
                if matches!(kind.wire, Wire::PlainOnce | Wire::TlsOnce) {
                    client = self.connect(kind.wire).await;
                }
            }
        };
        let mut asking = Vec::new();
        for _ in 0..kind.clients {
            match self.connect(kind.wire).await {
                Client::Http2(client) => {
                    asking.extend((0..kind.streams).map(|_| ask(Client::Http2(client.clone()))));
                }
                client => asking.push(ask(client)),
            }
        }
        join_all(asking).await;
        failed.get()
    }
}

impl Client {
    /// The status of the answer, once it is there whole; none if it broke off.
    async fn ask(&mut self, kind: &Kind, path: &str) -> Option<StatusCode> {
        let uri =
            if matches!(self, Self::Http2(_)) { format!("https://{HOST}{path}") } else { path.to_owned() };
        let body = Full::new(Bytes::from_static(crate::BODY).slice(..kind.body_bytes));
        let mut request = Request::new(body);
        *request.method_mut() = kind.method.clone();
        *request.uri_mut() = uri.parse().ok()?;
        *request.headers_mut() = kind.headers.clone();
        let answer = match self {
            Self::Http1(client) => {
                request.headers_mut().insert(header::HOST, HeaderValue::from_static(HOST));
                client.ready().await.ok()?;
                client.send_request(request).await.ok()?
            }
            Self::Http2(client) => client.send_request(request).await.ok()?,
        };
        let status = answer.status();
        answer.into_body().collect().await.ok()?;
        Some(status)
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Client {
    let (client, connection) =
        http1::handshake(TokioIo::new(stream)).await.expect("a connection can be begun");
    tokio::spawn(connection);
    Client::Http1(client)
}

async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Client {
    let begun = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (client, connection) = begun.expect("a connection can be begun");
    tokio::spawn(connection);
    Client::Http2(client)
}
