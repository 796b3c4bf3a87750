//! HTTP/2 to targets.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::sync::atomic::Ordering::SeqCst;

use rustls::version::TLS13;
use serde_json::{Value, json};
use support::{
    Answer, Under, header,
    http2::{DATA, Frames, GOAWAY, Http2Origin, RST_STREAM},
    in_front, patiently, settings,
    tls::{self, Ca, TlsOrigin},
    until,
};
use tokio::net::TcpListener;

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn upstream(address: impl ToString) -> Value {
    json!({"targets": [{"address": address.to_string()}], "protocol": "http2"})
}

async fn said(under: &Under, request: &str) -> Answer {
    let mut client = under.client().await;
    client.write(request).await;
    client.answer().await
}

#[tokio::test]
async fn a_request_takes_the_form_of_http2_and_its_answer_that_of_http1() {
    let origin = Http2Origin::start(100).await;
    let under = in_front(settings(), upstream(origin.address));
    let mut client = under.client().await;
    client
        .write(
            "POST /a?b=c HTTP/1.1\r\nHost: shop.example\r\nConnection: te, x-mine\r\nTE: trailers\r\nX-Mine: 1\r\n\
             Cookie: a=1\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n5\r\nhello\r\n0\r\nx-end: 2\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(header(&head, "transfer-encoding"), Some("chunked"));
    let mut body = String::new();
    while !body.ends_with("0\r\n") {
        body.push_str(&client.line().await);
    }
    assert!(body.contains("POST http://shop.example/a?b=c HTTP/2.0\n"), "{body}");
    assert!(body.contains("te: trailers\n") && body.contains("cookie: a=1\n") && body.contains("hello"));
    for gone in ["host: ", "connection: ", "transfer-encoding: ", "x-mine: "] {
        assert!(!body.contains(&format!("\n{gone}")), "{gone}: {body}");
    }
}

#[tokio::test]
async fn requests_share_connections_as_far_as_the_target_takes_them() {
    let origin = Http2Origin::start(10).await;
    let under = in_front(settings(), upstream(origin.address));
    assert_eq!(said(&under, "GET / HTTP/1.0\r\n\r\n").await.status, 200);
    let mut clients = Vec::new();
    for _ in 0..25 {
        let mut client = under.client().await;
        client.write("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    until(|| origin.busy.load(SeqCst) == 25).await;
    assert_eq!(origin.connections.load(SeqCst), 3);
    origin.release.send_replace(true);
    for mut client in clients {
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn those_who_come_together_wait_for_one_connection() {
    let origin = Http2Origin::start(100).await;
    let under = in_front(settings(), upstream(origin.address));
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(under.client().await);
    }
    for client in &mut clients {
        client.write(GET).await;
    }
    for mut client in clients {
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(origin.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_target_chooses_by_alpn() {
    let ca = Ca::new();
    let mut spec = upstream("a:1");
    spec["tls"] = json!({"ca": ca.pem, "sni": "orders.internal"});
    for (protocol, alpn, version) in [
        ("auto", &["h2", "http/1.1"][..], Some("HTTP/2.0")),
        ("auto", &["http/1.1"], Some("HTTP/1.1")),
        ("auto", &[], Some("HTTP/1.1")),
        ("http2", &["h2", "http/1.1"], Some("HTTP/2.0")),
        ("http2", &["http/1.1"], None),
        ("http2", &[], None),
        ("http1", &["h2", "http/1.1"], Some("HTTP/1.1")),
    ] {
        let mut config = tls::server(&ca, &["orders.internal"], &[&TLS13]);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let origin = TlsOrigin::start(config).await;
        spec["protocol"] = json!(protocol);
        spec["targets"][0]["address"] = json!(origin.address.to_string());
        let under = in_front(settings(), spec.clone());
        for _ in 0..2 {
            let answer = said(&under, GET).await;
            match version {
                Some(version) => assert!(answer.body.contains(version), "{protocol} {alpn:?}: {answer:?}"),
                None => assert_eq!(answer.status, 502, "{protocol} {alpn:?}"),
            }
        }
        assert!(version.is_none() || origin.seen().len() == 1, "both requests are on one");
    }
}

#[tokio::test]
async fn an_upgrade_is_asked_for_in_http1_or_not_at_all() {
    let origin = Http2Origin::start(100).await;
    let under = in_front(settings(), upstream(origin.address));
    let answer = said(&under, UPGRADE).await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("no_upgrade"), "{answer:?}");

    let ca = Ca::new();
    let mut config = tls::server(&ca, &["orders.internal"], &[&TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let origin = TlsOrigin::start(config).await;
    let tls = json!({"ca": ca.pem, "sni": "orders.internal"});
    let spec = json!({"targets": [{"address": origin.address.to_string()}], "protocol": "auto", "tls": tls});
    let under = in_front(settings(), spec);
    assert!(said(&under, GET).await.body.contains("HTTP/2.0"));
    let answer = said(&under, UPGRADE).await;
    assert!(answer.body.contains("HTTP/1.1") && answer.body.contains("upgrade: websocket"), "{answer:?}");
    let alpn: Vec<_> = origin.seen().into_iter().filter_map(|seen| seen.alpn).collect();
    assert_eq!(alpn, ["h2", "http/1.1"]);
}

#[tokio::test]
async fn what_a_target_that_goes_away_has_not_looked_at_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front(settings(), upstream(listener.local_addr().unwrap()));
    let (mut first, mut second) = (under.client().await, under.client().await);
    first.write(GET).await;
    let mut going = Frames::accept(&listener).await;
    assert_eq!(going.request().await, Some(1));
    // Of a method that is never sent twice otherwise, and with some of its body sent.
    second.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").await;
    assert_eq!(going.request().await, Some(3));
    while going.read().await != Some((DATA, 0, 3)) {}
    going.write(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    let mut other = patiently(Frames::accept(&listener)).await;
    let stream = other.request().await.unwrap();
    second.write("def").await;
    let mut bytes = 0;
    while bytes < 6 {
        let (kind, _, length) = patiently(other.frame()).await.unwrap();
        bytes += if kind == DATA { length } else { 0 };
    }
    other.ok(stream).await;
    assert!(second.head().await.starts_with("HTTP/1.1 200"));
    // The one that it had looked at is answered where it is.
    going.ok(1).await;
    assert!(first.head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
}

#[tokio::test]
async fn what_a_target_refuses_is_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front(settings(), upstream(listener.local_addr().unwrap()));
    let mut client = under.client().await;
    client.write("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut frames = Frames::accept(&listener).await;
    let stream = frames.request().await.unwrap();
    // REFUSED_STREAM.
    frames.write(RST_STREAM, 0, stream, &[0, 0, 0, 7]).await;
    let stream = frames.request().await.unwrap();
    frames.ok(stream).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_a_target_refuses_twice_is_sent_a_third_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front(settings(), upstream(listener.local_addr().unwrap()));
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut frames = Frames::accept(&listener).await;
    for _ in 0..2 {
        let stream = frames.request().await.unwrap();
        while frames.read().await != Some((DATA, 1, stream)) {}
        frames.write(RST_STREAM, 0, stream, &[0, 0, 0, 7]).await;
    }
    let stream = frames.request().await.unwrap();
    while frames.read().await != Some((DATA, 1, stream)) {}
    frames.ok(stream).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_goes_away_is_not_answered_any_more() {
    let origin = Http2Origin::start(100).await;
    let under = in_front(settings(), upstream(origin.address));
    let mut client = under.client().await;
    client.write("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(|| origin.busy.load(SeqCst) == 1).await;
    drop(client);
    until(|| origin.busy.load(SeqCst) == 0).await;
    // So is one in the midst of what it sends, and that is not the target's fault.
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    until(|| origin.busy.load(SeqCst) == 1).await;
    drop(client);
    until(|| origin.busy.load(SeqCst) == 0).await;
    // And one that has sent all of it, but not at once.
    let mut client = under.client().await;
    client.write("POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    until(|| origin.busy.load(SeqCst) == 1).await;
    client.write("hello").await;
    drop(client);
    until(|| origin.busy.load(SeqCst) == 0).await;
    assert_eq!(said(&under, "GET / HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(origin.connections.load(SeqCst), 1);
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_answered_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = upstream(listener.local_addr().unwrap());
    spec["timeout"] = json!({"response": "100ms"});
    let under = in_front(settings(), spec);
    let mut client = under.client().await;
    client.write(GET).await;
    let mut dead = Frames::accept(&listener).await;
    assert_eq!(dead.request().await, Some(1));
    assert_eq!(client.answer().await.status, 504);
    client.write(GET).await;
    let mut other = patiently(Frames::accept(&listener)).await;
    let stream = other.request().await.unwrap();
    other.ok(stream).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_target_that_takes_nothing_of_a_body_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = upstream(listener.local_addr().unwrap());
    spec["timeout"] = json!({"response": "100ms"});
    let under = in_front(settings(), spec);
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    let mut frames = Frames::accept(&listener).await;
    assert_eq!(frames.request().await, Some(1));
    // More than the window that it has opened.
    client.write(vec![b'x'; 200_000]).await;
    assert_eq!(client.answer().await.status, 504);
}
