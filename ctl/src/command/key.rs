//! `gwctl key`: issue, revoke and list consumers' keys.

use clap::Subcommand;
use http::Method;
use model::{
    Kind, Name,
    api::{Applied, KeyIssued, KeyRequest},
};

use crate::{
    cli::Global,
    client::Call,
    command::{
        Wait, lagging,
        object::{list, name_in_path, report},
    },
    failure::Failure,
    output,
    table::{Table, plain},
};

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issue a key; it is shown only now.
    Issue {
        /// For whom.
        #[arg(long)]
        consumer: Name,
        /// What its owner calls it.
        #[arg(long, default_value = "")]
        label: String,
        /// For how long it is good, as `30d`; for ever unless said.
        #[arg(long)]
        ttl: Option<String>,
        #[command(flatten)]
        wait: Wait,
    },
    /// Revoke a key.
    Revoke {
        /// Its id.
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// List keys, without what opens anything.
    List,
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = global.client()?;
        match self {
            Self::Issue { consumer, label, ttl, wait } => {
                let call = Call::new(Method::POST, wait.on("/v1/keys", global)?);
                let issued: KeyIssued = client.json(call.json(&KeyRequest { consumer, label, ttl })?).await?;
                output::print(global.output, &issued, |issued| {
                    format!("id:  {}\nkey: {}\nThe key is shown only now.\n", issued.id, plain(&issued.key))
                })?;
                lagging(&issued.lagging)
            }
            Self::Revoke { id, wait } => {
                let path = wait.on(&format!("/v1/keys/{}", name_in_path(&id)?), global)?;
                let applied: Applied = client.json(Call::new(Method::DELETE, path)).await?;
                report(global, &applied)
            }
            Self::List => {
                let items = list(&client, Kind::Key).await?;
                output::print(global.output, &items, |items| {
                    let mut table = Table::new(&["ID", "CONSUMER", "LABEL", "CREATED"]);
                    for item in items {
                        let field = |name: &str| item.spec[name].as_str().unwrap_or_default().to_owned();
                        table.row([
                            item.name.to_string(),
                            field("consumer"),
                            field("label"),
                            item.created.to_string(),
                        ]);
                    }
                    table.text()
                })
            }
        }
    }
}
