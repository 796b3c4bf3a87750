use crate::{
    after::After,
    plan::Plan,
    policy::test::{World, config, policy, run_under},
    rate_limits::{Pushers, RateLimits},
};

use super::*;

struct Node {
    world: World,
    plan: Plan,
    pushers: Pushers,
}

impl Node {
    fn new() -> Self {
        let settings = limits::Settings { keys: 100, shared_keys: 10, peers: 2, seed: 0 };
        let (rates, pushers) = RateLimits::new(settings);
        let world = World { rates: Some(rates), ..World::default() };
        Self { world, plan: Plan::empty().install(&config(&[])).unwrap(), pushers }
    }

    /// Asks once; what is in flight then, or why it is refused.
    fn ask(
        &self,
        policy: &dyn Policy,
        prepare: impl FnOnce(&mut Exchange<'_>),
    ) -> Result<Vec<Permit>, Refusal> {
        let mut after = After::default();
        let moved = &mut after;
        run_under(&self.world, &self.plan, policy, prepare, |exchange| {
            std::mem::swap(exchange.after, moved);
        })?;
        Ok(after.permits)
    }

    /// What is in flight of so many requests that are made at once.
    fn in_flight(&self, policy: &dyn Policy, times: u32) -> Vec<Vec<Permit>> {
        (0..times).filter_map(|_| self.ask(policy, |_| ()).ok()).collect()
    }
}

#[test]
fn so_many_are_in_flight_and_no_more() {
    let mut node = Node::new();
    let built = policy(r#"{"type":"concurrency","by":"consumer","limit":4}"#).unwrap();
    let mut held = node.in_flight(&*built, 4);
    node.pushers.in_flight.poll(1, |_| ());
    held.extend(node.in_flight(&*built, 9));
    assert_eq!(held.len(), 4);
    let refusal = node.ask(&*built, |_| ()).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::Exhausted, "too_many_in_flight"));
    assert_eq!(refusal.headers[0].1, "1");
    assert_eq!(refusal.form.unwrap().members["violated-policies"], serde_json::json!(["p"]));
    // Another caller has as many.
    let other = |exchange: &mut Exchange<'_>| exchange.consumer = Some(Name::new("other").unwrap());
    assert!(node.ask(&*built, other).is_ok());
    held.truncate(1);
    assert_eq!(node.in_flight(&*built, 9).len(), 3);
    assert_eq!(node.world.rates.unwrap().next_name().unwrap().by, "address 127.0.0.1");
}

#[test]
fn a_policy_that_only_watches_lets_all_through() {
    let node = Node::new();
    let built = policy(r#"{"type":"concurrency","shadow":true,"scope":"node","limit":2}"#).unwrap();
    assert_eq!(node.in_flight(&*built, 5).len(), 5);
    assert_eq!(built.figures().unwrap().sums(), [2, 0, 3]);
}

#[test]
fn what_a_target_bears_is_found_out() {
    let node = Node::new();
    let built = policy(r#"{"type":"concurrency","adaptive":{"min":2,"max":50,"tolerance":2}}"#).unwrap();
    let held = node.in_flight(&*built, 5);
    assert_eq!(held.len(), 2);
    let refusal = node.ask(&*built, |_| ()).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, "overloaded"));
    drop(held);
    for round in 1..200 {
        let permits = node.in_flight(&*built, 50).into_iter().flatten().collect();
        After { permits, ..After::default() }.answered(|| round * 110_000);
    }
    assert!(node.in_flight(&*built, 100).len() > 20, "answers come as fast as ever");
    // What was found out stays when the policy changes.
    let narrower: model::Policy =
        serde_json::from_str(r#"{"type":"concurrency","adaptive":{"min":1,"max":30}}"#).unwrap();
    let changed =
        build(&Name::new("p").unwrap(), &narrower, Context { figures: built.figures(), group: None })
            .unwrap();
    assert!((20..=30).contains(&node.in_flight(&*changed, 100).len()));
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let places = |text: &str| -> Vec<String> {
        policy(text).unwrap_err().into_iter().map(|violation| violation.path).collect()
    };
    assert_eq!(places(r#"{"type":"concurrency"}"#), ["policies.p"]);
    assert_eq!(places(r#"{"type":"concurrency","limit":1,"adaptive":{}}"#), ["policies.p"]);
    assert_eq!(
        places(r#"{"type":"concurrency","limit":0,"by":["key","key"],"refusal":{"status":1}}"#),
        ["policies.p.by", "policies.p.limit", "policies.p.refusal.status"]
    );
    assert_eq!(
        places(r#"{"type":"concurrency","by":"key","adaptive":{"min":0,"max":4294967295,"tolerance":0.5}}"#),
        [
            "policies.p.by",
            "policies.p.adaptive.min",
            "policies.p.adaptive.max",
            "policies.p.adaptive.tolerance"
        ]
    );
}
