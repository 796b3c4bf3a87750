//! `gwctl upstream`: what its flags say.

use clap::Args;
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{
    command::object::{Built, Spec},
    failure::Failure,
};

/// An upstream in flags.
#[derive(Debug, Default, Args)]
pub(crate) struct UpstreamSpec {
    /// A target, as `http://10.0.1.11:8080` or `10.0.1.11:8080`; several make a pool.
    #[arg(long, value_name = "URL")]
    to: Vec<String>,
    /// Attempts after the first.
    #[arg(long)]
    retries: Option<u32>,
    /// How long to wait for a connection, as `1s`.
    #[arg(long)]
    connect_timeout: Option<String>,
    /// How long to wait for a response's head, as `15s`.
    #[arg(long)]
    response_timeout: Option<String>,
    /// Failures in a row that take a target out of use; 0 never does.
    #[arg(long)]
    eject_after: Option<u32>,
    /// For how long, as `10s`.
    #[arg(long)]
    eject_for: Option<String>,
}

impl Spec for UpstreamSpec {
    const KIND: Kind = Kind::Upstream;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let mut spec = targets(&self.to)?;
        if let Some(attempts) = self.retries {
            spec["retry"] = json!({ "attempts": attempts });
        }
        let mut timeout = Map::new();
        timeout.extend(self.connect_timeout.as_ref().map(|text| ("connect".to_owned(), json!(text))));
        timeout.extend(self.response_timeout.as_ref().map(|text| ("response".to_owned(), json!(text))));
        if !timeout.is_empty() {
            spec["timeout"] = Value::Object(timeout);
        }
        let mut passive = Map::new();
        passive.extend(self.eject_after.map(|failures| ("failures".to_owned(), json!(failures))));
        passive.extend(self.eject_for.as_ref().map(|text| ("eject".to_owned(), json!(text))));
        if !passive.is_empty() {
            spec["health"] = json!({ "passive": passive });
        }
        Ok((spec, Vec::new()))
    }
}

/// The spec of an upstream of these targets.
pub(crate) fn targets(urls: &[String]) -> Result<Value, Failure> {
    if urls.is_empty() {
        return Err(Failure::usage("no target").hint("give --to URL at least once, or -f FILE"));
    }
    let targets: Result<Vec<Value>, Failure> =
        urls.iter().map(|url| Ok(json!({ "address": address(url)? }))).collect();
    Ok(json!({ "targets": targets? }))
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
    let rest = url.strip_prefix("http://").unwrap_or(url);
    if rest.contains("://") {
        return Err(bad("targets speak plain HTTP"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(bad("a target has no path; see --rewrite-prefix"));
    }
    // The colons of an IPv6 address are within its brackets.
    let with_port = if rest.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        rest.to_owned()
    } else {
        format!("{rest}:80")
    };
    crate::client::host(&with_port).ok_or_else(|| bad("not an address"))?;
    Ok(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_address() {
        for (url, want) in [
            ("http://10.0.0.1:8080", "10.0.0.1:8080"),
            ("http://a.example/", "a.example:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(address(url).unwrap(), want);
        }
        for bad in ["https://a", "ftp://a", "http://a/b", "", "http://", "http://1.2.3.4:99999", "a:b:80:"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
