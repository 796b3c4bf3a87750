//! What a client may take of a gateway: each limit strikes, is counted under the name of its setting, and hurts no other client.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::time::Duration;

use gateway::Settings;
use serde_json::json;
use support::{Client, Origin, Under, header, in_front, ok, settings, status, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Between two drops of a client that drips. What is tested is how far it is behind, however long that takes.
const DRIP: Duration = Duration::from_millis(5);

async fn under(change: impl FnOnce(&mut Settings)) -> Under {
    let origin = Origin::answering(|_| ok("hello")).await;
    let mut settings = settings();
    change(&mut settings);
    in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}))
}

fn struck(under: &Under, limit: &str) -> f64 {
    under.metric(&format!("phalanx_client_limits_total{{limit=\"{limit}\"}}")).unwrap()
}

async fn is_served(under: &Under) {
    let mut client = under.client().await;
    client.write(GET).await;
    assert_eq!(client.answer().await.body, "hello");
}

/// Sends a byte now and then until the gateway hangs up.
async fn drip(client: &mut Client, begins: &str) {
    client.write(begins).await;
    let (mut reader, mut writer) = client.0.get_mut().split();
    let dripping = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    };
    let mut answer = Vec::new();
    let ended = reader.read_to_end(&mut answer);
    support::patiently(async {
        tokio::select! {
            () = dripping => {}
            _ = ended => {}
        }
    })
    .await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_at_the_limit() {
    let under = under(|settings| {
        settings.limits.head_bytes_max = 10_000;
        settings.limits.target_bytes_max = 1_000;
        settings.limits.headers_max = 20;
    })
    .await;
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(count));
    let large = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    let long = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "z".repeat(bytes));
    for (what, request, want, limit) in [
        ("lines", many(19), "200", ""),
        ("lines", many(20), "431", "headers_max"),
        ("lines without an end", many(5_000), "431", "headers_max"),
        ("a line", large(9_900), "200", ""),
        ("a line", large(10_000), "431", "head_bytes_max"),
        ("a line without an end", large(1_000_000), "431", "head_bytes_max"),
        ("a target", long(999), "200", ""),
        ("a target", long(1_000), "414", "target_bytes_max"),
        ("a target without an end", long(1_000_000), "414", "target_bytes_max"),
        ("a method without an end", "M".repeat(100_000), "400", ""),
        ("empty lines without an end", "\r\n".repeat(50_000), "431", "head_bytes_max"),
    ] {
        let before = if limit.is_empty() { 0.0 } else { struck(&under, limit) };
        let mut client = under.client().await;
        // It may be cut off while it sends.
        let _ = client.0.get_mut().write_all(request.as_bytes()).await;
        let answer = client.head().await;
        assert_eq!(status(&answer), want, "{what} of {} bytes: {answer}", request.len());
        drop(client);
        if !limit.is_empty() {
            until(|| struck(&under, limit) == before + 1.0).await;
        }
    }
    is_served(&under).await;
}

#[tokio::test]
async fn what_frames_a_body_is_bounded_too() {
    let under = under(|settings| settings.limits.head_bytes_max = 10_000).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for rest in [
        format!("0\r\nx: {}\r\n\r\n", "y".repeat(100_000)),
        format!("0\r\n{}\r\n", "x: y\r\n".repeat(20_000)),
        format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(100_000)),
        format!("{}0\r\n\r\n", "1;e\r\nx\r\n".repeat(2_000)),
        format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(100_000)),
    ] {
        let mut client = under.client().await;
        let _ = client.0.get_mut().write_all(format!("{head}{rest}").as_bytes()).await;
        let answer = client.head().await;
        assert_eq!(status(&answer), "400", "{}: {answer}", &rest[..10]);
        assert_eq!(header(&answer, "connection"), Some("close"));
    }
    is_served(&under).await;
}

#[tokio::test]
async fn a_head_drop_by_drop_is_cut_off_while_others_are_served() {
    let under = under(|settings| settings.limits.header_timeout = Duration::from_millis(300)).await;
    let mut slow = Vec::new();
    for _ in 0..30 {
        slow.push(under.client().await);
    }
    let dripping = futures::future::join_all(slow.iter_mut().map(|client| drip(client, "GET /?")));
    let others = async {
        loop {
            is_served(&under).await;
        }
    };
    tokio::select! {
        _ = dripping => {}
        () = others => {}
    }
    until(|| struck(&under, "header_timeout") == 30.0).await;
    // A head on a connection that has served before has no more time.
    let mut client = under.client().await;
    client.write(GET).await;
    assert_eq!(client.answer().await.status, 200);
    drip(&mut client, "GET /?").await;
    until(|| struck(&under, "header_timeout") == 31.0).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let under = under(|settings| settings.limits.idle_timeout = Duration::from_millis(100)).await;
    assert_eq!(under.client().await.rest().await, "");
    let mut client = under.client().await;
    client.write(GET).await;
    assert!(client.rest().await.ends_with("hello"));
    until(|| struck(&under, "idle_timeout") == 2.0).await;
}

#[tokio::test]
async fn a_body_that_stops_or_drips_is_cut_off() {
    let under = under(|settings| {
        settings.limits.stall_timeout = Duration::from_millis(100);
        settings.limits.client_rate_min = 1 << 30;
    })
    .await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    let mut client = under.client().await;
    client.write(head).await;
    assert!(!client.rest().await.contains("200"));
    until(|| struck(&under, "stall_timeout") == 1.0).await;
    drip(&mut under.client().await, head).await;
    until(|| struck(&under, "client_rate_min") == 1.0).await;
    is_served(&under).await;
}

/// A gateway whose one target answers with far more than fits into any buffer.
async fn endless(change: impl FnOnce(&mut Settings)) -> Under {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut origin, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = origin.read(&mut [0; 4096]).await;
                let _ = origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                while origin.write_all(&[b'x'; 65_536]).await.is_ok() {}
            });
        }
    });
    let mut settings = settings();
    change(&mut settings);
    in_front(settings, json!({"targets": [{"address": address.to_string()}]}))
}

#[tokio::test]
async fn a_response_that_nobody_takes_or_only_slowly_is_cut_off() {
    let under = endless(|settings| {
        settings.limits.stall_timeout = Duration::from_millis(200);
        settings.limits.client_rate_min = 1 << 40;
    })
    .await;
    let mut client = under.client().await;
    client.write(GET).await;
    until(|| struck(&under, "stall_timeout") == 1.0).await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut some = vec![0; 65_536];
    // It always takes something, but is always waited for.
    while struck(&under, "client_rate_min") == 0.0 {
        support::patiently(client.0.read_exact(&mut some)).await.unwrap();
        tokio::time::sleep(DRIP).await;
    }
}

#[tokio::test]
async fn a_slow_target_is_not_its_clients_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings();
    settings.limits.stall_timeout = Duration::from_millis(100);
    settings.limits.client_rate_min = 1 << 30;
    let under =
        in_front(settings, json!({"targets": [{"address": listener.local_addr().unwrap().to_string()}]}));
    let mut client = under.client().await;
    client.write(GET).await;
    let (origin, _) = listener.accept().await.unwrap();
    let mut origin = Client(tokio::io::BufReader::new(origin));
    origin.head().await;
    origin.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    client.head().await;
    for _ in 0..100 {
        origin.write("x").await;
        client.exact("x").await;
        tokio::time::sleep(DRIP).await;
    }
    assert_eq!((struck(&under, "stall_timeout"), struck(&under, "client_rate_min")), (0.0, 0.0));
}

#[tokio::test]
async fn a_target_that_trickles_its_head_has_its_timeout_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let under =
        in_front(settings(), json!({"targets": [{"address": address}], "timeout": {"response": "200ms"}}));
    tokio::spawn(async move {
        let (mut origin, _) = listener.accept().await.unwrap();
        let _ = origin.read(&mut [0; 4096]).await;
        origin.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
        while origin.write_all(b"y").await.is_ok() {
            tokio::time::sleep(DRIP).await;
        }
    });
    let mut client = under.client().await;
    client.write(GET).await;
    assert_eq!(client.answer().await.status, 504);
}

#[tokio::test]
async fn connections_above_the_most_are_closed_at_once() {
    let under = under(|settings| settings.limits.connections_max = 1).await;
    let mut first = under.client().await;
    first.write(GET).await;
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(under.client().await.rest().await, "");
    until(|| struck(&under, "connections_max") == 1.0).await;
    first.write(GET).await;
    assert_eq!(first.answer().await.status, 200);
}
