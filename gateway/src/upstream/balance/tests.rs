//! What is chosen: shares, what is passed over, and what each strategy looks at.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use model::Name;
use serde_json::json;

use super::*;
use crate::{names::Names, plan::Surroundings, timer};

const STRATEGIES: [&str; 4] = ["round_robin", "random", "least_requests", "p2c"];

fn around() -> Surroundings {
    Surroundings::new(Names::new().0, None)
}

fn compiled(spec: serde_json::Value) -> CompiledUpstream {
    timer::refresh();
    let spec = Arc::new(serde_json::from_value(spec).unwrap());
    CompiledUpstream::compile(&Name::new("u").unwrap(), &spec, None, &around(), |_| None).unwrap()
}

fn upstream(balance: &str, weights: &[u16]) -> CompiledUpstream {
    let targets: Vec<_> = (weights.iter().enumerate())
        .map(|(at, weight)| json!({"address": format!("10.0.0.{at}:80"), "weight": weight}))
        .collect();
    compiled(json!({"balance": balance, "targets": targets}))
}

/// The place of an endpoint in its upstream.
fn place(upstream: &CompiledUpstream, picked: Picked<'_>) -> usize {
    upstream.endpoints.all().iter().position(|endpoint| std::ptr::eq(endpoint, picked.endpoint)).unwrap()
}

/// How many of so many requests go to each.
fn counts(upstream: &CompiledUpstream, requests: usize) -> Vec<usize> {
    let mut counts = vec![0; upstream.endpoints.all().len()];
    for _ in 0..requests {
        counts[place(upstream, Choice::with(upstream, Affinity::default()).next().unwrap())] += 1;
    }
    counts
}

fn eject(upstream: &CompiledUpstream, at: usize) {
    upstream.endpoints.all()[at].state.ejected_until_ms.store(u64::MAX, Relaxed);
}

#[test]
fn weights_are_shares_in_every_strategy() {
    for balance in STRATEGIES {
        let counts = counts(&upstream(balance, &[1, 2, 5]), 8_000);
        for (count, want) in counts.iter().zip([1_000, 2_000, 5_000]) {
            assert!(count.abs_diff(want) < 300, "{balance}: {counts:?}");
        }
    }
}

#[test]
fn the_share_of_what_is_out_of_use_is_spread_over_all_others() {
    for balance in STRATEGIES {
        let upstream = upstream(balance, &[1, 1, 1, 1]);
        eject(&upstream, 1);
        let counts = counts(&upstream, 3_000);
        assert_eq!(counts[1], 0, "{balance}");
        assert!(
            counts.iter().all(|count| *count == 0 || count.abs_diff(1_000) < 200),
            "{balance}: {counts:?}"
        );
    }
}

#[test]
fn each_is_tried_once_before_any_is_tried_again_and_those_in_use_first() {
    for balance in STRATEGIES {
        for weights in [&[1; 5][..], &[1, 60_000, 1, 1, 1]] {
            let upstream = upstream(balance, weights);
            eject(&upstream, 0);
            eject(&upstream, 3);
            let mut choice = Choice::with(&upstream, Affinity::default());
            let mut next = || choice.next().map(|picked| (place(&upstream, picked), picked.again)).unwrap();
            let mut first = [next(), next(), next()];
            first.sort_unstable();
            assert_eq!(first, [(1, false), (2, false), (4, false)], "{balance}");
            let mut then = [next(), next()];
            then.sort_unstable();
            assert_eq!(then, [(0, false), (3, false)], "{balance}");
            assert!(next().1, "{balance}");
        }
    }
}

#[test]
fn one_to_spare_is_in_use_and_was_not_tried() {
    for balance in STRATEGIES {
        let upstream = upstream(balance, &[1; 4]);
        eject(&upstream, 2);
        let mut choice = Choice::with(&upstream, Affinity::default());
        let mut seen = vec![place(&upstream, choice.next().unwrap())];
        while let Some(spare) = choice.spare() {
            let picked = choice.take(spare);
            assert!(!picked.again, "{balance}");
            seen.push(place(&upstream, picked));
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 3], "{balance}");
    }
    let one = upstream("p2c", &[1]);
    let mut choice = Choice::with(&one, Affinity::default());
    choice.next();
    assert_eq!(choice.spare(), None);
}

#[test]
fn an_upstream_may_have_none_or_one() {
    for balance in STRATEGIES {
        let (none, one) = (upstream(balance, &[0]), upstream(balance, &[1]));
        assert!(Choice::with(&none, Affinity::default()).next().is_none());
        let mut choice = Choice::with(&one, Affinity::default());
        assert_eq!([choice.next().unwrap().again, choice.next().unwrap().again], [false, true]);
    }
}

#[test]
fn least_requests_are_sent_where_fewer_are_in_flight_for_the_weight() {
    let upstream = upstream("least_requests", &[1, 1, 1]);
    let held: Vec<Load> = (0..300)
        .map(|_| {
            Load::begin(
                &upstream.spec.balance,
                Choice::with(&upstream, Affinity::default()).next().unwrap().endpoint,
            )
        })
        .collect();
    let in_flight = || {
        let all = upstream.endpoints.all().iter();
        all.map(|endpoint| endpoint.state.load.in_flight.load(Relaxed)).collect::<Vec<_>>()
    };
    assert!(in_flight().iter().all(|count| (98..=102).contains(count)), "{:?}", in_flight());
    drop(held);
    assert_eq!(in_flight(), [0, 0, 0]);
    let two = self::upstream("least_requests", &[1, 3]);
    let _held: Vec<Load> = (0..400)
        .map(|_| {
            Load::begin(&two.spec.balance, Choice::with(&two, Affinity::default()).next().unwrap().endpoint)
        })
        .collect();
    let heavier = two.endpoints.all()[1].state.load.in_flight.load(Relaxed);
    assert!((285..=315).contains(&heavier), "{heavier}");
}

#[test]
fn p2c_goes_where_answers_come_sooner_and_leaves_what_fails() {
    let upstream = upstream("p2c", &[1, 1, 1]);
    let all = upstream.endpoints.all();
    for (endpoint, took_us) in all.iter().zip([1_000, 1_000, 20_000]) {
        endpoint.state.load.latency.saw(took_us, timer::now_ms());
    }
    let slow_gets_none = counts(&upstream, 1_000);
    assert_eq!(slow_gets_none[2], 0, "{slow_gets_none:?}");
    let mut load = Load::begin(&upstream.spec.balance, &all[0]);
    load.failed();
    drop(load);
    // Only where the other of the two is the slow one.
    let failing_gets_less = counts(&upstream, 1_000);
    assert!(failing_gets_less[0] < 400 && failing_gets_less[1] > 600, "{failing_gets_less:?}");
}

#[test]
fn p2c_asks_who_has_never_answered_once_at_a_time() {
    let upstream = upstream("p2c", &[1, 1]);
    let all = upstream.endpoints.all();
    all[0].state.load.latency.saw(1_000, timer::now_ms());
    let first = Choice::with(&upstream, Affinity::default()).next().unwrap().endpoint;
    assert!(std::ptr::eq(first, &all[1]), "a new one is tried");
    let _load = Load::begin(&upstream.spec.balance, first);
    assert_eq!(counts(&upstream, 100), [100, 0], "and no more until it has answered");
}

#[test]
fn p2c_gives_a_small_weight_a_small_share_however_fast_it_is() {
    let upstream = upstream("p2c", &[1, 99]);
    for (endpoint, took_us) in upstream.endpoints.all().iter().zip([10, 1_000]) {
        endpoint.state.load.latency.saw(took_us, timer::now_ms());
    }
    let counts = counts(&upstream, 10_000);
    assert!((50..400).contains(&counts[0]), "{counts:?}");
}

#[test]
fn strategies_that_look_at_no_load_count_none() {
    for balance in ["round_robin", "random"] {
        let upstream = upstream(balance, &[1, 1]);
        let endpoint = &upstream.endpoints.all()[0];
        let mut load = Load::begin(&upstream.spec.balance, endpoint);
        load.answered();
        assert_eq!(endpoint.state.load.in_flight.load(Relaxed), 0);
        assert_eq!(endpoint.state.load.latency.expected_us(timer::now_ms()), None);
    }
}

fn targets(addresses: std::ops::Range<usize>) -> Vec<serde_json::Value> {
    addresses.map(|at| json!({"address": format!("10.0.0.{at}:80")})).collect()
}

/// The label of the endpoint that this request is sent to.
fn label(upstream: &CompiledUpstream, affinity: Affinity) -> &str {
    &Choice::with(upstream, affinity).next().unwrap().endpoint.label
}

fn hashed(hash: u64) -> Affinity {
    Affinity { hash: Some(maglev::next_choice(hash, 7)), bound: None }
}

#[test]
fn a_key_stays_where_it_is_while_others_come_go_or_fail() {
    let maglev = |addresses| {
        compiled(json!({"balance": {"maglev": {"by": "address"}}, "targets": targets(addresses)}))
    };
    let (ten, nine) = (maglev(0..10), maglev(0..9));
    let keys = || (0..2_000).map(hashed);
    let before: Vec<&str> = keys().map(|key| label(&ten, key)).collect();
    assert_eq!(before, keys().map(|key| label(&maglev(0..10), key).to_owned()).collect::<Vec<_>>());
    let moved = keys().zip(&before).filter(|(key, before)| label(&nine, *key) != **before).count();
    assert!((100..400).contains(&moved), "{moved}");

    eject(&ten, 3);
    let failed = &*ten.endpoints.all()[3].label;
    let mut taken = std::collections::BTreeMap::new();
    for (key, before) in keys().zip(&before) {
        let now = label(&ten, key);
        assert!(now == *before || *before == failed, "only keys of the one that failed move");
        if *before == failed {
            *taken.entry(now).or_insert(0) += 1;
        }
    }
    assert!(taken.len() == 9 && taken.values().all(|count| *count < 60), "to all others: {taken:?}");
}

#[test]
fn requests_without_a_key_go_to_each_in_turn() {
    let upstream = compiled(json!({"balance": {"maglev": {"by": "address"}}, "targets": targets(0..4)}));
    assert_eq!(counts(&upstream, 400), [100; 4]);
}

#[test]
fn a_retry_of_a_key_goes_to_the_same_other_target() {
    let upstream = compiled(json!({"balance": {"maglev": {"by": "address"}}, "targets": targets(0..4)}));
    let order = || {
        let mut choice = Choice::with(&upstream, hashed(5));
        [0; 4].map(|_| place(&upstream, choice.next().unwrap()))
    };
    let mut sorted = order();
    assert_eq!(order(), sorted);
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3]);
}

fn said(upstream: &CompiledUpstream, headers: &[(&'static str, &str)], query: Option<&str>) -> Affinity {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    upstream.binding.as_ref().unwrap().of(&map, query, || [10, 1, 2, 3].into())
}

#[test]
fn a_key_is_what_the_request_says() {
    let by = |by: serde_json::Value| {
        compiled(json!({"balance": {"maglev": {"by": by}}, "targets": targets(0..2)}))
    };
    let header = by(json!({"header": "X-User"}));
    let of = |user: &str| said(&header, &[("x-user", user)], None).hash;
    assert!(of("a").is_some() && of("a") == of("a") && of("a") != of("b"));
    assert_eq!((of(""), said(&header, &[], None).hash), (None, None));
    let cookie = by(json!({"cookie": "sid"}));
    let of = |cookies: &str| said(&cookie, &[("cookie", cookies)], None).hash;
    assert!(of("a=1; sid=2").is_some() && of("sid=2") == of("a=1; sid=2") && of("sid=") == of("a=1"));
    let query = by(json!({"query": "user"}));
    let of = |text: &str| said(&query, &[], Some(text)).hash;
    assert!(of("user=a%20b").is_some() && of("user=a%20b") == of("x&user=a+b") && of("x").is_none());
    assert!(said(&by(json!("address")), &[], None).hash.is_some());
}

#[test]
fn a_cookie_leads_back_to_its_target_on_every_node() {
    let sticky = |more: serde_json::Value| {
        let mut targets = targets(0..4);
        targets.push(more);
        compiled(json!({"sticky": {"cookie": "to"}, "targets": targets}))
    };
    let (here, there) =
        (sticky(json!({"address": "10.0.0.4:80"})), sticky(json!({"address": "10.0.0.5:80", "weight": 9})));
    let choice = Choice::with(&here, Affinity::default());
    let endpoint = &here.endpoints.all()[2];
    let set = choice.cookie(endpoint).unwrap().to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    assert!(!set.contains("10.0.0") && set.ends_with("; Path=/; HttpOnly"), "{set}");
    for upstream in [&here, &there] {
        let affinity = said(upstream, &[("cookie", cookie)], None);
        for _ in 0..20 {
            assert_eq!(label(upstream, affinity), "10.0.0.2:80");
        }
    }
    let affinity = said(&here, &[("cookie", cookie)], None);
    assert_eq!(Choice::with(&here, affinity).cookie(endpoint), None, "it has it");
    eject(&here, 2);
    let mut choice = Choice::with(&here, affinity);
    let other = choice.next().unwrap().endpoint;
    assert!(other.label != endpoint.label && choice.cookie(other).is_some(), "it gets that of another");
}

#[test]
fn a_target_of_weight_0_keeps_its_clients_and_gets_no_others() {
    let upstream = compiled(
        json!({"sticky": {"cookie": "to"}, "targets": [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80", "weight": 0}]}),
    );
    assert_eq!(counts(&upstream, 100), [100, 0]);
    let bound = Affinity { hash: None, bound: Some(1) };
    assert_eq!(label(&upstream, bound), "10.0.0.2:80");
    eject(&upstream, 0);
    assert_eq!(counts(&upstream, 100), [100, 0], "not even when all others are out of use");
}

#[test]
fn later_priorities_get_what_the_first_can_not_bear() {
    let mut targets = targets(0..4);
    targets.extend((4..8).map(|at| json!({"address": format!("10.0.0.{at}:80"), "priority": 1})));
    let first = |upstream: &CompiledUpstream| counts(upstream, 10_000)[..4].iter().sum::<usize>();
    let with = |ejected: usize| {
        let upstream = compiled(json!({"balance": "random", "targets": targets}));
        (0..ejected).for_each(|at| eject(&upstream, at));
        first(&upstream)
    };
    assert_eq!((with(0), with(1)), (10_000, 10_000));
    assert!(with(2).abs_diff(7_000) < 300, "{}", with(2));
    assert!(with(3).abs_diff(3_500) < 300, "{}", with(3));
    assert_eq!(with(4), 0);
    assert!(with(8).abs_diff(5_000) < 300, "{}", with(8));
}

#[test]
fn in_panic_all_get_requests() {
    let with = |ejected: usize| {
        let upstream = compiled(json!({"panic_percent": 50, "targets": targets(0..4)}));
        (0..ejected).for_each(|at| eject(&upstream, at));
        counts(&upstream, 400)
    };
    assert_eq!(with(2), [0, 0, 200, 200]);
    assert_eq!(with(3), [100; 4]);
}

#[test]
fn a_new_target_gets_its_share_little_by_little() {
    let upstream = compiled(json!({"slow_start": "1ms", "targets": targets(0..2)}));
    let since = |at: usize| &upstream.endpoints.all()[at].state.in_use_since_ms;
    since(0).store(0, Relaxed);
    since(1).store(timer::now_ms() + 1_000, Relaxed);
    assert_eq!(counts(&upstream, 100), [100, 0], "it is not its time yet");
    since(1).store(0, Relaxed);
    assert_eq!(counts(&upstream, 100), [50, 50]);
    since(1).store(timer::now_ms() + 1_000, Relaxed);
    eject(&upstream, 0);
    assert_eq!(counts(&upstream, 100), [0, 100], "there is no other");
}
