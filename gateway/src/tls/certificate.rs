//! One certificate: what is in it, and how clients are served with it.

use std::sync::{Arc, LazyLock};

use ::aws_lc_rs::digest;
use model::{Name, Violation, upstream::TlsVersion};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, ResolvesServerCertUsingSni},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{
    client::Asking,
    tickets::{Bound, Context, Tickets},
};

/// The most certificates in a chain.
const CHAIN_MAX: usize = 10;
/// What clients may speak over TLS, what is preferred first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Tickets that a client of TLS 1.3 is given after its handshake: one is enough for one that takes up its session again.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// How ciphers, key exchanges and signatures are computed.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// Of no certificate at all: every handshake ends with an alert.
pub(crate) static NONE: LazyLock<Option<Arc<ServerConfig>>> = LazyLock::new(|| {
    let config = ServerConfig::builder_with_provider(PROVIDER.clone());
    let config = config.with_protocol_versions(&[&TLS13, &TLS12]).ok()?.with_no_client_auth();
    Some(Arc::new(config.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))))
});

/// What a certificate says of itself, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The hosts that it names (its subject alternative names of DNS).
    pub hosts: Vec<String>,
    /// Seconds since the Unix epoch from which it is good.
    pub not_before_s: u64,
    /// Seconds since the Unix epoch until which it is good.
    pub not_after_s: u64,
    /// SHA-256 of it as DER: 64 lower-case hexadecimal digits.
    pub fingerprint: String,
}

impl Facts {
    /// What the first certificate of a chain in PEM says of itself.
    ///
    /// # Errors
    /// Why it can't be read.
    pub fn of_chain(chain: &str) -> Result<Self, String> {
        let chain = certificates(chain, CHAIN_MAX)?;
        Self::of(chain.first().ok_or("has no certificate in it")?)
    }

    /// What this certificate says of itself.
    ///
    /// # Errors
    /// Why it can't be read.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, leaf) =
            X509Certificate::from_der(der).map_err(|error| format!("is no certificate: {error}"))?;
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let hosts = names.filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(host.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        });
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Ok(Self {
            subject: leaf.subject().to_string(),
            issuer: leaf.issuer().to_string(),
            hosts: hosts.collect(),
            not_before_s: seconds(leaf.validity().not_before),
            not_after_s: seconds(leaf.validity().not_after),
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate ready for use.
pub(crate) struct Served {
    pub(crate) name: Name,
    /// The hosts that it is for, in lower case.
    pub(crate) hosts: Vec<String>,
    pub(crate) default: bool,
    /// Seconds since the Unix epoch until which it is good.
    pub(crate) not_after_s: u64,
    pub(crate) key: Arc<CertifiedKey>,
    /// What a client proves who is served with it.
    pub(crate) context: Context,
    /// Whether targets are told a client's whole certificate.
    pub(crate) whole: bool,
    /// What handshakes are made with.
    pub(crate) config: Arc<ServerConfig>,
}

impl Served {
    /// Whether it asks clients for a certificate.
    pub(crate) fn asks(&self) -> bool {
        self.context != Context::NO_CLIENT
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("name", &self.name).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Makes a certificate ready for use, or tells all that is wrong with it.
pub(crate) fn compile(
    name: &Name,
    spec: &model::Certificate,
    tickets: &Arc<Tickets>,
) -> Result<Served, Vec<Violation>> {
    let at =
        |place: &str, message: String| Violation { path: format!("certificates.{name}.{place}"), message };
    let chain = certificates(&spec.chain, CHAIN_MAX).map_err(|error| at("chain", error));
    let chain = chain.and_then(|chain| match chain.first() {
        Some(leaf) => Ok((Facts::of(leaf).map_err(|error| at("chain", error))?, chain)),
        None => Err(at("chain", "has no certificate in it".to_owned())),
    });
    let key = PrivateKeyDer::from_pem_slice(spec.key.0.as_bytes());
    let key = key.map_err(|_| at("key", "is no private key in PEM that is not encrypted".to_owned()));
    let key = key.and_then(|key| {
        let loaded = PROVIDER.key_provider.load_private_key(key);
        loaded.map_err(|_| {
            at("key", "is of no kind that is served: RSA, ECDSA (P-256 to P-521) or Ed25519".to_owned())
        })
    });
    let ((facts, chain), key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let certified = CertifiedKey::new(chain, key);
    if certified.keys_match().is_err() {
        return Err(vec![at("key", "is not the key of the chain's first certificate".to_owned())]);
    }
    let hosts = if spec.hosts.is_empty() { facts.hosts } else { spec.hosts.clone() };
    if hosts.is_empty() && !spec.default {
        let message = "the certificate names no host: say hosts, or default".to_owned();
        return Err(vec![at("hosts", message)]);
    }
    let asking = spec.client.as_ref().map(Asking::of).transpose();
    let asking = asking.map_err(|error| vec![at("client.ca", error)])?;
    let (context, whole) = asking.as_ref().map_or((Context::NO_CLIENT, false), |it| (it.context, it.whole));
    let key = Arc::new(certified);
    let config = server_config(key.clone(), spec.min_version, asking, tickets.bound(context));
    let config = Arc::new(config.map_err(|error| vec![at("chain", error.to_string())])?);
    let (name, default, not_after_s) = (name.clone(), spec.default, facts.not_after_s);
    Ok(Served { name, hosts, default, not_after_s, key, context, whole, config })
}

/// The certificates in this text; so many at the most.
pub(super) fn certificates(pem: &str, max: usize) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(max + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is no PEM: {error}"))?;
    if chain.len() > max {
        return Err(format!("has more than {max} certificates"));
    }
    Ok(chain)
}

fn server_config(
    key: Arc<CertifiedKey>,
    min_version: TlsVersion,
    asking: Option<Asking>,
    tickets: Bound,
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(PROVIDER.clone());
    let config = match min_version {
        TlsVersion::V12 => config.with_protocol_versions(&[&TLS13, &TLS12])?,
        TlsVersion::V13 => config.with_protocol_versions(&[&TLS13])?,
    };
    let config = match asking {
        Some(asking) => config.with_client_cert_verifier(asking.verifier),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Sessions are in tickets, which any node can read, and not in a memory that strangers fill. What they send before the
    // handshake has ended (0-RTT) can be sent again by others, so there is none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    Ok(config)
}

#[cfg(test)]
pub(crate) mod tests {
    use model::cluster::Secret;

    use super::*;

    /// A certificate for these hosts, signed by itself.
    pub(crate) fn made(hosts: &[&str], default: bool) -> model::Certificate {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let (chain, key) = (made.cert.pem(), Secret(made.signing_key.serialize_pem()));
        let (hosts, min_version) = (Vec::new(), TlsVersion::default());
        model::Certificate { chain, key, hosts, default, min_version, client: None }
    }

    fn paths(spec: &model::Certificate) -> Vec<String> {
        let wrong = compile(&Name::new("c").unwrap(), spec, &Tickets::off()).unwrap_err();
        wrong.into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn what_a_certificate_says_of_itself_is_read() {
        let spec = made(&["A.example", "*.b.example"], false);
        let facts = Facts::of_chain(&spec.chain).unwrap();
        assert_eq!(facts.hosts, ["a.example", "*.b.example"]);
        assert!(facts.fingerprint.len() == 64 && facts.subject.starts_with("CN="), "{facts:?}");
        assert!(facts.not_after_s > facts.not_before_s);
        let served = compile(&Name::new("c").unwrap(), &spec, &Tickets::off()).unwrap();
        assert_eq!(served.hosts, facts.hosts);
        assert_eq!(served.not_after_s, facts.not_after_s);
    }

    #[test]
    fn all_that_is_wrong_is_told_and_nothing_of_the_key() {
        let good = made(&["a.example"], false);
        let other = made(&["a.example"], false);
        let bad = |chain: &str, key: &str| model::Certificate {
            chain: chain.to_owned(),
            key: Secret(key.to_owned()),
            ..good.clone()
        };
        assert_eq!(paths(&bad("", "")), ["certificates.c.chain", "certificates.c.key"]);
        assert_eq!(paths(&bad(&good.chain, &other.key.0)), ["certificates.c.key"]);
        assert_eq!(paths(&bad(&good.key.0, &good.key.0)), ["certificates.c.chain"]);
        assert_eq!(paths(&bad(&good.chain.repeat(11), &good.key.0)), ["certificates.c.chain"]);
        let nameless = model::Certificate { hosts: Vec::new(), ..made(&[], false) };
        assert_eq!(paths(&nameless), ["certificates.c.hosts"]);
        let broken = good.key.0.replace('M', "!");
        let wrong =
            compile(&Name::new("c").unwrap(), &bad(&good.chain, &broken), &Tickets::off()).unwrap_err();
        assert!(!format!("{wrong:?}").contains(broken.lines().nth(1).unwrap()));
    }

    #[test]
    fn hosts_of_the_spec_stand_in_for_those_of_the_certificate() {
        let spec = model::Certificate { hosts: vec!["c.example".into()], ..made(&["a.example"], false) };
        let served = compile(&Name::new("c").unwrap(), &spec, &Tickets::off()).unwrap();
        assert_eq!(served.hosts, ["c.example"]);
    }
}
