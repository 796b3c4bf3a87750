//! Periods of a calendar: they do not slide, and what was used of them is known across starts.

use std::{num::NonZeroU64, sync::Arc};

use limits::{Decision, Limiter, Pusher, Record, Rule, Settings, Settled};

const NOW_US: u64 = 20_000 * 86_400_000_000;
const KEY: NonZeroU64 = NonZeroU64::new(77).unwrap();
const PERIOD: u32 = 480_000;

fn limiter() -> (Arc<Limiter>, Pusher) {
    let (limiter, pusher) = Limiter::new(Settings { keys: 64, shared_keys: 16, peers: 3, seed: 1 });
    limiter.set_nodes(2, 1.0);
    (limiter, pusher)
}

fn rule(limit: u32, period: u32) -> Rule {
    Rule::of_period(limit, period).expect("it is one")
}

fn admitted(limiter: &Limiter, rule: Rule, now_us: u64, times: u32) -> u32 {
    let ask = || limiter.acquire(KEY, rule, 1, now_us, &mut false);
    (0..times).map(|_| u32::from(matches!(ask(), Decision::Admit { .. }))).sum()
}

fn heard(period: u32, current: u32) -> Record {
    Record { key: KEY, window: period, current, previous: 0, admitted_rate: 0.0, asked_rate: 0.0 }
}

#[test]
fn a_period_has_its_limit_and_the_next_all_of_it() {
    let (limiter, _pusher) = limiter();
    let (first, next) = (rule(10, PERIOD), rule(10, PERIOD + 24));
    assert_eq!(admitted(&limiter, first, NOW_US, 20), 10);
    assert_eq!(admitted(&limiter, first, NOW_US + 3_600_000_000, 20), 0);
    assert_eq!(admitted(&limiter, next, NOW_US + 7_200_000_000, 20), 10);
    // A thread whose clock is a little behind does not bring the period back.
    assert_eq!(admitted(&limiter, first, NOW_US + 7_199_000_000, 20), 0);
    assert_eq!(admitted(&limiter, next, NOW_US + 7_201_000_000, 20), 0);
    // A limit that becomes larger goes on from what was used.
    assert_eq!(admitted(&limiter, rule(13, PERIOD + 24), NOW_US + 7_202_000_000, 20), 3);
}

#[test]
fn what_was_used_before_a_start_counts() {
    let (limiter, mut pusher) = limiter();
    pusher.seed(
        KEY,
        PERIOD,
        &[Settled { peer: None, used: 6 }, Settled { peer: Some(1), used: 1 }],
        &[],
        NOW_US,
    );
    assert_eq!(admitted(&limiter, rule(10, PERIOD), NOW_US, 20), 3);
    let known: Vec<_> = limiter.periods(NOW_US).collect();
    assert_eq!((known[0].limit, known[0].admitted, known[0].base, known[0].sum()), (Some(10), 3, 7, 10));
    // What is said anew takes the place of what was said; of a period that is over nothing is heard.
    pusher.seed(KEY, PERIOD, &[Settled { peer: None, used: 5 }], &[], NOW_US);
    pusher.seed(KEY, PERIOD - 24, &[Settled { peer: None, used: 90 }], &[], NOW_US);
    assert_eq!(admitted(&limiter, rule(10, PERIOD), NOW_US + 10_000, 20), 2);
}

#[test]
fn what_a_peer_says_and_what_was_agreed_on_of_it_is_counted_once() {
    let (limiter, mut pusher) = limiter();
    assert_eq!(admitted(&limiter, rule(20, PERIOD), NOW_US, 2), 2);
    pusher.receive(1, &heard(PERIOD, 4), NOW_US);
    assert_eq!(pusher.take_unseeded(), [KEY], "it has got a place for what peers say");
    let sum = || limiter.periods(NOW_US).next().map(|known| known.sum());
    assert_eq!(sum(), Some(6));
    // What was agreed on is older than what was heard, and then newer.
    pusher.seed(
        KEY,
        PERIOD,
        &[Settled { peer: Some(1), used: 3 }, Settled { peer: None, used: 5 }],
        &[],
        NOW_US,
    );
    assert_eq!(sum(), Some(11));
    pusher.seed(
        KEY,
        PERIOD,
        &[Settled { peer: Some(1), used: 9 }, Settled { peer: None, used: 5 }],
        &[],
        NOW_US,
    );
    assert_eq!(sum(), Some(16));
    pusher.receive(1, &heard(PERIOD - 24, 1_000), NOW_US);
    assert_eq!(sum(), Some(16), "of a period that is over nothing is heard");
    assert_eq!(admitted(&limiter, rule(20, PERIOD), NOW_US + 20_000, 20), 4);
    // At rest it gives its place back, and is to be seeded without one.
    for ms in 1..400 {
        pusher.poll(NOW_US + 20_000 + ms * 50_000, |_| ());
    }
    assert_eq!(pusher.take_unseeded(), [KEY]);
    pusher.seed(
        KEY,
        PERIOD,
        &[Settled { peer: Some(1), used: 9 }, Settled { peer: None, used: 5 }],
        &[],
        NOW_US,
    );
    assert_eq!(sum(), Some(20));
    assert_eq!(admitted(&limiter, rule(20, PERIOD), NOW_US + 30_000_000, 20), 0);
}

#[test]
fn keys_of_a_period_stay_until_it_is_over() {
    let (limiter, _pusher) = Limiter::new(Settings { keys: 16, shared_keys: 2, peers: 1, seed: 1 });
    let key = |number: u64| {
        NonZeroU64::new(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).expect("it is odd times what is not 0")
    };
    for number in 1..=200 {
        limiter.acquire(key(number), rule(5, PERIOD), 1, NOW_US, &mut false);
    }
    let kept = limiter.periods(NOW_US).count();
    // Half of the table, so that there is room for others.
    assert_eq!(kept, 12);
    limiter.end_periods(|_, period| period < PERIOD);
    assert_eq!(limiter.periods(NOW_US).count(), kept);
    limiter.end_periods(|_, period| period == PERIOD);
    assert_eq!(limiter.periods(NOW_US).count(), 0);
}

#[test]
fn what_is_not_agreed_on_keeps_its_place() {
    let (limiter, mut pusher) = limiter();
    assert_eq!(admitted(&limiter, rule(20, PERIOD), NOW_US, 1), 1);
    pusher.receive(1, &heard(PERIOD, 4), NOW_US);
    pusher.take_unseeded();
    let poll = |pusher: &mut Pusher, seconds: std::ops::Range<u64>| {
        for at in seconds.start * 20..seconds.end * 20 {
            pusher.poll(NOW_US + at * 50_000, |_| ());
        }
    };
    poll(&mut pusher, 0..40);
    assert_eq!(pusher.take_unseeded(), [], "what the peer said is known here alone");
    pusher.seed(KEY, PERIOD, &[Settled { peer: Some(1), used: 4 }], &[], NOW_US + 40_000_000);
    poll(&mut pusher, 40..45);
    assert_eq!(pusher.take_unseeded(), [KEY], "now it is agreed on");
    // A start that is too long ago to be told apart counts with the others, and not by itself as well.
    pusher.receive(1, &heard(PERIOD, 4), NOW_US + 46_000_000);
    pusher.seed(KEY, PERIOD, &[Settled { peer: None, used: 4 }], &[1], NOW_US + 46_000_000);
    assert_eq!(limiter.periods(NOW_US).next().map(|known| known.sum()), Some(5));
}

#[test]
fn who_is_cut_off_has_its_part_of_what_others_have_left_of_a_period() {
    let (limiter, mut pusher) = limiter();
    pusher.seed(KEY, PERIOD, &[Settled { peer: None, used: 60 }], &[], NOW_US);
    limiter.set_nodes(1, 0.5);
    assert_eq!(admitted(&limiter, rule(100, PERIOD), NOW_US, 100), 20);
}
