//! `gwctl targets`: which targets a node uses, and why not the others.

use std::time::Duration;

use clap::Args;
use http::Method;
use model::{
    Name,
    api::{TargetFound, TargetHealth, TargetsHealth},
    duration,
};

use crate::{cli::Global, client::Call, failure::Failure, output, table::Table};

/// Which of them to show.
#[derive(Debug, Args)]
pub(crate) struct Targets {
    /// Those of this upstream alone.
    #[arg(long)]
    upstream: Option<Name>,
}

impl Targets {
    /// Shows them.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let of = self.upstream.map_or_else(String::new, |upstream| format!("?upstream={upstream}"));
        let call = Call::new(Method::GET, format!("/v1/health/targets{of}"));
        let health: TargetsHealth = global.client()?.json(call).await?;
        output::print(global.output, &health, in_words)
    }
}

fn in_words(health: &TargetsHealth) -> String {
    let mut table = Table::new(&["UPSTREAM", "TARGET", "STATE", "CHECKS", "WHY"]);
    for item in &health.items {
        table.row(row(item));
    }
    let (out, targets) = (health.out, health.targets);
    format!("{}{out} of {targets} targets are out of use on this node\n", table.text())
}

fn row(item: &TargetHealth) -> [String; 5] {
    let state = match item.back_in_ms {
        Some(ms) => {
            format!("{} for {}", item.state, duration::format(Duration::from_secs(ms.div_ceil(1_000))))
        }
        None => item.state.clone(),
    };
    [
        item.upstream.to_string(),
        item.target.clone(),
        state,
        checks(item),
        item.why.clone().unwrap_or_default(),
    ]
}

/// What checks have found, and which nodes'.
fn checks(item: &TargetHealth) -> String {
    let by = |well: bool| {
        let node = |found: &TargetFound| match found.node_id.0 {
            0 => "this node".to_owned(),
            node => node.to_string(),
        };
        let nodes: Vec<String> = item.found.iter().filter(|found| found.well == well).map(node).collect();
        let word = if well { "well" } else { "ill" };
        (!nodes.is_empty()).then(|| format!("{word} by {}", nodes.join(", ")))
    };
    let found: Vec<String> = [by(false), by(true)].into_iter().flatten().collect();
    match (item.checked, found.is_empty()) {
        (false, _) => "none".to_owned(),
        (true, true) => "not yet".to_owned(),
        (true, false) => found.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;

    #[test]
    fn a_target_that_is_out_of_use_is_told_with_why() {
        let item = TargetHealth {
            upstream: Name::new("orders").unwrap(),
            target: "10.0.0.1:80".into(),
            state: "ejected".into(),
            why: Some("there was no answer in time".into()),
            back_in_ms: Some(9_100),
            failures: 5,
            checked: true,
            found: [(1, false), (2, true), (3, false)]
                .map(|(node, well)| TargetFound { node_id: NodeId(node), well, age_ms: 10 })
                .to_vec(),
        };
        let text = in_words(&TargetsHealth { targets: 2, out: 1, items: vec![item] });
        assert!(text.contains("ejected for 10s  ill by 1, 3; well by 2  there was no"), "{text}");
        assert!(text.ends_with("1 of 2 targets are out of use on this node\n"), "{text}");
    }
}
