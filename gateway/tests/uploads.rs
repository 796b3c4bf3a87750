//! Requests whose bodies are larger than they may be, and requests that are held up, with real sockets on both sides.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::net::SocketAddr;

use model::Kind;
use serde_json::{Value, json};
use support::{Origin, Under, header, in_front, patiently, settings, start, until};
use tokio::{io::AsyncReadExt, net::TcpListener};

fn with_policy(address: SocketAddr, policy: Value) -> Under {
    start(
        settings(),
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": address.to_string()}]})),
            (Kind::Policy, "p", policy),
            (Kind::Route, "r", json!({"policies": ["p"], "upstream": "u"})),
        ],
    )
}

#[tokio::test]
async fn a_body_that_says_that_it_is_too_large_is_not_read() {
    let origin = Origin::saying("hello").await;
    let under = with_policy(origin.address, json!({"type": "body-limit", "max": "1KiB"}));
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer().await.status, 200);
    // What is left of it is small, so that the connection is kept.
    client
        .write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(2000)))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, header(&answer.head, "connection")), (413, None));
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (&problem["code"], &problem["detail"]),
        (&json!("body_too_large"), &json!("It may have 1KiB at the most."))
    );
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, header(&answer.head, "connection")), (413, Some("close")));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_body_that_becomes_too_large_reaches_no_target_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = with_policy(listener.local_addr().unwrap(), json!({"type": "body-limit", "max": 1000}));
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("190\r\n{}\r\n", "x".repeat(400));
    client.write(format!("{chunk}{chunk}")).await;
    let (mut target, _) = patiently(listener.accept()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !got.ends_with(b"x\r\n") || got.len() < 1000 {
        let count = patiently(target.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0);
        got.extend_from_slice(&buffer[..count]);
    }
    client.write(&chunk).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, header(&answer.head, "connection")), (413, Some("close")));
    assert!(answer.body.contains("body_too_large"), "{}", answer.body);
    assert_eq!(client.rest().await, "");
    // Broken off: no last chunk, and the end.
    let _ = patiently(target.read_to_end(&mut got)).await;
    assert!(!got.ends_with(b"0\r\n\r\n"));
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
}

#[tokio::test]
async fn a_node_has_a_limit_for_every_route() {
    let origin = Origin::saying("hello").await;
    let mut settings = settings();
    settings.limits.body_bytes_max = Some(10);
    let under = in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}));
    let answer = under
        .send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world")
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = under
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = under
        .send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello word\r\n0\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(under.metric("phalanx_client_limits_total{limit=\"body_bytes_max\"}"), Some(2.0));
}

#[tokio::test]
async fn what_is_held_up_keeps_nobody_else_waiting() {
    let origin = Origin::saying("hello").await;
    let delay = json!({"type": "fault", "when": {"headers": {"x-slow": {"present": true}}}, "delay": {"duration": "5m"}});
    let under = with_policy(origin.address, delay);
    let mut slow = under.client().await;
    slow.write("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: 1\r\n\r\n").await;
    until(|| under.metric("phalanx_fault_delays_total") == Some(1.0)).await;
    let mut other = under.client().await;
    other.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.answer().await.status, 200);
    assert_eq!(origin.count(), 1);
    // Whoever gives up is forgotten.
    drop(slow);
    until(|| under.metric("phalanx_connections") == Some(1.0)).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn what_was_held_up_goes_on() {
    let origin = Origin::saying("hello").await;
    let delay =
        json!({"type": "fault", "delay": {"duration": "60ms"}, "abort": {"percent": 0, "status": 500}});
    let under = with_policy(origin.address, delay);
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(under.metric("phalanx_fault_delays_total"), Some(1.0));
    let failing = json!({"type": "fault", "delay": {"duration": "1ms"}, "abort": {"status": 418}});
    let under = with_policy(origin.address, failing);
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 418);
    assert_eq!(under.metric("phalanx_fault_delays_total"), Some(1.0));
    assert_eq!(origin.count(), 1);
}
