//! Requests that are sent to a second target while the first has not answered: which are, who is passed on, and what becomes of the other.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{net::SocketAddr, sync::atomic::Ordering::SeqCst};

use serde_json::{Value, json};
use support::{
    Answer, Client, Origin, Under,
    http2::{Frames, Http2Origin, RST_STREAM},
    in_front, ok, patiently, settings, until,
};
use tokio::{io::BufReader, net::TcpListener, task::JoinHandle};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// A target that answers when it is told to.
struct Slow(TcpListener);

impl Slow {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The connection of the next request, whose head is read.
    async fn asked(&self) -> Client {
        let (stream, _) = patiently(self.0.accept()).await.unwrap();
        let mut connection = Client(BufReader::new(stream));
        assert!(!connection.head().await.is_empty());
        connection
    }
}

/// A gateway in front of these, all requests for the first unless it is out of use.
fn before(targets: &[SocketAddr], fields: Value) -> Under {
    let target =
        |(priority, to): (usize, &SocketAddr)| json!({"address": to.to_string(), "priority": priority});
    let targets: Vec<_> = targets.iter().enumerate().map(target).collect();
    let mut upstream = json!({
        "targets": targets,
        "hedge": {"after": "20ms"},
        "health": {"passive": {"failures": 1, "eject": "1h"}},
    });
    upstream.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    in_front(settings(), upstream)
}

async fn asking(under: &Under, request: &str) -> JoinHandle<Answer> {
    let mut client = under.client().await;
    client.write(request).await;
    tokio::spawn(async move { client.answer().await })
}

fn count(under: &Under, what: &str) -> f64 {
    under.metric(&format!("phalanx_upstream_{what}{{upstream=\"u\"}}")).unwrap()
}

#[tokio::test]
async fn the_second_answers_and_the_first_is_dropped_and_not_blamed() {
    let (slow, fast) = (Slow::start().await, Origin::saying("fast").await);
    let under = before(&[slow.address(), fast.address], json!({}));
    for asked in 1..=3 {
        let answer = asking(&under, GET).await;
        let mut dropped = slow.asked().await;
        assert_eq!(answer.await.unwrap().body, "fast");
        assert_eq!(dropped.rest().await, "", "the connection ends");
        assert_eq!(fast.count(), asked);
    }
    for (what, want) in [
        ("requests_total", 3.0),
        ("attempts_total", 6.0),
        ("hedges_total", 3.0),
        ("hedges_won_total", 3.0),
        ("attempt_failures_total", 0.0),
        ("ejections_total", 0.0),
        ("retries_refused_total", 0.0),
    ] {
        assert_eq!(count(&under, what), want, "{what}");
    }
}

#[tokio::test]
async fn the_first_may_still_win() {
    let (first, second) = (Slow::start().await, Slow::start().await);
    let under = before(&[first.address(), second.address()], json!({}));
    let answer = asking(&under, GET).await;
    let mut winning = first.asked().await;
    let mut losing = second.asked().await;
    winning.write(ok("first")).await;
    assert_eq!(answer.await.unwrap().body, "first");
    assert_eq!(losing.rest().await, "");
    assert_eq!((count(&under, "hedges_total"), count(&under, "hedges_won_total")), (1.0, 0.0));
    assert_eq!(count(&under, "attempt_failures_total"), 0.0);
}

#[tokio::test]
async fn what_may_not_be_sent_twice_is_not_hedged() {
    let (slow, fast) = (Slow::start().await, Origin::saying("fast").await);
    let under = before(&[slow.address(), fast.address], json!({}));
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut unsafe_ones = Vec::new();
    for request in [&PUT.replace("PUT", "POST"), PUT, upgrade] {
        unsafe_ones.push((asking(&under, request).await, slow.asked().await));
    }
    // One that may be, and comes later, is by now.
    let hedged = asking(&under, GET).await;
    let _dropped = slow.asked().await;
    assert_eq!(hedged.await.unwrap().body, "fast");
    assert_eq!(fast.count(), 1);
    for (answer, mut connection) in unsafe_ones {
        connection.write(ok("slow")).await;
        assert_eq!(answer.await.unwrap().body, "slow");
    }
    assert_eq!(count(&under, "hedges_total"), 1.0);
}

#[tokio::test]
async fn a_client_that_a_cookie_keeps_to_a_target_stays_there() {
    let (slow, fast) = (Slow::start().await, Origin::saying("fast").await);
    let under = before(&[slow.address(), fast.address], json!({"sticky": {"cookie": "at"}}));
    let first = asking(&under, GET).await;
    let mut bound = slow.asked().await;
    let hedged = first.await.unwrap();
    assert!(hedged.head.contains("at="), "{}", hedged.head);
    assert_eq!(bound.rest().await, "");
    // The cookie is that of the target that answered.
    let cookie = hedged.head.split_once("at=").unwrap().1;
    let cookie = &cookie[..cookie.find(['\r', ';']).unwrap()];
    let of_fast = GET.replace("\r\n\r\n", &format!("\r\nCookie: at={cookie}\r\n\r\n"));
    assert_eq!(asking(&under, &of_fast).await.await.unwrap().body, "fast");
    assert_eq!(count(&under, "hedges_total"), 1.0);
}

#[tokio::test]
async fn hedges_stop_with_the_budget() {
    let (slow, fast) = (Slow::start().await, Origin::saying("fast").await);
    let budget = json!({"percent": 0, "min_per_s": 0});
    let under = before(&[slow.address(), fast.address], json!({"retry": {"budget": budget}}));
    let answer = asking(&under, GET).await;
    let mut connection = slow.asked().await;
    until(|| count(&under, "hedges_refused_total") == 1.0).await;
    connection.write(ok("slow")).await;
    assert_eq!(answer.await.unwrap().body, "slow");
    assert_eq!((fast.count(), count(&under, "hedges_total")), (0, 0.0));
    assert_eq!(count(&under, "retries_refused_total"), 0.0);
}

#[tokio::test]
async fn an_answer_that_would_be_tried_again_does_not_win_while_there_is_another() {
    for failing in ["HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy", ""] {
        let (first, second) = (Slow::start().await, Slow::start().await);
        let spec = json!({"retry": {"on": ["connect", "reset", "503"]}});
        let under = before(&[first.address(), second.address()], spec);
        let answer = asking(&under, GET).await;
        let mut failed = first.asked().await;
        let mut winning = second.asked().await;
        failed.write(failing).await;
        drop(failed);
        until(|| count(&under, "attempt_failures_total") == 1.0).await;
        winning.write(ok("second")).await;
        assert_eq!(answer.await.unwrap().body, "second");
        assert_eq!((count(&under, "attempts_total"), count(&under, "hedges_won_total")), (2.0, 1.0));
    }
}

#[tokio::test]
async fn when_all_have_failed_what_is_left_of_the_retries_is_made() {
    let (first, second) = (Slow::start().await, Slow::start().await);
    let under = before(&[first.address(), second.address()], json!({"retry": {"attempts": 2}}));
    let answer = asking(&under, GET).await;
    let failed = (first.asked().await, second.asked().await);
    drop(failed);
    // The hedge and this are the two that there may be, so that it is not hedged.
    let mut last = tokio::select! {
        last = first.asked() => last,
        last = second.asked() => last,
    };
    last.write("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer.await.unwrap().status, 500);
    assert_eq!((count(&under, "attempts_total"), count(&under, "hedges_total")), (3.0, 1.0));
}

#[tokio::test]
async fn a_body_that_is_kept_is_sent_to_both_whole() {
    let (slow, fast) = (Slow::start().await, Origin::saying("fast").await);
    let under = before(&[slow.address(), fast.address], json!({"retry": {"body_bytes_max": 64}}));
    let mut client = under.client().await;
    client.write(&PUT[..PUT.len() - 2]).await;
    let mut first = slow.asked().await;
    first.exact("hel").await;
    // As long as the client sends, there is nothing to be had elsewhere: one that comes later is hedged first.
    let other = asking(&under, GET).await;
    let _dropped = slow.asked().await;
    assert_eq!((other.await.unwrap().body.as_str(), fast.count()), ("fast", 1));
    client.write("lo").await;
    first.exact("lo").await;
    assert_eq!(client.answer().await.body, "fast");
    assert_eq!(fast.last().body, "hello");
    assert_eq!(first.rest().await, "");
}

#[tokio::test]
async fn more_than_one_may_be_sent_each_after_as_long() {
    let slow = [Slow::start().await, Slow::start().await, Slow::start().await];
    let fast = Origin::saying("fast").await;
    let targets = [slow[0].address(), slow[1].address(), slow[2].address(), fast.address];
    let spec = json!({"hedge": {"after": "5ms", "max": 4}, "retry": {"attempts": 4}});
    let under = before(&targets, spec);
    let answer = asking(&under, GET).await;
    let mut connections = Vec::new();
    for slow in &slow {
        connections.push(slow.asked().await);
    }
    assert_eq!(answer.await.unwrap().body, "fast");
    for mut connection in connections {
        assert_eq!(connection.rest().await, "");
    }
    assert_eq!((count(&under, "hedges_total"), count(&under, "hedges_won_total")), (3.0, 1.0));
}

#[tokio::test]
async fn when_time_is_over_the_first_is_to_blame_alone() {
    let (first, second) = (Slow::start().await, Slow::start().await);
    let spec = json!({"timeout": {"total": "1s"}});
    let under = before(&[first.address(), second.address()], spec);
    let answer = asking(&under, GET).await;
    let (mut first, mut second) = (first.asked().await, second.asked().await);
    assert_eq!(answer.await.unwrap().status, 504);
    assert_eq!((first.rest().await, second.rest().await), (String::new(), String::new()));
    assert_eq!(count(&under, "attempt_failures_total"), 1.0);
}

#[tokio::test]
async fn it_may_be_after_what_most_answers_take() {
    let fast = Origin::saying("fast").await;
    let listener = Slow::start().await;
    let spec = json!({"hedge": {"after": "p90", "floor": "1ms"}});
    let under = before(&[listener.address(), fast.address], spec);
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = listener.asked().await;
    for _ in 0..9 {
        target.write(ok("first")).await;
        assert_eq!(client.answer().await.body, "first");
        client.write(GET).await;
        target.head().await;
    }
    target.write(ok("first")).await;
    assert_eq!(client.answer().await.body, "first");
    assert_eq!(count(&under, "hedges_total"), 0.0, "of so few none is the slowest");
    client.write(GET).await;
    assert_eq!(client.answer().await.body, "fast");
    assert_eq!(count(&under, "hedges_won_total"), 1.0);
}

#[tokio::test]
async fn interim_responses_are_those_of_the_first() {
    let (first, second) = (Slow::start().await, Slow::start().await);
    let under = before(&[first.address(), second.address()], json!({}));
    let mut client = under.client().await;
    client.write(GET).await;
    let (mut losing, mut winning) = (first.asked().await, second.asked().await);
    losing.write("HTTP/1.1 103 Early Hints\r\nLink: </first>\r\n\r\n").await;
    let hints = client.head().await;
    assert!(hints.starts_with("HTTP/1.1 103") && hints.contains("</first>"), "{hints}");
    winning.write("HTTP/1.1 103 Early Hints\r\nLink: </second>\r\n\r\n").await;
    winning.write(ok("second")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "second"));
}

#[tokio::test]
async fn over_http2_the_stream_of_who_loses_is_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fast = Http2Origin::start(100).await;
    let spec = json!({"protocol": "http2"});
    let under = before(&[listener.local_addr().unwrap(), fast.address], spec);
    let mut client = under.client().await;
    client.write(GET).await;
    let mut frames = patiently(Frames::accept(&listener)).await;
    let stream = patiently(frames.request()).await.unwrap();
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let reset = async {
        while let Some((kind, _, of)) = frames.read().await {
            if kind == RST_STREAM {
                return Some(of);
            }
        }
        None
    };
    assert_eq!(patiently(reset).await, Some(stream));
    until(|| fast.busy.load(SeqCst) == 0).await;
    assert_eq!((count(&under, "hedges_won_total"), count(&under, "attempt_failures_total")), (1.0, 0.0));
}
