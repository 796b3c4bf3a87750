//! What is sent again, on what, how often, and what is never.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use serde_json::{Value, json};
use support::{Answer, Origin, Under, in_front, ok, settings};
use tokio::net::TcpListener;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";

async fn saying(head: &'static str) -> Origin {
    Origin::answering(move |_| format!("HTTP/1.1 {head}\r\nContent-Length: 4\r\n\r\nbusy")).await
}

/// A gateway in front of these, none of which is ever ejected.
fn before(origins: &[&Origin], fields: Value) -> Under {
    let targets: Vec<_> = origins.iter().map(|one| json!({"address": one.address.to_string()})).collect();
    let mut upstream = json!({"targets": targets, "health": {"passive": {"failures": 0}}});
    upstream.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    in_front(settings(), upstream)
}

async fn ask(under: &Under, request: &str) -> Answer {
    let mut client = under.client().await;
    client.write(request).await;
    client.answer().await
}

fn bodies(origin: &Origin) -> Vec<String> {
    origin.got.lock().unwrap().iter().map(|got| got.body.clone()).collect()
}

#[tokio::test]
async fn a_status_is_tried_again_if_it_is_named() {
    let (busy, good) = (saying("503 X").await, Origin::saying("hello").await);
    let unless_named = before(&[&busy, &good], json!({}));
    let mut statuses = [ask(&unless_named, GET).await.status, ask(&unless_named, GET).await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    let named = before(&[&busy, &good], json!({"retry": {"on": ["503"]}}));
    for _ in 0..4 {
        assert_eq!(ask(&named, GET).await.status, 200);
    }
    let count = |what: &str| named.metric(&format!("phalanx_upstream_{what}")).unwrap();
    let retries = count("retries_total{upstream=\"u\",reason=\"status\"}");
    assert!(retries >= 1.0);
    assert_eq!(count("requests_total{upstream=\"u\"}"), 4.0);
    assert_eq!(count("attempts_total{upstream=\"u\"}"), 4.0 + retries);
}

#[tokio::test]
async fn the_last_answer_is_passed_on_and_its_connections_are_used_again() {
    let busy = saying("503 X").await;
    let under = before(&[&busy], json!({"retry": {"attempts": 3, "on": ["5xx"]}}));
    for asked in 1..=3 {
        let answer = ask(&under, GET).await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "busy"));
        assert_eq!(busy.count(), asked * 4);
    }
    assert_eq!(under.metric("phalanx_upstream_connections_total"), Some(1.0));
}

#[tokio::test]
async fn what_is_not_idempotent_is_sent_twice_only_if_it_is_named() {
    let busy = saying("503 X").await;
    let all = json!(["connect", "reset", "timeout", "5xx", "gateway_error", 503]);
    let unless_told = before(&[&busy], json!({"retry": {"on": all, "body_bytes_max": 1000}}));
    assert_eq!(ask(&unless_told, POST).await.status, 503);
    assert_eq!(ask(&unless_told, &POST.replace("POST", "PATCH")).await.status, 503);
    assert_eq!(busy.count(), 2);
    let told = before(
        &[&busy],
        json!({"retry": {"on": all, "methods": ["POST"], "body_bytes_max": 1000, "attempts": 1}}),
    );
    assert_eq!(ask(&told, POST).await.status, 503);
    assert_eq!(busy.count(), 4);
    assert_eq!(ask(&told, GET).await.status, 503);
    assert_eq!(busy.count(), 5, "GET is not among the methods that are named");
}

#[tokio::test]
async fn a_body_that_is_kept_is_sent_again_whole() {
    let busy = saying("503 X").await;
    let kept = json!({"on": ["503"], "methods": ["POST"], "body_bytes_max": 64, "attempts": 2});
    let under = before(&[&busy], json!({"retry": kept}));
    assert_eq!(ask(&under, POST).await.status, 503);
    assert_eq!(bodies(&busy), ["hello"; 3]);
    assert_eq!(ask(&under, CHUNKED).await.status, 503);
    assert_eq!(bodies(&busy)[3..], ["5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"; 3]);
    // Longer than what is kept, said before and found out.
    let long = "x".repeat(65);
    let said = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n{long}");
    let found_out = CHUNKED.replace("5\r\nhello", &format!("41\r\n{long}"));
    assert_eq!(ask(&under, &said).await.status, 503);
    assert_eq!(ask(&under, &found_out).await.status, 503);
    assert_eq!(busy.count(), 8);
}

#[tokio::test]
async fn a_broken_connection_is_no_reason_to_send_a_body_again_that_is_not_kept() {
    let breaking = Origin::answering(|_| String::new()).await;
    let put = POST.replace("POST", "PUT");
    let not_kept = before(&[&breaking], json!({}));
    assert_eq!(ask(&not_kept, &put).await.status, 502);
    assert_eq!(breaking.count(), 1);
    let kept = before(&[&breaking], json!({"retry": {"body_bytes_max": 64}}));
    assert_eq!(ask(&kept, &put).await.status, 502);
    assert_eq!(bodies(&breaking), ["hello"; 4]);
}

#[tokio::test]
async fn a_timeout_is_tried_again_if_it_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = Origin::saying("hello").await;
    let addresses = [silent.local_addr().unwrap(), good.address].map(|to| json!({"address": to.to_string()}));
    for timeout in [json!({"attempt": "100ms"}), json!({"response": "100ms"})] {
        let told = json!({"targets": addresses, "retry": {"on": ["timeout"]}, "timeout": timeout});
        let under = in_front(settings(), told);
        for _ in 0..4 {
            assert_eq!(ask(&under, GET).await.body, "hello");
        }
        let retries = "phalanx_upstream_retries_total{upstream=\"u\",reason=\"timeout\"}";
        assert!(under.metric(retries) >= Some(1.0));
    }
    let untold = in_front(settings(), json!({"targets": addresses, "timeout": {"attempt": "100ms"}}));
    let mut statuses = [ask(&untold, GET).await.status, ask(&untold, GET).await.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
}

#[tokio::test]
async fn the_budget_holds_while_everything_fails() {
    let busy = saying("503 X").await;
    let budget = json!({"percent": 20, "min_per_s": 0});
    let under = before(&[&busy], json!({"retry": {"on": ["503"], "attempts": 5, "budget": budget}}));
    let mut client = under.client().await;
    for _ in 0..100 {
        client.write(GET).await;
        assert_eq!(client.answer().await.status, 503);
    }
    assert!((110..=120).contains(&busy.count()), "{}", busy.count());
    let refused = under.metric("phalanx_upstream_retries_refused_total{upstream=\"u\"}").unwrap();
    assert!(refused >= 80.0, "{refused}");
}

#[tokio::test]
async fn one_that_asks_to_be_left_alone_is() {
    let busy = saying("503 X\r\nRetry-After: 3600").await;
    let under = before(&[&busy], json!({"retry": {"on": ["503"]}}));
    assert_eq!(ask(&under, GET).await.status, 503);
    assert_eq!(busy.count(), 1);
    // It speaks for itself alone.
    let good = Origin::answering(|_| ok("hello")).await;
    let under = before(&[&busy, &good], json!({"retry": {"on": ["503"]}}));
    for _ in 0..2 {
        assert_eq!(ask(&under, GET).await.status, 200);
    }
}

#[tokio::test]
async fn what_was_never_sent_is_tried_on_every_target_within_the_attempts() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let good = Origin::saying("hello").await;
    let none = json!({"percent": 0, "min_per_s": 0});
    let targets = json!([{"address": nobody.to_string()}, {"address": good.address.to_string()}]);
    let upstream = json!({"targets": targets, "retry": {"attempts": 1, "budget": none},
        "health": {"passive": {"failures": 0}}});
    let under = in_front(settings(), upstream);
    for _ in 0..4 {
        assert_eq!(ask(&under, POST).await.status, 200);
    }
    assert_eq!(under.metric("phalanx_upstream_retries_refused_total{upstream=\"u\"}"), Some(0.0));
}
