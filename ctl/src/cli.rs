//! The command line: what every command shares, and which there are.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    client::Client,
    command::{
        apply, certificate, cluster, consumer::ConsumerSpec, context, export, group::GroupSpec, key, limits,
        object::Verbs, plan, policy::PolicySpec, route, targets, tcp_route, token, upstream::UpstreamSpec,
        usage,
    },
    context::{Context, Contexts},
    failure::Failure,
    output::{self, Format},
};

/// The command line of a Phalanx cluster.
///
/// Exit codes: 0 done; 1 refused or invalid; 2 wrong usage; 3 not found; 4 conflict; 5 unavailable or no quorum;
/// 6 timeout, or not known whether it was done; 7 not authenticated or not allowed.
#[derive(Debug, Parser)]
#[command(name = "gwctl", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The context to use instead of the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// `host:port` of an admin API, instead of the context's; several are tried in turn.
    #[arg(long, global = true, env = "PHALANX_ADDRESS", value_delimiter = ',', value_name = "HOST:PORT")]
    address: Vec<String>,
    /// An admin token, instead of the context's.
    #[arg(long, global = true, env = "PHALANX_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The cluster's CA certificate, PEM or a file of it, instead of the context's.
    #[arg(long, global = true, env = "PHALANX_CA", hide_env_values = true)]
    ca: Option<String>,
    /// Speak to the node here over this socket; needs no token.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) socket: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// How long to wait for an answer, as `30s`.
    #[arg(long, global = true, default_value = "30s", value_parser = patience)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Which requests are taken, and where they go.
    #[command(subcommand)]
    Route(route::Command),
    /// Which connections go through as they come, and where to.
    #[command(subcommand)]
    TcpRoute(tcp_route::Command),
    /// Pools of targets.
    #[command(subcommand)]
    Upstream(Verbs<UpstreamSpec>),
    /// Who calls.
    #[command(subcommand)]
    Consumer(Verbs<ConsumerSpec>),
    /// Traffic behaviours by name.
    #[command(subcommand)]
    Policy(Verbs<PolicySpec>),
    /// Groups of consumers.
    #[command(subcommand)]
    Group(Verbs<GroupSpec>),
    /// Consumers' keys.
    #[command(subcommand)]
    Key(key::Command),
    /// What clients are served over TLS with.
    #[command(subcommand)]
    Certificate(certificate::Command),
    /// Make the config hold a document, in one atomic change.
    Apply(apply::Apply),
    /// Show what `apply` would do.
    Plan(plan::Plan),
    /// Print the config as a document.
    Export(export::Export),
    /// The rate limits that are most used up.
    Limits(limits::Limits),
    /// Which targets this node uses, and why not the others.
    Targets(targets::Targets),
    /// What was used of quotas.
    Usage(usage::Usage),
    /// The cluster and its members.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Admin tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Which cluster to speak to, and as whom.
    #[command(subcommand)]
    Context(context::Command),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version,
}

impl Cli {
    /// Does what the command line says.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let global = &self.global;
        match self.command {
            Command::Route(command) => command.run(global).await,
            Command::TcpRoute(command) => command.run(global).await,
            Command::Upstream(verb) => verb.run(global).await,
            Command::Consumer(verb) => verb.run(global).await,
            Command::Policy(verb) => verb.run(global).await,
            Command::Group(verb) => verb.run(global).await,
            Command::Key(command) => command.run(global).await,
            Command::Certificate(command) => command.run(global).await,
            Command::Apply(command) => command.run(global).await,
            Command::Plan(command) => command.run(global).await,
            Command::Export(command) => command.run(global).await,
            Command::Limits(limits) => limits.run(global).await,
            Command::Targets(targets) => targets.run(global).await,
            Command::Usage(usage) => usage.run(global).await,
            Command::Cluster(command) => command.run(global).await,
            Command::Token(command) => command.run(global).await,
            Command::Context(command) => command.run(global),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "gwctl", &mut script);
                output::write(&String::from_utf8_lossy(&script))
            }
            Command::Version => output::write(concat!("gwctl ", env!("CARGO_PKG_VERSION"), "\n")),
        }
    }
}

/// A duration in which something can be answered.
fn patience(text: &str) -> Result<Duration, String> {
    match model::duration::parse(text)? {
        Duration::ZERO => Err("nothing is answered in no time: give it a second or more".to_owned()),
        duration => Ok(duration),
    }
}

impl Global {
    /// The client that the options, the environment and the context say.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        match &self.socket {
            Some(socket) => Ok(Client::socket(socket.clone(), self.timeout)),
            None => Client::network(&self.merged()?, self.timeout),
        }
    }

    fn merged(&self) -> Result<Context, Failure> {
        let mut context = if self.context.is_none()
            && !self.address.is_empty()
            && self.token.is_some()
            && self.ca.is_some()
        {
            Context::default()
        } else {
            Contexts::load(&crate::context::path()?)?.select(self.context.as_deref())?.1.clone()
        };
        if !self.address.is_empty() {
            context.addresses.clone_from(&self.address);
        }
        if let Some(token) = &self.token {
            context.token.clone_from(token);
        }
        if let Some(ca) = &self.ca {
            context.ca = if ca.trim_start().starts_with("-----BEGIN") {
                ca.clone()
            } else {
                std::fs::read_to_string(ca).map_err(|error| Failure::usage(format!("{ca}: {error}")))?
            };
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_parse() {
        for line in [
            "route add orders --host api.example --path /orders --to http://10.0.1.11:8080 --to http://10.0.1.12:8080",
            "route explain GET https://api.example/x -H a:b -H c:d",
            "route set a --respond 404:no",
            "upstream delete a --if-match 3",
            "policy add auth --type api-key --set header=\"x-key\"",
            "key issue --consumer acme --ttl 30d",
            "certificate add shop --chain shop.pem --key shop.key --default --wait all",
            "certificate expiry",
            "tcp-route add db --listener postgres --to 10.0.1.11:5432 --idle-timeout 2h",
            "tcp-route explain db.example --listener proxy-tls",
            "apply -f - --prune --dry-run --wait all",
            "cluster join 10.0.0.1:7081 --token gwj1.a.b.c.d",
            "cluster token create --ttl 1h --uses 2",
            "context use demo",
            "limits --top 5 --policy per-client",
            "targets --upstream orders",
            "usage --policy monthly -o json",
            "-o json cluster status --context x",
        ] {
            let words = std::iter::once("gwctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in
            ["", "route", "route add", "route set a --path /a --exact /b", "key issue", "cluster join"]
        {
            let words = std::iter::once("gwctl").chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
