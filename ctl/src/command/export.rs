//! `gwctl export`: the config as a document.

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::{
    cli::Global,
    client::Call,
    failure::Failure,
    output::{self, Format},
};

/// The config as a document, YAML unless `-o json`.
#[derive(Debug, Args)]
pub(crate) struct Export {}

impl Export {
    /// Prints it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let document: Value = global.client()?.json(Call::new(Method::GET, "/v1/config")).await?;
        let format = if global.output == Format::Table { Format::Yaml } else { global.output };
        output::print(format, &document, ToString::to_string)
    }
}
