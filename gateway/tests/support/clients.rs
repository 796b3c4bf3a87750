//! Certificates and clients of TLS and HTTP/2.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::CryptoProvider, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Under, patiently};

/// A certificate that is its own authority.
pub struct Made {
    pub made: CertifiedKey<KeyPair>,
}

pub fn made(hosts: &[&str]) -> Made {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    Made { made: rcgen::generate_simple_self_signed(hosts).unwrap() }
}

impl Made {
    pub fn spec(&self) -> Value {
        json!({"chain": self.made.cert.pem(), "key": self.made.signing_key.serialize_pem()})
    }

    pub fn default(&self) -> Value {
        let mut spec = self.spec();
        spec["default"] = json!(true);
        spec
    }
}

/// What a client is that trusts these.
pub fn trusting(
    certificates: &[&Made],
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.made.cert.der().clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// What a client is that trusts these chains.
pub fn trusting_pem(chains: &[String], protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for chain in chains {
        roots.add(CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// What a client of HTTP/1.1 is that trusts this one and shows its own.
pub fn showing(
    certificate: &Made,
    (own, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    config.with_root_certificates(roots).with_client_auth_cert(vec![own], key).unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A connection to `address` that asks for `host`.
pub async fn connect(
    address: SocketAddr,
    host: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, host, Arc::new(config)).await
}

pub async fn connect_with(
    address: SocketAddr,
    host: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    patiently(TlsConnector::from(config).connect(name, stream)).await
}

/// A client of HTTP/2 on one connection.
pub type Http2 = http2::SendRequest<Full<Bytes>>;

impl Under {
    pub fn tls(&self) -> SocketAddr {
        self.gateway.address_tls().unwrap()
    }

    /// A connection of HTTP/2 to `host`, whose certificate is this one.
    pub async fn http2(&self, host: &str, certificate: &Made) -> Http2 {
        let config = trusting(&[certificate], &["h2"], &[&TLS13]);
        let stream = connect(self.tls(), host, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            patiently(http2::handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// The status, the headers and the body of an answer.
pub async fn answer(
    response: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
) -> (http::response::Parts, String) {
    let (head, body) = patiently(response).await.unwrap().into_parts();
    let body = patiently(body.collect()).await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

pub fn get(uri: &str) -> http::Request<Full<Bytes>> {
    http::Request::get(uri).body(Full::default()).unwrap()
}
