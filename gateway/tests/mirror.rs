//! Copies of requests for other upstreams.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use model::Kind;
use serde_json::{Value, json};
use support::{Origin, Under, header, settings, start, until};
use tokio::net::TcpListener;

fn with_mirror(origin: &Origin, mirror: std::net::SocketAddr, fields: Value) -> Under {
    let target = |address: std::net::SocketAddr| json!({"targets": [{"address": address.to_string()}]});
    let mut wanted = json!({"upstream": "copies"});
    wanted.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    start(
        settings(),
        &[
            (Kind::Upstream, "u", target(origin.address)),
            (Kind::Upstream, "copies", target(mirror)),
            (Kind::Route, "r", json!({"upstream": "u", "mirror": [wanted]})),
        ],
    )
}

#[tokio::test]
async fn another_upstream_gets_a_copy_and_its_answer_is_thrown_away() {
    let (origin, copies) = (Origin::saying("hello").await, Origin::saying("copied").await);
    let under = with_mirror(&origin, copies.address, json!({}));
    let mut client = under.client().await;
    client.write("GET /a?b HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "hello");
    until(|| copies.count() == 1).await;
    let (got, wanted) = (copies.last().head, origin.last().head);
    assert!(got.starts_with("GET /a?b HTTP/1.1\r\n") && header(&got, "x-mine") == Some("1"), "{got}");
    assert_eq!(header(&got, "x-request-id"), header(&wanted, "x-request-id"));
    client.write("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer().await.body, "hello");
    until(|| copies.count() == 2).await;
    assert_eq!((copies.last().body.as_str(), origin.last().body.as_str()), ("hello", "hello"));
    assert_eq!(under.metric("phalanx_upstream_mirrors_total{upstream=\"copies\"}"), Some(2.0));
}

#[tokio::test]
async fn a_mirror_that_hangs_holds_up_nobody() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin::saying("hello").await;
    let under = with_mirror(&origin, silent.local_addr().unwrap(), json!({}));
    let mut client = under.client().await;
    for _ in 0..400 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.body, "hello");
    }
    // As many as may be in flight are, and no more.
    assert_eq!(under.metric("phalanx_upstream_mirrors_total{upstream=\"copies\"}"), Some(256.0));
    assert_eq!(under.metric("phalanx_upstream_mirrors_dropped_total{upstream=\"copies\"}"), Some(144.0));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_copied() {
    let (origin, copies) = (Origin::saying("hello").await, Origin::saying("copied").await);
    let under = with_mirror(&origin, copies.address, json!({}));
    let mut client = under.client().await;
    let long = "x".repeat(65_537);
    client.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n{long}")).await;
    assert_eq!(client.answer().await.body, "hello");
    assert_eq!(origin.last().body.len(), 65_537);
    until(|| under.metric("phalanx_upstream_mirrors_dropped_total{upstream=\"copies\"}") == Some(1.0)).await;
    assert_eq!(copies.count(), 0);
}

#[tokio::test]
async fn so_many_of_a_hundred_are_copied() {
    let (origin, copies) = (Origin::saying("hello").await, Origin::saying("copied").await);
    let under = with_mirror(&origin, copies.address, json!({"percent": 30}));
    let mut client = under.client().await;
    for _ in 0..200 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.answer().await;
    }
    let sent = under.metric("phalanx_upstream_mirrors_total{upstream=\"copies\"}").unwrap();
    assert!((20.0..=110.0).contains(&sent), "{sent} of 200");
}
