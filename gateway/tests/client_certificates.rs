//! Certificates of clients: asked for by a listener's certificate or a route, told to targets, and got past by no way.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;

use client::{Made, answer, connect, connect_with, get, made, showing, trusting};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Kind;
use rustls::{HandshakeKind, version::TLS13};
use serde_json::{Value, json};
use support::{Origin, Under, header, patiently, settings, start, status, tls::Ca, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUTES: [(&str, &str); 2] = [("open", "/"), ("closed", "/closed")];

/// A gateway whose `secure.example` asks for certificates of this CA, beside `open.example` that asks for none.
fn asking(ca: &Ca, mode: &str, origin: &Origin) -> (Under, Made) {
    let (secure, open) = (made(&["secure.example"]), made(&["open.example"]));
    let mut asks = secure.spec();
    asks["client"] = json!({"ca": ca.pem, "mode": mode, "forward_certificate": true});
    let mut objects = vec![
        (Kind::Certificate, "secure", asks),
        (Kind::Certificate, "open", open.spec()),
        (Kind::Upstream, "u", json!({"targets": [{"address": origin.address.to_string()}]})),
        (Kind::Consumer, "acme.example", json!({})),
        (
            Kind::Policy,
            "partners",
            json!({"type": "client-certificate", "allow": {"names": ["dns:*.example"]}, "consumer": "dns-name"}),
        ),
    ];
    for (name, prefix) in ROUTES {
        let policies: &[&str] = if name == "closed" { &["partners"] } else { &[] };
        let route = json!({"match": [{"path": {"prefix": prefix}}], "policies": policies, "upstream": "u"});
        objects.push((Kind::Route, name, route));
    }
    let mut settings = settings();
    settings.listen_tls = Some("127.0.0.1:0".parse().unwrap());
    let under = start(settings, &objects);
    let pepper = Some(Arc::new(model::config::Pepper([7; 32])));
    under.config.send_modify(|config| {
        let config = Arc::make_mut(config);
        (config.pepper, config.revision) = (pepper, config.revision.next());
    });
    (under, secure)
}

async fn installed(under: &Under) {
    let revision = under.config.borrow().revision;
    let mut installed = under.gateway.installed();
    patiently(installed.wait_for(|installed| installed.revision == revision)).await.unwrap();
}

/// The answer to a GET of this path of `secure.example`; an error where the handshake fails, of which a client of TLS 1.3 hears when
/// it reads.
async fn ask(under: &Under, config: rustls::ClientConfig, path: &str) -> std::io::Result<String> {
    let mut stream = connect(under.tls(), "secure.example", config).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: secure.example\r\nX-Client-Cert-Subject: CN=root\r\nClient-Cert: :AA==:\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut all = String::new();
    patiently(stream.read_to_string(&mut all)).await?;
    Ok(all)
}

#[tokio::test]
async fn one_that_is_required_is_shown_and_told_to_the_target() {
    let (ca, stranger, origin) = (Ca::new(), Ca::new(), Origin::saying("hello").await);
    let (under, secure) = asking(&ca, "required", &origin);
    installed(&under).await;
    assert!(ask(&under, trusting(&[&secure], &[], &[&TLS13]), "/").await.is_err());
    assert!(ask(&under, showing(&secure, stranger.sign(&["acme.example"])), "/").await.is_err());
    assert_eq!(origin.count(), 0);
    let answered = ask(&under, showing(&secure, ca.sign(&["acme.example"])), "/").await.unwrap();
    assert!(answered.ends_with("hello"), "{answered}");
    let got = origin.last().head;
    assert_eq!(header(&got, "x-client-cert-names"), Some("dns:acme.example"));
    assert!(header(&got, "x-client-cert-subject").unwrap().starts_with("CN=rcgen"), "{got}");
    assert_eq!(header(&got, "x-client-cert-fingerprint").map(str::len), Some(64));
    let whole = header(&got, "client-cert").unwrap();
    assert!(whole.len() > 100 && whole.starts_with(":MII") && whole.ends_with(':'), "{whole}");
    assert!(!got.contains("CN=root") && !got.contains(":AA==:"), "{got}");
}

#[tokio::test]
async fn one_that_is_optional_is_asked_for_by_the_route() {
    let (ca, origin) = (Ca::new(), Origin::saying("hello").await);
    let (under, secure) = asking(&ca, "optional", &origin);
    installed(&under).await;
    let without = || trusting(&[&secure], &[], &[&TLS13]);
    assert_eq!(status(&ask(&under, without(), "/").await.unwrap()), "200");
    let got = origin.last().head;
    assert_eq!((header(&got, "x-client-cert-subject"), header(&got, "client-cert")), (None, None));
    assert_eq!(status(&ask(&under, without(), "/closed").await.unwrap()), "403");
    let with = |name: &str| showing(&secure, ca.sign(&[name]));
    assert_eq!(status(&ask(&under, with("acme.example"), "/closed").await.unwrap()), "200");
    assert_eq!(header(&origin.last().head, "x-consumer"), Some("acme.example"));
    assert_eq!(status(&ask(&under, with("other.example"), "/closed").await.unwrap()), "403", "no consumer");
    assert_eq!(status(&ask(&under, with("a.b.example"), "/closed").await.unwrap()), "403", "not allowed");
    // The plain listener asks nobody, and so lets nobody through where one is needed.
    let plain = under.send("GET /closed HTTP/1.1\r\nHost: secure.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&plain), "403");
}

#[tokio::test]
async fn nobody_gets_past_by_asking_for_another_host_than_in_the_handshake() {
    let (ca, origin) = (Ca::new(), Origin::saying("hello").await);
    let (under, _) = asking(&ca, "required", &origin);
    installed(&under).await;
    let open: Vec<_> =
        under.config.borrow().certificates.values().map(|entry| entry.spec.chain.clone()).collect();
    let config = client::trusting_pem(&open, &["h2", "http/1.1"]);
    let mut stream =
        connect(under.tls(), "open.example", client::trusting_pem(&open, &["http/1.1"])).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: secure.example\r\n\r\n").await.unwrap();
    let mut all = String::new();
    patiently(stream.read_to_string(&mut all)).await.unwrap();
    assert_eq!(status(&all), "421", "and the connection ends: {all}");
    let stream = connect(under.tls(), "open.example", config).await.unwrap();
    let (mut streams, connection) = hyper::client::conn::http2::handshake::<_, _, Full<hyper::body::Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(answer(streams.send_request(get("https://open.example/"))).await.1, "hello");
    assert_eq!(answer(streams.send_request(get("https://secure.example/"))).await.0.status, 421);
    drop(streams);
    patiently(connection).await.unwrap().unwrap();
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_session_knows_who_began_it_until_what_is_asked_changes() {
    let (ca, other, origin) = (Ca::new(), Ca::new(), Origin::saying("hello").await);
    let (under, secure) = asking(&ca, "required", &origin);
    installed(&under).await;
    let config = Arc::new(showing(&secure, ca.sign(&["acme.example"])));
    let ask = async || {
        let mut stream = connect_with(under.tls(), "secure.example", config.clone()).await.unwrap();
        let request = "GET /closed HTTP/1.1\r\nHost: secure.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = String::new();
        let read = patiently(stream.read_to_string(&mut all)).await;
        (read.is_ok().then(|| status(&all).to_owned()), stream.get_ref().1.handshake_kind())
    };
    assert_eq!(ask().await, (Some("200".into()), Some(HandshakeKind::Full)));
    assert_eq!(ask().await, (Some("200".into()), Some(HandshakeKind::Resumed)));
    assert_eq!(header(&origin.last().head, "x-consumer"), Some("acme.example"));
    let mut asks: Value = serde_json::from_slice(
        &under.config.borrow().get(Kind::Certificate, &model::Name::new("secure").unwrap()).unwrap().doc,
    )
    .unwrap();
    asks["client"]["ca"] = json!(other.pem);
    let config = with(&under.config.borrow().clone(), &[(Kind::Certificate, "secure", asks)]);
    under.config.send_replace(Arc::new(config));
    installed(&under).await;
    let (answered, kind) = ask().await;
    assert!(answered.is_none() && kind != Some(HandshakeKind::Resumed), "{answered:?} {kind:?}");
}
