//! What is spoken to the targets of an upstream.

use serde::{Deserialize, Serialize};

/// What is spoken to an upstream's targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http1,
    /// HTTP/2 (RFC 9113): in clear by prior knowledge, over TLS by ALPN, and nothing else.
    Http2,
    /// Over TLS whichever of the two a target prefers (RFC 7301); HTTP/1.1 in clear.
    Auto,
}

impl Protocol {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
