//! The certificate of a client: how it is asked for, and what is told of it.

use std::sync::Arc;

use ::aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::certificate::{ClientAuth, ClientMode};
use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{
    certificate::{Facts, PROVIDER, certificates},
    tickets::Context,
};

/// The most authorities that clients' certificates may come from.
const ROOTS_MAX: usize = 100;
/// The longest value of a header that is made of a certificate, in bytes; of a longer one none is.
const VALUE_BYTES_MAX: usize = 8_192;

const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const NAMES: HeaderName = HeaderName::from_static("x-client-cert-names");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");
/// RFC 9440, section 2.2.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// How clients are asked for a certificate.
pub(crate) struct Asking {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// What a session stands for that was begun so.
    pub(crate) context: Context,
    /// Whether targets are told the whole certificate.
    pub(crate) whole: bool,
}

impl Asking {
    /// As a certificate's spec says it.
    ///
    /// # Errors
    /// What is wrong with the authorities.
    pub(crate) fn of(spec: &ClientAuth) -> Result<Self, String> {
        let authorities = certificates(&spec.ca, ROOTS_MAX)?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| format!("an authority can't be used: {error}"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), PROVIDER.clone());
        let verifier = match spec.mode {
            ClientMode::Required => verifier,
            ClientMode::Optional => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(match spec.mode {
            ClientMode::Required => b"required ",
            ClientMode::Optional => b"optional ",
        });
        hash.update(spec.ca.as_bytes());
        let mut context = [0; 32];
        context.copy_from_slice(hash.finish().as_ref());
        Ok(Self { verifier, context: Context(context), whole: spec.forward_certificate })
    }
}

/// A client's certificate, which an authority has signed that the listener trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// What it says of itself.
    pub facts: Facts,
    /// The common name in its subject.
    pub common_name: Option<String>,
    /// Its subject alternative names: `dns:a.example`, `uri:spiffe://a/b`, `email:a@b`.
    pub names: Vec<String>,
    /// What targets are told of it.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ClientCertificate {
    /// Reads one that was verified; none if it can't be read, which verifying has made sure of.
    pub(crate) fn of(der: &CertificateDer<'_>, whole: bool) -> Option<Self> {
        let facts = Facts::of(der).ok()?;
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
        let names: Vec<String> = alternatives
            .filter_map(|name| match name {
                GeneralName::DNSName(host) => Some(format!("dns:{}", host.to_ascii_lowercase())),
                GeneralName::URI(uri) => Some(format!("uri:{uri}")),
                GeneralName::RFC822Name(email) => Some(format!("email:{email}")),
                _ => None,
            })
            .collect();
        let mut headers = Vec::with_capacity(4);
        let texts = [
            (SUBJECT, plain(&facts.subject)),
            (NAMES, names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")),
            (FINGERPRINT, facts.fingerprint.clone()),
            (CLIENT_CERT, if whole { format!(":{}:", STANDARD.encode(der)) } else { String::new() }),
        ];
        for (name, text) in texts {
            if !text.is_empty() && text.len() <= VALUE_BYTES_MAX {
                headers.push((name, HeaderValue::try_from(text).ok()?));
            }
        }
        Some(Self { common_name: common_name.map(str::to_owned), names, facts, headers })
    }

    /// Tells a target of it, in the place of what others may have said.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

/// The text as what a header may hold; other bytes, and `%` and `,` which would be read otherwise, as `%XX`.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' | b'!'..=b'~' if !matches!(byte, b'%') => plain.push(char::from(byte)),
            byte => plain.push_str(&format!("%{byte:02X}")),
        }
    }
    plain
}
