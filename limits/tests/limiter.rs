//! Limiters by themselves and with peers whose records are carried by hand.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use limits::{Decision, Judged, Limiter, Peer, Pusher, Record, Rule, Scope, Settings};
use proptest::prelude::*;

const NOW_US: u64 = 20_000 * 86_400_000_000;
const KEY: NonZeroU64 = NonZeroU64::new(77).unwrap();

fn limiter(seed: u64) -> (Arc<Limiter>, Pusher) {
    Limiter::new(Settings { keys: 64, shared_keys: 16, peers: 3, seed })
}

fn asks(limiter: &Limiter, key: NonZeroU64, rule: Rule, now_us: u64) -> bool {
    matches!(limiter.acquire(key, rule, 1, now_us, &mut false), Decision::Admit { .. })
}

fn admitted(limiter: &Limiter, rule: Rule, now_us: u64, times: u32) -> u32 {
    (0..times).map(|_| u32::from(asks(limiter, KEY, rule, now_us))).sum()
}

#[test]
fn a_window_has_its_limit_and_the_next_what_is_out_of_sight_of_it() {
    let (limiter, _pusher) = limiter(1);
    let rule = Rule::new(100, 1_000).unwrap();
    assert_eq!(admitted(&limiter, rule, NOW_US, 200), 100);
    assert_eq!(admitted(&limiter, rule, NOW_US + 999_999, 200), 0);
    // A quarter of the window before is out of sight.
    assert_eq!(admitted(&limiter, rule, NOW_US + 1_250_000, 200), 25);
    // Two windows later nothing is left of it.
    assert_eq!(admitted(&limiter, rule, NOW_US + 3_000_000, 200), 100);
}

#[test]
fn whoever_is_refused_is_admitted_when_told_and_not_before() {
    let rule = Rule::new(10, 1_000).unwrap();
    for passed_us in [0, 400_000, 1_000_000, 1_030_000] {
        let (limiter, _pusher) = limiter(1);
        assert_eq!(admitted(&limiter, rule, NOW_US, 10), 10);
        let now_us = NOW_US + passed_us;
        let Decision::Refuse { retry_after_us } = limiter.acquire(KEY, rule, 1, now_us, &mut false) else {
            panic!("it is used up");
        };
        let told_us = now_us + retry_after_us;
        assert!(!asks(&limiter, KEY, rule, told_us - 10_000), "{passed_us}: earlier than told");
        assert!(asks(&limiter, KEY, rule, told_us + 200), "{passed_us}: {retry_after_us}");
    }
}

#[test]
fn a_cost_counts_as_so_many_and_what_is_taken_back_is_free_again() {
    let (limiter, _pusher) = limiter(1);
    let rule = Rule::new(100, 1_000).unwrap();
    let ask = |cost| limiter.acquire(KEY, rule, cost, NOW_US, &mut false);
    assert_eq!(ask(60), Decision::Admit { remaining: 40, is_first: true });
    assert!(matches!(ask(41), Decision::Refuse { .. }));
    limiter.take_back(KEY, rule, 60, NOW_US);
    assert_eq!(ask(100), Decision::Admit { remaining: 0, is_first: true });
}

#[test]
fn what_a_request_turns_out_to_cost_is_counted_even_beyond_the_limit() {
    let (limiter, _pusher) = limiter(1);
    let rule = Rule::new(100, 1_000).unwrap();
    limiter.charge(KEY, rule, 5, NOW_US, &mut false);
    assert_eq!(
        limiter.acquire(KEY, rule, 1, NOW_US, &mut false),
        Decision::Admit { remaining: 99, is_first: true }
    );
    limiter.charge(KEY, rule, 149, NOW_US, &mut false);
    assert!(!asks(&limiter, KEY, rule, NOW_US));
    // In the next window as much is left as is out of sight of what was counted: 100 of 150.
    assert!(!asks(&limiter, KEY, rule, NOW_US + 1_300_000));
    assert!(asks(&limiter, KEY, rule, NOW_US + 1_350_000));
}

#[test]
fn who_is_cut_off_has_a_part_or_all_of_a_limit_by_its_scope() {
    let of_scope = |scope| {
        let (limiter, _pusher) = limiter(1);
        limiter.set_nodes(1, 0.25);
        assert!(limiter.is_cut_off());
        admitted(&limiter, Rule::new(100, 1_000).unwrap().within(scope), NOW_US, 200)
    };
    assert_eq!((of_scope(Scope::Cluster), of_scope(Scope::Reachable), of_scope(Scope::Node)), (25, 100, 100));
}

#[test]
fn what_a_node_has_by_itself_is_told_to_nobody() {
    let (limiter, mut pusher) = limiter(1);
    limiter.set_nodes(3, 1.0);
    let rule = Rule::new(100, 1_000).unwrap().within(Scope::Node);
    pusher.receive(0, &heard(window_of(rule), 90), NOW_US);
    assert_eq!(admitted(&limiter, rule, NOW_US, 200), 100);
    assert_eq!(told(&mut pusher, NOW_US + 300_000), []);
}

#[test]
fn people_see_who_has_used_how_much_and_what_was_too_much() {
    let (limiter, mut pusher) = limiter(1);
    assert_eq!((limiter.usage(NOW_US).count(), pusher.judged()), (0, Judged::default()));
    limiter.set_nodes(2, 1.0);
    let rule = Rule::new(10, 1_000).unwrap();
    assert_eq!(admitted(&limiter, rule, NOW_US, 12), 10);
    pusher.poll(NOW_US, |_| ());
    pusher.receive(1, &heard(window_of(rule), 3), NOW_US);
    let usage: Vec<_> = limiter.usage(NOW_US + 1_000).collect();
    assert_eq!(usage.len(), 1);
    assert_eq!((usage[0].key, usage[0].rule, usage[0].remaining), (KEY, rule, 0));
    assert_eq!((usage[0].admitted, usage[0].refused, usage[0].admitted_by_all()), (10, 2, 13));
    assert_eq!(usage[0].peers, [Peer { number: 1, admitted: 3 }]);
    assert_eq!(usage[0].used(), 1.0);
    pusher.poll(NOW_US + 1_050_000, |_| ());
    assert_eq!(pusher.judged(), Judged::default(), "more of it may be heard");
    for passed_us in [1_150_000, 1_250_000] {
        pusher.poll(NOW_US + passed_us, |_| ());
        assert_eq!(pusher.judged(), Judged { admitted: 13, over: 3 }, "it is told once");
    }
}

#[test]
fn another_limit_of_a_key_keeps_its_count() {
    let (limiter, _pusher) = limiter(1);
    assert_eq!(admitted(&limiter, Rule::new(100, 1_000).unwrap(), NOW_US, 80), 80);
    assert_eq!(admitted(&limiter, Rule::new(90, 1_000).unwrap(), NOW_US + 10, 80), 10);
    assert_eq!(admitted(&limiter, Rule::new(120, 1_000).unwrap(), NOW_US + 20, 80), 30);
}

#[test]
fn threads_admit_no_more_than_one_would() {
    let (limiter, _pusher) = limiter(1);
    let rule = Rule::new(10_000, 1_000).unwrap();
    let sum: u32 = std::thread::scope(|scope| {
        let asking = [(); 4].map(|()| scope.spawn(|| admitted(&limiter, rule, NOW_US, 5_000)));
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(sum, 10_000);
}

#[test]
fn more_keys_than_there_is_room_for_have_their_limits_all_the_same() {
    let (limiter, _pusher) = Limiter::new(Settings { keys: 8, shared_keys: 0, peers: 0, seed: 1 });
    let rule = Rule::new(10, 60_000).unwrap();
    // Each of them has used up its limit, so that none gives way.
    for key in 1..=200_u64 {
        let key = NonZeroU64::new(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
        let admitted = (0..20).filter(|_| asks(&limiter, key, rule, NOW_US)).count();
        assert_eq!(admitted, 10, "key {key}");
        assert!(!asks(&limiter, key, rule, NOW_US + 1));
    }
}

/// What this limiter has its peers told now.
fn told(pusher: &mut Pusher, now_us: u64) -> Vec<Record> {
    let mut records = Vec::new();
    pusher.poll(now_us, |record| records.push(record));
    records
}

#[test]
fn what_a_peer_has_used_is_gone_here_too_in_whatever_order_it_is_heard() {
    let rule = Rule::new(100, 60_000).unwrap();
    let (peer, mut pusher) = limiter(2);
    peer.set_nodes(2, 1.0);
    let mut records = Vec::new();
    for request in 0..60 {
        let now_us = NOW_US + request * 10_000;
        assert!(asks(&peer, KEY, rule, now_us));
        records.extend(told(&mut pusher, now_us));
    }
    let used = records.last().expect("it tells").current;
    assert!(used > 50, "{used}");
    let late_us = NOW_US + 5_000_000;
    let left = |order: &[Record]| {
        let (limiter, mut pusher) = limiter(3);
        limiter.set_nodes(2, 1.0);
        for record in order {
            pusher.receive(0, record, NOW_US + 700_000);
        }
        admitted(&limiter, rule, late_us, 200)
    };
    let forward = left(&records);
    assert_eq!(forward, 100 - used);
    let backward: Vec<Record> = records.iter().rev().copied().collect();
    assert_eq!(left(&backward), forward);
    assert_eq!(left(&[records.clone(), records].concat()), forward);
}

fn window_of(rule: Rule) -> u32 {
    u32::try_from(NOW_US / 1_000 / u64::from(rule.window_ms())).expect("a window of a second or so")
}

fn heard(window: u32, current: u32) -> Record {
    Record { key: KEY, window, current, previous: 0, admitted_rate: 0.0, asked_rate: 0.0 }
}

/// The number of the window of a minute at [`NOW_US`].
const MINUTE: u32 = 28_800_000;

#[test]
fn a_peer_that_is_forgotten_counts_no_more() {
    let rule = Rule::new(100, 60_000).unwrap();
    let (limiter, mut pusher) = limiter(1);
    limiter.set_nodes(2, 1.0);
    pusher.receive(2, &heard(MINUTE, 90), NOW_US);
    assert_eq!(admitted(&limiter, rule, NOW_US, 20), 10);
    pusher.forget(2);
    assert_eq!(admitted(&limiter, rule, NOW_US + 10_000, 200), 90);
}

#[test]
fn a_peer_whose_clock_was_wrong_is_heard_again() {
    let rule = Rule::new(100, 60_000).unwrap();
    let (limiter, mut pusher) = limiter(1);
    limiter.set_nodes(2, 1.0);
    // An hour ahead it says nothing of this window; set right, it does.
    pusher.receive(0, &heard(MINUTE + 60, 50), NOW_US);
    assert_eq!(admitted(&limiter, rule, NOW_US, 10), 10);
    pusher.receive(0, &heard(MINUTE, 80), NOW_US + 2_000);
    assert_eq!(admitted(&limiter, rule, NOW_US + 10_000, 200), 10);
}

#[test]
fn a_clock_that_is_set_back_stops_neither_decisions_nor_pushes() {
    let rule = Rule::new(100, 1_000).unwrap();
    let (limiter, mut pusher) = limiter(1);
    limiter.set_nodes(2, 1.0);
    let ahead_us = NOW_US + 3_600_000_000;
    assert_eq!(admitted(&limiter, rule, ahead_us, 100), 100);
    assert!(!told(&mut pusher, ahead_us).is_empty());
    // An hour earlier the window is another: its limit is whole, and peers are told of it.
    assert!(admitted(&limiter, rule, NOW_US, 200) >= 50);
    let records = told(&mut pusher, NOW_US + 1_000);
    assert_eq!(records.last().map(|record| record.window), Some(1_728_000_000));
}

#[test]
fn keys_that_peers_cannot_be_told_of_have_their_even_part() {
    let (limiter, mut pusher) = Limiter::new(Settings { keys: 64, shared_keys: 1, peers: 3, seed: 1 });
    limiter.set_nodes(4, 1.0);
    let rule = Rule::new(100, 60_000).unwrap();
    let admitted = |key: u64, pusher: &mut Pusher| {
        let key = NonZeroU64::new(key).unwrap();
        let ask = |request: u64| {
            let now_us = NOW_US + request * 10_000;
            let is_admitted = asks(&limiter, key, rule, now_us);
            told(pusher, now_us);
            u32::from(is_admitted)
        };
        (0..200).map(ask).sum::<u32>()
    };
    assert_eq!(admitted(1, &mut pusher), 100);
    assert_eq!(admitted(2, &mut pusher), 25);
}

#[test]
fn a_clock_that_is_a_little_behind_another_thread_s_does_not_bring_a_window_back() {
    let (limiter, _pusher) = limiter(1);
    let rule = Rule::new(100, 1_000).unwrap();
    assert_eq!(admitted(&limiter, rule, NOW_US + 900_000, 200), 100);
    assert_eq!(admitted(&limiter, rule, NOW_US + 1_010_000, 10), 1);
    // A thread that read its clock before the edge.
    assert_eq!(admitted(&limiter, rule, NOW_US + 999_000, 200), 0);
    assert_eq!(admitted(&limiter, rule, NOW_US + 1_500_000, 200), 49);
}

#[test]
fn threads_whose_clocks_differ_keep_to_the_limit_across_edges_of_windows() {
    let (limiter, mut pusher) = limiter(1);
    limiter.set_nodes(2, 1.0);
    let rule = Rule::new(1_000, 1_000).unwrap();
    let (clock_us, together) = (AtomicU64::new(NOW_US), std::sync::Barrier::new(3));
    let sum: u32 = std::thread::scope(|scope| {
        let (clock_us, together) = (&clock_us, &together);
        scope.spawn(move || {
            while clock_us.load(Relaxed) != u64::MAX {
                pusher.poll(clock_us.load(Relaxed).min(NOW_US + 8_000_000), |_| ());
            }
        });
        let asking = [0, 1_000, 300].map(|behind_us: u64| {
            let limiter = &limiter;
            scope.spawn(move || {
                let ask = |step: u64| {
                    // However busy the machine is, they are less than a window from each other.
                    if step.is_multiple_of(1_000) {
                        together.wait();
                    }
                    let now_us = NOW_US + 1_000_000 + step * 100 - behind_us;
                    clock_us.store(now_us, Relaxed);
                    u32::from(asks(limiter, KEY, rule, now_us))
                };
                (0..70_000).map(ask).sum::<u32>()
            })
        });
        let sum = asking.into_iter().map(|thread| thread.join().unwrap()).sum();
        clock_us.store(u64::MAX, Relaxed);
        sum
    });
    // Seven windows, and what their last requests let out of sight.
    assert!((6_900..=7_200).contains(&sum), "{sum}");
}

proptest! {
    /// Whatever comes when, of a node alone: no more than the limit in any window, with what is in sight of the one before.
    #[test]
    fn alone_it_never_admits_too_much(limit in 1_u32..500, window_ms in 1_u32..2_000, steps in prop::collection::vec((0_u64..300_000, 1_u32..40), 1..200)) {
        let (limiter, _pusher) = limiter(1);
        let (rule, mut now_us) = (Rule::new(limit, window_ms).unwrap(), NOW_US);
        let window_us = u64::from(window_ms) * 1_000;
        let mut admitted = std::collections::HashMap::<u64, u32>::new();
        for (pause_us, requests) in steps {
            now_us += pause_us;
            let window = now_us / window_us;
            for _ in 0..requests {
                if asks(&limiter, KEY, rule, now_us) {
                    *admitted.entry(window).or_default() += 1;
                    let before = admitted.get(&(window - 1)).copied().unwrap_or_default();
                    let gone = (now_us % window_us) as f64 / window_us as f64;
                    let in_sight = f64::from(admitted[&window]) + f64::from(before) * (1.0 - gone);
                    // Moments are known to 128 µs, in which this much of the window before goes out of sight.
                    let blur = 1e-3 + f64::from(before) * 128.0 / window_us as f64;
                    prop_assert!(in_sight <= f64::from(limit) + blur, "{in_sight} of {limit}");
                }
            }
        }
    }

    /// Whatever peers say, however wrong, this node admits no more than its limit in a window, and goes on two windows later.
    #[test]
    fn whatever_peers_say_is_borne(records in prop::collection::vec((1_u64..5, -2_i32..3, any::<u32>(), any::<u32>(), prop::num::f32::ANY, prop::num::f32::ANY, 0_usize..5), 1..50)) {
        let (limiter, mut pusher) = limiter(1);
        limiter.set_nodes(3, 1.0);
        let rule = Rule::new(100, 60_000).unwrap();
        let (mut now_us, mut sum) = (NOW_US, 0);
        for (key, shift, current, previous, admitted_rate, asked_rate, peer) in records {
            now_us += 1_000;
            let (key, window) = (NonZeroU64::new(key).unwrap(), MINUTE.wrapping_add_signed(shift));
            pusher.receive(peer, &Record { key, window, current, previous, admitted_rate, asked_rate }, now_us);
            sum += admitted(&limiter, rule, now_us, 5);
            told(&mut pusher, now_us);
        }
        prop_assert!(sum <= 101, "{sum}");
        let later_us = now_us + 240_000_000;
        told(&mut pusher, later_us);
        prop_assert!(admitted(&limiter, rule, later_us, 100) >= 1);
    }
}
