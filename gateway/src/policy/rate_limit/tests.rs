use http::HeaderMap;
use model::{Kind, Violation};

use super::*;
use crate::{
    after::After,
    plan::Plan,
    policy::{
        Grouped,
        test::{World, config, policy, run_under},
    },
    rate_limits::RateLimits,
};

const MINUTE_US: u64 = 60_000_000;

/// A node with counters, on which policies are run.
struct Node {
    world: World,
    plan: Plan,
    now_us: u64,
}

/// What became of a request.
#[derive(Debug)]
struct Outcome {
    refused: Option<Refusal>,
    after: After,
}

impl Outcome {
    fn header(&self, name: &str) -> &str {
        let headers = self.refused.as_ref().map_or(&self.after.headers[..], |refusal| &refusal.headers);
        let found = headers.iter().find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value.to_str().unwrap())
    }
}

impl Node {
    fn new() -> Self {
        let settings = limits::Settings { keys: 100, shared_keys: 10, peers: 2, seed: 0 };
        let world = World { rates: Some(RateLimits::new(settings).0), ..World::default() };
        let plan = Plan::empty().install(&config(&[])).unwrap();
        Self { world, plan, now_us: 20_000 * 86_400_000_000 }
    }

    fn rates(&self) -> &RateLimits {
        self.world.rates.as_ref().unwrap()
    }

    fn ask(&self, policy: &dyn Policy, prepare: impl FnOnce(&mut Exchange<'_>)) -> Outcome {
        let mut after = After::default();
        let prepared = |exchange: &mut Exchange<'_>| {
            exchange.now_us = self.now_us;
            prepare(exchange);
        };
        let refused = run_under(&self.world, &self.plan, policy, prepared, |exchange| {
            after.headers.clone_from(&exchange.after.headers);
            after.charges.clone_from(&exchange.after.charges);
            after.hidden.clone_from(&exchange.after.hidden);
        });
        Outcome { refused: refused.err(), after }
    }

    /// How many of so many requests are admitted.
    fn admits(&self, policy: &dyn Policy, times: u32, prepare: impl Fn(&mut Exchange<'_>)) -> u32 {
        (0..times).map(|_| u32::from(self.ask(policy, &prepare).refused.is_none())).sum()
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn wrong(doc: &str) -> Vec<String> {
    policy(doc)
        .unwrap_err()
        .into_iter()
        .map(|Violation { path, message }| format!("{path}: {message}"))
        .collect()
}

#[test]
fn the_limit_is_kept_to_and_clients_are_told() {
    let node = Node::new();
    let built = policy(r#"{"type":"rate-limit","limit":{"requests":3,"per":"1m"}}"#).unwrap();
    let first = node.ask(&*built, |_| ());
    assert!(first.refused.is_none());
    assert_eq!(first.header("ratelimit-policy"), r#""p";q=3;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""p";r=2;t=60"#);
    assert_eq!(node.admits(&*built, 5, |_| ()), 2);
    let last = node.ask(&*built, |_| ());
    let refusal = last.refused.as_ref().unwrap();
    assert_eq!((refusal.code, refusal.reason), (Code::Exhausted, "rate_limited"));
    // A third of the window after next: then one of three is out of sight.
    assert_eq!(last.header("retry-after"), "80");
    assert_eq!(last.header("ratelimit"), r#""p";r=0;t=80"#);
    assert_eq!(last.header("ratelimit-policy"), r#""p";q=3;w=60"#);
    let form = refusal.form.as_ref().unwrap();
    assert_eq!(form.members["violated-policies"], serde_json::json!(["p"]));
    assert_eq!(built.figures().unwrap().sums(), [3, 4, 0]);
}

#[test]
fn of_several_limits_the_one_that_lasts_is_told_and_the_others_are_not_used_up() {
    let node = Node::new();
    let text = r#"{"type":"rate-limit","limits":{
        "burst":{"requests":2,"per":"1s"},"day":{"requests":3,"per":"1d"}}}"#;
    let built = policy(text).unwrap();
    let first = node.ask(&*built, |_| ());
    assert_eq!(first.header("ratelimit-policy"), r#""p/day";q=3;w=86400, "p/burst";q=2;w=1"#);
    assert_eq!(first.header("ratelimit"), r#""p/day";r=2;t=86400, "p/burst";r=1;t=1"#);
    assert_eq!(node.admits(&*built, 2, |_| ()), 1, "two a second");
    // The one that the second's limit refused was taken back from the day's.
    let later = Node { now_us: node.now_us + 2_000_000, ..node };
    assert_eq!(later.admits(&*built, 1, |_| ()), 1);
    let refused = later.ask(&*built, |_| ());
    let violated = &refused.refused.as_ref().unwrap().form.as_ref().unwrap().members["violated-policies"];
    assert_eq!(violated, &serde_json::json!(["p/day"]));
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 86_000);
}

#[test]
fn each_is_counted_for_himself() {
    let node = Node::new();
    let by = |by: &str| {
        policy(&format!(r#"{{"type":"rate-limit","by":{by},"limit":{{"requests":1,"per":"1m"}}}}"#)).unwrap()
    };
    let consumer = |name: &'static str| {
        move |exchange: &mut Exchange<'_>| {
            exchange.consumer = Some(Name::new(name).unwrap());
            exchange.client = [10, 0, 0, 1].into();
        }
    };
    let built = by(r#""consumer""#);
    assert_eq!(node.admits(&*built, 2, consumer("a")), 1);
    assert_eq!(node.admits(&*built, 2, consumer("b")), 1);
    // Whoever is nobody, by his address, even if that is a consumer's.
    let from =
        |address: &'static str| move |exchange: &mut Exchange<'_>| exchange.client = address.parse().unwrap();
    assert_eq!(node.admits(&*built, 2, from("10.0.0.1")), 1);
    assert_eq!(node.admits(&*built, 2, from("10.0.0.2")), 1);

    let node = Node::new();
    let built = by(r#"["address"]"#);
    assert_eq!(node.admits(&*built, 2, from("2001:db8::1")), 1);
    assert_eq!(node.admits(&*built, 1, from("2001:db8::ffff")), 0, "the same /64");
    assert_eq!(node.admits(&*built, 2, from("2001:db8:0:1::1")), 1);
    let built = by(r#"{"network":{"v4":24}}"#);
    assert_eq!(node.admits(&*built, 1, from("10.1.1.1")), 1);
    assert_eq!(node.admits(&*built, 1, from("::ffff:10.1.1.2")), 0);
    assert_eq!(node.admits(&*built, 1, from("10.1.2.1")), 1);

    let node = Node::new();
    let built = by(r#"[{"header":"x-tenant"},"key","group"]"#);
    let of = |tenant: &'static str, key: &'static str| {
        move |exchange: &mut Exchange<'_>| {
            exchange.headers.insert("x-tenant", tenant.parse().unwrap());
            exchange.key = Some(Name::new(key).unwrap());
        }
    };
    assert_eq!(node.admits(&*built, 2, of("one", "k")), 1);
    assert_eq!(node.admits(&*built, 2, of("two", "k")), 1);
    assert_eq!(node.admits(&*built, 2, of("two", "l")), 1);
    let pk = |outcome: Outcome| outcome.header("ratelimit-policy").split_once("pk=").unwrap().1.to_owned();
    let first = pk(node.ask(&*built, of("one", "k")));
    assert_eq!((first.len(), first == pk(node.ask(&*built, of("one", "k")))), (10, true));
    assert_ne!(first, pk(node.ask(&*built, of("two", "k"))));
}

#[test]
fn a_policy_that_only_watches_refuses_nothing_and_tells_nothing() {
    let node = Node::new();
    let built = policy(r#"{"type":"rate-limit","shadow":true,"limit":{"requests":1,"per":"1m"}}"#).unwrap();
    assert_eq!(node.admits(&*built, 3, |_| ()), 3);
    assert_eq!(built.figures().unwrap().sums(), [1, 0, 2]);
    assert!(node.ask(&*built, |_| ()).after.headers.is_empty());
}

#[test]
fn a_burst_is_what_may_come_at_once() {
    let node = Node::new();
    let built = policy(r#"{"type":"rate-limit","limit":{"requests":600,"per":"1m","burst":20}}"#).unwrap();
    assert_eq!(node.ask(&*built, |_| ()).header("ratelimit-policy"), r#""p";q=20;w=2"#);
    assert_eq!(node.admits(&*built, 30, |_| ()), 19);
    let built = policy(r#"{"type":"rate-limit","limit":{"requests":1,"per":"1s","burst":20}}"#).unwrap();
    assert_eq!(node.ask(&*built, |_| ()).header("ratelimit-policy"), r#""p";q=20;w=20"#);
}

#[test]
fn a_request_costs_what_is_said_or_told() {
    let node = Node::new();
    let built = |cost: &str| {
        policy(&format!(r#"{{"type":"rate-limit","cost":{cost},"limit":{{"requests":10,"per":"1m"}}}}"#))
            .unwrap()
    };
    assert_eq!(node.admits(&*built("4"), 5, |_| ()), 2);
    let node = Node::new();
    let told = built(r#"{"request_header":{"name":"x-cost","default":2,"max":5}}"#);
    let of = |cost: &'static str| {
        move |exchange: &mut Exchange<'_>| drop(exchange.headers.insert("x-cost", cost.parse().unwrap()))
    };
    for (cost, left) in [("3", "7"), ("lots", "5"), ("900", "0")] {
        assert!(node.ask(&*told, of(cost)).header("ratelimit").contains(&format!("r={left};")), "{cost}");
    }
    let node = Node::new();
    let told = built(r#"{"response_header":{"name":"x-cost","max":8}}"#);
    let mut response = HeaderMap::new();
    response.insert("x-cost", "7".parse().unwrap());
    response.insert("ratelimit", "\"theirs\";r=1".parse().unwrap());
    let mut after = node.ask(&*told, |_| ()).after;
    after.tell(&mut response, node.rates(), || node.now_us);
    assert!(!response.contains_key("x-cost"), "it is the gateway's own business");
    assert_eq!(response["ratelimit"], r#""p";r=9;t=60"#);
    assert!(node.ask(&*told, |_| ()).header("ratelimit").contains("r=2;"));
    response.insert("x-cost", "0".parse().unwrap());
    let mut after = node.ask(&*told, |_| ()).after;
    after.tell(&mut response, node.rates(), || node.now_us);
    assert!(node.ask(&*told, |_| ()).header("ratelimit").contains("r=1;"), "the one before cost nothing");
}

#[test]
fn who_is_cut_off_does_as_is_said() {
    let admits = |on_partition: &str| {
        let node = Node::new();
        node.rates().limiter().set_nodes(1, 0.25);
        let text = format!(
            r#"{{"type":"rate-limit","on_partition":"{on_partition}","limit":{{"requests":8,"per":"1m"}}}}"#
        );
        let built = policy(&text).unwrap();
        let refused = node.ask(&*built, |_| ()).refused.map(|refusal| refusal.code);
        (1 + node.admits(&*built, 20, |_| ()), refused)
    };
    assert_eq!(admits("share"), (2, None));
    assert_eq!(admits("local"), (8, None));
    assert_eq!(admits("deny"), (1, Some(Code::Unavailable)));
}

#[test]
fn a_refusal_looks_as_is_said() {
    let node = Node::new();
    let text = r#"{"type":"rate-limit","limit":{"requests":1,"per":"1m"},"headers":false,
        "refusal":{"status":503,"body":"slow down","headers":{"x-docs":"https://docs.example"}}}"#;
    let built = policy(text).unwrap();
    assert!(node.ask(&*built, |_| ()).after.headers.is_empty());
    let outcome = node.ask(&*built, |_| ());
    assert_eq!(outcome.header("x-docs"), "https://docs.example");
    assert_eq!((outcome.header("retry-after"), outcome.header("ratelimit")), ("120", ""));
    let form = outcome.refused.unwrap().form.unwrap();
    assert_eq!(form.status.unwrap(), 503);
    assert_eq!(form.body.unwrap().1, "slow down");
}

#[test]
fn groups_have_limits_of_their_own_and_a_change_loses_no_count() {
    let node = Node::new();
    let of = |limit: u32, gold: u32| {
        let objects = [
            (
                Kind::Policy,
                "p",
                format!(
                    r#"{{"type":"rate-limit","by":"consumer","limit":{{"requests":{limit},"per":"1m"}}}}"#
                ),
            ),
            (
                Kind::Group,
                "gold",
                format!(r#"{{"policies":{{"p":{{"limit":{{"requests":{gold},"per":"1m"}}}}}}}}"#),
            ),
        ];
        let objects = objects.each_ref().map(|(kind, name, doc)| (*kind, *name, doc.as_str()));
        config(&objects)
    };
    let admits = |plan: &Plan, groups: &[&str], times: u32| {
        let groups: Vec<Name> = groups.iter().map(|group| name(group)).collect();
        let policy: &Grouped = &plan.policies[&name("p")];
        let form = policy.of(&groups);
        node.admits(form, times, |exchange| {
            exchange.consumer = Some(name(if groups.is_empty() { "a" } else { "b" }))
        })
    };
    let plan = Plan::empty().install(&of(3, 5)).unwrap();
    assert_eq!(admits(&plan, &[], 9), 3);
    assert_eq!(admits(&plan, &["silver", "gold"], 9), 5);
    let plan = plan.install(&of(4, 8)).unwrap();
    assert_eq!(admits(&plan, &[], 9), 1);
    assert_eq!(admits(&plan, &["gold"], 9), 3);
    let without = config(&[(
        Kind::Policy,
        "p",
        r#"{"type":"rate-limit","by":"consumer","limit":{"requests":6,"per":"1m"}}"#,
    )]);
    let plan = plan.install(&without).unwrap();
    assert_eq!((admits(&plan, &[], 9), admits(&plan, &["gold"], 9)), (2, 0));
    let (_, figures) = plan.figures().next().unwrap();
    assert_eq!(figures.sums()[0], 14, "of all forms, before and after");
}

#[test]
fn a_form_for_a_group_has_counters_of_its_own_where_callers_are_not_counted_each_for_himself() {
    let node = Node::new();
    let objects = [
        (Kind::Policy, "p", r#"{"type":"rate-limit","by":"address","limit":{"requests":2,"per":"1m"}}"#),
        (Kind::Group, "gold", r#"{"policies":{"p":{"limits":{"minute":{"requests":5,"per":"1m"}}}}}"#),
    ];
    let plan = Plan::empty().install(&config(&objects)).unwrap();
    let policy: &Grouped = &plan.policies[&name("p")];
    assert_eq!(node.admits(policy.of(&[name("gold")]), 9, |_| ()), 5, "limits in the place of limit");
    assert_eq!(node.admits(policy.of(&[]), 9, |_| ()), 2);
}

#[test]
fn a_number_that_is_too_large_is_the_most_that_is_believed() {
    let header =
        crate::after::CostHeader { name: http::HeaderName::from_static("x-cost"), default: 1, max: 9 };
    let mut headers = HeaderMap::new();
    for (text, cost) in [("3", 3), ("99999999999", 9), ("-1", 1), ("1e3", 1), (" 4 ", 4)] {
        headers.append("x-cost", text.parse().unwrap());
        assert_eq!(header.read(&headers), cost, "{text}, which is the last");
    }
}

#[test]
fn who_is_limited_is_named_but_no_secret_is() {
    let node = Node::new();
    let built = policy(r#"{"type":"rate-limit","by":["address","consumer",{"header":"x-api-token"},{"header":"x-t"}],"limit":{"requests":1,"per":"1m"}}"#).unwrap();
    let prepare = |exchange: &mut Exchange<'_>| {
        exchange.consumer = Some(name("acme"));
        exchange.headers.insert("x-api-token", "s3cret".parse().unwrap());
        exchange.headers.insert("x-t", "t".repeat(100).parse().unwrap());
    };
    assert_eq!(node.admits(&*built, 2, prepare), 1);
    let named = node.rates().next_name().unwrap();
    assert_eq!((named.policy, named.limit), (name("p"), None));
    assert_eq!(
        named.by,
        format!("address 127.0.0.1, consumer acme, x-api-token (hidden), x-t {}", "t".repeat(64))
    );
    assert_eq!(node.rates().limiter().usage(node.now_us).next().unwrap().key, named.key);
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let text = r#"{"type":"rate-limit","by":[{"header":"a b"},"route","route",{"network":{"v4":33}}],"scope":"node","on_partition":"share",
        "limits":{"a":{"requests":0,"per":"1s"},"b":{"requests":5,"per":"2d"},"c":{"requests":5,"per":"1m","burst":100000},
        "d":{"requests":5,"per":"1m"},"e":{"requests":6,"per":"1m"}},"cost":{"request_header":{"name":"","max":9}},
        "refusal":{"status":200,"body":"x","detail":"y","headers":{"retry-after":"1","connection":"close"}}}"#;
    let wrong_with = wrong(text);
    for place in [
        "policies.p.by: \"a b\"",
        "policies.p.by: has the same twice",
        "policies.p.by: a network has",
        "policies.p.on_partition: ",
        "policies.p.limits.a.requests: ",
        "policies.p.limits.b.per: ",
        "policies.p.limits.c.burst: falls due in",
        "policies.p.limits: has the same window as p/",
        "policies.p.cost: ",
        "policies.p.refusal.status: ",
        "policies.p.refusal.detail: ",
        "policies.p.refusal.headers.retry-after: ",
        "policies.p.refusal.headers.connection: ",
    ] {
        assert_eq!(
            wrong_with.iter().filter(|one| one.starts_with(place)).count(),
            1,
            "{place} in {wrong_with:#?}"
        );
    }
    assert_eq!(wrong(r#"{"type":"rate-limit"}"#), ["policies.p: needs either limit or limits"]);
    let both =
        r#"{"type":"rate-limit","limit":{"requests":1,"per":"1s"},"limits":{"a":{"requests":1,"per":"1m"}}}"#;
    assert_eq!(wrong(both), ["policies.p: needs either limit or limits"]);
    let dear = r#"{"type":"rate-limit","limit":{"requests":9,"per":"1s"},"cost":10}"#;
    assert_eq!(wrong(dear), ["policies.p.cost: can be over 9, the least that a limit lets through"]);
    for (bad, told) in [
        (r#""cost":-1"#, "policies.p.cost: "),
        (r#""by":"colour""#, "policies.p.by: unknown variant `colour`"),
        (r#""limit":{"requests":1,"per":"soon"}"#, "policies.p.limit.per: \"soon\" is not a duration"),
    ] {
        let found = wrong(&format!(r#"{{"type":"rate-limit",{bad}}}"#));
        assert!(found[0].starts_with(told), "{found:?}");
    }
}

#[test]
fn a_time_that_goes_on_brings_the_limit_back() {
    let mut node = Node::new();
    let built = policy(r#"{"type":"rate-limit","scope":"node","limit":{"requests":4,"per":"1m"}}"#).unwrap();
    assert_eq!(node.admits(&*built, 9, |_| ()), 4);
    node.now_us += MINUTE_US + MINUTE_US / 2;
    assert_eq!(node.admits(&*built, 9, |_| ()), 2);
    node.now_us += 2 * MINUTE_US;
    assert_eq!(node.admits(&*built, 9, |_| ()), 4);
}

#[test]
fn a_quota_is_of_a_period_of_the_calendar() {
    let mut node = Node::new();
    let text = r#"{"type":"quota","by":"consumer","limits":{
        "day":{"requests":2,"per":"day"},"month":{"requests":3,"per":"month","time_zone":"Europe/Berlin"}}}"#;
    let built = policy(text).unwrap();
    let first = node.ask(&*built, |_| ());
    assert!(
        first.header("ratelimit-policy").starts_with(r#""p/month";q=3;pk="#),
        "{}",
        first.header("ratelimit-policy")
    );
    // The day number 20,000 is 2024-10-04, of which this is the first second in UTC; the month ends with a day of 25 hours.
    assert_eq!(first.header("ratelimit"), r#""p/month";r=2;t=2415600, "p/day";r=1;t=86400"#);
    let named: Vec<_> = std::iter::from_fn(|| node.rates().next_name()).collect();
    let month = named[0].quota.unwrap();
    assert_eq!((month.limit, month.ends_at_s), (3, 20_000 * 86_400 + 2_415_600));
    assert_eq!((named[0].limit.clone(), named[1].limit.clone()), (Some(name("month")), Some(name("day"))));
    assert_eq!(node.admits(&*built, 5, |_| ()), 1);
    let refused = node.ask(&*built, |_| ());
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit")),
        ("86400", r#""p/day";r=0;t=86400"#)
    );
    // The next day begins at nothing, the month goes on.
    node.now_us += 86_400_000_000;
    assert_eq!(node.admits(&*built, 5, |_| ()), 1);
    let known: Vec<_> = node.rates().limiter().periods(node.now_us).map(|known| known.admitted).collect();
    assert_eq!(known.iter().sum::<u32>(), 4, "three of the month, one of the day");
}

#[test]
fn what_is_wrong_with_a_quota_is_told_with_its_place() {
    let text =
        r#"{"type":"quota","limit":{"requests":0,"per":"day","time_zone":"Mars/Base"},"scope":"node"}"#;
    let told = wrong(text);
    for place in [
        "policies.p.limit: is of a quota",
        "policies.p.limit.requests: ",
        "policies.p.limit.time_zone: there is no time zone",
    ] {
        assert_eq!(told.iter().filter(|one| one.starts_with(place)).count(), 1, "{place} in {told:?}");
    }
    assert!(
        wrong(r#"{"type":"quota","limit":{"requests":1,"per":"1d"}}"#)[0]
            .starts_with("policies.p.limit.per: unknown variant `1d`")
    );
    let twice =
        r#"{"type":"quota","limits":{"a":{"requests":1,"per":"week"},"b":{"requests":2,"per":"week"}}}"#;
    assert!(wrong(twice)[0].contains("has the same window"));
}
