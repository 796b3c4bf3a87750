//! From whom a proxy says that a connection is, and how many connections an address may have.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
mod support;

use client::{made, trusting};
use gateway::{ProxyProtocol, Settings};
use model::Kind;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use serde_json::json;
use support::{Client, Origin, Under, header, patiently, settings, start, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 192.0.2.8 56324 80\r\n";

fn under(origin: &Origin, change: impl FnOnce(&mut Settings)) -> Under {
    let mut settings = settings();
    settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    settings.listen_tls = Some("127.0.0.1:0".parse().unwrap());
    change(&mut settings);
    let upstream = json!({"targets": [{"address": origin.address.to_string()}]});
    let objects = [(Kind::Upstream, "u", upstream), (Kind::Route, "r", json!({"upstream": "u"}))];
    start(settings, &objects)
}

#[tokio::test]
async fn the_client_is_the_one_that_the_proxy_names() {
    let origin = Origin::saying("hello").await;
    let under = under(&origin, |settings| settings.proxy_protocol = Some(ProxyProtocol::Any));
    let v2 =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[192, 0, 2, 9, 192, 0, 2, 8, 1, 2, 0, 80]].concat();
    for (head, client) in [
        (V1.as_bytes(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::8 1 2\r\n", "2001:db8::7"),
        (&v2, "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        // However it comes: with the request at once, or by and by.
        let whole = under.send([head, GET.as_bytes()].concat()).await;
        assert!(whole.ends_with("hello"), "{whole}");
        assert_eq!(header(&origin.last().head, "x-forwarded-for"), Some(client));
        let mut slow = under.client().await;
        let served = origin.count();
        for byte in head {
            slow.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        slow.write(GET).await;
        assert!(slow.rest().await.ends_with("hello"));
        assert_eq!(origin.count(), served + 1);
    }
    // The client is no trusted proxy, so what it says of others is not believed.
    let claims = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
    under.send([V1, claims].concat()).await;
    assert_eq!(header(&origin.last().head, "x-forwarded-for"), Some("192.0.2.7"));
}

#[tokio::test]
async fn it_goes_before_tls() {
    let origin = Origin::saying("hello").await;
    let under = under(&origin, |settings| settings.proxy_protocol = Some(ProxyProtocol::V1));
    let certificate = made(&["a.example"]);
    let config =
        support::with(&under.config.borrow().clone(), &[(Kind::Certificate, "a", certificate.spec())]);
    let revision = config.revision;
    under.config.send_replace(std::sync::Arc::new(config));
    let mut installed = under.gateway.installed();
    patiently(installed.wait_for(|installed| installed.revision == revision)).await.unwrap();
    let mut stream = TcpStream::connect(under.tls()).await.unwrap();
    stream.write_all(V1.as_bytes()).await.unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(trusting(&[&certificate], &[], &[&TLS13])));
    let name = ServerName::try_from("a.example").unwrap();
    let mut stream = patiently(connector.connect(name, stream)).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut all = String::new();
    patiently(stream.read_to_string(&mut all)).await.unwrap();
    assert!(all.ends_with("hello"), "{all}");
    assert_eq!(header(&origin.last().head, "x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(header(&origin.last().head, "x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn without_a_good_header_a_proxys_connection_is_closed() {
    let origin = Origin::saying("hello").await;
    let under = under(&origin, |settings| {
        settings.proxy_protocol = Some(ProxyProtocol::V2);
        settings.limits.header_timeout = std::time::Duration::from_millis(200);
    });
    for bad in [GET, V1, "PROXY TCP4 1.2.3.4\r\n"] {
        assert_eq!(under.send(bad).await, "", "{bad:?}");
    }
    // One that says nothing, or not all.
    let mut silent = under.client().await;
    silent.write(b"\r\n\r\n\0\r\nQUI").await;
    assert_eq!(silent.rest().await, "");
    until(|| under.metric("phalanx_proxy_header_failures_total") == Some(4.0)).await;
    until(|| under.metric("phalanx_connections") == Some(0.0)).await;
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn from_others_no_header_is_taken() {
    let origin = Origin::saying("hello").await;
    let under = under(&origin, |settings| {
        settings.proxy_protocol = Some(ProxyProtocol::Any);
        settings.trusted_proxies = vec!["192.0.2.1/32".parse().unwrap()];
    });
    assert!(under.send(GET).await.ends_with("hello"));
    assert_eq!(header(&origin.last().head, "x-forwarded-for"), Some("127.0.0.1"));
    let answered = under.send([V1, GET].concat()).await;
    assert_eq!(support::status(&answered), "400", "{answered}");
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_theirs() {
    let origin = Origin::saying("hello").await;
    let under = under(&origin, |settings| {
        settings.proxy_protocol = Some(ProxyProtocol::V1);
        settings.limits.connections_by_address_max = 2;
    });
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut kept: Vec<Client> = Vec::new();
    for _ in 0..2 {
        let mut client = under.client().await;
        client.write([V1, get].concat()).await;
        assert_eq!(client.answer().await.status, 200);
        kept.push(client);
    }
    assert_eq!(under.send([V1, GET].concat()).await, "");
    let struck = "phalanx_client_limits_total{limit=\"connections_by_address_max\"}";
    until(|| under.metric(struck) == Some(1.0)).await;
    let other = V1.replace("192.0.2.7", "192.0.2.6");
    assert!(under.send([&other, GET].concat()).await.ends_with("hello"));
    kept.pop();
    until(|| under.metric("phalanx_connections") == Some(1.0)).await;
    assert!(under.send([V1, GET].concat()).await.ends_with("hello"), "there is room again");
}
