//! `gwctl consumer`: what its flags say.

use clap::Args;
use model::Kind;
use serde_json::json;

use crate::{
    command::object::{Built, Spec},
    failure::Failure,
};

/// A consumer in flags.
#[derive(Debug, Args)]
pub(crate) struct ConsumerSpec {
    /// A group it belongs to.
    #[arg(long)]
    group: Vec<String>,
    /// Refuse it everywhere, whatever its keys.
    #[arg(long)]
    disabled: bool,
}

impl Spec for ConsumerSpec {
    const KIND: Kind = Kind::Consumer;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let mut spec = json!({});
        if !self.group.is_empty() {
            spec["groups"] = json!(self.group);
        }
        if self.disabled {
            spec["disabled"] = json!(true);
        }
        Ok((spec, Vec::new()))
    }
}
