//! What rate limits have come to.

use std::{sync::Arc, time::Duration};

use gateway::KeyName;
use http::StatusCode;
use limits::{GaugeUsage, Scope};
use model::api::{InFlightUsed, LimitUsed, LimitsUsed, NodeAdmitted};

use crate::{
    admin::{
        Answer, Asked,
        reply::{self, Refusal},
    },
    counters::Used,
    node::Node,
};

/// Keys in an answer, unless the client says otherwise.
const TOP: usize = 20;
/// The most.
const TOP_MAX: usize = 1_000;

/// `GET /v1/limits?top=20&policy=NAME`
pub(super) async fn used(node: Arc<Node>, asked: Asked) -> Answer {
    let top = top(&asked)?;
    let member = node.member.read().await;
    let view = &member.as_ref().ok_or_else(Refusal::not_in_cluster)?.limits;
    let (used, keys) = view.most_used(top, asked.query("policy"));
    let (nodes, cut_off) = view.reached();
    let items = used.into_iter().map(shown).collect();
    let in_flight = view.in_flight(top, asked.query("policy")).into_iter().map(shown_in_flight).collect();
    reply::json(StatusCode::OK, &LimitsUsed { node_id: view.me(), nodes, cut_off, keys, items, in_flight })
}

/// How many keys the client would see.
pub(super) fn top(asked: &Asked) -> Result<usize, Refusal> {
    match asked.query("top").map(str::parse::<usize>) {
        None => Ok(TOP),
        Some(Ok(top @ 1..=TOP_MAX)) => Ok(top),
        Some(_) => Err(Refusal::invalid("top is a number from 1 to 1,000")),
    }
}

fn shown_in_flight((usage, name): (GaugeUsage, Option<KeyName>)) -> InFlightUsed {
    let (policy, by) = name.map_or((None, String::new()), |name| (Some(name.policy), name.by));
    InFlightUsed {
        key: format!("{:016x}", usage.key),
        policy,
        by,
        limit: usage.limit.limit(),
        each_node: usage.limit.scope() == Scope::Node,
        here: usage.in_flight,
        elsewhere: usage.others,
        refused: usage.refused,
    }
}

fn shown(used: Used) -> LimitUsed {
    let Used { usage, name, by_node } = used;
    let (policy, limit, by) =
        name.map_or((None, None, String::new()), |name| (Some(name.policy), name.limit, name.by));
    LimitUsed {
        key: format!("{:016x}", usage.key),
        policy,
        limit,
        by,
        requests: usage.rule.limit(),
        per: Duration::from_millis(usage.rule.window_ms().into()),
        each_node: usage.rule.scope() == Scope::Node,
        admitted: usage.admitted_by_all(),
        remaining: usage.remaining,
        refused: usage.refused,
        nodes: by_node.into_iter().map(|(id, admitted)| NodeAdmitted { id, admitted }).collect(),
    }
}
