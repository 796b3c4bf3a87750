//! TLS to the targets of an upstream: who they must prove to be, and who the gateway says it is.

use serde::{Deserialize, Serialize};

use crate::Name;

/// TLS 1.2 or 1.3 to an upstream's targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamTls {
    /// Whether a target must prove to be who it should be. Without it anybody between here and there can read and change what
    /// passes.
    pub verify: bool,
    /// The name that a target is asked for (RFC 6066, section 3) and that its certificate must be for; unless said that of
    /// `sni_from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Where the name comes from if `sni` is not said.
    #[serde(skip_serializing_if = "SniFrom::is_default")]
    pub sni_from: SniFrom,
    /// The DNS name or IP address that a target's certificate must be for, where it is another than the one it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Certificates as PEM, by one of which a target's must be signed; unless said, those that the node's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The certificate that a target is shown which asks who we are, by its name in the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Name>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            verify: true,
            sni: None,
            sni_from: SniFrom::default(),
            name: None,
            ca: None,
            certificate: None,
            min_version: TlsVersion::default(),
        }
    }
}

/// Where the name comes from that a target is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SniFrom {
    /// The target's own name, as in its address; none is asked for where that is an IP address.
    #[default]
    Target,
    /// The host that the request is for, as the target sees it. A connection is used for one host alone.
    Host,
}

impl SniFrom {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}
