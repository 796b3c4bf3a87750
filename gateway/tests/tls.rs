//! TLS and HTTP/2 to clients: certificates, sessions, streams, and what strangers may ask for.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
#[path = "support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use client::{answer, connect, connect_with, get, made, trusting};
use http_body_util::Full;
use model::{Config, Kind, Name};
use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use support::{Origin, Under, header, ok, patiently, settings, start, until, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

fn over_tls() -> gateway::Settings {
    gateway::Settings { listen_tls: Some("127.0.0.1:0".parse().unwrap()), ..settings() }
}

/// A gateway that forwards everything to this origin, with these certificates.
fn in_front(settings: gateway::Settings, origin: &Origin, certificates: &[(&str, Value)]) -> Under {
    let upstream = json!({"targets": [{"address": origin.address.to_string()}]});
    let mut objects = vec![
        (Kind::Upstream, "u", upstream),
        (Kind::Route, "r", json!({"upstream": "u"})),
        (
            Kind::Route,
            "away",
            json!({"match": [{"path": {"exact": "/away"}}], "redirect": {"status": 301, "path": {"full": "/b"}}}),
        ),
    ];
    objects.extend(certificates.iter().map(|(name, spec)| (Kind::Certificate, *name, spec.clone())));
    start(settings, &objects)
}

fn shown(stream: &TlsStream<tokio::net::TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn send(stream: &mut TlsStream<tokio::net::TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = patiently(stream.read_to_end(&mut all)).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_that_is_asked_for() {
    let origin = Origin::saying("hello").await;
    let (exact, wild, default) = (made(&["a.shop.example"]), made(&["*.shop.example"]), made(&["d.example"]));
    let certificates = [("exact", exact.spec()), ("wild", wild.spec()), ("default", default.default())];
    let under = in_front(over_tls(), &origin, &certificates);
    for versions in [&[&TLS13], &[&TLS12]] {
        let cases = [("a.shop.example", &exact), ("b.shop.example", &wild), ("d.example", &default)];
        for (host, certificate) in cases {
            let config = trusting(&[certificate], &["http/1.1"], versions);
            let mut stream = connect(under.tls(), host, config).await.unwrap();
            assert_eq!(shown(&stream), *certificate.made.cert.der(), "{host}");
            assert!(send(&mut stream, GET).await.ends_with("hello"));
        }
        // Who names no host, or none that is known, gets the default, and judges for itself.
        let refused = connect(under.tls(), "127.0.0.1", trusting(&[&default], &[], versions)).await;
        assert!(refused.unwrap_err().to_string().contains("not valid for name"));
    }
    assert_eq!(header(&origin.last().head, "x-forwarded-proto"), Some("https"));
    assert_eq!(under.metric("phalanx_tls_handshakes_total"), Some(6.0));
    let expiry = under.metric("phalanx_certificate_expiry_seconds{certificate=\"wild\"}").unwrap();
    assert!(expiry > 1.7e9, "{expiry}");
}

#[tokio::test]
async fn a_certificate_may_be_for_new_versions_alone() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let mut spec = certificate.spec();
    spec["min_version"] = json!("1.3");
    let under = in_front(over_tls(), &origin, &[("a", spec)]);
    let config = |version| trusting(&[&certificate], &[], &[version]);
    assert!(connect(under.tls(), "a.example", config(&TLS12)).await.is_err());
    assert!(connect(under.tls(), "a.example", config(&TLS13)).await.is_ok());
}

#[tokio::test]
async fn without_a_certificate_there_is_an_alert_and_a_metric() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let under = in_front(over_tls(), &origin, &[("a", certificate.spec())]);
    let config = || trusting(&[&certificate], &[], &[&TLS13]);
    let error = connect(under.tls(), "b.example", config()).await.unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    until(|| under.metric("phalanx_tls_no_certificate_total") == Some(1.0)).await;
    assert!(connect(under.tls(), "a.example", config()).await.is_ok());
    // What is no TLS gets nothing.
    let mut plain = support::Client::connect(under.tls()).await;
    plain.write(GET).await;
    assert!(!String::from_utf8_lossy(&plain.rest_bytes().await).contains("HTTP"));
    until(|| under.metric("phalanx_tls_handshake_failures_total") == Some(1.0)).await;
}

#[tokio::test]
async fn certificates_change_while_connections_stay() {
    let origin = Origin::saying("hello").await;
    let (old, new) = (made(&["a.example"]), made(&["a.example"]));
    let under = in_front(over_tls(), &origin, &[("a", old.spec())]);
    let mut before = connect(under.tls(), "a.example", trusting(&[&old], &[], &[&TLS13])).await.unwrap();
    let mut streams = under.http2("a.example", &old).await;
    let mut installed = under.gateway.installed();
    let config = with(&under.config.borrow().clone(), &[(Kind::Certificate, "a", new.spec())]);
    let revision = config.revision;
    under.config.send_replace(Arc::new(config));
    patiently(installed.wait_for(|installed| installed.revision == revision)).await.unwrap();
    let after = connect(under.tls(), "a.example", trusting(&[&new], &[], &[&TLS13])).await.unwrap();
    assert_eq!(shown(&after), *new.made.cert.der());
    assert!(send(&mut before, GET).await.ends_with("hello"));
    assert_eq!(answer(streams.send_request(get("https://a.example/"))).await.1, "hello");
    let mut config: Config = (**under.config.borrow()).clone();
    config.remove(Kind::Certificate, &Name::new("a").unwrap());
    config.revision = config.revision.next();
    let revision = config.revision;
    under.config.send_replace(Arc::new(config));
    patiently(installed.wait_for(|installed| installed.revision == revision)).await.unwrap();
    assert!(connect(under.tls(), "a.example", trusting(&[&new], &[], &[&TLS13])).await.is_err());
    assert_eq!(answer(streams.send_request(get("https://a.example/"))).await.1, "hello");
}

#[tokio::test]
async fn a_session_goes_on_at_another_gateway_of_the_same_secret() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let of = |secret: Option<u8>, tickets| {
        let under = in_front(
            gateway::Settings { tls_tickets: tickets, ..over_tls() },
            &origin,
            &[("a", certificate.spec())],
        );
        let mut config = (**under.config.borrow()).clone();
        config.pepper = secret.map(|secret| Arc::new(model::config::Pepper([secret; 32])));
        config.revision = config.revision.next();
        let revision = config.revision;
        under.config.send_replace(Arc::new(config));
        (under, revision)
    };
    let gateways =
        [of(Some(1), true), of(Some(1), true), of(Some(2), true), of(None, true), of(Some(1), false)];
    for (under, revision) in &gateways {
        let mut installed = under.gateway.installed();
        patiently(installed.wait_for(|installed| installed.revision == *revision)).await.unwrap();
    }
    for version in [&TLS13, &TLS12] {
        let mut kinds = Vec::new();
        for (under, _) in &gateways[1..] {
            // A client that has a session with the first, and goes on with the other.
            let config = Arc::new(trusting(&[&certificate], &["http/1.1"], &[version]));
            for under in [&gateways[0].0, under] {
                let mut stream = connect_with(under.tls(), "a.example", config.clone()).await.unwrap();
                assert!(send(&mut stream, GET).await.ends_with("hello"));
                kinds.push(stream.get_ref().1.handshake_kind());
            }
        }
        let resumed = kinds.iter().map(|kind| *kind == Some(HandshakeKind::Resumed)).collect::<Vec<_>>();
        assert_eq!(resumed, [false, true, false, false, false, false, false, false], "{version:?}");
    }
    assert_eq!(gateways[1].0.metric("phalanx_tls_resumptions_total"), Some(2.0));
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_let_go() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let mut settings = over_tls();
    settings.limits.handshake_timeout = Duration::from_millis(100);
    let under = in_front(settings, &origin, &[("a", certificate.spec())]);
    let mut silent = support::Client::connect(under.tls()).await;
    assert_eq!(silent.rest().await, "");
    until(|| under.metric("phalanx_client_limits_total{limit=\"handshake_timeout\"}") == Some(1.0)).await;
    until(|| under.metric("phalanx_connections") == Some(0.0)).await;
}

#[tokio::test]
async fn http2_is_to_targets_what_http1_is() {
    let origin = Origin::answering(|got| ok(got.head.lines().next().unwrap())).await;
    let certificate = made(&["a.example"]);
    let under = in_front(over_tls(), &origin, &[("a", certificate.spec())]);
    let mut streams = under.http2("a.example", &certificate).await;
    let mut request = get("https://a.example/x/../b%7e?c=%20");
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    let (head, body) = answer(streams.send_request(request)).await;
    assert_eq!((head.status.as_u16(), &*body), (200, "GET /b~?c=%20 HTTP/1.1"));
    assert!(head.headers.get("connection").is_none());
    let got = origin.last().head;
    for (name, value) in [
        ("host", "a.example"),
        ("cookie", "a=1; b=2"),
        ("x-forwarded-proto", "https"),
        ("via", "2.0 phalanx"),
    ] {
        assert_eq!(header(&got, name), Some(value), "{got}");
    }
    let body = Full::new("hello".into());
    let request = http::Request::post("https://a.example/").body(body).unwrap();
    assert_eq!(answer(streams.send_request(request)).await.0.status, 200);
    assert_eq!(origin.last().body, "hello");
    let (head, _) = answer(streams.send_request(get("https://a.example/away"))).await;
    assert_eq!(head.headers["location"], "https://a.example/b");
    let many = (0..100).map(|_| answer(streams.send_request(get("https://a.example/"))));
    let many: Vec<_> = many.collect();
    for one in many {
        assert_eq!(one.await.0.status, 200);
    }
    assert_eq!(under.metric("phalanx_http2_connections_total"), Some(1.0));
    assert_eq!(under.metric("phalanx_requests_total{class=\"2xx\"}"), Some(102.0));
}

#[tokio::test]
async fn http2_is_spoken_without_tls_where_that_is_so_set() {
    let origin = Origin::saying("hello").await;
    let under = in_front(gateway::Settings { http2_plain: true, ..settings() }, &origin, &[]);
    let stream = tokio::net::TcpStream::connect(under.gateway.address()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake::<_, _, Full<hyper::body::Bytes>>(executor, io);
    let (mut streams, connection) = patiently(handshake).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(answer(streams.send_request(get("http://a.example/"))).await.1, "hello");
    assert_eq!(header(&origin.last().head, "x-forwarded-proto"), Some("http"));
    // HTTP/1.1 is spoken there as well, also where it begins like the preface.
    let mut client = under.client().await;
    client.write("P").await;
    client.write("OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(client.answer().await.body, "hello");
    let other = in_front(settings(), &origin, &[]);
    let mut client = other.client().await;
    client.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(support::status(&client.rest().await).starts_with(['4', '5']));
}

#[tokio::test]
async fn what_is_refused_of_http1_is_refused_of_http2() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let under = in_front(over_tls(), &origin, &[("a", certificate.spec())]);
    let mut streams = under.http2("a.example", &certificate).await;
    for (uri, lines, status) in [
        ("https://a.example/a%2fb", &[][..], 400),
        ("https://a.example/", &[("host", "b.example")], 400),
        ("https://user@a.example/", &[], 400),
        ("https://a.example/", &[("x-a", "1"); 101], 431),
    ] {
        let mut request = get(uri);
        for (name, value) in lines {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        assert_eq!(answer(streams.send_request(request)).await.0.status.as_u16(), status, "{uri}");
    }
    let mut long = get("https://a.example/");
    *long.uri_mut() = format!("https://a.example/{}", "a".repeat(17 << 10)).parse().unwrap();
    assert_eq!(answer(streams.send_request(long)).await.0.status, 414);
    let connect = http::Request::connect("a.example:443").body(Full::default()).unwrap();
    assert_eq!(answer(streams.send_request(connect)).await.0.status, 400);
    assert_eq!(origin.count(), 0);
    assert_eq!(
        answer(streams.send_request(get("https://a.example/"))).await.1,
        "hello",
        "the connection stays"
    );
}

#[tokio::test]
async fn a_stream_that_stands_still_ends_and_the_others_go_on() {
    let origin = Origin::answering(|got| ok(if got.body.is_empty() { "none" } else { "some" })).await;
    let certificate = made(&["a.example"]);
    let mut settings = over_tls();
    settings.limits.stall_timeout = Duration::from_millis(100);
    let under = in_front(settings, &origin, &[("a", certificate.spec())]);
    let stream =
        connect(under.tls(), "a.example", trusting(&[&certificate], &["h2"], &[&TLS13])).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request =
        |method| http::Request::builder().method(method).uri("https://a.example/").body(()).unwrap();
    let mut sender = sender.ready().await.unwrap();
    // It says that there is a body, and sends none.
    let (stalled, _body) = sender.send_request(request("POST"), false).unwrap();
    let error = patiently(stalled).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    let (response, _) = sender.send_request(request("GET"), true).unwrap();
    assert_eq!(patiently(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_and_the_others_go_on() {
    let large: &'static str = Box::leak("x".repeat(8 << 20).into_boxed_str());
    let origin =
        Origin::answering(move |got| ok(if got.head.contains(" /large ") { large } else { "small" })).await;
    let certificate = made(&["a.example"]);
    let mut settings = over_tls();
    settings.limits.stall_timeout = Duration::from_millis(300);
    let under = in_front(settings, &origin, &[("a", certificate.spec())]);
    let stream =
        connect(under.tls(), "a.example", trusting(&[&certificate], &["h2"], &[&TLS13])).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| http::Request::get(format!("https://a.example{path}")).body(()).unwrap();
    let mut sender = sender.ready().await.unwrap();
    // It gives no window back for what it takes.
    let (large, _) = sender.send_request(request("/large"), true).unwrap();
    let mut body = patiently(large).await.unwrap().into_body();
    let error = patiently(async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(error),
                None => return None,
            }
        }
    });
    assert!(error.await.unwrap().is_reset());
    let (response, _) = sender.send_request(request("/small"), true).unwrap();
    assert_eq!(patiently(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_on_http2() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin { address: listener.local_addr().unwrap(), got: Arc::default() };
    let certificate = made(&["a.example"]);
    let under = in_front(over_tls(), &origin, &[("a", certificate.spec())]);
    let stream =
        connect(under.tls(), "a.example", trusting(&[&certificate], &["h2"], &[&TLS13])).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::get("https://a.example/").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut target =
        support::Client(tokio::io::BufReader::new(patiently(listener.accept()).await.unwrap().0));
    target.head().await;
    let drained = tokio::spawn(under.gateway.drain(Duration::from_secs(20)));
    // The client is told to ask no more of this connection, and has its answer.
    let told = async {
        let mut sender = sender;
        while let Ok(ready) = sender.ready().await {
            sender = ready;
            tokio::task::yield_now().await;
        }
    };
    patiently(told).await;
    target.write(ok("hello")).await;
    let mut body = patiently(response).await.unwrap().into_body();
    assert_eq!(patiently(body.data()).await.unwrap().unwrap(), "hello");
    drop(body);
    patiently(connection).await.unwrap().unwrap();
    patiently(drained).await.unwrap();
}

/// A connection that speaks frames as it is told.
async fn frames(
    under: &Under,
    certificate: &client::Made,
) -> (h2::client::SendRequest<hyper::body::Bytes>, Ended) {
    let config = trusting(&[certificate], &["h2"], &[&TLS13]);
    let stream = connect(under.tls(), "a.example", config).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

type Ended = tokio::task::JoinHandle<Result<(), h2::Error>>;

#[tokio::test]
async fn requests_that_are_cancelled_at_once_end_the_connection_and_no_other() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let mut settings = over_tls();
    settings.limits.http2.resets_max = 20;
    let under = in_front(settings, &origin, &[("a", certificate.spec())]);
    let mut others = under.http2("a.example", &certificate).await;
    let (mut sender, ended) = frames(&under, &certificate).await;
    for _ in 0..2_000 {
        let Ok(ready) = sender.ready().await else { break };
        sender = ready;
        let request = http::Request::get("https://a.example/").body(()).unwrap();
        let Ok((_response, mut stream)) = sender.send_request(request, true) else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    assert!(patiently(ended).await.unwrap().is_err());
    until(|| under.metric("phalanx_http2_floods_total") == Some(1.0)).await;
    assert_eq!(answer(others.send_request(get("https://a.example/"))).await.1, "hello");
}

#[tokio::test]
async fn requests_that_are_cancelled_once_they_are_under_way_end_the_connection_too() {
    // Nobody answers there, and nobody has to take the connection.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin { address: listener.local_addr().unwrap(), got: Arc::default() };
    let certificate = made(&["a.example"]);
    let mut settings = over_tls();
    settings.limits.http2.resets_max = 20;
    let under = in_front(settings, &origin, &[("a", certificate.spec())]);
    let mut others = under.http2("a.example", &certificate).await;
    let (mut sender, ended) = frames(&under, &certificate).await;
    // Some may be forgotten by the time that others come.
    for sent in 1..=1_000 {
        let Ok(ready) = patiently(sender.ready()).await else { break };
        sender = ready;
        let request = http::Request::get("https://a.example/").body(()).unwrap();
        let Ok((_response, mut stream)) = sender.send_request(request, true) else { break };
        let is_under_way = || under.metric("phalanx_upstream_connections_total") == Some(f64::from(sent));
        until(|| is_under_way() || ended.is_finished()).await;
        stream.send_reset(h2::Reason::CANCEL);
    }
    let _ = patiently(ended).await.unwrap();
    until(|| under.metric("phalanx_http2_floods_total") == Some(1.0)).await;
    let (head, _) = answer(others.send_request(get("https://a.example/away"))).await;
    assert_eq!(head.status, 301);
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection_and_no_other() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    let under = in_front(over_tls(), &origin, &[("a", certificate.spec())]);
    let mut others = under.http2("a.example", &certificate).await;
    let mut stream =
        connect(under.tls(), "a.example", trusting(&[&certificate], &["h2"], &[&TLS13])).await.unwrap();
    let frame = |kind: u8, id: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, id], payload].concat()
    };
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, &[])).await.unwrap();
    // HEADERS that never end: a literal field, and the same in CONTINUATION over and over.
    let field = [&[0, 1, b'a', 126][..], &[b'b'; 126]].concat();
    stream.write_all(&frame(1, 1, &field)).await.unwrap();
    let flood = frame(9, 1, &field);
    while stream.write_all(&flood).await.is_ok() && stream.flush().await.is_ok() {}
    until(|| under.metric("phalanx_http2_floods_total") == Some(1.0)).await;
    assert_eq!(answer(others.send_request(get("https://a.example/"))).await.1, "hello");
}

#[tokio::test]
async fn a_connection_that_ends_between_requests_says_so() {
    let origin = Origin::saying("hello").await;
    let certificate = made(&["a.example"]);
    for drained in [false, true] {
        let mut settings = over_tls();
        if !drained {
            settings.limits.idle_timeout = Duration::from_millis(100);
        }
        let under = in_front(settings, &origin, &[("a", certificate.spec())]);
        let config = trusting(&[&certificate], &["http/1.1"], &[&TLS13]);
        let mut stream = connect(under.tls(), "a.example", config).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(patiently(stream.read_buf(&mut answer)).await.unwrap(), 0);
        }
        let mut rest = Vec::new();
        let reading = patiently(stream.read_to_end(&mut rest));
        // Without the alert it would be an error (RFC 8446, section 6.1).
        let ended = if drained {
            tokio::join!(reading, under.gateway.drain(Duration::from_secs(60))).0
        } else {
            reading.await
        };
        assert!(ended.is_ok() && rest.is_empty(), "{drained}: {ended:?}");
    }
}
