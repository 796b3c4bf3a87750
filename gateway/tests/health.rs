//! Which targets get traffic, by what happens to it and by checks.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use gateway::{Checks, Finding};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Kind;
use serde_json::{Value, json};
use support::{Origin, Under, http2::with_trailers, in_front, ok, settings, until, with};
use tokio::net::TcpListener;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An origin whose `/healthz` answers with this status, and everything else with its name.
async fn origin(name: &'static str) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let told = status.clone();
    let origin = Origin::answering(move |got| match got.head.starts_with("GET /healthz") {
        true => format!("HTTP/1.1 {} X\r\nContent-Length: 4\r\n\r\nwell", told.load(SeqCst)),
        false => ok(name),
    });
    (origin.await, status)
}

fn targets(addresses: &[SocketAddr], health: Value) -> Value {
    let targets: Vec<_> = addresses.iter().map(|address| json!({"address": address.to_string()})).collect();
    json!({"targets": targets, "health": health})
}

fn quick(how: Value) -> Value {
    let mut active = json!({"interval": "100ms", "timeout": "100ms", "healthy": 2, "unhealthy": 2});
    active.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
    json!({"active": active, "passive": {"failures": 0}})
}

fn out(under: &Under) -> Vec<(String, String)> {
    let health = under.gateway.targets(None);
    let out: Vec<_> = health.items.into_iter().filter(|item| item.state != "in_use").collect();
    assert_eq!(health.out, out.len());
    out.into_iter().map(|item| (item.target, item.why.unwrap_or_default())).collect()
}

async fn bodies(under: &Under, times: usize) -> Vec<String> {
    let mut client = under.client().await;
    let mut bodies = Vec::new();
    for _ in 0..times {
        client.write(GET).await;
        bodies.push(client.answer().await.body);
    }
    bodies
}

#[tokio::test]
async fn a_target_whose_checks_fail_is_out_until_they_are_good_again() {
    let ((sick, status), (well, _)) = (origin("sick").await, origin("well").await);
    let check = quick(json!({"http": {"path": "/healthz", "host": "shop.example"}}));
    let under = in_front(settings(), targets(&[sick.address, well.address], check));
    until(|| sick.count() > 2 && well.count() > 2).await;
    assert!(sick.last().head.to_ascii_lowercase().contains("host: shop.example"));
    assert_eq!(out(&under), []);
    status.store(503, SeqCst);
    until(|| out(&under) == [(sick.address.to_string(), "it answered 503".to_owned())]).await;
    assert!(bodies(&under, 10).await.iter().all(|body| body == "well"));
    assert_eq!(under.metric("phalanx_upstream_targets{upstream=\"u\",state=\"out\"}"), Some(1.0));
    assert!(under.metric("phalanx_upstream_checks_failed_total{upstream=\"u\"}") >= Some(2.0));
    status.store(204, SeqCst);
    until(|| out(&under).is_empty()).await;
    assert!(bodies(&under, 10).await.contains(&"sick".to_owned()));
}

#[tokio::test]
async fn a_target_that_is_out_gets_none_of_the_traffic_though_all_workers_share_the_checks() {
    let ((sick, status), (well, _)) = (origin("sick").await, origin("well").await);
    status.store(500, SeqCst);
    let mut two = settings();
    two.workers = 2;
    let check = quick(json!({"http": {"path": "/healthz"}}));
    let under = in_front(two, targets(&[sick.address, well.address], check));
    until(|| out(&under).len() == 1).await;
    for _ in 0..8 {
        assert_eq!(bodies(&under, 2).await, ["well", "well"]);
    }
}

#[tokio::test]
async fn a_target_that_takes_no_connection_or_never_answers_is_out() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (well, _) = origin("well").await;
    let all = [nobody, silent.local_addr().unwrap(), well.address];
    let by_tcp = in_front(settings(), targets(&all, quick(json!({"tcp": {}}))));
    let refused = (nobody.to_string(), "no connection could be had".to_owned());
    until(|| out(&by_tcp) == [refused.clone()]).await;
    let by_http = in_front(settings(), targets(&all, quick(json!({"http": {}}))));
    let late = (silent.local_addr().unwrap().to_string(), "there was no answer within 100ms".to_owned());
    until(|| {
        let out = out(&by_http);
        out.len() == 2 && out.contains(&refused) && out.contains(&late)
    })
    .await;
    assert_eq!(bodies(&by_http, 6).await, ["well"; 6]);
}

#[tokio::test]
async fn without_checks_a_target_is_in_use_again() {
    let ((sick, status), (well, _)) = (origin("sick").await, origin("well").await);
    status.store(503, SeqCst);
    let check = quick(json!({"http": {"path": "/healthz"}}));
    let under = in_front(settings(), targets(&[sick.address, well.address], check));
    until(|| out(&under).len() == 1).await;
    let unchecked = targets(&[sick.address, well.address], json!({"passive": {"failures": 0}}));
    let config = with(&under.config.borrow(), &[(Kind::Upstream, "u", unchecked)]);
    under.config.send_replace(Arc::new(config));
    until(|| out(&under).is_empty()).await;
}

#[tokio::test]
async fn a_target_of_grpc_says_itself_whether_it_serves() {
    let serving = Arc::new(AtomicU8::new(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = serving.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let said = said.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let said = said.load(SeqCst);
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let asked: Bytes = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(asked[..], *b"\0\0\0\0\x06\x0A\x04shop");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let message = String::from_utf8(vec![0, 0, 0, 0, 2, 8, said]).unwrap();
                    Ok::<_, Infallible>(Response::new(with_trailers(message, trailers)))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut upstream = targets(&[address], quick(json!({"grpc": {"service": "shop"}})));
    upstream["protocol"] = json!("http2");
    let under = in_front(settings(), upstream);
    until(|| under.metric("phalanx_upstream_checks_total{upstream=\"u\"}") >= Some(3.0)).await;
    assert_eq!(out(&under), []);
    serving.store(2, SeqCst);
    until(|| out(&under) == [(address.to_string(), "it says that it is not serving".to_owned())]).await;
    serving.store(1, SeqCst);
    until(|| out(&under).is_empty()).await;
}

#[tokio::test]
async fn what_is_a_failure_is_told_by_the_upstream() {
    let failing = Origin::answering(|_| "HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nbad".into()).await;
    let (well, _) = origin("well").await;
    let both = [failing.address, well.address];
    let usual = in_front(settings(), targets(&both, json!({"passive": {"failures": 1, "eject": "1h"}})));
    assert!(bodies(&usual, 10).await.iter().filter(|body| *body == "bad").count() > 1);
    let told = json!({"passive": {"failures": 1, "eject": "1h", "on": ["5xx"]}});
    let told = in_front(settings(), targets(&both, told));
    assert_eq!(bodies(&told, 10).await.iter().filter(|body| *body == "bad").count(), 1);
    assert_eq!(out(&told), [(failing.address.to_string(), "it answered 500".to_owned())]);
}

#[tokio::test]
async fn a_target_that_is_slower_than_it_may_be_is_ejected() {
    let slow = Origin::answering(|_| {
        std::thread::park_timeout(std::time::Duration::from_millis(60));
        ok("slow")
    })
    .await;
    let (well, _) = origin("well").await;
    let health = json!({"passive": {"failures": 2, "eject": "1h", "slow": "50ms"}});
    let under = in_front(settings(), targets(&[slow.address, well.address], health));
    until_async(async || bodies(&under, 2).await.iter().all(|body| body == "well")).await;
    let out = out(&under);
    assert!(
        out.len() == 1 && out[0].0 == slow.address.to_string() && out[0].1.starts_with("it took "),
        "{out:?}"
    );
}

async fn until_async(mut so: impl AsyncFnMut() -> bool) {
    support::patiently(async { while !so().await {} }).await;
}

#[tokio::test]
async fn one_that_fails_too_often_is_ejected_though_never_in_a_row() {
    let turn = AtomicU8::new(0);
    let flaky = Origin::answering(move |_| match turn.fetch_add(1, SeqCst) % 2 {
        0 => "HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nbad".into(),
        _ => ok("good"),
    });
    let (flaky, (well, _)) = (flaky.await, origin("well").await);
    let rate = json!({"percent": 50, "requests": 10, "window": "1h"});
    let health = json!({"passive": {"failures": 2, "eject": "1h", "rate": rate}});
    let under = in_front(settings(), targets(&[flaky.address, well.address], health));
    until_async(async || bodies(&under, 20).await.iter().all(|body| body == "well")).await;
    assert!(flaky.count() >= 10, "{}", flaky.count());
}

#[tokio::test]
async fn no_more_than_so_many_of_a_hundred_are_ejected() {
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(
            Origin::answering(|_| "HTTP/1.1 503 X\r\nContent-Length: 3\r\n\r\nbad".into()).await.address,
        );
    }
    for (percent, most) in [(50, 2), (0, 0), (60, 3), (100, 4)] {
        let health = json!({"passive": {"failures": 1, "eject": "1h", "max_ejected": percent}});
        let under = in_front(settings(), targets(&all, health));
        bodies(&under, 40).await;
        assert_eq!(out(&under).len(), most, "{percent} %");
    }
}

/// The number of checks that this gateway has made.
fn checks(under: &Under) -> f64 {
    under.metric("phalanx_upstream_checks_total{upstream=\"u\"}").unwrap_or_default()
}

/// Two gateways before these targets, which check each of them once between them, and what each leaves for the other to be heard.
fn sharing(targets: &Value) -> [(Under, Arc<Checks>); 2] {
    [1, 2].map(|me| {
        let (mut settings, shared) = (settings(), Arc::<Checks>::default());
        shared.share(me, &[1, 2]);
        settings.checks = shared.clone();
        (in_front(settings, targets.clone()), shared)
    })
}

/// Carries what is found between the two for as long as it is run, as long as there are ways.
async fn carry(both: [&Arc<Checks>; 2], is_open: &AtomicBool) -> Infallible {
    loop {
        for (from, to, number) in [(both[0], both[1], 1), (both[1], both[0], 2)] {
            while let Some(finding) = from.next() {
                if is_open.load(SeqCst) {
                    to.hear(number, finding);
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// These targets, each checked by one gateway.
fn once(addresses: &[SocketAddr]) -> Value {
    targets(addresses, quick(json!({"http": {"path": "/healthz"}, "checkers": 1})))
}

/// Who has found the targets well, or not.
fn found(under: &Under) -> Vec<(u64, bool)> {
    let health = under.gateway.targets(None);
    let found = health.items.iter().flat_map(|item| &item.found);
    found.map(|found| (found.node_id.0, found.well)).collect()
}

#[tokio::test]
async fn one_checks_for_both_and_what_it_finds_is_looked_into_by_the_other() {
    let ((sick, status), (well, _)) = (origin("sick").await, origin("well").await);
    let [(one, left), (other, right)] = sharing(&once(&[sick.address, well.address]));
    let is_open = AtomicBool::new(true);
    let test = async {
        // Each of them has all targets checked by somebody, and between them each is checked by one.
        let by = |under: &Under, by: &str| {
            let name = format!("phalanx_upstream_checked_targets{{upstream=\"u\",by=\"{by}\"}}");
            under.metric(&name).unwrap_or_default()
        };
        until(|| found(&one).len() == 2 && found(&other).len() == 2).await;
        until(|| sick.count() + well.count() >= 40).await;
        assert_eq!(by(&one, "here") + by(&other, "here"), 2.0);
        assert_eq!(by(&one, "others") + by(&other, "others"), 2.0);
        status.store(503, SeqCst);
        let why = "it answered 503".to_owned();
        until(|| [&one, &other].iter().all(|under| out(under) == [(sick.address.to_string(), why.clone())]))
            .await;
        status.store(200, SeqCst);
        until(|| out(&one).is_empty() && out(&other).is_empty()).await;
        // Then it is left to one of them again.
        until(|| by(&one, "others") + by(&other, "others") == 2.0).await;
    };
    tokio::select! {
        never = carry([&left, &right], &is_open) => match never {},
        () = test => {}
    }
}

#[tokio::test]
async fn who_hears_nothing_checks_for_itself() {
    let (well, _) = origin("well").await;
    let [(one, left), (other, right)] = sharing(&once(&[well.address]));
    let is_open = AtomicBool::new(true);
    let test = async {
        until(|| found(&one).len() == 1 && found(&other).len() == 1).await;
        is_open.store(false, SeqCst);
        // Each now goes by what it finds itself.
        until(|| checks(&one) >= 5.0 && checks(&other) >= 5.0).await;
        until(|| found(&one) == [(1, true)] && found(&other) == [(2, true)]).await;
        is_open.store(true, SeqCst);
        right.share(2, &[]);
        let before = checks(&other);
        until(|| checks(&other) > before + 5.0).await;
    };
    tokio::select! {
        never = carry([&left, &right], &is_open) => match never {},
        () = test => {}
    }
}

#[tokio::test]
async fn one_who_says_that_a_target_is_ill_takes_it_from_nobody_who_finds_it_well() {
    let (well, _) = origin("well").await;
    let (mut settings, shared) = (settings(), Arc::<Checks>::default());
    shared.share(1, &[2, 3]);
    settings.checks = shared.clone();
    let mut spec = once(&[well.address]);
    spec["health"]["active"]["checkers"] = json!(3);
    let under = in_front(settings, spec);
    // By its own finding the target's digest is known.
    let mut finding = None;
    until(|| {
        finding = finding.or_else(|| shared.next());
        finding.is_some()
    })
    .await;
    let target = finding.unwrap().target;
    let ill = Finding { target, is_well: false };
    let before = checks(&under);
    until(|| {
        shared.hear(2, ill);
        shared.hear(3, Finding { is_well: true, ..ill });
        checks(&under) > before + 10.0
    })
    .await;
    assert_eq!((found(&under), out(&under)), (vec![(1, true), (2, false), (3, true)], vec![]));
    // What nobody asked after is no harm.
    shared.hear(9, Finding { target: target ^ 1, is_well: false });
}

#[tokio::test]
async fn a_request_that_fails_has_its_target_checked_here() {
    // Well for those who check it, and for nobody else.
    let broken = Origin::answering(|got| match got.head.starts_with("GET /healthz") {
        true => ok("well"),
        false => String::new(),
    })
    .await;
    let [(one, left), (other, right)] = sharing(&once(&[broken.address]));
    let is_open = AtomicBool::new(true);
    let test = async {
        until(|| found(&one).len() == 1 && found(&other).len() == 1).await;
        let is_left = |under: &Under| {
            under.metric("phalanx_upstream_checked_targets{upstream=\"u\",by=\"others\"}") == Some(1.0)
        };
        until(|| is_left(&one) != is_left(&other)).await;
        let relying = if is_left(&one) { &one } else { &other };
        let mut client = relying.client().await;
        client.write(GET).await;
        assert_eq!(client.answer().await.status, 502);
        until(|| !is_left(relying)).await;
        let before = checks(relying);
        until(|| checks(relying) >= before + 2.0).await;
        assert!(out(relying).is_empty());
    };
    tokio::select! {
        never = carry([&left, &right], &is_open) => match never {},
        () = test => {}
    }
}
