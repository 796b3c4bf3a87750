//! How connections of HTTP/2 to targets are used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How connections of HTTP/2 to an upstream's targets are used (RFC 9113, sections 5.2, 6.5.2 and 6.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Http2 {
    /// The most requests on a connection at once, if the target takes as many: 1 to 1,024; 128 unless said.
    pub streams_max: u32,
    /// Bytes of one answer that a target may send before its client has taken them: 16KiB to 16MiB; 256KiB unless said. A connection takes as
    /// many for each of `streams_max`, together 1GiB at most.
    #[serde(with = "crate::size")]
    pub stream_window: u64,
    /// The largest frame that a target may send, in bytes: 16KiB (unless said) to 1MiB.
    #[serde(with = "crate::size")]
    pub frame_max: u64,
    /// After how long without a word on a connection with requests a target is asked by a PING whether it is there: 1s to 1h; 0s (unless said)
    /// for never.
    #[serde(with = "crate::duration")]
    pub ping_interval: Duration,
    /// How long its answer may take until the connection is given up: 1s to 1h; 20s unless said.
    #[serde(with = "crate::duration")]
    pub ping_timeout: Duration,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams_max: 128,
            stream_window: 256 << 10,
            frame_max: 16 << 10,
            ping_interval: Duration::ZERO,
            ping_timeout: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_usual() {
        let read: Http2 = serde_json::from_str(r#"{"stream_window":"1MiB","ping_interval":"30s"}"#).unwrap();
        let want =
            Http2 { stream_window: 1 << 20, ping_interval: Duration::from_secs(30), ..Http2::default() };
        assert_eq!(read, want);
        let written = serde_json::to_string(&Http2::default()).unwrap();
        assert_eq!(
            written,
            r#"{"streams_max":128,"stream_window":"256KiB","frame_max":"16KiB","ping_interval":"0ms","ping_timeout":"20s"}"#
        );
    }
}
