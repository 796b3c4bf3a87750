//! Certificates, and origins that speak TLS and HTTP/1.1 or HTTP/2 and tell what they saw.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Signs certificates for a test.
pub struct Ca {
    /// As a config has it.
    pub pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, and its key.
    pub fn sign(&self, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let certificate = params.unwrap().signed_by(&key, &self.issuer).unwrap().der().clone();
        (certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// The same, as an object of a config.
    pub fn object(&self, names: &[&str]) -> serde_json::Value {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let certificate = params.unwrap().signed_by(&key, &self.issuer).unwrap();
        serde_json::json!({"chain": certificate.pem(), "key": key.serialize_pem()})
    }
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS as a server with a certificate of this CA for these names.
pub fn server(ca: &Ca, names: &[&str], versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    let (certificate, key) = ca.sign(names);
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

/// The same, for clients with a certificate of `clients` alone.
pub fn server_for(ca: &Ca, names: &[&str], clients: &Ca) -> ServerConfig {
    let (certificate, key) = ca.sign(names);
    let mut roots = RootCertStore::empty();
    roots.add(clients.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_client_cert_verifier(verifier);
    config.with_single_cert(vec![certificate], key).unwrap()
}

/// What an origin saw of one connection.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub resumed: bool,
}

/// An origin that answers each request with its head.
#[derive(Clone)]
pub struct TlsOrigin {
    pub address: SocketAddr,
    pub connections: Arc<Mutex<Vec<Seen>>>,
}

impl TlsOrigin {
    pub async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let (connections, acceptor) = (origin.connections.clone(), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (connections, acceptor) = (connections.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (_, tls) = stream.get_ref();
                    connections.lock().unwrap().push(Seen {
                        sni: tls.server_name().map(str::to_owned),
                        alpn: tls.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                        resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
                    });
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
                });
            }
        });
        origin
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.connections.lock().unwrap().clone()
    }
}

/// A request's head, as text.
pub fn head(request: &Request<Incoming>) -> String {
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    }
    text
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(head(&request).into())))
}
