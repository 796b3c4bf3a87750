//! What was used of quotas.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use model::{
    NodeId,
    api::{NodeAdmitted, QuotaUsed, QuotasUsed},
    usage::Used,
};

use crate::{
    admin::{
        Answer, Asked, limits,
        reply::{self, Refusal},
    },
    counters::now_us,
    node::Node,
};

/// `GET /v1/usage?top=20&policy=NAME`
pub(super) async fn used(node: Arc<Node>, asked: Asked) -> Answer {
    let top = limits::top(&asked)?;
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let agreed = member.consensus.usage().borrow().clone();
    let here = member.limits.used_of_periods();
    let (policy, now_s) = (asked.query("policy"), now_us() / 1_000_000);
    let items = agreed.iter().filter(|used| policy.is_none_or(|policy| used.policy == policy)).map(|used| {
        let known = here.get(&used.key).filter(|(period, _)| *period == used.period);
        shown(used, known.map_or(0, |(_, sum)| *sum), now_s)
    });
    let mut items: Vec<QuotaUsed> = items.collect();
    let part = |item: &QuotaUsed| item.used as f64 / item.requests.max(1) as f64;
    items.sort_by(|one, other| {
        let by_use = one.over.cmp(&other.over).then(part(other).total_cmp(&part(one)));
        by_use.then_with(|| one.key.cmp(&other.key))
    });
    let keys = items.len();
    items.truncate(top);
    reply::json(StatusCode::OK, &QuotasUsed { keys, items })
}

fn shown(used: &Used, known: u64, now_s: u64) -> QuotaUsed {
    let mut nodes = BTreeMap::<NodeId, u64>::new();
    for (start, count) in &used.counts {
        *nodes.entry(start.node).or_default() += count;
    }
    let agreed = used.sum();
    QuotaUsed {
        key: format!("{:016x}", used.key),
        policy: used.policy.clone(),
        limit: used.limit_name.clone(),
        by: used.by.clone(),
        requests: used.limit,
        used: agreed.max(known),
        agreed,
        ends_at_s: used.ends_at_s,
        over: used.ends_at_s <= now_s,
        nodes: nodes.into_iter().map(|(id, admitted)| NodeAdmitted { id, admitted }).collect(),
    }
}
