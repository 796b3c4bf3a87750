//! `gwctl usage`: what was used of quotas.

use clap::Args;
use http::Method;
use model::{
    Name,
    api::{QuotaUsed, QuotasUsed},
};

use crate::{
    cli::Global, client::Call, command::token::in_words as until, failure::Failure, output, table::Table,
};

/// Which of them to show.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// How many keys, those most used up first.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Those of this policy alone.
    #[arg(long)]
    policy: Option<Name>,
}

impl Usage {
    /// Shows them.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut path = format!("/v1/usage?top={}", self.top);
        if let Some(policy) = &self.policy {
            path.push_str(&format!("&policy={policy}"));
        }
        let used: QuotasUsed = global.client()?.json(Call::new(Method::GET, path)).await?;
        output::print(global.output, &used, in_words)
    }
}

fn in_words(used: &QuotasUsed) -> String {
    let mut table = Table::new(&["POLICY", "BY", "USED", "OF", "AGREED", "PERIOD ENDS", "BY NODE"]);
    used.items.iter().for_each(|item| table.row(row(item)));
    format!("{}{} of {} keys\n", table.text(), used.items.len(), used.keys)
}

fn row(item: &QuotaUsed) -> [String; 7] {
    let policy = match item.limit.as_str() {
        "" => item.policy.clone(),
        limit => format!("{}/{limit}", item.policy),
    };
    let nodes: Vec<String> =
        item.nodes.iter().map(|node| format!("{}: {}", node.id, node.admitted)).collect();
    [
        policy,
        item.by.clone(),
        item.used.to_string(),
        item.requests.to_string(),
        item.agreed.to_string(),
        if item.over { "over".to_owned() } else { until(item.ends_at_s.saturating_mul(1_000)) },
        nodes.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use model::{NodeId, api::NodeAdmitted};

    use super::*;

    #[test]
    fn what_was_used_is_told_by_name() {
        let item = QuotaUsed {
            key: "00000000000000ff".into(),
            policy: "monthly".into(),
            limit: String::new(),
            by: "consumer acme".into(),
            requests: 1_000,
            used: 70,
            agreed: 60,
            ends_at_s: 1,
            over: true,
            nodes: vec![NodeAdmitted { id: NodeId(1), admitted: 60 }],
        };
        let text = in_words(&QuotasUsed { keys: 5, items: vec![item] });
        assert!(text.contains("monthly  consumer acme  70    1000  60      over         1: 60\n"), "{text}");
        assert!(text.ends_with("1 of 5 keys\n"), "{text}");
    }
}
