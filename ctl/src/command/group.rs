//! `gwctl group`: what its flags say.

use clap::Args;
use model::Kind;
use serde_json::json;

use crate::{
    command::{
        object::{Built, Spec},
        policy::field,
    },
    failure::Failure,
};

/// A group in flags.
#[derive(Debug, Args)]
pub(crate) struct GroupSpec {
    /// A field of a policy that differs for this group, and its value.
    #[arg(long, value_name = "POLICY:FIELD=VALUE")]
    set: Vec<String>,
}

impl Spec for GroupSpec {
    const KIND: Kind = Kind::Group;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let mut spec = json!({});
        for text in &self.set {
            let (policy, pair) = text
                .split_once(':')
                .ok_or_else(|| Failure::usage(format!("{text:?} is not POLICY:FIELD=VALUE")))?;
            let (field, value) = field(pair)?;
            spec["policies"][policy][field] = value;
        }
        Ok((spec, Vec::new()))
    }
}
