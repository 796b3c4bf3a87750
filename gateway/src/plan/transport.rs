//! How an upstream's targets are spoken to: compiled once, and kept for as long as the config says the same of it.

mod verify;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, header};
use model::{
    Name, Upstream, Violation,
    upstream::{Http2, Protocol, ProxyProtocol, SniFrom, TlsVersion, UpstreamTls},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

use self::verify::{Anybody, Proven};
use crate::{connection::Connection, upstream::pool::Whose};

/// What is said where a node has no roots of its own.
const NO_ROOTS: &str =
    "is missing, and this node's system trusts no certificate: give the PEM of those that sign the targets'";

/// The protocols' names for TLS (RFC 7301, section 6; RFC 9113, section 3.2).
const HTTP1: &[u8] = b"http/1.1";
pub(crate) const HTTP2: &[u8] = b"h2";

/// Where a connection has come to that came before anybody was to be told.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How an upstream's targets are spoken to.
#[derive(Debug)]
pub struct Transport {
    /// Connections are used again for what has the same; 0 is HTTP/1.1 in clear.
    pub id: u64,
    pub(crate) protocols: Protocols,
    /// How connections are used that are HTTP/2.
    pub(crate) http2: Http2,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
}

/// Which protocols a target may be spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocols {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// The one that it chooses.
    Both,
}

/// TLS to targets.
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    /// The same, for HTTP/1.1 alone.
    pub(crate) http1: Arc<ClientConfig>,
    pub(crate) asked: Asked,
    /// What a target is shown that asks who we are.
    shown: Option<Arc<CertifiedKey>>,
}

/// The name that a target is asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Always this.
    Name(ServerName<'static>),
    /// The target's own.
    Target,
    /// That of the request's host.
    Host,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Transport {
    /// Whether it is this that targets are shown.
    fn shows(&self, shown: Option<&Arc<CertifiedKey>>) -> bool {
        let before = self.tls.as_ref().and_then(|tls| tls.shown.as_ref());
        match (before, shown) {
            (Some(before), Some(shown)) => Arc::ptr_eq(before, shown),
            (before, shown) => before.is_none() && shown.is_none(),
        }
    }

    /// Whose requests a connection for this one is for, if not for any.
    pub(crate) fn whose(&self, headers: &HeaderMap, connection: &Connection) -> Option<Box<Whose>> {
        let by_host = matches!(&self.tls, Some(Tls { asked: Asked::Host, .. }));
        if !by_host && self.proxy_protocol.is_none() {
            return None;
        }
        let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Some(Box::new(Whose {
            host: by_host.then(|| host().to_ascii_lowercase()),
            client: self.proxy_protocol.map(|_| (connection.peer, connection.local.unwrap_or(UNKNOWN))),
        }))
    }

    /// Compiles what `spec` says, or takes `old` if that says the same.
    pub(crate) fn compile(
        name: &Name,
        spec: &Upstream,
        old: Option<(&Upstream, &Arc<Self>)>,
        certificates: impl Fn(&Name) -> Option<Arc<CertifiedKey>>,
    ) -> Result<Arc<Self>, Vec<Violation>> {
        let shown = spec.tls.as_ref().and_then(|tls| certificates(tls.certificate.as_ref()?));
        if let Some((before, transport)) = old
            && (&before.tls, before.protocol, before.proxy_protocol, &before.http2)
                == (&spec.tls, spec.protocol, spec.proxy_protocol, &spec.http2)
            && transport.shows(shown.as_ref())
        {
            return Ok(transport.clone());
        }
        let protocols = match (spec.protocol, &spec.tls) {
            (Protocol::Http1, _) | (Protocol::Auto, None) => Protocols::Http1,
            (Protocol::Http2, _) => Protocols::Http2,
            (Protocol::Auto, Some(_)) => Protocols::Both,
        };
        let (proxy_protocol, http2) =
            (spec.proxy_protocol, spec.http2.as_deref().cloned().unwrap_or_default());
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Some(tls) = &spec.tls else {
            let is_plain = protocols == Protocols::Http1 && proxy_protocol.is_none();
            let id = if is_plain { 0 } else { NEXT.fetch_add(1, Relaxed) };
            return Ok(Arc::new(Self { id, protocols, http2, tls: None, proxy_protocol }));
        };
        let tls = Tls::compile(tls, protocols, shown).map_err(|(field, message)| {
            vec![Violation { path: format!("upstreams.{name}.tls.{field}"), message }]
        })?;
        if !spec.tls.as_ref().is_some_and(|tls| tls.verify) {
            tracing::warn!(upstream = %name, "verify is false: whoever is in the way can read and change all that passes");
        }
        let id = NEXT.fetch_add(1, Relaxed);
        Ok(Arc::new(Self { id, protocols, http2, tls: Some(tls), proxy_protocol }))
    }
}

impl Tls {
    fn compile(
        spec: &UpstreamTls,
        protocols: Protocols,
        shown: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, (&'static str, String)> {
        let name = |field, text: &str| {
            let name = ServerName::try_from(text.to_owned());
            name.map_err(|_| (field, format!("{text:?} is no DNS name")))
        };
        let config = ClientConfig::builder_with_provider(provider());
        let config = match spec.min_version {
            TlsVersion::V12 => config.with_protocol_versions(&[&TLS13, &TLS12]),
            TlsVersion::V13 => config.with_protocol_versions(&[&TLS13]),
        };
        let config = config.map_err(|error| ("min_version", error.to_string()))?.dangerous();
        let config = if spec.verify {
            let roots = match &spec.ca {
                Some(pem) => Arc::new(read_roots(pem).map_err(|error| ("ca", error))?),
                None => system_roots().clone(),
            };
            let name = spec.name.as_deref().map(|text| name("name", text)).transpose()?;
            let proven = Proven::new(roots, provider(), name).map_err(|error| ("ca", error.to_string()))?;
            config.with_custom_certificate_verifier(Arc::new(proven))
        } else {
            config.with_custom_certificate_verifier(Arc::new(Anybody(provider())))
        };
        let mut http1 = match (&spec.certificate, &shown) {
            (None, _) => config.with_no_client_auth(),
            (Some(_), Some(key)) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
            }
            (Some(name), None) => return Err(("certificate", format!("there is no certificate {name}"))),
        };
        http1.alpn_protocols = vec![HTTP1.to_vec()];
        let mut config = http1.clone();
        config.alpn_protocols = match protocols {
            Protocols::Http1 => vec![HTTP1.to_vec()],
            Protocols::Http2 => vec![HTTP2.to_vec()],
            Protocols::Both => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        };
        let asked = match (&spec.sni, spec.sni_from) {
            (Some(sni), _) => Asked::Name(name("sni", sni)?),
            (None, SniFrom::Target) => Asked::Target,
            (None, SniFrom::Host) => Asked::Host,
        };
        Ok(Self { config: Arc::new(config), http1: Arc::new(http1), asked, shown })
    }
}

/// What of `spec` can't work on this node, though it may on another.
pub(crate) fn check(
    name: &Name,
    spec: &Upstream,
    certificates: impl Fn(&Name) -> Option<Arc<CertifiedKey>>,
) -> Vec<Violation> {
    let wants_roots = spec.tls.as_ref().is_some_and(|tls| tls.verify && tls.ca.is_none());
    if wants_roots && system_roots().is_empty() {
        return vec![Violation { path: format!("upstreams.{name}.tls.ca"), message: NO_ROOTS.to_owned() }];
    }
    Transport::compile(name, spec, None, certificates).err().unwrap_or_default()
}

/// The name or address in `host:port`, a `Host`, or without a port.
pub(crate) fn server_name(authority: &str) -> Option<ServerName<'static>> {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let host = if port.contains(']') { authority } else { host };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(ServerName::from(address));
    }
    ServerName::try_from(host.trim_end_matches('.').to_ascii_lowercase()).ok()
}

fn read_roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("certificate {}: {error}", roots.len() + 1))?;
    }
    if roots.is_empty() {
        return Err("has no certificate: -----BEGIN CERTIFICATE----- is not in it".to_owned());
    }
    Ok(roots)
}

/// The certificates that the system trusts, read once: `SSL_CERT_FILE` and `SSL_CERT_DIR`, or where its distribution has
/// them.
fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the certificates that the system trusts can't be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "the certificates that the system trusts");
        Arc::new(roots)
    })
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(tls: serde_json::Value) -> Result<Arc<Transport>, Vec<Violation>> {
        let spec: Upstream =
            serde_json::from_value(json!({"targets": [{"address": "a:1"}], "tls": tls})).unwrap();
        Transport::compile(&Name::new("u").unwrap(), &spec, None, |_| None)
    }

    #[test]
    fn what_is_wrong_with_certificates_is_told_where_it_is() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for ca in ["", "nothing", broken] {
            let violations = compile(json!({"ca": ca})).unwrap_err();
            assert_eq!(violations[0].path, "upstreams.u.tls.ca", "{ca:?}");
        }
    }

    #[test]
    fn what_is_the_same_keeps_its_connections() {
        let spec = |tls| -> Upstream {
            serde_json::from_value(json!({"targets": [{"address": "a:1"}], "tls": tls})).unwrap()
        };
        let name = Name::new("u").unwrap();
        let before = spec(json!({"verify": false}));
        let first = Transport::compile(&name, &before, None, |_| None).unwrap();
        let again =
            Transport::compile(&name, &spec(json!({"verify": false})), Some((&before, &first)), |_| None);
        assert!(Arc::ptr_eq(&first, &again.unwrap()));
        let other = Transport::compile(
            &name,
            &spec(json!({"verify": false, "sni": "b"})),
            Some((&before, &first)),
            |_| None,
        );
        assert_ne!(first.id, other.unwrap().id);
        let mut used_otherwise = before.clone();
        used_otherwise.http2 = Some(Box::new(Http2 { streams_max: 1, ..Http2::default() }));
        let other = Transport::compile(&name, &used_otherwise, Some((&before, &first)), |_| None).unwrap();
        assert_eq!((first.id == other.id, other.http2.streams_max), (false, 1));
        assert_ne!(first.id, 0, "what is sent in clear is sent on connections of its own");
    }

    #[test]
    fn a_node_without_roots_trusts_nobody_and_starts_all_the_same() {
        let proven = Proven::new(Arc::new(RootCertStore::empty()), provider(), None);
        assert!(proven.is_ok());
    }

    #[test]
    fn the_name_of_an_authority_is_without_its_port() {
        for (authority, name) in [
            ("orders.internal:443", "orders.internal"),
            ("Orders.Internal.", "orders.internal"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[::1]:443", "::1"),
            ("[::1]", "::1"),
            ("orders_1", "orders_1"),
        ] {
            assert_eq!(server_name(authority).unwrap().to_str(), name, "{authority}");
        }
        for bad in ["", ":1", "a b", "-:1"] {
            assert_eq!(server_name(bad), None, "{bad}");
        }
    }
}
