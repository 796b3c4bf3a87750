//! `gwctl cluster`: form, join, look at and change the cluster.

mod backup;
mod form;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use model::{
    NodeId,
    api::{JoinTokenMade, JoinTokenRequest, TokenListed, TransferRequest},
};

use self::backup::Backup;
use crate::{
    cli::Global,
    client::{Call, Client},
    command::{object::name_in_path, token},
    failure::Failure,
    output,
    table::plain,
};

/// What can be done with the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Form a cluster of the node here.
    Init(form::Init),
    /// Make the node here a member of a cluster, and wait until it votes.
    Join(form::Join),
    /// Show the cluster and every member.
    Status,
    /// Show every member.
    Members,
    /// Write everything that the cluster agreed on to a file, its secrets too; `gwnode restore` founds a cluster from it.
    Backup(Backup),
    /// Let the node here leave the cluster.
    Leave(Local),
    /// Remove a member for good.
    Remove {
        /// Its id.
        id: u64,
    },
    /// Move the leadership.
    Transfer {
        /// To whom; the voter that is furthest unless said.
        to: Option<u64>,
    },
    /// Join tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Where the node here is.
#[derive(Debug, Args)]
pub(crate) struct Local {
    /// The data directory of the node here; its socket is `admin.sock` in it.
    #[arg(long, default_value = "./phalanx-data", value_name = "DIR")]
    data: PathBuf,
}

impl Local {
    fn client(&self, global: &Global) -> Client {
        let socket = global.socket.clone().unwrap_or_else(|| self.data.join("admin.sock"));
        Client::socket(socket, global.timeout)
    }
}

/// What can be done with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token; it is shown only now.
    Create {
        /// For how long it is good, as `1h`.
        #[arg(long)]
        ttl: Option<String>,
        /// How many nodes it admits.
        #[arg(long)]
        uses: Option<u32>,
    },
    /// List join tokens, without their secrets.
    List,
    /// Delete a join token.
    Delete {
        /// Its id.
        id: String,
    },
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(global).await,
            Self::Join(join) => join.run(global).await,
            Self::Status => status::run(global, true).await,
            Self::Members => status::run(global, false).await,
            Self::Backup(backup) => backup.run(global).await,
            Self::Leave(local) => {
                local.client(global).send(Call::new(Method::POST, "/v1/cluster/leave")).await?;
                output::write("The node leaves the cluster.\n")
            }
            Self::Remove { id } => {
                let call = Call::new(Method::DELETE, format!("/v1/cluster/members/{id}"));
                global.client()?.send(call).await?;
                output::write(&format!("Node {id} is no member; its id is never used again.\n"))
            }
            Self::Transfer { to } => {
                let call = Call::new(Method::POST, "/v1/cluster/transfer");
                global.client()?.send(call.json(&TransferRequest { to: to.map(NodeId) })?).await?;
                output::write("The leadership is moved.\n")
            }
            Self::Token(command) => command.run(global).await,
        }
    }
}

impl TokenCommand {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client()?;
        let path = "/v1/cluster/tokens";
        match self {
            Self::Create { ttl, uses } => {
                let call = Call::new(Method::POST, path).json(&JoinTokenRequest { ttl, uses })?;
                let made: JoinTokenMade = client.json(call).await?;
                output::print(global.output, &made, |made| {
                    format!(
                        "id:      {}\nexpires: {}\ngwctl cluster join {} --token {}\n",
                        plain(&made.id),
                        token::in_words(made.expires_at_ms),
                        plain(&made.address),
                        plain(&made.token),
                    )
                })
            }
            Self::List => {
                let tokens: Vec<TokenListed> = client.json(Call::new(Method::GET, path)).await?;
                output::print(global.output, &tokens, |tokens| token::listed(tokens))
            }
            Self::Delete { id } => {
                client.send(Call::new(Method::DELETE, format!("{path}/{}", name_in_path(&id)?))).await?;
                Ok(())
            }
        }
    }
}
