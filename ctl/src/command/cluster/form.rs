//! `gwctl cluster init` and `join`: they speak to the node here, over its socket.

use std::time::Duration;

use clap::Args;
use http::Method;
use model::api::{ClusterStatus, Formed, InitRequest, JoinRequest, Joined};

use super::{Local, status};
use crate::{
    cli::Global,
    client::Call,
    context::{Context, Contexts, path},
    failure::Failure,
    output,
    table::plain,
};

/// Forms a cluster of the node here.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    local: Local,
    /// `host:port` at which peers reach this node, instead of its setting.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// Makes the node here a member of a cluster.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// `host:port` of any member.
    address: String,
    /// A join token.
    #[arg(long, env = "PHALANX_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    #[command(flatten)]
    local: Local,
    /// `host:port` at which peers reach this node, instead of its setting.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// How long to wait until it votes.
    #[arg(long, default_value = "2m", value_parser = model::duration::parse)]
    within: Duration,
}

impl Init {
    /// Forms it, and stores a context for it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        // A file that can't be read must show before the token is made that would be lost.
        let path = path()?;
        let mut contexts = Contexts::load(&path)?;
        let call =
            Call::new(Method::POST, "/v1/cluster/init").json(&InitRequest { advertise: self.advertise })?;
        let formed: Formed = self.local.client(global).json(call).await?;
        let name = global.context.clone().unwrap_or_else(|| {
            let wanted = "default".to_owned();
            if contexts.contexts.contains_key(&wanted) { formed.cluster_id.clone() } else { wanted }
        });
        let context = Context {
            addresses: vec![formed.admin.clone()],
            token: formed.admin_token.clone(),
            ca: formed.ca_certificate.clone(),
        };
        contexts.contexts.insert(name.clone(), context);
        contexts.current = Some(name.clone());
        let saved = contexts.save(&path);
        output::print(global.output, &formed, |formed| {
            format!(
                "Cluster {} is formed; this is node {}.\nAdmin token (shown only now): {}\nContext: {}\n\
                 On each other node: gwctl cluster join {} --token {}\n",
                plain(&formed.cluster_id),
                formed.node_id,
                plain(&formed.admin_token),
                plain(&name),
                plain(&formed.join_address),
                plain(&formed.join_token),
            )
        })?;
        saved
    }
}

impl Join {
    /// Joins, and waits until the node votes.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = self.local.client(global);
        let request = JoinRequest { address: self.address, token: self.token, advertise: self.advertise };
        let call = Call::new(Method::POST, "/v1/cluster/join").json(&request)?;
        let joined: Joined = client.json(call).await?;
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(250));
            loop {
                tick.tick().await;
                // The node may be starting its cluster side: the deadline, not one answer, decides.
                let Ok(status) = client.json::<ClusterStatus>(Call::new(Method::GET, "/v1/cluster")).await
                else {
                    continue;
                };
                let votes = |role: &str| role == "voter" || role == "leader";
                if status.quorum && status.members.iter().any(|m| m.id == joined.node_id && votes(&m.role)) {
                    return status;
                }
            }
        };
        let status = tokio::time::timeout(self.within, wait).await.map_err(|_| {
            Failure::unknown(format!("node {} is admitted, but does not vote yet", joined.node_id))
                .hint("it goes on by itself; see `gwctl cluster status`")
        })?;
        output::print(global.output, &status, |status| {
            format!("Node {} joined.\n{}\n", joined.node_id, status::summary(status))
        })
    }
}
