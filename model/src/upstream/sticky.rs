//! How a client's requests are kept to one target by a cookie that the gateway makes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a client's requests are kept to one target: a cookie with a digest of the target, the same on all nodes, leads there for as long as
/// the target is in use. Else another is chosen, and the client gets its cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// For how long the client keeps it (`Max-Age`), 1s to 400d; until it is closed unless said.
    #[serde(default, with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// To which paths the client sends it; all unless said.
    #[serde(default = "Sticky::path_default")]
    pub path: String,
    /// Whether the client sends it with requests from other sites; not said unless it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// Whether the client sends it over TLS alone.
    #[serde(default)]
    pub secure: bool,
    /// Whether scripts are kept from reading it; so unless said.
    #[serde(default = "Sticky::http_only_default")]
    pub http_only: bool,
}

/// Whether a cookie is sent with requests from other sites (RFC 6265bis, section 5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Not at all.
    Strict,
    /// When the client goes there.
    Lax,
    /// With all; the cookie must be `secure`.
    None,
}

impl Sticky {
    fn path_default() -> String {
        "/".to_owned()
    }

    fn http_only_default() -> bool {
        true
    }
}
