//! `gwctl context`: which cluster to speak to.

use clap::Subcommand;
use serde_json::json;

use crate::{
    cli::Global,
    context::{Contexts, path},
    failure::Failure,
    output,
    table::{Table, plain},
};

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List them.
    List,
    /// Make one the current one.
    Use {
        /// Its name.
        name: String,
    },
    /// Show one, without its token.
    Show {
        /// Its name; the current one unless said.
        name: Option<String>,
    },
    /// Delete one.
    Delete {
        /// Its name.
        name: String,
    },
}

impl Command {
    /// Does it.
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        let path = path()?;
        let mut contexts = Contexts::load(&path)?;
        match self {
            Self::List => {
                let names: Vec<&String> = contexts.contexts.keys().collect();
                output::print(global.output, &names, |_| {
                    let mut table = Table::new(&["NAME", "CURRENT", "ADDRESSES"]);
                    for (name, context) in &contexts.contexts {
                        let current = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                        table.row([name.clone(), current.to_owned(), context.addresses.join(",")]);
                    }
                    table.text()
                })
            }
            Self::Use { name } => {
                contexts.select(Some(&name))?;
                contexts.current = Some(name);
                contexts.save(&path)
            }
            Self::Show { name } => {
                let (name, context) = contexts.select(name.as_deref())?;
                let shown = json!({ "name": name, "addresses": context.addresses, "ca": context.ca });
                output::print(global.output, &shown, |_| {
                    format!(
                        "name:      {}\naddresses: {}\n",
                        plain(name),
                        plain(&context.addresses.join(", "))
                    )
                })
            }
            Self::Delete { name } => {
                contexts.select(Some(&name))?;
                contexts.contexts.remove(&name);
                if contexts.current.as_ref() == Some(&name) {
                    contexts.current = None;
                }
                contexts.save(&path)
            }
        }
    }
}
