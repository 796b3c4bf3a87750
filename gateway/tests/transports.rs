//! How targets are spoken to: TLS, and who they must prove to be.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::sync::Arc;

use model::{Config, Kind};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use support::{
    Under, in_front, settings,
    tls::{self, Ca, TlsOrigin},
    until, with,
};
use tokio::{io::AsyncReadExt, net::TcpListener};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const FAILURES: &str = "phalanx_upstream_connect_failures_total";

fn upstream(address: impl ToString, tls: Value) -> Value {
    json!({"targets": [{"address": address.to_string()}], "tls": tls})
}

async fn origin(ca: &Ca) -> TlsOrigin {
    let mut config = tls::server(ca, &["orders.internal", "shop.example"], &[&TLS13, &TLS12]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsOrigin::start(config).await
}

async fn status(under: &Under) -> u16 {
    let mut client = under.client().await;
    client.write(GET).await;
    client.answer().await.status
}

/// Puts this upstream in, and waits until it is obeyed.
async fn change(under: &Under, upstream: Value) {
    let config: Config = with(&under.config.borrow(), &[(Kind::Upstream, "u", upstream)]);
    let revision = config.revision;
    under.config.send_replace(Arc::new(config));
    until(|| under.gateway.installed().borrow().revision == revision).await;
}

#[tokio::test]
async fn a_target_must_be_who_it_should_be() {
    let ca = Ca::new();
    let origin = origin(&ca).await;
    let right = json!({"ca": ca.pem, "sni": "orders.internal"});
    let under = in_front(settings(), upstream(origin.address, right.clone()));
    assert_eq!(status(&under).await, 200);
    assert_eq!(origin.seen()[0].sni.as_deref(), Some("orders.internal"));
    assert_eq!(origin.seen()[0].alpn.as_deref(), Some("http/1.1"));

    // The connection that stands was made to one that was trusted then.
    change(&under, upstream(origin.address, json!({"ca": Ca::new().pem, "sni": "orders.internal"}))).await;
    assert_eq!(status(&under).await, 502, "signed by another");
    change(&under, upstream(origin.address, json!({"ca": ca.pem, "sni": "other.internal"}))).await;
    assert_eq!(status(&under).await, 502, "for another name");
    change(&under, upstream(origin.address, json!({"ca": ca.pem}))).await;
    assert_eq!(status(&under).await, 502, "not for its address");
    assert!(under.metric(&format!("{FAILURES}{{reason=\"certificate\"}}")) >= Some(3.0));

    let named = json!({"ca": ca.pem, "name": "orders.internal"});
    for good in [right, named, json!({"verify": false}), json!({"verify": false, "sni": "other.internal"})] {
        change(&under, upstream(origin.address, good.clone())).await;
        assert_eq!(status(&under).await, 200, "{good}");
    }
    let names: Vec<_> = origin.seen().into_iter().map(|seen| seen.sni).collect();
    assert_eq!(names[names.len() - 3..], [None, None, Some("other.internal".to_owned())]);
}

#[tokio::test]
async fn what_was_sent_in_clear_is_not_sent_so_once_tls_is_asked_for() {
    let origin = support::Origin::saying("hello").await;
    let clear = json!({"targets": [{"address": origin.address.to_string()}]});
    let under = in_front(settings(), clear);
    assert_eq!(status(&under).await, 200);
    change(&under, upstream(origin.address, json!({"verify": false}))).await;
    assert_eq!(status(&under).await, 502);
    assert_eq!(origin.count(), 1);
    assert!(under.metric(&format!("{FAILURES}{{reason=\"tls\"}}")) >= Some(1.0));
}

#[tokio::test]
async fn a_target_of_an_old_version_can_be_refused() {
    let ca = Ca::new();
    let origin = TlsOrigin::start(tls::server(&ca, &["orders.internal"], &[&TLS12])).await;
    let mut spec = json!({"ca": ca.pem, "sni": "orders.internal"});
    let under = in_front(settings(), upstream(origin.address, spec.clone()));
    assert_eq!(status(&under).await, 200);
    spec["min_version"] = json!("1.3");
    change(&under, upstream(origin.address, spec)).await;
    assert_eq!(status(&under).await, 502);
}

#[tokio::test]
async fn a_connection_that_was_made_for_a_host_is_used_for_that_host() {
    let ca = Ca::new();
    let origin = origin(&ca).await;
    let tls = json!({"ca": ca.pem, "sni_from": "host"});
    let under = in_front(settings(), upstream(origin.address, tls));
    let mut client = under.client().await;
    for (host, want) in [
        ("shop.example", 200),
        ("orders.internal:80", 200),
        ("Shop.Example", 200),
        ("orders.internal:80", 200),
        ("other.internal", 502),
    ] {
        client.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, want, "{host}");
    }
    let names: Vec<_> = origin.seen().into_iter().filter_map(|seen| seen.sni).collect();
    assert_eq!(names, ["shop.example", "orders.internal"]);
}

#[tokio::test]
async fn the_next_connection_resumes_what_the_last_began() {
    let ca = Ca::new();
    let origin = origin(&ca).await;
    let under =
        in_front(settings(), upstream(origin.address, json!({"ca": ca.pem, "sni": "orders.internal"})));
    let mut first = under.client().await;
    first.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").await;
    // The first one's connection is taken; tickets come with the answer to what is sent on it.
    until(|| origin.seen().len() == 1).await;
    first.write("x").await;
    assert_eq!(first.answer().await.status, 200);
    let mut held = under.client().await;
    held.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").await;
    assert_eq!(status(&under).await, 200);
    assert!(origin.seen().last().unwrap().resumed);
}

#[tokio::test]
async fn a_target_that_finishes_no_handshake_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = upstream(silent.local_addr().unwrap(), json!({"verify": false}));
    spec["timeout"] = json!({"connect": "100ms"});
    spec["retry"] = json!({"attempts": 0});
    let under = in_front(settings(), spec);
    assert_eq!(status(&under).await, 502);
    assert_eq!(under.metric(&format!("{FAILURES}{{reason=\"timeout\"}}")), Some(1.0));
}

/// The PROXY header of each connection that is made here, and then answers.
async fn told() -> (std::net::SocketAddr, Arc<std::sync::Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, told) = (listener.local_addr().unwrap(), Arc::<std::sync::Mutex<Vec<Vec<u8>>>>::default());
    let telling = told.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let telling = telling.clone();
            tokio::spawn(async move {
                let mut client = support::Client(tokio::io::BufReader::new(stream));
                let mut head = client.line().await.into_bytes();
                if head == b"\r\n" {
                    // A signature of version 2, and then 16 + 12 bytes in all.
                    head.resize(28, 0);
                    client.0.read_exact(&mut head[2..]).await.unwrap();
                }
                telling.lock().unwrap().push(head);
                while !client.head().await.is_empty() {
                    client.write(support::ok("hello")).await;
                }
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_target_is_told_for_whom_a_connection_is_made() {
    let (address, told) = told().await;
    let spec = json!({"targets": [{"address": address.to_string()}], "proxy_protocol": "v1"});
    let under = in_front(settings(), spec);
    let (mut first, mut second) = (under.client().await, under.client().await);
    let header = |client: &support::Client| {
        let (from, to) = (client.0.get_ref().local_addr().unwrap(), client.0.get_ref().peer_addr().unwrap());
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port())
    };
    let want = [header(&first), header(&second)];
    for _ in 0..2 {
        for client in [&mut first, &mut second] {
            client.write(GET).await;
            assert_eq!(client.answer().await.status, 200);
        }
    }
    let seen: Vec<_> =
        told.lock().unwrap().iter().map(|head| String::from_utf8_lossy(head).into_owned()).collect();
    assert_eq!(seen, want, "one connection for each of the clients', used again for the same");

    change(&under, json!({"targets": [{"address": address.to_string()}], "proxy_protocol": "v2"})).await;
    first.write(GET).await;
    assert_eq!(first.answer().await.status, 200);
    let head = told.lock().unwrap().last().unwrap().clone();
    assert_eq!(head[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(head[24..26], first.0.get_ref().local_addr().unwrap().port().to_be_bytes());
}

#[tokio::test]
async fn a_target_that_asks_who_we_are_is_shown_a_certificate_of_the_config() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let origin = TlsOrigin::start(tls::server_for(&ca, &["orders.internal"], &clients)).await;
    let mut spec = json!({"ca": ca.pem, "sni": "orders.internal", "certificate": "us"});
    let upstream = |spec: &Value| (Kind::Upstream, "u", upstream(origin.address, spec.clone()));
    let certificate = |from: &Ca| (Kind::Certificate, "us", from.object(&["gateway.internal"]));
    let put = async |under: &Under, objects: &[(Kind, &str, Value)]| {
        let config = with(&under.config.borrow(), objects);
        let revision = config.revision;
        under.config.send_replace(Arc::new(config));
        until(|| under.gateway.installed().borrow().revision == revision).await;
    };
    let route = (Kind::Route, "r", json!({"upstream": "u"}));
    let under = support::start(settings(), &[upstream(&spec), certificate(&clients), route]);
    assert_eq!(status(&under).await, 200);
    // A certificate of the same name that is another takes its place, also for what was made with the old one.
    put(&under, &[certificate(&ca)]).await;
    assert_eq!(status(&under).await, 502);
    put(&under, &[certificate(&clients)]).await;
    assert_eq!(status(&under).await, 200);
    spec.as_object_mut().unwrap().remove("certificate");
    put(&under, &[upstream(&spec)]).await;
    assert_eq!(status(&under).await, 502);
}
