//! Printing: a table for people, JSON or YAML for programs.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Writes `text` to the standard output; a closed pipe ends the command quietly.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("can't write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints `value` in `format`; `table` makes the text for people.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    write(&match format {
        Format::Table => table(value),
        Format::Json => {
            let text = serde_json::to_string_pretty(value);
            text.map_err(|error| Failure::refused(format!("not JSON: {error}")))? + "\n"
        }
        Format::Yaml => yaml(value)?,
    })
}

/// `value` as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_yaml_ng::to_string(value).map_err(|error| Failure::refused(format!("not YAML: {error}")))
}
