//! The cluster's CA and the nodes' keys: ECDSA over P-256.

use std::time::{Duration, SystemTime};

use model::{
    NodeId,
    cluster::{Founding, Node},
};
use raft::server_name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::{Error, LIFETIME_S};
use crate::tokens;

const CA_YEARS: u64 = 10;
/// A certificate begins this long ago, for nodes whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A P-256 key pair.
pub(crate) struct Key(KeyPair);

impl Key {
    pub(crate) fn generate() -> Result<Self, Error> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(bad)?))
    }

    pub(crate) fn from_pem(pem: &str) -> Result<Self, Error> {
        Ok(Self(KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map_err(bad)?))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(super) fn pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        self.0.serialize_der().into()
    }

    /// SHA-256 of its SubjectPublicKeyInfo, 64 hexadecimal digits.
    pub(crate) fn public_key_sha256(&self) -> String {
        tokens::sha256_hex(&self.0.subject_public_key_info())
    }

    /// Its SubjectPublicKeyInfo (DER).
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// A request to sign it, which carries nothing but the key: the signer sets the names.
    pub(crate) fn csr(&self) -> Result<Vec<u8>, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0).map_err(bad)?.der().to_vec())
    }

    /// A certificate of its own, that proves nothing but that its holder has the key.
    pub(super) fn self_signed(&self) -> Result<CertificateDer<'static>, Error> {
        let params = CertificateParams::new(vec!["joining.phalanx.internal".to_owned()]).map_err(bad)?;
        Ok(params.self_signed(&self.0).map_err(bad)?.der().clone())
    }
}

/// The CA: it signs nodes' certificates.
pub(crate) struct Authority {
    pub(crate) certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn generate(cluster_id: &str) -> Result<Self, Error> {
        let Key(key) = Key::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Phalanx cluster {cluster_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + Duration::from_secs(CA_YEARS * 365 * 24 * 3600)).into();
        params.serial_number = Some(serial());
        let certificate_pem = params.self_signed(&key).map_err(bad)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(params, key) })
    }

    pub(super) fn load(founding: &Founding) -> Result<Self, Error> {
        let Key(key) = Key::from_pem(&founding.ca_key.0)?;
        let issuer = Issuer::from_ca_cert_pem(&founding.ca_certificate, key).map_err(bad)?;
        Ok(Self { certificate_pem: founding.ca_certificate.clone(), issuer })
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate (PEM) for the key in this request, under the names that are this node's.
    pub(crate) fn sign(&self, csr_der: &[u8], id: NodeId, node: &Node) -> Result<String, Error> {
        let csr = read_csr(csr_der)?;
        // The id alone proves who it is, and the cluster's id is in the CA's name and in this one.
        let cluster_id = self.cluster_id()?;
        let own = server_name(id, &cluster_id);
        let mut names = vec![own.clone(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        for address in [&node.address, &node.admin] {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            // Nobody may have itself signed another node's name by calling its own address so.
            let usable = !host.is_empty() && !host.to_ascii_lowercase().ends_with(".phalanx.internal");
            if usable && !names.contains(&host) {
                names.push(host);
            }
        }
        let mut params = CertificateParams::new(names).map_err(bad)?;
        params.distinguished_name = named(&own);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + Duration::from_secs(LIFETIME_S)).into();
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&csr.public_key, &self.issuer).map_err(bad)?.pem())
    }

    fn cluster_id(&self) -> Result<String, Error> {
        let der = certificate(&self.certificate_pem)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| bad(&error))?;
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let id = name.and_then(|name| name.strip_prefix("Phalanx cluster "));
        id.map(str::to_owned).ok_or_else(|| bad("the CA's certificate names no cluster"))
    }
}

/// SHA-256 of the key (SubjectPublicKeyInfo) in a signing request, whose own signature is checked.
pub(crate) fn csr_public_key(csr_der: &[u8]) -> Result<String, Error> {
    Ok(tokens::sha256_hex(&read_csr(csr_der)?.public_key.subject_public_key_info()))
}

/// SHA-256 of a certificate's key (SubjectPublicKeyInfo): 64 hexadecimal digits.
pub(crate) fn leaf_public_key(der: &[u8]) -> Result<String, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| bad(&error))?;
    Ok(tokens::sha256_hex(parsed.public_key().raw))
}

/// Milliseconds since the Unix epoch at which a certificate begins and ends, and its key.
pub(super) fn read(der: &[u8]) -> Result<(u64, Vec<u8>), Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| bad(&error))?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((end.saturating_mul(1000), parsed.public_key().raw.to_vec()))
}

/// The first certificate of a PEM text.
pub(super) fn certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(&error))
}

pub(crate) fn sha256(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

fn read_csr(der: &[u8]) -> Result<CertificateSigningRequestParams, Error> {
    let csr =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der)).map_err(bad)?;
    if csr.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256 {
        Ok(csr)
    } else {
        Err(bad("the key to be signed is not of the sort ECDSA P-256"))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// 127 random bits, positive and not 0 (RFC 5280, section 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = tokens::random::<16>();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[allow(clippy::needless_pass_by_value)] // it ends in map_err
fn bad(error: impl ToString) -> Error {
    Error::Certificate(error.to_string())
}
