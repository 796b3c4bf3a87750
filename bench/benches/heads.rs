//! Heads of HTTP/1.1: reading a request's, cleaning its headers, writing a response's.
#![allow(missing_docs, reason = "made by a macro")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gateway::benching::{self, RequestHeads};
use http::{HeaderMap, HeaderName, HeaderValue};
use phalanx_bench::{LINES, headers};

fn read(c: &mut Criterion) {
    let small = "GET /orders/17 HTTP/1.1\r\nHost: api.shop.example\r\n\r\n".to_owned();
    let lines: String = LINES.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let browser = format!("GET /orders/17?full=1 HTTP/1.1\r\n{lines}\r\n");
    for (what, head) in [("small", small), ("browser", browser)] {
        let mut heads = RequestHeads::new();
        c.bench_function(&format!("request_head/{what}"), |b| {
            b.iter(|| black_box(heads.read(black_box(head.as_bytes())).expect("a head")));
        });
    }
}

fn clean(c: &mut Criterion) {
    let peer = HeaderValue::from_static("192.0.2.7");
    let claims = {
        let mut headers = headers();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9"));
        headers.insert("connection", HeaderValue::from_static("keep-alive, x-trace"));
        headers
    };
    for (what, headers) in [("browser", headers()), ("claims", claims)] {
        c.bench_function(&format!("clean_request/{what}"), |b| {
            b.iter_batched_ref(
                || headers.clone(),
                |headers| benching::clean_request(black_box(headers), &peer),
                BatchSize::SmallInput,
            );
        });
    }
    let response = response_headers();
    c.bench_function("clean_response", |b| {
        b.iter_batched_ref(
            || response.clone(),
            |headers| benching::clean_response(black_box(headers)),
            BatchSize::SmallInput,
        );
    });
}

fn write(c: &mut Criterion) {
    let headers = response_headers();
    let mut out = Vec::with_capacity(4096);
    c.bench_function("response_head", |b| {
        b.iter(|| {
            out.clear();
            benching::write_response(&mut out, black_box(&headers), 1024);
            black_box(out.len())
        });
    });
}

fn response_headers() -> HeaderMap {
    [
        ("date", "Sun, 29 Nov 2026 02:37:22 GMT"),
        ("server", "origin"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "1024"),
        ("cache-control", "no-cache, private"),
        ("etag", "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
        ("vary", "accept-encoding, origin"),
        ("strict-transport-security", "max-age=31536000"),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect()
}

criterion_group!(benches, read, clean, write);
criterion_main!(benches);
