//! What this process is told besides the config: flags over environment over file over defaults, checked once.

mod limits;
mod tcp;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use gateway::access::Destination;
use model::Name;
use serde::Deserialize;

/// What is logged unless said otherwise. openraft warns of each heartbeat that fails, some sixty a second while a member is away.
const LOG: &str = "info,openraft=warn,openraft::core::heartbeat=error,chitchat=warn,sled=warn";
/// Keys that rate limits count, and how many there may be.
const RATE_LIMIT_KEYS: usize = 262_144;
const RATE_LIMIT_KEYS_RANGE: std::ops::RangeInclusive<usize> = 1_000..=16_777_216;
/// Where a name server listens unless said.
const DNS_PORT: u16 = 53;
/// The most threads that serve clients.
const WORKERS_MAX: usize = 1_024;

/// What may be set, from each of the sources.
#[derive(Debug, Clone, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Given {
    /// Folder for everything that this node keeps [default: ./phalanx-data]
    #[arg(long, env = "PHALANX_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// What people call this node [default: the host's name]
    #[arg(long, env = "PHALANX_NAME")]
    name: Option<String>,
    /// Where clients are served [default: 0.0.0.0:8080]
    #[arg(long, env = "PHALANX_PROXY", value_name = "ADDR:PORT")]
    proxy: Option<String>,
    /// Where clients are served over TLS, HTTP/2 and HTTP/1.1 [default: nowhere]
    #[arg(long, env = "PHALANX_PROXY_TLS", value_name = "ADDR:PORT")]
    proxy_tls: Option<String>,
    /// Where clients of TCP routes are served, by the name that these call it, as `postgres=0.0.0.0:5432`; may be given several times
    #[arg(long, env = "PHALANX_TCP", value_name = "NAME=ADDR:PORT", value_delimiter = ',')]
    tcp: Vec<String>,
    /// Whether clients may speak HTTP/2 without TLS, by prior knowledge: `on` or `off` [default: off]
    #[arg(long, env = "PHALANX_HTTP2_PLAIN", value_name = "on|off")]
    http2_plain: Option<String>,
    /// Whether clients take up TLS sessions again by tickets, on whichever node: `on` or `off` [default: on]
    #[arg(long, env = "PHALANX_TLS_TICKETS", value_name = "on|off")]
    tls_tickets: Option<String>,
    /// Threads that serve clients [default: one a core]
    #[arg(long, env = "PHALANX_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Where other nodes are served, TCP and UDP [default: 0.0.0.0:7000]
    #[arg(long, env = "PHALANX_PEER", value_name = "ADDR:PORT")]
    peer: Option<String>,
    /// Where the admin API is served, once the node is in a cluster [default: 127.0.0.1:9000]
    #[arg(long, env = "PHALANX_ADMIN", value_name = "ADDR:PORT")]
    admin: Option<String>,
    /// HOST:PORT at which other nodes reach this one [default: the peer address, if that is one]
    #[arg(long, env = "PHALANX_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// HOST:PORT at which the admin API is reached [default: the admin address, or the advertised host where that is 0.0.0.0]
    #[arg(long, env = "PHALANX_ADMIN_ADVERTISE", value_name = "HOST:PORT")]
    admin_advertise: Option<String>,
    /// Network whose X-Forwarded-* and identity headers are believed; may be given several times
    #[arg(long, env = "PHALANX_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<String>,
    /// Where this node is: targets of the same zone are preferred [default: nowhere]
    #[arg(long, env = "PHALANX_ZONE")]
    zone: Option<String>,
    /// Name server, as 10.0.0.2 or 10.0.0.2:5353, that is asked for names of targets; may be given several times [default: those of
    /// /etc/resolv.conf]
    #[arg(long, env = "PHALANX_DNS_SERVERS", value_name = "ADDR[:PORT]", value_delimiter = ',')]
    dns_servers: Vec<String>,
    /// The largest request head, in bytes [default: 65536]
    #[arg(long, env = "PHALANX_HEAD_BYTES_MAX", value_name = "N")]
    head_bytes_max: Option<usize>,
    /// The longest request target, in bytes [default: 16384]
    #[arg(long, env = "PHALANX_TARGET_BYTES_MAX", value_name = "N")]
    target_bytes_max: Option<usize>,
    /// The most header lines in a request [default: 100]
    #[arg(long, env = "PHALANX_HEADERS_MAX", value_name = "N")]
    headers_max: Option<usize>,
    /// The most connections of clients at once [default: 65536]
    #[arg(long, env = "PHALANX_CONNECTIONS_MAX", value_name = "N")]
    connections_max: Option<usize>,
    /// From a head's first byte to its last [default: 10s]
    #[arg(long, env = "PHALANX_HEADER_TIMEOUT", value_name = "DURATION")]
    header_timeout: Option<String>,
    /// With what trusted proxies begin each connection to say from whom it is: `off`, `v1`, `v2` or `any` [default: off]
    #[arg(long, env = "PHALANX_PROXY_PROTOCOL", value_name = "VERSION")]
    proxy_protocol: Option<String>,
    /// The most connections from one address at once; 0 for as many as it likes [default: 0]
    #[arg(long, env = "PHALANX_CONNECTIONS_BY_ADDRESS_MAX", value_name = "N")]
    connections_by_address_max: Option<usize>,
    /// From a connection over TLS to the end of its handshake [default: 10s]
    #[arg(long, env = "PHALANX_HANDSHAKE_TIMEOUT", value_name = "DURATION")]
    handshake_timeout: Option<String>,
    /// Requests in flight on a connection of HTTP/2 [default: 128]
    #[arg(long, env = "PHALANX_HTTP2_STREAMS_MAX", value_name = "N")]
    http2_streams_max: Option<u32>,
    /// Requests that a client may cancel on a connection of HTTP/2 without pause [default: 200]
    #[arg(long, env = "PHALANX_HTTP2_RESETS_MAX", value_name = "N")]
    http2_resets_max: Option<u32>,
    /// Bytes of a request's body that a client of HTTP/2 may send before they are taken on [default: 256KiB]
    #[arg(long, env = "PHALANX_HTTP2_STREAM_WINDOW", value_name = "SIZE")]
    http2_stream_window: Option<String>,
    /// The same of all requests on a connection [default: 1MiB]
    #[arg(long, env = "PHALANX_HTTP2_CONNECTION_WINDOW", value_name = "SIZE")]
    http2_connection_window: Option<String>,
    /// The largest frame of a client of HTTP/2 [default: 16KiB]
    #[arg(long, env = "PHALANX_HTTP2_FRAME_MAX", value_name = "SIZE")]
    http2_frame_max: Option<String>,
    /// After how long without a word a client of HTTP/2 is asked by a PING whether it is there; 0s for never [default: 0s]
    #[arg(long, env = "PHALANX_HTTP2_PING_INTERVAL", value_name = "DURATION")]
    http2_ping_interval: Option<String>,
    /// How long its answer may take [default: 20s]
    #[arg(long, env = "PHALANX_HTTP2_PING_TIMEOUT", value_name = "DURATION")]
    http2_ping_timeout: Option<String>,
    /// Between two requests on a connection [default: 75s]
    #[arg(long, env = "PHALANX_IDLE_TIMEOUT", value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// For a client that neither sends more of a body nor takes more of a response [default: 60s]
    #[arg(long, env = "PHALANX_STALL_TIMEOUT", value_name = "DURATION")]
    stall_timeout: Option<String>,
    /// The slowest that a client may send or take, in bytes a second; 0 for any [default: 64]
    #[arg(long, env = "PHALANX_CLIENT_RATE_MIN", value_name = "N")]
    client_rate_min: Option<u64>,
    /// For balancers to see, after a SIGTERM, that the node is not ready, before it takes no more connections [default: 0s]
    #[arg(long, env = "PHALANX_SHUTDOWN_DELAY", value_name = "DURATION")]
    shutdown_delay: Option<String>,
    /// For exchanges to finish after a SIGTERM [default: 10s]
    #[arg(long, env = "PHALANX_GRACE", value_name = "DURATION")]
    grace: Option<String>,
    /// Keys that rate limits count at the same time, 80 bytes each [default: 262144]
    #[arg(long, env = "PHALANX_RATE_LIMIT_KEYS", value_name = "N")]
    rate_limit_keys: Option<usize>,
    /// The most bytes of a request's body, on whichever route [default: no limit]
    #[arg(long, env = "PHALANX_BODY_BYTES_MAX", value_name = "SIZE")]
    body_bytes_max: Option<String>,
    /// Memory for compressing responses, on all workers together; of more responses the bodies go as they are [default: 256MiB]
    #[arg(long, env = "PHALANX_COMPRESSION_MEMORY", value_name = "SIZE")]
    compression_memory: Option<String>,
    /// How long a new node must be up to date before it votes [default: 10s]
    #[arg(long, env = "PHALANX_PROMOTE_AFTER", value_name = "DURATION")]
    promote_after: Option<String>,
    /// `text` or `json` [default: text]
    #[arg(long, env = "PHALANX_LOG_FORMAT")]
    log_format: Option<String>,
    /// What is logged, as `info` or `info,raft=debug` [default: info, with openraft, chitchat and sled at warn]
    #[arg(long, env = "PHALANX_LOG")]
    log: Option<String>,
    /// A line for each request: `off`, `stdout`, `stderr`, or a file to add to; in the log's format [default: off]
    #[arg(long, env = "PHALANX_ACCESS_LOG", value_name = "WHERE")]
    access_log: Option<String>,
    /// With an empty data folder: `init` forms a cluster, `join` joins one, `none` waits for gwctl [default: none]
    #[arg(long, env = "PHALANX_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// HOST:PORT of a member, for `--bootstrap join`
    #[arg(long, env = "PHALANX_JOIN", value_name = "HOST:PORT")]
    join: Option<String>,
    /// File with a join token: written by `--bootstrap init`, waited for by `--bootstrap join`
    #[arg(long, env = "PHALANX_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// File into which `--bootstrap init` writes the first admin token
    #[arg(long, env = "PHALANX_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// What a node does that finds its data folder empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bootstrap {
    /// It waits to be told on its socket.
    None,
    /// It forms a cluster.
    Init,
    /// It joins the cluster of the member at this address.
    Join(String),
}

/// What this process is told besides the config.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) name: String,
    pub(crate) proxy: SocketAddr,
    pub(crate) proxy_tls: Option<SocketAddr>,
    pub(crate) tcp: Vec<(Name, SocketAddr)>,
    pub(crate) http2_plain: bool,
    pub(crate) tls_tickets: bool,
    pub(crate) workers: usize,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) advertise: Option<String>,
    pub(crate) admin_advertise: String,
    pub(crate) trusted_proxies: Vec<gateway::cidr::Cidr>,
    pub(crate) zone: Option<String>,
    pub(crate) dns_servers: Vec<SocketAddr>,
    pub(crate) proxy_protocol: Option<gateway::ProxyProtocol>,
    pub(crate) limits: gateway::Limits,
    pub(crate) shutdown_delay: Duration,
    pub(crate) grace: Duration,
    pub(crate) promote_after: Duration,
    pub(crate) rate_limit_keys: usize,
    pub(crate) log_json: bool,
    pub(crate) log: String,
    pub(crate) access_log: Option<gateway::AccessLog>,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) join_token_file: Option<PathBuf>,
    pub(crate) admin_token_file: Option<PathBuf>,
}

impl Given {
    /// These, and from the file what is not given here.
    pub(crate) fn over_file(self, file: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = file else { return Ok(self) };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("read the settings {}", path.display()))?;
        let file: Self =
            toml::from_str(&text).with_context(|| format!("read the settings {}", path.display()))?;
        Ok(Self {
            data: self.data.or(file.data),
            name: self.name.or(file.name),
            proxy: self.proxy.or(file.proxy),
            proxy_tls: self.proxy_tls.or(file.proxy_tls),
            tcp: if self.tcp.is_empty() { file.tcp } else { self.tcp },
            http2_plain: self.http2_plain.or(file.http2_plain),
            tls_tickets: self.tls_tickets.or(file.tls_tickets),
            workers: self.workers.or(file.workers),
            peer: self.peer.or(file.peer),
            admin: self.admin.or(file.admin),
            advertise: self.advertise.or(file.advertise),
            admin_advertise: self.admin_advertise.or(file.admin_advertise),
            trusted_proxies: match self.trusted_proxies.is_empty() {
                true => file.trusted_proxies,
                false => self.trusted_proxies,
            },
            zone: self.zone.or(file.zone),
            dns_servers: match self.dns_servers.is_empty() {
                true => file.dns_servers,
                false => self.dns_servers,
            },
            head_bytes_max: self.head_bytes_max.or(file.head_bytes_max),
            target_bytes_max: self.target_bytes_max.or(file.target_bytes_max),
            headers_max: self.headers_max.or(file.headers_max),
            connections_max: self.connections_max.or(file.connections_max),
            header_timeout: self.header_timeout.or(file.header_timeout),
            proxy_protocol: self.proxy_protocol.or(file.proxy_protocol),
            connections_by_address_max: self.connections_by_address_max.or(file.connections_by_address_max),
            handshake_timeout: self.handshake_timeout.or(file.handshake_timeout),
            http2_streams_max: self.http2_streams_max.or(file.http2_streams_max),
            http2_resets_max: self.http2_resets_max.or(file.http2_resets_max),
            http2_stream_window: self.http2_stream_window.or(file.http2_stream_window),
            http2_connection_window: self.http2_connection_window.or(file.http2_connection_window),
            http2_frame_max: self.http2_frame_max.or(file.http2_frame_max),
            http2_ping_interval: self.http2_ping_interval.or(file.http2_ping_interval),
            http2_ping_timeout: self.http2_ping_timeout.or(file.http2_ping_timeout),
            idle_timeout: self.idle_timeout.or(file.idle_timeout),
            stall_timeout: self.stall_timeout.or(file.stall_timeout),
            client_rate_min: self.client_rate_min.or(file.client_rate_min),
            shutdown_delay: self.shutdown_delay.or(file.shutdown_delay),
            grace: self.grace.or(file.grace),
            body_bytes_max: self.body_bytes_max.or(file.body_bytes_max),
            compression_memory: self.compression_memory.or(file.compression_memory),
            promote_after: self.promote_after.or(file.promote_after),
            rate_limit_keys: self.rate_limit_keys.or(file.rate_limit_keys),
            log_format: self.log_format.or(file.log_format),
            log: self.log.or(file.log),
            access_log: self.access_log.or(file.access_log),
            bootstrap: self.bootstrap.or(file.bootstrap),
            join: self.join.or(file.join),
            join_token_file: self.join_token_file.or(file.join_token_file),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
        })
    }

    /// The settings, or everything that is wrong with them at once.
    pub(crate) fn check(self) -> anyhow::Result<Settings> {
        let mut wrong = Vec::new();
        let limits = self.limits(&mut wrong);
        let tcp = tcp::listeners(&self.tcp, &mut wrong);
        let mut address = |what: &str, given: Option<String>, default: &str| {
            let text = given.unwrap_or_else(|| default.to_owned());
            text.parse().unwrap_or_else(|_| {
                wrong.push(format!("{what}: {text:?} is no ADDRESS:PORT, as {default}"));
                SocketAddr::from(([127, 0, 0, 1], 0))
            })
        };
        let proxy = address("proxy", self.proxy, "0.0.0.0:8080");
        let proxy_tls = self.proxy_tls.map(|given| address("proxy_tls", Some(given), "0.0.0.0:8443"));
        let peer = address("peer", self.peer, "0.0.0.0:7000");
        let admin = address("admin", self.admin, "127.0.0.1:9000");
        let mut duration = |what: &str, given: Option<String>, default: &str| {
            model::duration::parse(given.as_deref().unwrap_or(default)).unwrap_or_else(|error| {
                wrong.push(format!("{what}: {error}"));
                Duration::ZERO
            })
        };
        let shutdown_delay = duration("shutdown_delay", self.shutdown_delay, "0s");
        let grace = duration("grace", self.grace, "10s");
        let promote_after = duration("promote_after", self.promote_after, "10s");
        for (what, given) in [("advertise", &self.advertise), ("admin_advertise", &self.admin_advertise)] {
            if let Some(Err(error)) = given.as_deref().map(|text| crate::identity::check_address(what, text))
            {
                wrong.push(error.to_string());
            }
        }
        let log_json = match self.log_format.as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => {
                wrong.push(format!("log_format: {other:?} is neither text nor json"));
                false
            }
        };
        let mut switch = |what: &str, given: Option<&str>, default: bool| match given {
            None => default,
            Some("on") => true,
            Some("off") => false,
            Some(other) => {
                wrong.push(format!("{what}: {other:?} is neither on nor off"));
                default
            }
        };
        let tls_tickets = switch("tls_tickets", self.tls_tickets.as_deref(), true);
        let http2_plain = switch("http2_plain", self.http2_plain.as_deref(), false);
        let to = match self.access_log.as_deref() {
            None | Some("off") => None,
            Some("stdout") => Some(Destination::Stdout),
            Some("stderr") => Some(Destination::Stderr),
            Some("") => {
                wrong.push("access_log: is none of off, stdout, stderr and a file".to_owned());
                None
            }
            Some(path) => Some(Destination::File(path.into())),
        };
        let bootstrap = match (self.bootstrap.as_deref(), self.join) {
            (None | Some("none"), None) => Bootstrap::None,
            (Some("init"), None) => Bootstrap::Init,
            (Some("join"), Some(member)) if self.join_token_file.is_some() => Bootstrap::Join(member),
            (Some("join"), _) => {
                wrong
                    .push("bootstrap: join needs join (a member's HOST:PORT) and join_token_file".to_owned());
                Bootstrap::None
            }
            (Some("init" | "none") | None, Some(_)) => {
                wrong.push("join: is for bootstrap = join alone".to_owned());
                Bootstrap::None
            }
            (Some(other), _) => {
                wrong.push(format!("bootstrap: {other:?} is none of none, init and join"));
                Bootstrap::None
            }
        };
        let log = self.log.unwrap_or_else(|| LOG.to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log) {
            wrong.push(format!("log: {log:?}: {error}"));
        }
        let workers = self.workers.unwrap_or(0);
        if workers > WORKERS_MAX {
            wrong.push(format!("workers: {workers} is over {WORKERS_MAX}"));
        }
        let rate_limit_keys = self.rate_limit_keys.unwrap_or(RATE_LIMIT_KEYS);
        if !RATE_LIMIT_KEYS_RANGE.contains(&rate_limit_keys) {
            wrong.push(format!("rate_limit_keys: {rate_limit_keys} is not 1000 to 16777216"));
        }
        let mut trusted_proxies = Vec::new();
        for text in self.trusted_proxies {
            match text.parse() {
                Ok(cidr) => trusted_proxies.push(cidr),
                Err(_) => wrong.push(format!("trusted_proxies: {text:?} is no network, as 10.0.0.0/8")),
            }
        }
        let mut dns_servers = Vec::new();
        for text in self.dns_servers {
            let address = text.parse().map(|ip: IpAddr| (ip, DNS_PORT).into()).or_else(|_| text.parse());
            match address {
                Ok(address) => dns_servers.push(address),
                Err(_) => {
                    wrong.push(format!("dns_servers: {text:?} is no ADDRESS or ADDRESS:PORT, as 10.0.0.2"))
                }
            }
        }
        let proxy_protocol = match self.proxy_protocol.as_deref() {
            None | Some("off") => None,
            Some("v1") => Some(gateway::ProxyProtocol::V1),
            Some("v2") => Some(gateway::ProxyProtocol::V2),
            Some("any") => Some(gateway::ProxyProtocol::Any),
            Some(other) => {
                wrong.push(format!("proxy_protocol: {other:?} is none of off, v1, v2 and any"));
                None
            }
        };
        if proxy_protocol.is_some() && trusted_proxies.is_empty() {
            wrong.push("proxy_protocol: is for trusted_proxies, and there are none".to_owned());
        }
        if !wrong.is_empty() {
            bail!("the settings are wrong:\n  {}", wrong.join("\n  "));
        }
        let dialable = !peer.ip().is_unspecified() && peer.port() != 0;
        let advertise = self.advertise.or_else(|| dialable.then(|| peer.to_string()));
        let admin_advertise = self.admin_advertise.unwrap_or_else(|| {
            let host = advertise.as_deref().and_then(|address| address.rsplit_once(':'));
            match host {
                Some((host, _)) if admin.ip().is_unspecified() => format!("{host}:{}", admin.port()),
                _ => admin.to_string(),
            }
        });
        Ok(Settings {
            data: self.data.unwrap_or_else(|| "phalanx-data".into()),
            name: self.name.unwrap_or_else(host_name),
            proxy,
            proxy_tls,
            tcp,
            http2_plain,
            tls_tickets,
            workers,
            peer,
            admin,
            advertise,
            admin_advertise,
            trusted_proxies,
            zone: self.zone,
            dns_servers,
            proxy_protocol,
            limits,
            shutdown_delay,
            grace,
            promote_after,
            rate_limit_keys,
            log_json,
            log,
            access_log: to.map(|to| gateway::AccessLog { to, json: log_json }),
            bootstrap,
            join_token_file: self.join_token_file,
            admin_token_file: self.admin_token_file,
        })
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once() {
        let given = Given {
            proxy: Some("nowhere".into()),
            proxy_tls: Some("8443".into()),
            tcp: vec!["nowhere".into(), "proxy-tls=127.0.0.1:1".into(), "A=127.0.0.1:1".into()],
            http2_plain: Some("yes".into()),
            tls_tickets: Some("maybe".into()),
            proxy_protocol: Some("v2".into()),
            grace: Some("soon".into()),
            advertise: Some("0.0.0.0:1".into()),
            bootstrap: Some("magic".into()),
            log_format: Some("xml".into()),
            log: Some("raft=loud".into()),
            workers: Some(1 << 20),
            rate_limit_keys: Some(1),
            dns_servers: vec!["ns1".into()],
            head_bytes_max: Some(1),
            header_timeout: Some("1ms".into()),
            stall_timeout: Some("ever".into()),
            compression_memory: Some("much".into()),
            access_log: Some(String::new()),
            ..Given::default()
        };
        let error = given.check().unwrap_err().to_string();
        for what in [
            "proxy: ",
            "proxy_tls",
            "tcp: \"nowhere\" is no NAME=ADDRESS:PORT",
            "tcp: proxy-tls is",
            "tcp: \"A=127.0.0.1:1\"",
            "http2_plain",
            "tls_tickets",
            "proxy_protocol",
            "grace",
            "advertise",
            "bootstrap",
            "log_format",
            "log: ",
            "workers",
            "rate_limit_keys",
            "dns_servers",
            "head_bytes_max: 1 is not 8192 to 1048576",
            "header_timeout",
            "stall_timeout",
            "compression_memory",
            "access_log",
        ] {
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn every_setting_is_in_its_document() {
        use clap::Args;

        let document = include_str!("../../docs/settings.md");
        let command = Given::augment_args(clap::Command::new("run"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            let environment = argument.get_env().unwrap().to_str().unwrap();
            let row = format!("| `{}` | `--{flag}` | `{environment}` |", flag.replace('-', "_"));
            assert!(document.contains(&row), "docs/settings.md lacks {row}");
        }
    }

    #[test]
    fn a_name_server_has_a_port_of_its_own_or_the_usual_one() {
        let servers = ["10.0.0.2", "10.0.0.2:5353", "fd00::2", "[fd00::2]:5353"].map(String::from);
        let given = Given { dns_servers: servers.into(), ..Given::default() };
        let told: Vec<String> =
            given.check().unwrap().dns_servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(told, ["10.0.0.2:53", "10.0.0.2:5353", "[fd00::2]:53", "[fd00::2]:5353"]);
    }

    #[test]
    fn the_admin_address_is_one_that_can_be_dialled() {
        let given = Given {
            admin: Some("0.0.0.0:9000".into()),
            advertise: Some("node1:7000".into()),
            ..Given::default()
        };
        assert_eq!(given.check().unwrap().admin_advertise, "node1:9000");
    }

    #[test]
    fn the_access_log_is_off_unless_it_is_sent_somewhere() {
        let access_log = |text: Option<&str>| {
            let given = Given {
                access_log: text.map(str::to_owned),
                log_format: Some("json".into()),
                ..Given::default()
            };
            given.check().unwrap().access_log
        };
        assert_eq!((access_log(None), access_log(Some("off"))), (None, None));
        for (text, to) in [
            ("stdout", Destination::Stdout),
            ("stderr", Destination::Stderr),
            ("/var/log/phalanx/access.log", Destination::File("/var/log/phalanx/access.log".into())),
        ] {
            assert_eq!(access_log(Some(text)), Some(gateway::AccessLog { to, json: true }));
        }
    }

    #[test]
    fn a_flag_goes_over_the_file_and_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, "name = \"file\"\ngrace = \"3s\"\n").unwrap();
        let given = Given { name: Some("flag".into()), ..Given::default() };
        let settings = given.over_file(Some(file.clone())).unwrap().check().unwrap();
        assert_eq!((settings.name.as_str(), settings.grace), ("flag", Duration::from_secs(3)));
        assert_eq!(settings.proxy, "0.0.0.0:8080".parse().unwrap());
        std::fs::write(&file, "colour = \"red\"\n").unwrap();
        let error = Given::default().over_file(Some(file)).unwrap_err();
        assert!(format!("{error:#}").contains("colour"));
    }
}
