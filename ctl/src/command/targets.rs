//! `gwctl targets`: which targets a node uses, and why not the others.

use std::time::Duration;

use clap::Args;
use http::Method;
use model::{
    Name,
    api::{TargetHealth, TargetsHealth},
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
    let mut table = Table::new(&["UPSTREAM", "TARGET", "STATE", "CHECKED", "WHY"]);
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
    let checked = if item.checked { "yes" } else { "no" };
    [
        item.upstream.to_string(),
        item.target.clone(),
        state,
        checked.to_owned(),
        item.why.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
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
        };
        let text = in_words(&TargetsHealth { targets: 2, out: 1, items: vec![item] });
        assert!(text.contains("orders    10.0.0.1:80  ejected for 10s  yes      there was no"), "{text}");
        assert!(text.ends_with("1 of 2 targets are out of use on this node\n"), "{text}");
    }
}
