//! Interim responses of targets (RFC 9110, section 15.2): who is told of them, when, and of how many.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use model::Kind;
use serde_json::json;
use support::{
    Client, Origin, Under, header, in_front, in_front_of, ok, patiently, settings, start, status, until,
};
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
/// The same as clients get it.
const TOLD: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

/// A gateway in front of a target that the test plays.
async fn played() -> (Under, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (in_front_of(listener.local_addr().unwrap()), listener)
}

async fn accept(listener: &TcpListener) -> Client {
    let (stream, _) = patiently(listener.accept()).await.unwrap();
    Client(BufReader::new(stream))
}

fn passed_on(under: &Under) -> Option<f64> {
    under.metric("phalanx_interim_responses_total")
}

#[tokio::test]
async fn a_client_gets_them_before_the_answer() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = accept(&listener).await;
    for turn in 1..=3 {
        target.head().await;
        target.write("HTTP/1.1 102 Processing\r\n\r\n").await;
        client.exact("HTTP/1.1 102 Processing\r\n\r\n").await;
        for half in [HINT.split_at(30).0, HINT.split_at(30).1] {
            target.write(half).await;
        }
        client.exact(TOLD).await;
        // These come with the answer.
        target.write(format!("{HINT}HTTP/1.1 199\r\n\r\n{}", ok("final"))).await;
        client.exact(TOLD).await;
        client.exact("HTTP/1.1 199 \r\n\r\n").await;
        assert_eq!(client.answer().await.body, "final");
        assert_eq!(passed_on(&under), Some(4.0 * f64::from(turn)));
        client.write(GET).await;
    }
}

#[tokio::test]
async fn what_is_of_one_hop_or_frames_a_body_is_taken_from_them() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = accept(&listener).await;
    target.head().await;
    target
        .write(
            "HTTP/1.1 103 Early Hints\r\nConnection: x-mine, close\r\nX-Mine: 1\r\nKeep-Alive: timeout=1\r\n\
             Content-Length: 5\r\nContent_Length: 6\r\nUpgrade: x\r\nLink: </a>\r\nLink: </b>\r\n\r\n",
        )
        .await;
    client.exact("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n").await;
    target.write(ok("final")).await;
    assert_eq!(client.answer().await.body, "final");
    client.write(GET).await;
    target.head().await;
    target.write("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 502, "it may be read in two ways");
}

#[tokio::test]
async fn they_are_for_http_1_1_alone() {
    let origin = Origin::answering(|_| format!("{HINT}{}", ok("final"))).await;
    let mut settings = settings();
    settings.http2_plain = true;
    let under = in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}));
    let old = under.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&old), "200", "{old}");
    let stream = TcpStream::connect(under.gateway.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = patiently(sender.ready()).await.unwrap();
    let request = http::Request::get("http://a/").body(()).unwrap();
    let (mut answer, _) = sender.send_request(request, true).unwrap();
    let told = std::future::poll_fn(|cx| answer.poll_informational(cx));
    assert!(patiently(told).await.is_none());
    assert_eq!(patiently(answer).await.unwrap().status(), 200);
    assert_eq!(passed_on(&under), Some(0.0));
}

#[tokio::test]
async fn a_client_that_waits_for_a_100_gets_one_whatever_else_it_is_told() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    client.exact("HTTP/1.1 100 Continue\r\n\r\n").await;
    let mut target = accept(&listener).await;
    target.head().await;
    target.write(format!("HTTP/1.1 100 Continue\r\n\r\n{HINT}")).await;
    client.exact(TOLD).await;
    client.write("hello").await;
    target.exact("hello").await;
    target.write(ok("done")).await;
    assert_eq!(client.answer().await.body, "done");
}

#[tokio::test]
async fn a_target_that_fails_after_them_is_no_answer() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = accept(&listener).await;
    target.head().await;
    target.write(HINT).await;
    client.exact(TOLD).await;
    drop(target);
    // A GET is sent once more.
    let mut target = accept(&listener).await;
    target.head().await;
    target.write(format!("{HINT}{}", ok("after all"))).await;
    client.exact(TOLD).await;
    assert_eq!(client.answer().await.body, "after all");
}

#[tokio::test]
async fn an_answer_is_due_whatever_is_said_before_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front(
        settings(),
        json!({
            "targets": [{"address": listener.local_addr().unwrap().to_string()}],
            "timeout": {"response": "300ms"},
            "retry": {"attempts": 0},
        }),
    );
    let mut client = under.client().await;
    client.write(GET).await;
    let mut target = accept(&listener).await;
    target.head().await;
    let talking = async {
        let mut pauses = tokio::time::interval(std::time::Duration::from_millis(100));
        for _ in 0..16 {
            pauses.tick().await;
            if tokio::io::AsyncWriteExt::write_all(target.0.get_mut(), HINT.as_bytes()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let answered = async {
        loop {
            let answer = client.answer().await;
            if answer.status != 103 {
                break answer.status;
            }
        }
    };
    let told = patiently(async {
        tokio::select! {
            () = talking => 0,
            status = answered => status,
        }
    });
    assert_eq!(told.await, 504);
}

#[tokio::test]
async fn there_may_be_so_many_of_so_many_bytes_and_no_more() {
    let large = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "y".repeat(30_000));
    for (why, said, want) in [
        ("as many as there may be", HINT.repeat(16), (16, 200)),
        ("one more", HINT.repeat(17), (16, 502)),
        ("as large as they may be", large.repeat(2), (2, 200)),
        ("larger", large.repeat(3), (2, 502)),
    ] {
        let origin = Origin::answering(move |_| format!("{said}{}", ok("final"))).await;
        let under = in_front_of(origin.address);
        let mut client = under.client().await;
        client.write(GET).await;
        let mut told = 0;
        let last = loop {
            let answer = client.answer().await;
            if answer.status != 103 {
                break answer.status;
            }
            told += 1;
        };
        assert_eq!((told, last), want, "{why}");
    }
}

#[tokio::test]
async fn a_copy_of_a_request_tells_its_client_nothing() {
    let (target, copied) =
        (Origin::saying("final").await, Origin::answering(|_| format!("{HINT}{}", ok(""))).await);
    let to = |origin: &Origin| json!({"targets": [{"address": origin.address.to_string()}]});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", to(&target)),
            (Kind::Upstream, "v", to(&copied)),
            (Kind::Route, "r", json!({"upstream": "u", "mirror": [{"upstream": "v"}]})),
        ],
    );
    let mut client = under.client().await;
    for turn in 1..=3 {
        client.write(GET).await;
        assert_eq!(client.answer().await.body, "final");
        until(|| copied.count() == turn).await;
    }
    assert_eq!(passed_on(&under), Some(0.0));
}

#[tokio::test]
async fn one_that_comes_before_an_upgrade_is_passed_on_too() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    let mut target = accept(&listener).await;
    target.head().await;
    target
        .write(format!(
            "{HINT}HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello"
        ))
        .await;
    client.exact(TOLD).await;
    let head = client.head().await;
    assert_eq!((status(&head), header(&head, "upgrade")), ("101", Some("x")));
    client.exact("hello").await;
    client.write("back").await;
    target.exact("back").await;
    until(|| under.metric("phalanx_tunnels_total") == Some(1.0)).await;
}
