//! `gwctl token`: admin tokens.

use clap::{Subcommand, ValueEnum};
use http::Method;
use model::{
    api::{AdminTokenMade, AdminTokenRequest, TokenListed},
    cluster::Role,
};

use crate::{
    cli::Global,
    client::Call,
    command::object::name_in_path,
    failure::Failure,
    output,
    table::{Table, plain},
};

/// What a token's holder may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Read everything but secrets.
    Viewer,
    /// Change the config too.
    Operator,
    /// Change the cluster too.
    Admin,
}

/// What can be done with admin tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token; it is shown only now.
    Create {
        /// What its holder may do.
        #[arg(long, value_enum)]
        role: RoleName,
        /// Whose it is, for the audit log.
        #[arg(long)]
        label: String,
        /// For how long it is good, as `30d`; for ever unless said.
        #[arg(long)]
        ttl: Option<String>,
    },
    /// List tokens, without their secrets.
    List,
    /// Delete a token.
    Delete {
        /// Its id.
        id: String,
    },
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client()?;
        match self {
            Self::Create { role, label, ttl } => {
                let role = match role {
                    RoleName::Viewer => Role::Viewer,
                    RoleName::Operator => Role::Operator,
                    RoleName::Admin => Role::Admin,
                };
                let call =
                    Call::new(Method::POST, "/v1/tokens").json(&AdminTokenRequest { role, label, ttl })?;
                let made: AdminTokenMade = client.json(call).await?;
                output::print(global.output, &made, |made| {
                    format!(
                        "id:    {}\ntoken: {}\nThe token is shown only now.\n",
                        plain(&made.id),
                        plain(&made.token)
                    )
                })
            }
            Self::List => {
                let tokens: Vec<TokenListed> = client.json(Call::new(Method::GET, "/v1/tokens")).await?;
                output::print(global.output, &tokens, |tokens| listed(tokens))
            }
            Self::Delete { id } => {
                client.send(Call::new(Method::DELETE, format!("/v1/tokens/{}", name_in_path(&id)?))).await?;
                Ok(())
            }
        }
    }
}

/// Tokens for people.
pub(crate) fn listed(tokens: &[TokenListed]) -> String {
    let mut table = Table::new(&["ID", "ROLE", "LABEL", "USES LEFT", "EXPIRES"]);
    for token in tokens {
        let role = token.role.map(|role| format!("{role:?}").to_lowercase()).unwrap_or_default();
        let uses = token.uses_left.map(|uses| uses.to_string()).unwrap_or_default();
        let expires = token.expires_at_ms.map(in_words).unwrap_or_default();
        table.row([token.id.clone(), role, token.label.clone(), uses, expires]);
    }
    table.text()
}

/// A time as how far it is from now.
pub(crate) fn in_words(at_ms: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let left = at_ms.saturating_sub(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)) / 1000;
    match left {
        0 => "expired".into(),
        1..=119 => format!("in {left}s"),
        120..=7199 => format!("in {}m", left / 60),
        7200..=172_799 => format!("in {}h", left / 3600),
        _ => format!("in {}d", left / 86_400),
    }
}
