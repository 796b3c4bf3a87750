//! Policy `rate-limit`: so many requests in a time, counted by all nodes together, and the rest refused with 429.
//!
//! The counters are the crate `limits`; here is who is counted for whom, by which limits, and what clients are told.

mod fields;
mod spec;

use std::{cell::Cell, sync::Arc};

use http::HeaderValue;
use limits::{Decision, Rule};
use model::{Code, Name};

use self::spec::Cost;
use super::{
    Policy,
    partition::{self, Part, Partition},
    refused::Refused,
    scope::OnPartition,
};
use crate::{
    after::Charge,
    exchange::{Exchange, Refusal},
    rate_limits::KeyName,
    state::Figures,
};

/// Its type in a config.
pub(crate) const KIND: &str = "rate-limit";
/// The fields of its body that groups may override.
pub(crate) const OVERRIDABLE: &[&str] = &["limit", "limits", "cost", "shadow", "refusal", "headers"];

/// Of so many requests that are admitted, one leaves the name of its key.
const NAMED_ONE_OF: u32 = 64;

#[derive(Debug)]
struct RateLimit {
    name: Name,
    by: Box<[Part]>,
    /// Those of the longest windows first: of several that a request breaks, it is told the one that lasts.
    limits: Box<[Limit]>,
    cost: Cost,
    on_partition: OnPartition,
    shadow: bool,
    /// What responses tell of the limits, if they do.
    told: Option<fields::Policy>,
    refused: Refused,
    figures: Arc<Figures>,
}

/// One limit of a policy.
#[derive(Debug)]
struct Limit {
    /// Its name, if the policy has several.
    name: Option<Name>,
    /// What clients are told that it is called.
    told: String,
    rule: Rule,
}

pub(super) fn build(name: &Name, policy: &model::Policy, figures: Option<&Arc<Figures>>) -> super::Built {
    let spec: spec::Spec = super::spec(name, policy)?;
    let figures = figures.cloned().unwrap_or_default();
    Ok(Arc::new(spec.compile(name, figures)?))
}

impl Policy for RateLimit {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
        if let Some(refusal) = self.on_partition.refusal(exchange) {
            return self.refuse(|| refusal);
        }
        let partition = Partition::of(&self.name, &self.by, exchange);
        let cost = self.cost.of_request(exchange.headers);
        let counted = exchange.after.charges.len();
        let mut told = fields::Told::new(self.told.is_some() && !self.shadow);
        for (at, limit) in self.limits.iter().enumerate() {
            let key = partition.key(limit.rule);
            match exchange.rates.acquire(key, limit.rule, cost, exchange.now_us) {
                Decision::Admit { remaining } => {
                    let told_later = self.cost.told_later();
                    exchange.after.charges.push(Charge { key, rule: limit.rule, cost, told: told_later });
                    told.admitted(limit, remaining, exchange.now_us);
                }
                Decision::Refuse { retry_after_us } => {
                    let taken_back = exchange.after.charges.drain(counted..);
                    for charge in taken_back {
                        exchange.rates.take_back(charge.key, charge.rule, charge.cost, exchange.now_us);
                    }
                    self.leave_name(&partition, limit, exchange);
                    return self.refuse(|| self.refusal(&partition, at, retry_after_us));
                }
            }
        }
        self.figures.admit();
        if is_one_of(NAMED_ONE_OF)
            && let Some(limit) = self.limits.first()
        {
            self.leave_name(&partition, limit, exchange);
        }
        if let Some(now) = told.value() {
            let policy = self.told.as_ref().and_then(|policy| policy.value(&partition.shown()));
            exchange.after.headers.extend(policy.map(|value| (fields::RATELIMIT_POLICY, value)));
            exchange.after.headers.push((fields::RATELIMIT, now));
        }
        Ok(())
    }

    fn figures(&self) -> Option<&Arc<Figures>> {
        Some(&self.figures)
    }
}

impl RateLimit {
    /// Refuses, or, where the policy only watches, notes that it would.
    fn refuse(&self, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
        if self.shadow {
            self.figures.would_refuse();
            return Ok(());
        }
        self.figures.refuse();
        Err(refusal())
    }

    /// What is told whoever is refused by the limit at this place.
    fn refusal(&self, partition: &Partition, at: usize, retry_after_us: u64) -> Refusal {
        let limit = &self.limits[at];
        let after_s = retry_after_us.div_ceil(1_000_000);
        let mut refusal = Refusal::new(Code::Exhausted, "rate_limited", "");
        refusal.headers.push((http::header::RETRY_AFTER, HeaderValue::from(after_s)));
        if let Some(policy) = &self.told {
            let fields = [
                (fields::RATELIMIT_POLICY, policy.value(&partition.shown())),
                (fields::RATELIMIT, fields::used_up(limit, after_s)),
            ];
            refusal.headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        let form = refusal.form.insert(Box::default());
        form.problem = Some(fields::QUOTA_EXCEEDED);
        form.members.insert("violated-policies".into(), serde_json::json!([limit.told]));
        self.refused.dress(refusal)
    }

    fn leave_name(&self, partition: &Partition, limit: &Limit, exchange: &Exchange<'_>) {
        if exchange.rates.wants_names() {
            exchange.rates.name(KeyName {
                key: partition.key(limit.rule),
                policy: self.name.clone(),
                limit: limit.name.clone(),
                by: partition::in_words(&self.by, exchange),
            });
        }
    }
}

/// True once in so many calls of a thread.
fn is_one_of(many: u32) -> bool {
    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }
    let calls = CALLS.get().wrapping_add(1);
    CALLS.set(calls);
    calls.is_multiple_of(many)
}

#[cfg(test)]
mod tests;
