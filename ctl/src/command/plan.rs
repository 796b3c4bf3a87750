//! `gwctl plan`: what applying a document would do.

use clap::Args;
use http::Method;
use model::api::{Applied, ApplyRequest};

use crate::{
    cli::Global,
    client::Call,
    command::apply::{load, word},
    failure::Failure,
    output,
    table::plain,
};

/// A document to look at.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// A file, a directory of `.yaml`, `.yml` and `.json` files, or `-` for the standard input.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: String,
    /// Delete what is not in the document; never keys.
    #[arg(long)]
    prune: bool,
}

impl Plan {
    /// Asks and prints each object, before and after.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let request = ApplyRequest { document: load(&self.file)?, prune: self.prune, dry_run: true };
        let applied: Applied =
            global.client()?.json(Call::new(Method::POST, "/v1/apply").json(&request)?).await?;
        output::print(global.output, &applied, |applied| {
            let mut text = String::new();
            for step in &applied.steps {
                text.push_str(&format!("{} {} {}\n", word(step.verb), step.kind, step.name));
                for (sign, value) in [('-', &step.before), ('+', &step.after)] {
                    if let Some(value) = value {
                        text.push_str(&format!("  {sign} {}\n", plain(&value.to_string())));
                    }
                }
            }
            text + &format!("{} to change at revision {}\n", applied.steps.len(), applied.revision)
        })
    }
}
