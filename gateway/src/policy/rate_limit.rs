//! Policies `rate-limit` and `quota`: so many requests in a time, or in a period of the calendar, counted by all nodes together, and the
//! rest refused with 429.
//!
//! The counters are the crate `limits`; here is who is counted for whom, by which limits, and what clients are told.

mod calendar;
mod fields;
mod spec;

use std::{cell::Cell, num::NonZeroU64, sync::Arc};

use http::HeaderValue;
use limits::{Decision, Rule};
use model::{Code, Name};

use self::{calendar::Calendar, spec::Cost};
use super::{
    Context, Policy,
    partition::{self, Part, Partition},
    refused::{self, Refused},
    scope::OnPartition,
};
use crate::{
    after::Charge,
    exchange::{Exchange, Refusal, Verdict},
    rate_limits::{KeyName, QuotaPeriod},
    state::Figures,
};

/// Its type in a config.
pub(crate) const KIND: &str = "rate-limit";
/// That of quotas.
pub(crate) const QUOTA: &str = "quota";
/// The fields of its body that groups may override.
pub(crate) const OVERRIDABLE: &[&str] = &["limit", "limits", "cost", "shadow", "refusal", "headers"];

/// Of so many requests that are admitted, one leaves the name of its key; of a quota more do, and the first of a period, since what was
/// used is agreed on by name.
const NAMED_ONE_OF: u32 = 64;
const QUOTA_NAMED_ONE_OF: u32 = 16;

#[derive(Debug)]
struct RateLimit {
    name: Name,
    by: Box<[Part]>,
    /// The group whose form this is, if its members are not counted each for himself.
    group: Option<Name>,
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
    span: Span,
}

#[derive(Debug)]
enum Span {
    Window(Rule),
    Calendar(Calendar),
}

/// A limit at some time.
struct Present {
    rule: Rule,
    key: NonZeroU64,
    /// How many microseconds are left of the window or the period.
    left_us: u64,
    /// Seconds since the Unix epoch at which the period ends, if it is of one.
    ends_at_s: Option<u64>,
}

impl Limit {
    fn at(&self, partition: &Partition, now_us: u64) -> Present {
        match &self.span {
            Span::Window(rule) => Present {
                rule: *rule,
                key: partition.key(rule.window_ms()),
                left_us: rule.left_us(now_us),
                ends_at_s: None,
            },
            Span::Calendar(calendar) => {
                let period = calendar.at(now_us);
                Present {
                    rule: period.rule,
                    key: partition.key(calendar.kind()),
                    left_us: period.ends_us.saturating_sub(now_us),
                    ends_at_s: Some(period.ends_us / 1_000_000),
                }
            }
        }
    }

    /// How many requests there may be.
    fn quota(&self) -> u32 {
        match &self.span {
            Span::Window(rule) => rule.limit(),
            Span::Calendar(calendar) => calendar.limit(),
        }
    }

    /// The window's length in seconds, if it is of whole ones. Periods are not all of one length.
    fn window_s(&self) -> Option<u32> {
        match &self.span {
            Span::Window(rule) => {
                Some(rule.window_ms()).filter(|ms| ms.is_multiple_of(1_000)).map(|ms| ms / 1_000)
            }
            Span::Calendar(_) => None,
        }
    }

    /// The longer ones come first.
    fn order(&self) -> u32 {
        match &self.span {
            Span::Window(rule) => rule.window_ms(),
            Span::Calendar(calendar) => calendar.order(),
        }
    }
}

pub(super) fn build(name: &Name, policy: &model::Policy, context: Context<'_>) -> super::Built {
    let spec: spec::Spec<spec::Rate> = super::spec(name, policy)?;
    Ok(Arc::new(spec.compile(name, context)?))
}

pub(super) fn build_quota(name: &Name, policy: &model::Policy, context: Context<'_>) -> super::Built {
    let spec: spec::Spec<spec::Quota> = super::spec(name, policy)?;
    Ok(Arc::new(spec.compile(name, context)?))
}

impl Policy for RateLimit {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        if let Some(refusal) = self.on_partition.refusal(exchange) {
            return self.refuse(|| refusal);
        }
        let partition = Partition::of(&self.name, self.group.as_ref(), &self.by, exchange);
        let cost = self.cost.of_request(exchange.headers);
        exchange.after.hidden.extend(self.cost.told_later().map(|header| header.name.clone()));
        let counted = exchange.after.charges.len();
        let mut told = fields::Told::new(self.told.is_some() && !self.shadow);
        for (at, limit) in self.limits.iter().enumerate() {
            let present = limit.at(&partition, exchange.now_us);
            let Present { key, rule, left_us, .. } = present;
            match exchange.rates.acquire(key, rule, cost, exchange.now_us) {
                Decision::Admit { remaining, is_first } => {
                    exchange.after.charges.push(Charge { key, rule, cost, told: self.cost.told_later() });
                    told.admitted(limit, remaining, left_us);
                    let one_of = if present.ends_at_s.is_some() { QUOTA_NAMED_ONE_OF } else { NAMED_ONE_OF };
                    if present.ends_at_s.is_some() && is_first || is_one_of(one_of) {
                        self.leave_name(limit, &present, exchange);
                    }
                }
                Decision::Refuse { retry_after_us } => {
                    let taken_back = exchange.after.charges.drain(counted..);
                    for charge in taken_back {
                        exchange.rates.take_back(charge.key, charge.rule, charge.cost, exchange.now_us);
                    }
                    self.leave_name(limit, &present, exchange);
                    // Nothing comes back before a period is over.
                    let after_us = present.ends_at_s.map_or(retry_after_us, |_| left_us);
                    return self.refuse(|| self.refusal(&partition, at, after_us));
                }
            }
        }
        self.figures.admit();
        if let Some(now) = told.value() {
            let policy = self.told.as_ref().and_then(|policy| policy.value(&partition));
            exchange.after.headers.extend(policy.map(|value| (fields::RATELIMIT_POLICY, value)));
            exchange.after.headers.push((fields::RATELIMIT, now));
        }
        Ok(Verdict::Pass)
    }

    fn figures(&self) -> Option<&Arc<Figures>> {
        Some(&self.figures)
    }
}

impl RateLimit {
    fn refuse(&self, refusal: impl FnOnce() -> Refusal) -> Result<Verdict, Refusal> {
        refused::refuse(&self.figures, self.shadow, refusal)
    }

    /// What is told whoever is refused by the limit at this place.
    fn refusal(&self, partition: &Partition, at: usize, retry_after_us: u64) -> Refusal {
        let limit = &self.limits[at];
        let after_s = retry_after_us.div_ceil(1_000_000);
        let mut refusal = Refusal::new(Code::Exhausted, "rate_limited", "");
        refusal.headers.push((http::header::RETRY_AFTER, HeaderValue::from(after_s)));
        if let Some(policy) = &self.told {
            let fields = [
                (fields::RATELIMIT_POLICY, policy.value(partition)),
                (fields::RATELIMIT, fields::used_up(limit, after_s)),
            ];
            refusal.headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        let form = refusal.form.insert(Box::default());
        form.problem = Some(fields::QUOTA_EXCEEDED);
        form.members.insert("violated-policies".into(), serde_json::json!([limit.told]));
        self.refused.dress(refusal)
    }

    fn leave_name(&self, limit: &Limit, present: &Present, exchange: &Exchange<'_>) {
        if exchange.rates.wants_names(present.ends_at_s.is_some()) {
            let quota = present.ends_at_s.zip(present.rule.period()).map(|(ends_at_s, period)| QuotaPeriod {
                number: period,
                ends_at_s,
                limit: limit.quota(),
            });
            exchange.rates.name(KeyName {
                key: present.key,
                policy: self.name.clone(),
                limit: limit.name.clone(),
                by: partition::in_words(&self.by, exchange),
                quota,
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
