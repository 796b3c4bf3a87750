//! How long an exchange may take, and how much an upstream is asked for at once.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use model::Kind;
use serde_json::{Value, json};
use support::{Client, Origin, Under, in_front, ok, settings, start, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A target that the test plays itself, and a gateway in front of it.
async fn played(fields: Value) -> (TcpListener, Under) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut upstream = json!({"targets": [{"address": listener.local_addr().unwrap().to_string()}]});
    upstream.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    (listener, in_front(settings(), upstream))
}

/// The next connection to a target, with a request read.
async fn request(listener: &TcpListener) -> Client {
    let (stream, _) = support::patiently(listener.accept()).await.unwrap();
    let mut client = Client(BufReader::new(stream));
    client.head().await;
    client
}

#[tokio::test]
async fn a_body_that_falls_silent_breaks_off() {
    let (listener, under) = played(json!({"timeout": {"idle": "100ms"}})).await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = request(&listener).await;
    target.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let got = client.rest().await;
    assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("half"), "{got}");
    // What it was to say is of no use any more, so neither is its connection.
    assert_eq!(target.rest().await, "");
}

#[tokio::test]
async fn a_body_that_keeps_coming_is_not_silent() {
    let (listener, under) = played(json!({"timeout": {"idle": "400ms"}})).await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = request(&listener).await;
    target.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    client.head().await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        target.write("x").await;
        client.exact("x").await;
    }
}

#[tokio::test]
async fn the_whole_exchange_may_take_so_long() {
    let (listener, under) =
        played(json!({"timeout": {"total": "150ms"}, "retry": {"on": ["timeout"]}})).await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = request(&listener).await;
    assert_eq!(client.answer().await.status, 504);
    assert_eq!(target.rest().await, "", "it is told that nobody waits any more");
    // A body that never ends is cut, though it keeps coming.
    client.write(GET).await;
    let mut target = request(&listener).await;
    target.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let sending = async { while target.0.get_mut().write_all(b"1\r\nx\r\n").await.is_ok() {} };
    let (got, ()) = support::patiently(async { tokio::join!(client.rest(), sending) }).await;
    assert!(got.starts_with("HTTP/1.1 200") && !got.ends_with("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_route_has_the_last_word_on_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = json!([{"address": listener.local_addr().unwrap().to_string()}]);
    let upstream = json!({"targets": target, "timeout": {"total": "1h"}});
    let retries = json!({"targets": target, "timeout": {"attempt": "50ms"}, "retry": {"on": ["timeout"]}});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", upstream),
            (Kind::Upstream, "v", retries),
            (Kind::Route, "r", json!({"upstream": "u", "timeout": {"request": "100ms"}})),
            (
                Kind::Route,
                "s",
                json!({"upstream": "v", "match": [{"path": {"prefix": "/s"}}], "timeout": {"attempt": "0s"}}),
            ),
        ],
    );
    let mut client = under.client().await;
    client.write(GET).await;
    let _silent = request(&listener).await;
    assert_eq!(client.answer().await.status, 504);
    // Without a limit for attempts there is one, however long it takes.
    client.write("GET /s HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut target = request(&listener).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    target.write(ok("late")).await;
    assert_eq!(client.answer().await.body, "late");
}

#[tokio::test]
async fn a_target_that_keeps_the_whole_exchange_waiting_is_ejected() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = Origin::saying("hello").await;
    let targets = [silent.local_addr().unwrap(), good.address].map(|to| json!({"address": to.to_string()}));
    let health = json!({"passive": {"failures": 2, "eject": "1h"}});
    let under =
        in_front(settings(), json!({"targets": targets, "health": health, "timeout": {"total": "100ms"}}));
    let mut client = under.client().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        client.write(GET).await;
        statuses.push(client.answer().await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 2, "{statuses:?}");
    assert_eq!(under.metric("phalanx_upstream_ejections_total{upstream=\"u\"}"), Some(1.0));
}

#[tokio::test]
async fn requests_above_the_limit_are_refused_at_once() {
    let (listener, under) = played(json!({"limits": {"requests": 1}})).await;
    let (mut first, mut second) = (under.client().await, under.client().await);
    first.write(GET).await;
    let mut target = request(&listener).await;
    second.write(GET).await;
    let refused = second.answer().await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("\"overflow\""), "{refused:?}");
    assert_eq!(under.metric("phalanx_upstream_overflows_total{upstream=\"u\"}"), Some(1.0));
    // In flight to the last byte of the answer.
    target.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na").await;
    first.head().await;
    second.write(GET).await;
    assert_eq!(second.answer().await.status, 503);
    target.write("b").await;
    first.exact("ab").await;
    second.write(GET).await;
    target.head().await;
    target.write(ok("")).await;
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn a_request_waits_for_one_of_the_connections_there_may_be() {
    let (listener, under) =
        played(json!({"limits": {"connections": 1}, "timeout": {"connect": "20s"}})).await;
    let (mut first, mut second) = (under.client().await, under.client().await);
    first.write(GET).await;
    let mut target = request(&listener).await;
    second.write(GET).await;
    target.write(ok("one")).await;
    assert_eq!(first.answer().await.body, "one");
    target.head().await;
    target.write(ok("two")).await;
    assert_eq!(second.answer().await.body, "two");
    assert_eq!(under.metric("phalanx_upstream_connections_total"), Some(1.0));
}

#[tokio::test]
async fn as_many_wait_as_may_and_for_as_long() {
    let limits = json!({"connections": 1, "pending": 1});
    let (listener, under) = played(json!({"limits": limits, "timeout": {"connect": "300ms"}})).await;
    let (mut first, mut second, mut third) =
        (under.client().await, under.client().await, under.client().await);
    first.write(GET).await;
    let _silent = request(&listener).await;
    second.write(GET).await;
    third.write(GET).await;
    let refused = [second.answer().await.status, third.answer().await.status];
    assert_eq!(refused, [503, 503]);
    assert_eq!(under.metric("phalanx_upstream_overflows_total{upstream=\"u\"}"), Some(2.0));
}

#[tokio::test]
async fn who_waits_for_a_connection_in_vain_says_nothing_of_a_target() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = json!({
        "targets": [{"address": listener.local_addr().unwrap().to_string()}],
        "limits": {"connections": 1},
        "timeout": {"connect": "20s"},
        "health": {"passive": {"failures": 1, "eject": "1h"}},
    });
    let route = |path: &str, timeout: Value| json!({"upstream": "u", "match": [{"path": {"prefix": path}}], "timeout": timeout});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", upstream),
            (Kind::Route, "r", json!({"upstream": "u"})),
            (Kind::Route, "a", route("/attempt", json!({"attempt": "100ms"}))),
            (Kind::Route, "t", route("/total", json!({"request": "100ms"}))),
        ],
    );
    let mut holder = under.client().await;
    holder.write(GET).await;
    let mut target = request(&listener).await;
    target.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await;
    assert!(holder.head().await.starts_with("HTTP/1.1 200"));
    let mut client = under.client().await;
    for path in ["/attempt", "/total"] {
        client.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.status == 503 && answer.body.contains("overflow"), "{path}: {answer:?}");
    }
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
    assert_eq!(under.metric("phalanx_ejections_total"), Some(0.0));
    assert_eq!(under.metric("phalanx_upstream_overflows_total{upstream=\"u\"}"), Some(2.0));
}

/// What targets see of a gateway: connections that they know of, and requests that they have and have not answered.
#[derive(Debug, Default)]
struct Seen {
    open: AtomicUsize,
    asked: AtomicUsize,
    asked_most: AtomicUsize,
}

#[tokio::test]
async fn connections_are_bounded_over_all_workers_and_targets() {
    let seen = Arc::new(Seen::default());
    let mut targets = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        targets.push(json!({"address": listener.local_addr().unwrap().to_string()}));
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone()));
            }
        });
    }
    let mut settings = settings();
    settings.workers = 2;
    let limits = json!({"connections": 4});
    let under =
        in_front(settings, json!({"targets": targets, "limits": limits, "timeout": {"connect": "20s"}}));
    let mut clients = Vec::new();
    for _ in 0..24 {
        let mut client = under.client().await;
        clients.push(tokio::spawn(async move {
            for _ in 0..20 {
                client.write(GET).await;
                assert_eq!(client.answer().await.status, 200);
            }
        }));
    }
    for client in clients {
        support::patiently(client).await.unwrap();
    }
    // A target may learn of any number of connections that have gone after it has learnt of those that took their places. But one on
    // which a request waits for its answer is there.
    let most = seen.asked_most.load(Relaxed);
    assert!(most <= 4, "{most} at once");
    until(|| seen.open.load(Relaxed) <= 4).await;
}

/// Answers until the connection ends.
async fn serve(mut stream: TcpStream, seen: Arc<Seen>) {
    seen.open.fetch_add(1, Relaxed);
    let mut head = [0; 4096];
    while matches!(stream.read(&mut head).await, Ok(1..)) {
        seen.asked_most.fetch_max(seen.asked.fetch_add(1, Relaxed) + 1, Relaxed);
        tokio::task::yield_now().await;
        seen.asked.fetch_sub(1, Relaxed);
        if stream.write_all(ok("x").as_bytes()).await.is_err() {
            break;
        }
    }
    seen.open.fetch_sub(1, Relaxed);
}
