//! What becomes of requests when targets fail, connections are upgraded, and the gateway drains.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use support::{Client, Origin, header, in_front, in_front_of, ok, settings, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn targets(addresses: &[SocketAddr]) -> Value {
    let targets: Vec<_> = addresses.iter().map(|address| json!({"address": address.to_string()})).collect();
    json!({"targets": targets})
}

#[tokio::test]
async fn what_was_not_sent_is_tried_elsewhere_whatever_it_is() {
    let origin = Origin::saying("hello").await;
    let under = in_front(settings(), targets(&[nobody().await, origin.address]));
    let mut client = under.client().await;
    for request in [GET, POST, GET, POST, GET, POST] {
        client.write(request).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(origin.count(), 6);
    assert!(origin.got.lock().unwrap().iter().all(|got| got.head.starts_with("GET") || got.body == "hello"));
}

#[tokio::test]
async fn a_target_of_weight_0_gets_no_retry_either() {
    let origin = Origin::saying("hello").await;
    let mut upstream = targets(&[nobody().await, origin.address]);
    upstream["targets"][1]["weight"] = json!(0);
    let under = in_front(settings(), upstream);
    let mut client = under.client().await;
    client.write(GET).await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_target_that_fails_in_a_row_is_ejected() {
    let origin = Origin::saying("hello").await;
    let mut upstream = targets(&[nobody().await, origin.address]);
    upstream["health"] = json!({"passive": {"failures": 2, "eject": "1h"}});
    let under = in_front(settings(), upstream);
    let mut client = under.client().await;
    for _ in 0..20 {
        client.write(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(under.metric("phalanx_ejections_total"), Some(1.0));
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(2.0));
}

#[tokio::test]
async fn with_every_target_ejected_any_is_asked() {
    let up = Arc::new(AtomicBool::new(false));
    let answering = up.clone();
    let origin = Origin::answering(move |_| {
        if answering.load(Ordering::Relaxed) {
            ok("back")
        } else {
            "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n".into()
        }
    })
    .await;
    let mut upstream = targets(&[origin.address]);
    upstream["health"] = json!({"passive": {"failures": 1, "eject": "1h"}});
    let under = in_front(settings(), upstream);
    let mut client = under.client().await;
    client.write(GET).await;
    assert_eq!(client.answer().await.status, 503);
    up.store(true, Ordering::Relaxed);
    client.write(GET).await;
    assert_eq!(client.answer().await.body, "back");
}

#[tokio::test]
async fn a_sent_request_is_repeated_only_if_that_is_safe() {
    let breaking = Origin::answering(|_| String::new()).await;
    let origin = Origin::saying("hello").await;
    let mut upstream = targets(&[breaking.address, origin.address]);
    upstream["health"] = json!({"passive": {"failures": 0}});
    let under = in_front(settings(), upstream);
    for _ in 0..4 {
        let mut client = under.client().await;
        client.write(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let mut client = under.client().await;
        client.write(POST).await;
        statuses.push(client.answer().await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    let posts = |origin: &Origin| {
        origin.got.lock().unwrap().iter().filter(|got| got.head.starts_with("POST")).count()
    };
    assert_eq!((posts(&breaking), posts(&origin)), (2, 2));
}

#[tokio::test]
async fn an_idle_connection_that_died_fails_no_request() {
    // It answers once on each connection, says that it will keep it, and closes it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front_of(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen = [0; 4096];
            let _ = stream.read(&mut seen).await;
            let _ = stream.write_all(ok("once").as_bytes()).await;
        }
    });
    let mut client = under.client().await;
    for _ in 0..50 {
        client.write(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(under.metric("phalanx_ejections_total"), Some(0.0));
}

#[tokio::test]
async fn nobody_there_is_502_without_names() {
    let address = nobody().await;
    let under = in_front_of(address);
    let mut client = under.client().await;
    client.write(GET).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains(&address.port().to_string()), "{answer:?}");
}

#[tokio::test]
async fn a_failure_costs_no_connection_where_little_of_a_body_is_left() {
    let under = in_front_of(nobody().await);
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, header(&answer.head, "connection")), (502, None));
        client.write("hello").await;
    }
    let many = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let waiting = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    for request in [many, waiting] {
        let mut client = under.client().await;
        client.write(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, header(&answer.head, "connection")), (502, Some("close")));
    }
    // Where the target has some of it, the rest is read all the same.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = json!([{"address": listener.local_addr().unwrap().to_string()}]);
    let under = in_front(settings(), json!({"targets": target, "timeout": {"total": "100ms"}}));
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, header(&answer.head, "connection")), (504, None));
        client.write("lo").await;
    }
}

#[tokio::test]
async fn targets_have_names_too() {
    let origin = Origin::saying("hello").await;
    let address = format!("localhost:{}", origin.address.port());
    let under = in_front(settings(), json!({"targets": [{"address": address}]}));
    let mut client = under.client().await;
    for _ in 0..3 {
        client.write(GET).await;
        // Of localhost the address of IPv4, where the origin listens.
        assert_eq!(client.answer().await.status, 200);
    }
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A target that upgrades and then sends back what it gets.
async fn echoing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = Client(tokio::io::BufReader::new(stream));
                let head = client.head().await;
                assert_eq!(header(&head, "upgrade"), Some("websocket"));
                assert_eq!(header(&head, "connection"), Some("upgrade"));
                client.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
                let (mut from, mut to) = tokio::io::split(client.0);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let under = in_front_of(echoing().await);
    let mut client = under.client().await;
    client.write(UPGRADE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    for text in ["ping", "no\nHTTP\r\nat all\r\n\r\n", "GET / HTTP/1.1\nX\r\n\r\n"] {
        client.write(text).await;
        client.exact(text).await;
    }
    assert_eq!(under.metric("phalanx_tunnels_total"), Some(1.0));
}

#[tokio::test]
async fn a_refused_upgrade_leaves_http() {
    let origin = Origin::saying("no").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    // What follows before any 101 is a request like any other, and is judged like one (Pingora CVE-2026-2833).
    client.write(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(client.answer().await.body, "no");
    assert_eq!(client.answer().await.body, "no");
    assert!(origin.last().head.starts_with("GET /next"));
}

#[tokio::test]
async fn an_upgrade_needs_its_connection_header() {
    let origin = Origin::saying("plain").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "plain");
    assert_eq!(header(&origin.last().head, "upgrade"), None);
    for protocol in ["h2c", "H2C", "HTTP/2.0", "TLS/1.2", "websocket, h2c", ""] {
        let upgrade =
            format!("Connection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: {protocol}");
        client.write(format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n\r\n")).await;
        assert_eq!(client.answer().await.body, "plain");
        let got = origin.last().head;
        assert_eq!((header(&got, "upgrade"), header(&got, "http2-settings")), (None, None), "{protocol}");
    }
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front_of(listener.local_addr().unwrap());
    let address = under.gateway.address();
    let mut idle = under.client().await;
    let mut busy = under.client().await;
    busy.write(GET).await;
    let (mut origin, _) = listener.accept().await.unwrap();
    let mut seen = [0; 4096];
    let _ = origin.read(&mut seen).await.unwrap();
    let draining = tokio::spawn(under.gateway.drain(Duration::from_secs(60)));
    assert_eq!(idle.rest().await, "");
    support::patiently(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    origin.write_all(ok("hello").as_bytes()).await.unwrap();
    let answer = busy.answer().await;
    assert_eq!(answer.body, "hello");
    assert_eq!(header(&answer.head, "connection"), Some("close"));
    assert_eq!(busy.rest().await, "");
    support::patiently(draining).await.unwrap();
}

#[tokio::test]
async fn the_grace_ends_tunnels_and_what_hangs() {
    let under = in_front_of(echoing().await);
    let mut client = under.client().await;
    client.write(UPGRADE).await;
    client.head().await;
    let draining = tokio::spawn(under.gateway.drain(Duration::from_millis(200)));
    client.write("still").await;
    client.exact("still").await;
    assert_eq!(client.rest().await, "");
    support::patiently(draining).await.unwrap();
}

#[tokio::test]
async fn two_gateways_do_not_share_an_address() {
    let under = in_front_of(nobody().await);
    let mut taken = settings();
    taken.listen = under.gateway.address();
    let (_config, config) = tokio::sync::watch::channel(Default::default());
    let started = gateway::Gateway::start(taken, config, &prometheus::Registry::new());
    assert!(matches!(started, Err(gateway::Error::Listen { .. })));
    until(|| under.metric("phalanx_connections ") == Some(0.0)).await;
}
