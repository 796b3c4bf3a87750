//! The commands, one file each.

pub(crate) mod apply;
pub(crate) mod certificate;
pub(crate) mod cluster;
pub(crate) mod consumer;
pub(crate) mod context;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod group;
pub(crate) mod key;
pub(crate) mod limits;
pub(crate) mod object;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod route;
pub(crate) mod targets;
pub(crate) mod tcp_route;
pub(crate) mod token;
pub(crate) mod upstream;
pub(crate) mod usage;

use clap::Args;

use crate::{cli::Global, failure::Failure};

/// Waiting until a write is installed.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wait {
    /// Wait until `all` nodes, a `quorum` of them or the node of this id has installed it.
    #[arg(long, value_name = "all|quorum|NODE")]
    pub(crate) wait: Option<String>,
}

impl Wait {
    /// `path` with what the API is to wait for.
    pub(crate) fn on(&self, path: &str, global: &Global) -> Result<String, Failure> {
        let Some(wait) = &self.wait else { return Ok(path.to_owned()) };
        if wait != "all" && wait != "quorum" && wait.parse::<u64>().is_err() {
            return Err(Failure::usage("--wait takes all, quorum or a node's id"));
        }
        // The answer must come before this side stops waiting for it.
        let timeout =
            global.timeout.saturating_sub(std::time::Duration::from_secs(2)).max(global.timeout / 2);
        Ok(format!("{path}?wait={wait}&timeout={}", model::duration::format(timeout)))
    }
}

/// A file's text, or that of the standard input for `-`.
pub(crate) fn read(path: &str) -> Result<String, Failure> {
    let text =
        if path == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let what = if path == "-" { "the standard input" } else { path };
    text.map_err(|error| Failure::usage(format!("{what}: {error}")))
}

/// Fails if nodes lag behind what was to be waited for.
pub(crate) fn lagging(nodes: &[model::NodeId]) -> Result<(), Failure> {
    if nodes.is_empty() {
        return Ok(());
    }
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    Err(Failure::unknown(format!("done, but not installed in time on node {}", nodes.join(", ")))
        .hint("they install it when they can; see `gwctl cluster status`"))
}
