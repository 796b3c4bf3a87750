//! What is chosen: shares, what is passed over, and what each strategy looks at.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use model::Name;
use serde_json::json;

use super::*;
use crate::{names::Names, timer};

const STRATEGIES: [&str; 4] = ["round_robin", "random", "least_requests", "p2c"];

fn upstream(balance: &str, weights: &[u16]) -> CompiledUpstream {
    timer::refresh();
    let targets: Vec<_> = (weights.iter().enumerate())
        .map(|(at, weight)| json!({"address": format!("10.0.0.{at}:80"), "weight": weight}))
        .collect();
    let spec = serde_json::from_value(json!({"balance": balance, "targets": targets})).unwrap();
    CompiledUpstream::compile(&Name::new("u").unwrap(), &Arc::new(spec), None, &Names::new().0).unwrap()
}

/// The place of an endpoint in its upstream.
fn place(upstream: &CompiledUpstream, picked: Picked<'_>) -> usize {
    upstream.endpoints.all().iter().position(|endpoint| std::ptr::eq(endpoint, picked.endpoint)).unwrap()
}

/// How many of so many requests go to each.
fn counts(upstream: &CompiledUpstream, requests: usize) -> Vec<usize> {
    let mut counts = vec![0; upstream.endpoints.all().len()];
    for _ in 0..requests {
        counts[place(upstream, Choice::new(upstream).next().unwrap())] += 1;
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
            let mut choice = Choice::new(&upstream);
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
fn an_upstream_may_have_none_or_one() {
    for balance in STRATEGIES {
        let (none, one) = (upstream(balance, &[0]), upstream(balance, &[1]));
        assert!(Choice::new(&none).next().is_none());
        let mut choice = Choice::new(&one);
        assert_eq!([choice.next().unwrap().again, choice.next().unwrap().again], [false, true]);
    }
}

#[test]
fn least_requests_are_sent_where_fewer_are_in_flight_for_the_weight() {
    let upstream = upstream("least_requests", &[1, 1, 1]);
    let held: Vec<Load> = (0..300)
        .map(|_| Load::begin(&upstream.spec.balance, Choice::new(&upstream).next().unwrap().endpoint))
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
        .map(|_| Load::begin(&two.spec.balance, Choice::new(&two).next().unwrap().endpoint))
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
    let first = Choice::new(&upstream).next().unwrap().endpoint;
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
