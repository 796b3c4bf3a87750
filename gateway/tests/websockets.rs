//! WebSocket over HTTP/2 (RFC 8441), to a target that speaks HTTP/1.1.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
#[path = "support/mod.rs"]
mod support;

use ::aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use client::{Made, connect, made, trusting};
use h2::{RecvStream, SendStream, ext::Protocol};
use model::Kind;
use rustls::version::TLS13;
use serde_json::json;
use support::{Client, Under, header, patiently, settings, start, until};
use tokio::{io::BufReader, net::TcpListener};

struct Played {
    under: Under,
    certificate: Made,
    target: TcpListener,
}

async fn played() -> Played {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let certificate = made(&["a.example"]);
    let mut settings = settings();
    settings.listen_tls = Some("127.0.0.1:0".parse().unwrap());
    settings.limits.idle_timeout = std::time::Duration::from_millis(100);
    let address = target.local_addr().unwrap().to_string();
    let under = start(
        settings,
        &[
            (Kind::Certificate, "a", certificate.spec()),
            (Kind::Upstream, "u", json!({"targets": [{"address": address}]})),
            (Kind::Route, "r", json!({"match": [{"methods": ["GET"]}], "upstream": "u"})),
            (
                Kind::Route,
                "fixed",
                json!({"match": [{"path": {"exact": "/fixed"}}], "respond": {"status": 200, "body": "no socket"}}),
            ),
        ],
    );
    Played { under, certificate, target }
}

type Asked = (h2::client::ResponseFuture, SendStream<Bytes>);

impl Played {
    /// Asks for a tunnel of this protocol.
    async fn ask(&self, path: &str, protocol: &'static str) -> Asked {
        let config = trusting(&[&self.certificate], &["h2"], &[&TLS13]);
        let stream = connect(self.under.tls(), "a.example", config).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut sender = patiently(sender.ready()).await.unwrap();
        patiently(async {
            while !sender.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let request = http::Request::connect(format!("https://a.example{path}"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .extension(Protocol::from_static(protocol));
        sender.send_request(request.body(()).unwrap(), false).unwrap()
    }

    async fn accept(&self) -> (Client, String) {
        let mut target = Client(BufReader::new(patiently(self.target.accept()).await.unwrap().0));
        let head = target.head().await;
        (target, head)
    }
}

fn proof(key: &str) -> String {
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, [key, guid].concat().as_bytes()))
}

fn switching(proof: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {proof}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

async fn next(body: &mut RecvStream) -> Bytes {
    let bytes = patiently(body.data()).await.unwrap().unwrap();
    body.flow_control().release_capacity(bytes.len()).unwrap();
    bytes
}

#[tokio::test]
async fn bytes_go_both_ways_once_the_target_has_proved_that_it_understands() {
    let played = played().await;
    let (response, mut sending) = played.ask("/chat", "websocket").await;
    let (mut target, head) = played.accept().await;
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("host", "a.example"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
    let key = header(&head, "sec-websocket-key").unwrap();
    target.write(switching(&proof(key))).await;
    let response = patiently(response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(
        !response.headers().contains_key("sec-websocket-accept")
            && !response.headers().contains_key("upgrade")
    );
    let mut body = response.into_body();
    sending.send_data("hello".into(), false).unwrap();
    target.exact("hello").await;
    target.write("hi").await;
    assert_eq!(next(&mut body).await, "hi");
    assert_eq!(played.under.metric("phalanx_tunnels_total"), Some(1.0));
    // It stays open while one that is idle is closed.
    let config = trusting(&[&played.certificate], &["h2"], &[&TLS13]);
    let idle = connect(played.under.tls(), "a.example", config).await.unwrap();
    until(|| played.under.metric("phalanx_client_limits_total{limit=\"idle_timeout\"}") == Some(1.0)).await;
    drop(idle);
    sending.send_data("still".into(), true).unwrap();
    target.exact("still").await;
    assert_eq!(target.rest().await, "", "the client's end is the target's");
    drop(target);
    while let Some(bytes) = patiently(body.data()).await {
        assert_eq!(bytes.unwrap(), "", "the target's end is the client's");
    }
}

#[tokio::test]
async fn what_is_no_websocket_opens_no_tunnel() {
    let played = played().await;
    for said in [
        switching(&proof("another key")),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n".to_owned(),
    ] {
        let (response, _sending) = played.ask("/", "websocket").await;
        let (mut target, _) = played.accept().await;
        target.write(&said).await;
        assert_eq!(patiently(response).await.unwrap().status(), 502, "{said}");
    }
    let (response, _sending) = played.ask("/", "websocket").await;
    let (mut target, _) = played.accept().await;
    target.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(patiently(response).await.unwrap().status(), 403, "a refusal is the target's");
    let (response, _sending) = played.ask("/fixed", "websocket").await;
    assert_eq!(patiently(response).await.unwrap().status(), 502);
    let (response, _sending) = played.ask("/", "other").await;
    assert_eq!(patiently(response).await.unwrap().status(), 400);
    assert_eq!(played.under.metric("phalanx_tunnels_total"), Some(0.0));
}
