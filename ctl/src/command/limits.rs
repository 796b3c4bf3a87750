//! `gwctl limits`: which rate limits are most used up, by whom, and on which nodes.

use clap::Args;
use http::Method;
use model::{
    Name,
    api::{InFlightUsed, LimitUsed, LimitsUsed},
    duration,
};

use crate::{cli::Global, client::Call, failure::Failure, output, table::Table};

/// Which of them to show.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// How many, those most used up first.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Those of this policy alone.
    #[arg(long)]
    policy: Option<Name>,
}

impl Limits {
    /// Shows them.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut path = format!("/v1/limits?top={}", self.top);
        if let Some(policy) = &self.policy {
            path.push_str(&format!("&policy={policy}"));
        }
        let used: LimitsUsed = global.client()?.json(Call::new(Method::GET, path)).await?;
        output::print(global.output, &used, in_words)
    }
}

fn in_words(used: &LimitsUsed) -> String {
    let mut table =
        Table::new(&["POLICY", "LIMIT", "BY", "ADMITTED", "REMAINING", "REFUSED HERE", "BY NODE"]);
    for item in &used.items {
        table.row(row(item));
    }
    let sharing = match (used.cut_off, used.nodes) {
        (true, nodes) => {
            format!("node {} is cut off: it has but {nodes} nodes' part of the limits", used.node_id)
        }
        (false, 1) => format!("node {} is alone", used.node_id),
        (false, nodes) => format!("node {} shares limits with {} others", used.node_id, nodes - 1),
    };
    let mut text = String::new();
    if !used.items.is_empty() || used.in_flight.is_empty() {
        text.push_str(&table.text());
    }
    if !used.in_flight.is_empty() {
        let mut table = Table::new(&["POLICY", "AT ONCE", "BY", "HERE", "ELSEWHERE", "REFUSED HERE"]);
        used.in_flight.iter().for_each(|item| table.row(row_in_flight(item)));
        text.push_str(&table.text());
    }
    format!("{text}{} of {} keys; {sharing}\n", used.items.len(), used.keys)
}

fn row(item: &LimitUsed) -> [String; 7] {
    let policy = match (&item.policy, &item.limit) {
        (Some(policy), Some(limit)) => format!("{policy}/{limit}"),
        (Some(policy), None) => policy.to_string(),
        (None, _) => format!("key {}", item.key),
    };
    let each = if item.each_node { " a node" } else { "" };
    let nodes: Vec<String> =
        item.nodes.iter().map(|node| format!("{}: {}", node.id, node.admitted)).collect();
    [
        policy,
        format!("{} in {}{each}", item.requests, duration::format(item.per)),
        item.by.clone(),
        item.admitted.to_string(),
        item.remaining.to_string(),
        item.refused.to_string(),
        nodes.join(", "),
    ]
}

fn row_in_flight(item: &InFlightUsed) -> [String; 6] {
    let each = if item.each_node { " a node" } else { "" };
    [
        item.policy.as_ref().map_or_else(|| format!("key {}", item.key), ToString::to_string),
        format!("{}{each}", item.limit),
        item.by.clone(),
        item.here.to_string(),
        item.elsewhere.to_string(),
        item.refused.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use model::{NodeId, api::NodeAdmitted};

    use super::*;

    #[test]
    fn limits_are_told_by_name_where_there_is_one() {
        let item = LimitUsed {
            key: "00000000000000ff".into(),
            policy: Some(Name::new("per-client").unwrap()),
            limit: Some(Name::new("day").unwrap()),
            by: "consumer acme".into(),
            requests: 100,
            per: std::time::Duration::from_secs(86_400),
            each_node: false,
            admitted: 70,
            remaining: 30,
            refused: 2,
            nodes: vec![
                NodeAdmitted { id: NodeId(1), admitted: 60 },
                NodeAdmitted { id: NodeId(2), admitted: 10 },
            ],
        };
        let unnamed = LimitUsed { policy: None, limit: None, each_node: true, ..item.clone() };
        let used = LimitsUsed {
            node_id: NodeId(1),
            nodes: 2,
            cut_off: false,
            keys: 9,
            items: vec![item, unnamed],
            in_flight: Vec::new(),
        };
        let in_flight = InFlightUsed {
            key: "0000000000000001".into(),
            policy: Some(Name::new("uploads").unwrap()),
            by: "consumer acme".into(),
            limit: 9,
            each_node: false,
            here: 2,
            elsewhere: 7,
            refused: 1,
        };
        let used = LimitsUsed { in_flight: vec![in_flight], ..used };
        let text = in_words(&used);
        assert!(text.contains("uploads  9        consumer acme  2     7          1"), "{text}");
        assert!(text.contains("per-client/day        100 in 1d         consumer acme  70"), "{text}");
        assert!(text.contains("key 00000000000000ff  100 in 1d a node"), "{text}");
        assert!(text.contains("1: 60, 2: 10"), "{text}");
        assert!(text.ends_with("2 of 9 keys; node 1 shares limits with 1 others\n"), "{text}");
    }
}
