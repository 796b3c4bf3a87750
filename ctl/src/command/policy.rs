//! `gwctl policy`: what its flags say.

use clap::Args;
use model::Kind;
use serde_json::{Value, json};

use crate::{
    command::object::{Built, Spec},
    failure::Failure,
};

/// A policy in flags.
#[derive(Debug, Args)]
pub(crate) struct PolicySpec {
    /// Its type, as `api-key`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// A field and its value: JSON, or else taken as text.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

impl Spec for PolicySpec {
    const KIND: Kind = Kind::Policy;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let kind = self
            .kind
            .as_ref()
            .ok_or_else(|| Failure::usage("no type").hint("give --type TYPE, or -f FILE"))?;
        let mut spec = json!({ "type": kind });
        for pair in &self.set {
            let (field, value) = field(pair)?;
            spec[field] = value;
        }
        Ok((spec, Vec::new()))
    }
}

/// `FIELD=VALUE`, the value as JSON or else as text.
pub(crate) fn field(pair: &str) -> Result<(&str, Value), Failure> {
    let (field, value) =
        pair.split_once('=').ok_or_else(|| Failure::usage(format!("{pair:?} is not FIELD=VALUE")))?;
    Ok((field, serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
}
