//! Which target is next, by each strategy, among 3 and 100.
#![allow(missing_docs, reason = "made by a macro")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::benching;
use model::Kind;
use phalanx_bench::{headers, plan};
use serde_json::json;

fn choose(c: &mut Criterion) {
    let headers = headers();
    for count in [3, 100] {
        let targets: Vec<_> = (1..=count)
            .map(|at| json!({"address": format!("10.0.0.{at}:80"), "weight": at % 3 + 1}))
            .collect();
        for (what, balance) in [
            ("round_robin", json!("round_robin")),
            ("least_requests", json!("least_requests")),
            ("p2c", json!("p2c")),
            ("maglev", json!({"maglev": {"by": {"header": "x-trace"}}})),
        ] {
            let plan = plan([(Kind::Upstream, "u", json!({"balance": balance, "targets": targets}))]);
            let upstream = plan.upstream(&"u".parse().expect("a name")).expect("an upstream");
            assert!(benching::choose(upstream, &headers).is_some(), "{what}");
            c.bench_function(&format!("choose/{what}/{count}"), |b| {
                b.iter(|| benching::choose(black_box(upstream), black_box(&headers)));
            });
        }
    }
}

criterion_group!(benches, choose);
criterion_main!(benches);
