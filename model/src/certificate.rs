//! A certificate: a chain and its key, with which clients that name certain hosts are served over TLS.

use serde::{Deserialize, Serialize};

use crate::{cluster::Secret, upstream::TlsVersion};

/// A chain and its key. The key is a secret of the cluster: it is replicated and kept as the pepper is, and never shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate of the hosts and those that lead to its root, in this order: PEM.
    pub chain: String,
    /// Its private key: PEM (PKCS#8, SEC1 or PKCS#1).
    pub key: Secret<String>,
    /// The hosts it is chosen for, by the name that a client asks for (SNI, RFC 6066, section 3); empty takes those that the
    /// certificate itself names. `*.example` is for any one label before `.example` (RFC 9525, section 6.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Whether it is for clients that name no host, or none that a certificate is for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// The oldest version of TLS that is spoken; 1.2 unless said.
    #[serde(default, skip_serializing_if = "is_oldest")]
    pub min_version: TlsVersion,
    /// How its clients are asked for a certificate of their own; they are not, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientAuth>,
}

fn is_oldest(version: &TlsVersion) -> bool {
    *version == TlsVersion::default()
}

/// How clients are asked for a certificate of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// The authorities that must have signed it: PEM.
    pub ca: String,
    /// Whether there is a connection without one.
    #[serde(default)]
    pub mode: ClientMode,
    /// Whether targets are told the whole certificate too, in `Client-Cert` (RFC 9440).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward_certificate: bool,
}

/// Whether there is a connection without a client's certificate. One that no authority has signed ends the handshake in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientMode {
    /// There is none.
    #[default]
    Required,
    /// There is; routes may ask for it by policy.
    Optional,
}

/// The fields of a certificate's document that are never shown.
pub const HIDDEN: [&str; 1] = ["key"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_does_not_show_itself() {
        let certificate = Certificate {
            chain: "chain".into(),
            key: Secret("hush".into()),
            hosts: Vec::new(),
            default: false,
            min_version: TlsVersion::default(),
            client: None,
        };
        assert!(!format!("{certificate:?}").contains("hush"));
        assert_eq!(serde_json::to_string(&certificate).unwrap(), r#"{"chain":"chain","key":"hush"}"#);
    }
}
