//! `gwctl tcp-route`: what its flags say, and which of them takes a connection.

use clap::{Args, Subcommand};
use http::Method;
use model::{
    Kind, Name, TcpRoute,
    api::{TcpExplainRequest, TcpExplanation},
};

use crate::{
    cli::Global,
    client::Call,
    command::{
        object::{Built, Spec, Verbs},
        upstream::targets_of_tcp,
    },
    failure::Failure,
    output,
    table::{Table, plain},
};

/// What can be done with TCP routes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Object(Verbs<TcpRouteSpec>),
    /// Say which TCP route takes a connection, and why not the others.
    Explain(Explain),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Object(verb) => verb.run(global).await,
            Self::Explain(explain) => explain.run(global).await,
        }
    }
}

/// A TCP route in flags.
#[derive(Debug, Args)]
pub(crate) struct TcpRouteSpec {
    /// A listener it is on: a name of the nodes' setting `tcp`, or `proxy-tls`, which it is on unless said.
    #[arg(long, value_name = "NAME")]
    listener: Vec<String>,
    /// A host it takes, as clients name it in TLS: `db.example` or `*.example`; none takes what is left.
    #[arg(long)]
    host: Vec<String>,
    /// To this target; several make a pool. Makes the upstream of the TCP route's name with it.
    #[arg(long, group = "where", value_name = "HOST:PORT")]
    to: Vec<String>,
    /// To this upstream.
    #[arg(long, group = "where", value_name = "NAME")]
    upstream: Option<String>,
    /// How long neither side may send, as `1h`; `0s` for as long as they like.
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// The most connections at once, on each node.
    #[arg(long, value_name = "N")]
    connections_max: Option<u32>,
}

impl Spec for TcpRouteSpec {
    const KIND: Kind = Kind::TcpRoute;

    fn build(&self, name: &str) -> Result<Built, Failure> {
        let mut route = TcpRoute { hosts: self.host.clone(), ..TcpRoute::default() };
        route.listeners = self.listener.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
        let mut others = Vec::new();
        if !self.to.is_empty() {
            route.upstream = Some(named(name)?);
            others.push((Kind::Upstream, name.to_owned(), targets_of_tcp(&self.to)?));
        } else if let Some(upstream) = &self.upstream {
            route.upstream = Some(named(upstream)?);
        } else {
            return Err(Failure::usage("the TCP route goes nowhere")
                .hint("give --to HOST:PORT, --upstream NAME or -f FILE"));
        }
        if let Some(text) = &self.idle_timeout {
            route.idle_timeout = model::duration::parse(text).map_err(Failure::usage)?;
        }
        route.connections_max = self.connections_max.unwrap_or_default();
        let mut spec = serde_json::to_value(&route).map_err(|error| Failure::refused(error.to_string()))?;
        if self.idle_timeout.is_none()
            && let Some(fields) = spec.as_object_mut()
        {
            fields.remove("idle_timeout");
        }
        Ok((spec, others))
    }
}

fn named(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::usage(error.to_string()))
}

/// The connection to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The host that its client names in TLS; left out for one that names none.
    host: Option<String>,
    /// The listener that it comes to.
    #[arg(long, value_name = "NAME", default_value = model::tcp_route::PROXY_TLS)]
    listener: String,
}

impl Explain {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let request = TcpExplainRequest { listener: Some(self.listener), host: self.host };
        let call = Call::new(Method::POST, "/v1/explain/tcp").json(&request)?;
        let explanation: TcpExplanation = global.client()?.json(call).await?;
        output::print(global.output, &explanation, text)
    }
}

fn text(explanation: &TcpExplanation) -> String {
    let mut table = Table::new(&["TCP ROUTE", "HOST", "RESULT"]);
    for candidate in &explanation.candidates {
        let result = candidate.failed.clone().unwrap_or_else(|| "takes it".into());
        table.row([candidate.route.to_string(), candidate.host.clone(), result]);
    }
    let host = explanation.host.as_deref().unwrap_or("no host");
    let verdict = match &explanation.route {
        Some(route) => format!("{route} -> {}", explanation.action),
        None => explanation.action.clone(),
    };
    let here = if explanation.has_listener { "" } else { "this node does not have that listener\n" };
    format!(
        "{} on {} at revision {}\n{here}{}\n\n{}",
        plain(host),
        plain(&explanation.listener),
        explanation.revision,
        plain(&verdict),
        table.text(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::command::object::document;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: TcpRouteSpec,
    }

    fn build(line: &str) -> Result<serde_json::Value, Failure> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let (spec, mut objects) = Line::try_parse_from(words).unwrap().spec.build("db")?;
        objects.push((Kind::TcpRoute, "db".into(), spec));
        Ok(document(&objects))
    }

    #[test]
    fn flags_are_a_document() {
        let got = build("--listener postgres --to 10.0.1.11:5432 --to tcp://db2:5432 --connections-max 100");
        let want = json!({
            "version": 1,
            "upstreams": {"db": {"targets": [{"address": "10.0.1.11:5432"}, {"address": "db2:5432"}]}},
            "tcp_routes": {"db": {"listeners": ["postgres"], "upstream": "db", "connections_max": 100}},
        });
        assert_eq!(got, Ok(want));
        let got = build("--host db.example --upstream u --idle-timeout 2h").unwrap();
        assert_eq!(
            got["tcp_routes"]["db"],
            json!({"hosts": ["db.example"], "upstream": "u", "idle_timeout": "2h"})
        );
        for bad in ["--host db.example", "--to 10.0.1.11", "--to http://a:1", "--upstream U"] {
            assert_eq!(build(bad).unwrap_err().exit, crate::failure::USAGE, "{bad}");
        }
    }
}
