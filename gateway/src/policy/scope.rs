//! Whether nodes count together, and what those do that are cut off.

use limits::Scope;
use model::Code;
use serde::Deserialize;

use crate::{
    exchange::{Exchange, Refusal},
    violations::Violations,
};

/// Whether nodes count together.
#[derive(Debug, Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Counting {
    Node,
    #[default]
    Cluster,
}

/// What nodes do that are cut off from most of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnPartition {
    /// They have their part of the limit by their number.
    #[default]
    Share,
    /// They have all of it anew.
    Local,
    /// They refuse.
    Deny,
}

impl Counting {
    /// The scope, or what is wrong with it, in the policy at this path.
    pub(super) fn compile(
        self,
        on_partition: Option<OnPartition>,
        path: &str,
        violations: &mut Violations,
    ) -> Scope {
        match (self, on_partition.unwrap_or_default()) {
            (Self::Node, _) => {
                if on_partition.is_some() {
                    let message = "is for scope cluster: what a node counts by itself can't be cut off";
                    violations.add(format!("{path}.on_partition"), message.to_owned());
                }
                Scope::Node
            }
            (Self::Cluster, OnPartition::Local) => Scope::Reachable,
            (Self::Cluster, OnPartition::Share | OnPartition::Deny) => Scope::Cluster,
        }
    }
}

impl OnPartition {
    /// Why a request must be refused now, where nodes refuse that are cut off.
    pub(super) fn refusal(self, exchange: &Exchange<'_>) -> Option<Refusal> {
        let is_refused = self == Self::Deny && exchange.rates.limiter().is_cut_off();
        is_refused.then(|| {
            let told = "It can't be known now how much of a limit is used up. Try again later.";
            Refusal::new(Code::Unavailable, "cut_off", told)
        })
    }
}
