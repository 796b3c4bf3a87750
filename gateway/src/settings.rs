//! What one process's data plane is told besides the config: where it listens and how much it takes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use model::Name;

use crate::{
    access::AccessLog, checks::Checks, cidr::Cidr, lease::Lease, proxy_protocol::ProxyProtocol,
    rate_limits::RateLimits,
};

/// What one process's data plane is told besides the config.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Where to listen for TLS; nowhere unless said.
    pub listen_tls: Option<SocketAddr>,
    /// Where to listen for TCP routes alone, each by the name that they call it; nowhere unless said.
    pub listen_tcp: Vec<(Name, SocketAddr)>,
    /// Whether clients may speak HTTP/2 without TLS, beginning with its preface (RFC 9113, section 3.3).
    pub http2_plain: bool,
    /// Whether clients may take up a session of TLS again, on whichever node, by a ticket.
    pub tls_tickets: bool,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
    /// Peers whose `X-Forwarded-*`, `Forwarded`, `X-Request-Id` and identity headers are believed; none unless said.
    pub trusted_proxies: Vec<Cidr>,
    /// Where this node is, for targets of the same zone to be preferred; nowhere unless said.
    pub zone: Option<String>,
    /// Who is asked what names of targets stand for; those of `/etc/resolv.conf` unless said.
    pub dns_servers: Vec<SocketAddr>,
    /// With what those peers begin each connection to say from whom it is, on all listeners; with nothing unless said. From
    /// others no such thing is taken.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where a line for each request goes; nowhere unless said.
    pub access_log: Option<AccessLog>,
    /// When what is served was last known to be the newest: told by whoever has the configs.
    pub lease: Arc<Lease>,
    /// The counters of rate limits; those of a node that has no others unless said.
    pub rate_limits: Arc<RateLimits>,
    /// How checks of targets are shared with others; with nobody unless said.
    pub checks: Arc<Checks>,
    /// How much a stranger may ask for.
    pub limits: Limits,
}

impl Settings {
    /// Settings with the usual limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            listen_tls: None,
            listen_tcp: Vec::new(),
            http2_plain: false,
            tls_tickets: true,
            workers: 0,
            trusted_proxies: Vec::new(),
            zone: None,
            dns_servers: Vec::new(),
            proxy_protocol: None,
            access_log: None,
            lease: Arc::default(),
            rate_limits: RateLimits::alone(),
            checks: Arc::default(),
            limits: Limits::default(),
        }
    }

    /// How many threads serve.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// How much a stranger may ask for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest request head in bytes, 8 KiB at least, and the largest trailers; then 431.
    pub head_bytes_max: usize,
    /// The longest request target in bytes; then 414.
    pub target_bytes_max: usize,
    /// The most header lines in a request; then 431.
    pub headers_max: usize,
    /// The most bytes of a request's body, on whichever route; then 413. Unlimited unless said.
    pub body_bytes_max: Option<u64>,
    /// The most connections of clients at once, on all workers together; the next is closed at once.
    pub connections_max: usize,
    /// Of these, the most from one address, or one network of 64 bits of IPv6, that is no trusted proxy; the next is closed at once. 0
    /// for as many as it likes.
    pub connections_by_address_max: usize,
    /// From a connection over TLS to the end of its handshake.
    pub handshake_timeout: Duration,
    /// From a head's first byte to its last.
    pub header_timeout: Duration,
    /// Between two requests on a connection.
    pub idle_timeout: Duration,
    /// How long a stalled client may neither send more of a body nor take more of a response.
    pub stall_timeout: Duration,
    /// The slowest that a client may send a body or take a response, in bytes a second: one that is waited for may fall behind by
    /// `stall_timeout`, and no further. 0 lets it be as slow as it likes, as long as it does not stall.
    pub client_rate_min: u64,
    /// The most idle connections to one target that a worker keeps.
    pub upstream_idle_max: usize,
    /// How long an idle connection to a target is kept.
    pub upstream_idle_timeout: Duration,
    /// Of HTTP/2.
    pub http2: Http2Limits,
    /// The most bytes that encoders of responses may take, on all workers together; of more responses the bodies go as they are.
    pub compression_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 64 * 1024,
            target_bytes_max: 16 * 1024,
            headers_max: 100,
            body_bytes_max: None,
            connections_max: 65_536,
            connections_by_address_max: 0,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
            client_rate_min: 64,
            upstream_idle_max: 1024,
            upstream_idle_timeout: Duration::from_secs(30),
            http2: Http2Limits::default(),
            compression_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// How much a client of HTTP/2 may ask for. The size of a head is bounded as in HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Http2Limits {
    /// Requests in flight on a connection.
    pub streams_max: u32,
    /// Requests that a client may cancel on a connection without pause; ten a second are forgotten.
    pub resets_max: u32,
    /// Bytes of one request's body that a client may send before they are taken on.
    pub stream_window_bytes: u32,
    /// Bytes of all bodies on a connection; as many as of one at least.
    pub connection_window_bytes: u32,
    /// The largest frame that a client may send, in bytes: 16,384 to 16,777,215 (RFC 9113, section 4.2).
    pub frame_bytes_max: u32,
    /// After how long without a word a client is asked by a PING whether it is there; never unless said.
    pub ping_interval: Option<Duration>,
    /// How long its answer may take until the connection is closed.
    pub ping_timeout: Duration,
    /// Bytes of one answer that wait for the client to take them; a piece of a target's is added whole.
    pub send_bytes_max: usize,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams_max: 128,
            resets_max: 200,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            frame_bytes_max: 16 * 1024,
            ping_interval: None,
            ping_timeout: Duration::from_secs(20),
            send_bytes_max: 64 * 1024,
        }
    }
}

impl Limits {}

/// A limit that a client ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    HeadBytes,
    TargetBytes,
    Headers,
    BodyBytes,
    Connections,
    ConnectionsByAddress,
    HandshakeTimeout,
    HeaderTimeout,
    IdleTimeout,
    StallTimeout,
    ClientRate,
    Http2Resets,
}

impl Limit {
    /// All of them, in the order of the enum, each with the name of its setting.
    pub(crate) const ALL: [(Self, &str); 12] = [
        (Self::HeadBytes, "head_bytes_max"),
        (Self::TargetBytes, "target_bytes_max"),
        (Self::Headers, "headers_max"),
        (Self::BodyBytes, "body_bytes_max"),
        (Self::Connections, "connections_max"),
        (Self::ConnectionsByAddress, "connections_by_address_max"),
        (Self::HandshakeTimeout, "handshake_timeout"),
        (Self::HeaderTimeout, "header_timeout"),
        (Self::IdleTimeout, "idle_timeout"),
        (Self::StallTimeout, "stall_timeout"),
        (Self::ClientRate, "client_rate_min"),
        (Self::Http2Resets, "http2_resets_max"),
    ];
}
