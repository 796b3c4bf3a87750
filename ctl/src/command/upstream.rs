//! `gwctl upstream`: what its flags say.

use clap::{Args, ValueEnum};
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{
    command::object::{Built, Spec},
    failure::Failure,
};

/// An upstream in flags. What they can't say, a file can.
#[derive(Debug, Default, Args)]
pub(crate) struct UpstreamSpec {
    /// A target, as `http://10.0.1.11:8080`, `10.0.1.11:8080` or, over TLS, `https://orders.internal`; several make a pool.
    #[arg(long, value_name = "URL")]
    to: Vec<String>,
    /// How a target is chosen; `maglev` by --hash-by.
    #[arg(long, value_enum, conflicts_with = "hash_by")]
    balance: Option<Balance>,
    /// Requests with the same key go to the same target: `header:NAME`, `cookie:NAME`, `query:NAME` or `address`.
    #[arg(long, value_name = "KEY")]
    hash_by: Option<String>,
    /// What is spoken to targets.
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Requests on a connection of HTTP/2 at once.
    #[arg(long, value_name = "N")]
    http2_streams_max: Option<u32>,
    /// After how long without a word on a connection of HTTP/2 with requests a target is asked by a PING whether it is there, as `30s`.
    #[arg(long, value_name = "TIME")]
    http2_ping_interval: Option<String>,
    /// The name that targets are asked for over TLS and must prove to have, where it is not that of their address.
    #[arg(long, value_name = "NAME")]
    tls_sni: Option<String>,
    /// A file of certificates (PEM) by one of which a target's must be signed, in place of the system's.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// Attempts after the first.
    #[arg(long)]
    retries: Option<u32>,
    /// What is tried again, as `connect,reset,timeout,gateway_error,429`.
    #[arg(long, value_name = "CONDITIONS", value_delimiter = ',')]
    retry_on: Vec<String>,
    /// A request without an answer is sent to one more target after so long, as `50ms`, or after what so many of a hundred take, as `p95`.
    #[arg(long, value_name = "TIME")]
    hedge_after: Option<String>,
    /// To how many more, each after as long again.
    #[arg(long, requires = "hedge_after")]
    hedge_max: Option<u32>,
    /// How long to wait for a connection, as `1s`.
    #[arg(long)]
    connect_timeout: Option<String>,
    /// How long to wait for a response's head, as `15s`.
    #[arg(long)]
    response_timeout: Option<String>,
    /// How long one attempt may take to a response's head, as `2s`.
    #[arg(long)]
    attempt_timeout: Option<String>,
    /// How long a request may take with all attempts and its whole response, as `10s`.
    #[arg(long)]
    total_timeout: Option<String>,
    /// Failures in a row that take a target out of use; 0 never does.
    #[arg(long)]
    eject_after: Option<u32>,
    /// For how long, as `10s`.
    #[arg(long)]
    eject_for: Option<String>,
    /// Targets are checked by a GET of this path, as `/healthz`.
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// From one check of a target to the next, as `5s`.
    #[arg(long, requires = "health_path")]
    health_interval: Option<String>,
}

/// How a target is chosen.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Balance {
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// Of two the one with fewer requests in flight.
    LeastRequests,
    /// Of two the one that would have answered sooner.
    P2c,
}

/// What is spoken to targets.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Over TLS what a target prefers.
    Auto,
}

impl Spec for UpstreamSpec {
    const KIND: Kind = Kind::Upstream;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let mut spec = targets(&self.to)?;
        let mut put = |place: &[&str], value: Option<Value>| {
            if let Some(value) = value {
                *place.iter().fold(&mut spec, |at, field| &mut at[*field]) = value;
            }
        };
        put(&["balance"], self.balance.map(word));
        put(&["balance"], self.hash_by.as_deref().map(hash_by).transpose()?);
        put(&["protocol"], self.protocol.map(word));
        put(&["http2", "streams_max"], self.http2_streams_max.map(|streams| json!(streams)));
        put(&["http2", "ping_interval"], self.http2_ping_interval.as_ref().map(|text| json!(text)));
        put(&["tls", "sni"], self.tls_sni.as_ref().map(|name| json!(name)));
        put(&["tls", "ca"], self.tls_ca.as_deref().map(file).transpose()?);
        put(&["retry", "attempts"], self.retries.map(|attempts| json!(attempts)));
        let conditions =
            (!self.retry_on.is_empty()).then(|| self.retry_on.iter().map(|on| condition(on)).collect());
        put(&["retry", "on"], conditions);
        put(&["hedge", "after"], self.hedge_after.as_ref().map(|after| json!(after)));
        put(&["hedge", "max"], self.hedge_max.map(|max| json!(max)));
        for (place, text) in [
            (["timeout", "connect"], &self.connect_timeout),
            (["timeout", "response"], &self.response_timeout),
            (["timeout", "attempt"], &self.attempt_timeout),
            (["timeout", "total"], &self.total_timeout),
        ] {
            put(&place, text.as_ref().map(|text| json!(text)));
        }
        put(&["health", "passive", "failures"], self.eject_after.map(|failures| json!(failures)));
        put(&["health", "passive", "eject"], self.eject_for.as_ref().map(|text| json!(text)));
        put(&["health", "active", "http", "path"], self.health_path.as_ref().map(|path| json!(path)));
        put(&["health", "active", "interval"], self.health_interval.as_ref().map(|text| json!(text)));
        Ok((spec, Vec::new()))
    }
}

/// A value as it is written in a spec.
fn word(value: impl ValueEnum) -> Value {
    value.to_possible_value().map_or(Value::Null, |value| json!(value.get_name()))
}

/// A status is written as a number.
fn condition(text: &str) -> Value {
    text.parse::<u16>().map_or_else(|_| json!(text), |status| json!(status))
}

fn hash_by(text: &str) -> Result<Value, Failure> {
    let by = match text.split_once(':') {
        None if text == "address" => json!("address"),
        Some((kind @ ("header" | "cookie" | "query"), name)) if !name.is_empty() => {
            Value::Object(Map::from_iter([(kind.to_owned(), json!(name))]))
        }
        _ => {
            let failure = Failure::usage(format!("--hash-by {text:?}: not a key"));
            return Err(failure.hint("write header:NAME, cookie:NAME, query:NAME or address"));
        }
    };
    Ok(json!({ "maglev": { "by": by } }))
}

fn file(path: &str) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path);
    text.map(|text| json!(text)).map_err(|error| Failure::usage(format!("read {path}: {error}")))
}

/// The spec of an upstream of these targets.
pub(crate) fn targets(urls: &[String]) -> Result<Value, Failure> {
    if urls.is_empty() {
        return Err(Failure::usage("no target").hint("give --to URL at least once, or -f FILE"));
    }
    let is_tls = |url: &String| url.starts_with("https://");
    let tls = urls.iter().filter(|url| is_tls(url)).count();
    if tls != 0 && tls != urls.len() {
        let failure = Failure::usage("some targets are https:// and others are not");
        return Err(failure.hint("give each kind an upstream of its own"));
    }
    let targets: Result<Vec<Value>, Failure> =
        urls.iter().map(|url| Ok(json!({ "address": address(url)? }))).collect();
    let mut spec = json!({ "targets": targets? });
    if tls != 0 {
        spec["tls"] = json!({});
    }
    Ok(spec)
}

/// The spec of an upstream of these targets, which have no usual port.
pub(crate) fn targets_of_tcp(addresses: &[String]) -> Result<Value, Failure> {
    let read = |text: &String| {
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if !has_port || address.contains('/') || crate::client::host(address).is_none() {
            return Err(Failure::usage(format!("{text:?}: not an address")).hint("write HOST:PORT"));
        }
        Ok(json!({ "address": address }))
    };
    let targets: Result<Vec<Value>, Failure> = addresses.iter().map(read).collect();
    Ok(json!({ "targets": targets? }))
}

fn address(url: &str) -> Result<String, Failure> {
    let bad = |what: &str| Failure::usage(format!("{url:?}: {what}")).hint("write http://HOST:PORT");
    let (rest, port) = match url.strip_prefix("https://") {
        Some(rest) => (rest, 443),
        None => (url.strip_prefix("http://").unwrap_or(url), 80),
    };
    if rest.contains("://") {
        return Err(bad("targets speak http or https"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(bad("a target has no path; see --rewrite-prefix"));
    }
    // The colons of an IPv6 address are within its brackets.
    let with_port = if rest.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        rest.to_owned()
    } else {
        format!("{rest}:{port}")
    };
    crate::client::host(&with_port).ok_or_else(|| bad("not an address"))?;
    Ok(with_port)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: UpstreamSpec,
    }

    fn built(flags: &str) -> Result<Value, Failure> {
        let line = Line::try_parse_from(std::iter::once("add").chain(flags.split(' ')));
        line.map_err(|error| Failure::usage(error.to_string()))?.spec.build("u").map(|(spec, _)| spec)
    }

    #[test]
    fn a_target_is_an_address() {
        for (url, want) in [
            ("http://10.0.0.1:8080", "10.0.0.1:8080"),
            ("http://a.example/", "a.example:80"),
            ("https://a.example", "a.example:443"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(address(url).unwrap(), want);
        }
        for bad in ["tcp://a", "ftp://a", "http://a/b", "", "http://", "http://1.2.3.4:99999", "a:b:80:"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_are_fields_of_the_spec() {
        let spec = built(
            "--to https://a --to https://b:8443 --balance least_requests --protocol auto --http2-streams-max 10 --http2-ping-interval 30s --tls-sni c --retries 1 \
             --retry-on connect,5xx,429 --hedge-after p95 --hedge-max 1 --attempt-timeout 2s --total-timeout 10s --eject-after 3 --health-path /healthz \
             --health-interval 2s",
        );
        let want = json!({
            "targets": [{"address": "a:443"}, {"address": "b:8443"}],
            "tls": {"sni": "c"},
            "balance": "least_requests",
            "protocol": "auto",
            "http2": {"streams_max": 10, "ping_interval": "30s"},
            "retry": {"attempts": 1, "on": ["connect", "5xx", 429]},
            "hedge": {"after": "p95", "max": 1},
            "timeout": {"attempt": "2s", "total": "10s"},
            "health": {"passive": {"failures": 3}, "active": {"http": {"path": "/healthz"}, "interval": "2s"}},
        });
        let spec = spec.unwrap();
        assert_eq!(spec, want);
        let read: model::Upstream = serde_json::from_value(spec).unwrap();
        assert_eq!(read.retry.on.len(), 3);
    }

    #[test]
    fn a_key_is_one_of_four_kinds() {
        for (key, by) in [
            ("address", json!("address")),
            ("header:x-user", json!({"header": "x-user"})),
            ("cookie:cart", json!({"cookie": "cart"})),
            ("query:id", json!({"query": "id"})),
        ] {
            let spec = built(&format!("--to a:1 --hash-by {key}")).unwrap();
            assert_eq!(spec["balance"], json!({"maglev": {"by": by}}));
        }
        for bad in [
            "--to a:1 --hash-by header:",
            "--to a:1 --hash-by user",
            "--to a:1 --balance p2c --hash-by address",
        ] {
            assert!(built(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for bad in [
            "--to https://a --to http://b",
            "--to a:1 --health-interval 2s",
            "--to a:1 --hedge-max 2",
            "--to a:1 --tls-ca /no/such/file",
        ] {
            assert!(built(bad).is_err(), "{bad}");
        }
    }
}
