//! What a decision costs: nanoseconds by threads and keys, the best of several rounds, and bytes a key.
//!
//! `cargo run --release -p limits --example cost`

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use limits::{Limiter, Rule, Settings};

const NOW_US: u64 = 20_000 * 86_400_000_000;
const ROUNDS: usize = 15;
const DECISIONS: u64 = 2_000_000;

fn main() {
    for keys in [1_u64, 100_000, 1_000_000] {
        let before = resident_bytes();
        let settings = Settings { keys: 1_000_000, shared_keys: 10_000, peers: 2, seed: 1 };
        let (limiter, _pusher) = Limiter::new(settings);
        limiter.set_nodes(3, 1.0);
        let rule = Rule::new(1 << 29, 60_000).expect("it is one");
        (0..keys).for_each(|number| {
            limiter.acquire(digest(number), rule, 1, NOW_US, &mut false);
        });
        let used = resident_bytes().saturating_sub(before);
        for threads in [1, 2] {
            let best = (0..ROUNDS).map(|_| round(&limiter, rule, keys, threads)).min().unwrap_or_default();
            let ns = best.as_nanos() as f64 / DECISIONS as f64;
            println!("{keys} keys, {threads} threads: {ns:.0} ns a decision, {} MB", used / 1_000_000);
        }
    }
}

/// The longest that a thread took which made so many decisions.
fn round(limiter: &Limiter, rule: Rule, keys: u64, threads: u64) -> Duration {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let (began, mut number) = (Instant::now(), thread * 7_919);
                    for decision in 0..DECISIONS {
                        // Keys in no order, and a clock that is read for every hundredth, as a worker's is.
                        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                        let now_us = NOW_US + decision / 100;
                        limiter.acquire(digest((number >> 33) % keys), rule, 1, now_us, &mut false);
                    }
                    began.elapsed()
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).max().unwrap_or_default()
    })
}

fn digest(number: u64) -> NonZeroU64 {
    NonZeroU64::new((number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).expect("it is odd times what is not 0")
}

/// What this process has in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1_024
}
