//! TLS between nodes and for the admin API, over a certificate that can be changed while in use.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::{Error, Key, ca};

/// The certificate in use.
struct Current {
    certified: Arc<CertifiedKey>,
    pem: String,
    ends_at_ms: u64,
}

/// A certificate that renewals replace; new handshakes take the newest.
pub(crate) struct Live(ArcSwap<Current>);

/// What was in use before a swap.
pub(super) struct Before(Arc<Current>);

impl Live {
    pub(super) fn new(key: &Key, certificate_pem: &str, ca_pem: &str) -> Result<Self, Error> {
        Ok(Self(ArcSwap::from_pointee(current(key, certificate_pem, ca_pem)?)))
    }

    pub(super) fn swap(&self, key: &Key, certificate_pem: &str, ca_pem: &str) -> Result<Before, Error> {
        Ok(Before(self.0.swap(Arc::new(current(key, certificate_pem, ca_pem)?))))
    }

    pub(super) fn put_back(&self, before: Before) {
        self.0.store(before.0);
    }

    pub(super) fn certificate_pem(&self) -> String {
        self.0.load().pem.clone()
    }

    pub(super) fn ends_at_ms(&self) -> u64 {
        self.0.load().ends_at_ms
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live(ends_at_ms: {})", self.ends_at_ms())
    }
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified.clone())
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A certificate ready for use, once it is seen to be of this key and signed by this CA. An expired one passes: a node
/// that was off for longer still proxies, though its peers refuse it until it joins anew.
fn current(key: &Key, certificate_pem: &str, ca_pem: &str) -> Result<Current, Error> {
    let leaf = ca::certificate(certificate_pem)?;
    let root = ca::certificate(ca_pem)?;
    let (ends_at_ms, public_key) = ca::read(&leaf)?;
    if public_key != key.public_key() {
        return Err(Error::Certificate("the certificate is of another key than this node's".to_owned()));
    }
    let inside =
        UnixTime::since_unix_epoch(std::time::Duration::from_millis(ends_at_ms.saturating_sub(60_000)));
    chain(&leaf, &root, inside).map_err(|error| {
        Error::Certificate(format!("the certificate is not of the cluster's CA: {error}"))
    })?;
    let signer = provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.pkcs8())).map_err(bad)?;
    // The CA goes along: a node that joins knows its hash alone.
    let certified = Arc::new(CertifiedKey::new(vec![leaf, root], signer));
    Ok(Current { certified, pem: certificate_pem.to_owned(), ends_at_ms })
}

/// That this CA signed this certificate for a server, whatever its name, and that it is good at this time.
pub(crate) fn chain(
    leaf: &CertificateDer<'_>,
    ca: &CertificateDer<'_>,
    at: UnixTime,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, supported().all)
}

fn roots(ca: CertificateDer<'static>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(bad)?;
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn supported() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

pub(super) fn peer_server(live: &Arc<Live>, ca: CertificateDer<'static>) -> Result<Arc<ServerConfig>, Error> {
    let clients = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider());
    let clients = clients.allow_unauthenticated().build().map_err(bad)?;
    let config =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(bad)?;
    let mut config = config.with_client_cert_verifier(clients).with_cert_resolver(live.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection proves anew who it is: a resumed one would carry a certificate that may have ended since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub(super) fn peer_client(live: &Arc<Live>, ca: CertificateDer<'static>) -> Result<Arc<ClientConfig>, Error> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider()).build().map_err(bad)?;
    let config =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(bad)?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = config.with_client_cert_resolver(live.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

pub(super) fn admin_server(live: &Arc<Live>) -> Result<Arc<ServerConfig>, Error> {
    let config = ServerConfig::builder_with_provider(provider());
    let config = config.with_protocol_versions(&[&TLS13, &TLS12]).map_err(bad)?;
    let mut config = config.with_no_client_auth().with_cert_resolver(live.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of a node that joins: a certificate of its own, so that it can be dialled back and seen to hold the key.
pub(crate) fn server_for_dial_back(key: &Key) -> Result<Arc<ServerConfig>, Error> {
    let signer = provider().key_provider.load_private_key(PrivateKeyDer::Pkcs8(key.pkcs8())).map_err(bad)?;
    let certified = CertifiedKey::new(vec![key.self_signed()?], signer);
    let config =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(bad)?;
    let mut config =
        config.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// TLS to a server that this check alone judges, by its certificates, the leaf first. That the server holds the leaf's
/// key is verified as ever.
pub(crate) fn client_checked_by<F>(check: F) -> Result<Arc<ClientConfig>, Error>
where
    F: Fn(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<(), rustls::Error>
        + Send
        + Sync
        + 'static,
{
    let config =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(bad)?;
    let verifier = Arc::new(CheckedBy(check));
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

struct CheckedBy<F>(F);

impl<F> fmt::Debug for CheckedBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedBy")
    }
}

impl<F> ServerCertVerifier for CheckedBy<F>
where
    F: Fn(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<(), rustls::Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.0)(leaf, others, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken between nodes".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &supported())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        supported().supported_schemes()
    }
}

#[allow(clippy::needless_pass_by_value)] // it ends in map_err
fn bad(error: impl ToString) -> Error {
    Error::Certificate(error.to_string())
}
