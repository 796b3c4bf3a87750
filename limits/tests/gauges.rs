//! Requests in flight under a limit, on one node and on several whose records take their time.

use std::{
    collections::{BinaryHeap, VecDeque},
    num::NonZeroU64,
    sync::Arc,
};

use limits::{Acquired, GaugePusher, GaugeRecord, Gauges, InFlight, Permit, Scope};

const KEY: NonZeroU64 = NonZeroU64::new(0xABCD_1234_5678_0000).unwrap();
const START_US: u64 = 20_000 * 86_400_000_000;

fn in_flight(limit: u32, scope: Scope) -> InFlight {
    InFlight::new(limit, scope).expect("so many there may be")
}

fn permits(gauges: &Arc<Gauges>, limit: InFlight, times: u32) -> Vec<Permit> {
    let ask = |_| match gauges.acquire(KEY, limit, &mut false) {
        Some(Acquired::Counted(permit)) => Some(permit),
        // Another thread is just taking the slot, and was held.
        Some(Acquired::Uncounted) | None => None,
    };
    (0..times).filter_map(ask).collect()
}

#[test]
fn a_node_has_as_many_as_it_may_and_what_is_given_back_is_free_again() {
    let (gauges, mut pusher) = Gauges::new(64);
    let limit = in_flight(10, Scope::Node);
    let mut held = permits(&gauges, limit, 20);
    assert_eq!(held.len(), 10);
    held.truncate(4);
    assert_eq!(permits(&gauges, limit, 20).len(), 6);
    let usage = gauges.usage().next().unwrap();
    assert_eq!((usage.key, usage.in_flight, usage.others, usage.refused), (KEY, 4, 0, 24));
    drop(held);
    // What nobody uses is let go of.
    assert_eq!(gauges.usage().count(), 0);
    for passed_us in [0, 100_000, 200_000, 300_000] {
        pusher.poll(START_US + passed_us, |_| panic!("it is the node's own business"));
    }
    assert_eq!(pusher.poll(START_US + 400_000, |_| ()), None);
    assert_eq!(permits(&gauges, limit, 20).len(), 10);
}

#[test]
fn alone_a_node_has_all_of_a_limit_once_it_has_looked() {
    let (gauges, mut pusher) = Gauges::new(64);
    let limit = in_flight(64, Scope::Cluster);
    let held = permits(&gauges, limit, 100);
    pusher.poll(START_US, |_| panic!("there is nobody to be told"));
    assert_eq!(held.len() + permits(&gauges, limit, 100).len(), 64);
}

#[test]
fn who_is_cut_off_has_its_part() {
    for (scope, may) in [(Scope::Cluster, 10), (Scope::Reachable, 30)] {
        let (gauges, mut pusher) = Gauges::new(64);
        pusher.set_nodes(1, 1, 1.0 / 3.0);
        let held = permits(&gauges, in_flight(30, scope), 1);
        pusher.poll(START_US, |_| ());
        assert_eq!(held.len() + permits(&gauges, in_flight(30, scope), 50).len(), may);
    }
}

#[test]
fn more_keys_than_there_is_room_for_are_let_through() {
    let (gauges, _pusher) = Gauges::new(16);
    let ask = |number: u64| {
        let key = NonZeroU64::new(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
        gauges.acquire(key, in_flight(1, Scope::Node), &mut false).unwrap()
    };
    let got: Vec<_> = (1..=100).map(ask).collect();
    let counted = got.iter().filter(|one| matches!(one, Acquired::Counted(_))).count();
    assert!((12..=16).contains(&counted), "{counted}");
}

#[test]
fn threads_never_have_more_than_there_may_be() {
    let (gauges, mut pusher) = Gauges::new(64);
    let limit = in_flight(8, Scope::Node);
    let most = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let held = permits(&gauges, limit, 3);
                    let now = gauges.usage().map(|usage| usage.in_flight).sum();
                    most.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
                    drop(held);
                }
            });
        }
        for step in 0..2_000 {
            pusher.poll(START_US + step * 60_000, |_| ());
        }
    });
    assert!(most.into_inner() <= 8);
    assert_eq!(gauges.usage().count(), 0);
}

/// One simulated node.
struct Node {
    gauges: Arc<Gauges>,
    pusher: GaugePusher,
    /// What is in flight, by when it ends.
    running: VecDeque<(u64, Permit)>,
    next_poll_us: u64,
}

/// A cluster that is asked for `asked` requests a millisecond, each of which takes 20 ms, by shares in percent.
struct Outcome {
    most: usize,
    mean: f64,
    records: usize,
}

fn simulate(limit: u32, shares: &[u64], asked: u64, ms: u64) -> Outcome {
    let limit = in_flight(limit, Scope::Cluster);
    let mut nodes: Vec<Node> = (0..shares.len())
        .map(|me| {
            let (gauges, mut pusher) = Gauges::new(64);
            pusher.set_nodes(me as u64, u32::try_from(shares.len()).expect("a few"), 1.0);
            Node { gauges, pusher, running: VecDeque::new(), next_poll_us: u64::MAX }
        })
        .collect();
    let mut flying = BinaryHeap::<std::cmp::Reverse<(u64, usize, usize, NonZeroU64, u32, bool)>>::new();
    let (mut dice, mut most, mut sum, mut records) = (1_u64, 0, 0.0, 0);
    let mut roll = move |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    let warm_up = ms / 4;
    for tick in 0..ms * 10 {
        let now_us = START_US + tick * 100;
        while flying.peek().is_some_and(|next| next.0.0 <= now_us)
            && let Some(std::cmp::Reverse((_, to, from, key, in_flight, wants))) = flying.pop()
        {
            let record = GaugeRecord { key, in_flight, wants };
            nodes[to].pusher.receive(from as u64, &record, now_us);
            nodes[to].next_poll_us = now_us;
        }
        for at in 0..nodes.len() {
            let mut is_due = nodes[at].next_poll_us <= now_us;
            while nodes[at].running.front().is_some_and(|(ends_us, _)| *ends_us <= now_us) {
                nodes[at].running.pop_front();
            }
            for _ in 0..asked {
                if roll(1_000) < shares[at] {
                    let node = &mut nodes[at];
                    if let Some(Acquired::Counted(permit)) = node.gauges.acquire(KEY, limit, &mut is_due) {
                        node.running.push_back((now_us + 20_000, permit));
                    }
                }
            }
            if is_due {
                let mut told = Vec::new();
                let node = &mut nodes[at];
                node.next_poll_us = node.pusher.poll(now_us, |record| told.push(record)).unwrap_or(u64::MAX);
                for (record, to) in
                    told.iter().flat_map(|record| (0..shares.len()).map(move |to| (record, to)))
                {
                    records += usize::from(to != at);
                    if to != at && roll(100) > 0 {
                        let at_us = now_us + 300 + roll(1_200);
                        let GaugeRecord { key, in_flight, wants } = *record;
                        flying.push(std::cmp::Reverse((at_us, to, at, key, in_flight, wants)));
                    }
                }
            }
        }
        if tick > warm_up * 10 {
            let now = nodes.iter().map(|node| node.running.len()).sum();
            most = most.max(now);
            sum += now as f64;
        }
    }
    Outcome { most, mean: sum / (ms * 10 - warm_up * 10) as f64, records }
}

#[test]
fn nodes_share_what_may_be_in_flight() {
    // In each tenth of a millisecond so many clients ask, of whom each node has its share in thousandths.
    for (limit, shares, asked) in [
        (50, &[300, 300, 300][..], 10),
        (50, &[900, 50, 50], 10),
        (10, &[300, 300, 300], 3),
        (500, &[300, 300, 300], 40),
        (100, &[100; 10], 10),
    ] {
        let outcome = simulate(limit, shares, asked, 2_000);
        let Outcome { most, mean, records } = outcome;
        println!("{limit} by {shares:?}: most {most}, mean {mean:.1}, {records} records in 2 s");
        assert!(most as f64 <= f64::from(limit) * 1.15 + 2.0, "{limit} {shares:?}: {most}");
        assert!(mean >= f64::from(limit) * 0.75 - 1.0, "{limit} {shares:?}: {mean}");
    }
}
