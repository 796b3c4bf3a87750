//! Finding the route of a request among 10, 10,000 and 100,000, and making its path normal.
#![allow(missing_docs, reason = "made by a macro")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway::{path, plan::Head};
use http::{HeaderMap, Method};
use phalanx_bench::{headers, host, routes};

fn route(c: &mut Criterion) {
    let (headers, none) = (headers(), HeaderMap::new());
    for count in [10, 10_000, 100_000] {
        let plan = routes(count);
        let middle = count / 20;
        let (host, at) = (host(middle), middle * 10);
        for (what, path, headers) in [
            ("prefix", format!("/service-{}/v1/orders/17/lines", at + 3), &headers),
            ("exact", format!("/service-{}/v1/status", at + 6), &headers),
            ("template", format!("/service-{}/items/17", at + 9), &headers),
            ("fallback", "/anything/else".to_owned(), &none),
        ] {
            let head = Head { method: &Method::GET, host: &host, path: &path, query: None, headers };
            assert!(plan.route(&head).is_some(), "{what}");
            c.bench_function(&format!("route/{what}/{count}"), |b| b.iter(|| plan.route(black_box(&head))));
        }
        let head =
            Head { method: &Method::GET, host: "nobody.example", path: "/", query: None, headers: &none };
        assert!(plan.route(&head).is_none());
        c.bench_function(&format!("route/none/{count}"), |b| b.iter(|| plan.route(black_box(&head))));
    }
}

fn normalise(c: &mut Criterion) {
    for (what, path) in [
        ("normal", "/orders/2026/11/29/lines"),
        ("escapes", "/orders/caf%C3%A9/a%20b"),
        ("to_decode", "/%6Frders/%7Euser/./a//b/../c"),
    ] {
        c.bench_function(&format!("normalise/{what}"), |b| b.iter(|| path::normalise(black_box(path))));
    }
}

criterion_group!(benches, route, normalise);
criterion_main!(benches);
