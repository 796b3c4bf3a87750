//! WebSocket to targets of HTTP/2 (RFC 8441): of clients of either version, and what becomes of it where the target does not take it.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use support::{
    Under,
    frames::{HEADERS, PREFACE, SETTINGS, frame, next, setting},
    header,
    http2::Frames,
    in_front, patiently, settings, status, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The key and the proof of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a client of HTTP/1.1 asks for a WebSocket with.
fn asking(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nOrigin: https://a.example\r\n\r\n"
    )
}

/// A target of HTTP/2 that opens WebSockets, greets and echoes on them, and answers all else with its path.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// The heads of requests for tunnels.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Target {
    async fn start(takes_websockets: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            asked: Arc::default(),
        };
        let serving = target.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, SeqCst);
                serving.serve(stream, takes_websockets);
            }
        });
        target
    }

    fn serve(&self, stream: TcpStream, takes_websockets: bool) {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        if takes_websockets {
            server.enable_connect_protocol();
        }
        let target = self.clone();
        let service = service_fn(move |request| {
            let target = target.clone();
            async move { Ok::<_, Infallible>(target.answer(request)) }
        });
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }

    fn answer(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if *request.method() != Method::CONNECT {
            return Response::new(request.uri().path().to_owned().into());
        }
        let protocol =
            request.extensions().get::<hyper::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
        self.asked.lock().unwrap().push(format!("{protocol:?} {}", support::tls::head(&request)));
        let mut response = Response::new(Full::default());
        match request.uri().path() {
            "/refused" => {
                *response.status_mut() = http::StatusCode::FORBIDDEN;
                *response.body_mut() = "not you".into();
            }
            "/created" => *response.status_mut() = http::StatusCode::CREATED,
            _ => {
                response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
                response.headers_mut().insert("sec-websocket-accept", "nonsense".parse().unwrap());
                response.headers_mut().insert("content-length", "0".parse().unwrap());
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(upgrade.await.unwrap());
                    stream.write_all(b"welcome").await.unwrap();
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                        stream.write_all(&bytes[..count]).await.unwrap();
                    }
                    stream.write_all(b"bye").await.unwrap();
                });
            }
        }
        response
    }

    fn upstream(&self) -> Value {
        upstream(self.address)
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn upstream(address: SocketAddr) -> Value {
    json!({"targets": [{"address": address.to_string()}], "protocol": "http2", "retry": {"attempts": 0}})
}

async fn problem(under: &Under, request: impl AsRef<[u8]>) -> (u16, String) {
    let mut client = under.client().await;
    client.write(request).await;
    let answer = client.answer().await;
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    (answer.status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_of_http1_gets_the_answer_of_http1() {
    let target = Target::start(true).await;
    let under = in_front(settings(), target.upstream());
    for turn in 1..=3 {
        let mut client = under.client().await;
        client.write(asking("/chat?room=1")).await;
        let head = client.head().await;
        assert_eq!(status(&head), "101", "{head}");
        for (name, value) in [
            ("connection", Some("upgrade")),
            ("upgrade", Some("websocket")),
            ("sec-websocket-accept", Some(PROOF)),
            ("sec-websocket-protocol", Some("chat")),
            ("content-length", None),
            ("transfer-encoding", None),
        ] {
            assert_eq!(header(&head, name), value, "{name}: {head}");
        }
        let asked = target.asked();
        assert!(
            asked.starts_with("Some(\"websocket\") CONNECT http://a.example/chat?room=1 HTTP/2.0\n"),
            "{asked}"
        );
        for there in
            ["sec-websocket-version: 13\n", "sec-websocket-protocol: chat\n", "origin: https://a.example\n"]
        {
            assert!(asked.contains(there), "{there}: {asked}");
        }
        for gone in ["\nupgrade: ", "\nconnection: ", "\nhost: ", "sec-websocket-key", "content-length"] {
            assert!(!asked.contains(gone), "{gone}: {asked}");
        }
        client.exact("welcome").await;
        client.write("hello").await;
        client.exact("hello").await;
        assert_eq!(under.metric("phalanx_tunnels_total"), Some(f64::from(turn)));
        // The connection is others' too.
        let mut other = under.client().await;
        other.write("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(other.answer().await.body, "/other");
        client.write("x".repeat(100_000)).await;
        client.exact(&"x".repeat(100_000)).await;
        client.0.get_mut().shutdown().await.unwrap();
        assert_eq!(client.rest().await, "bye", "the end of each is the other's");
    }
    assert_eq!(target.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_client_of_http2_gets_the_answer_of_http2() {
    let target = Target::start(true).await;
    let mut settings = settings();
    settings.http2_plain = true;
    let under = in_front(settings, target.upstream());
    let stream = TcpStream::connect(under.gateway.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = patiently(sender.ready()).await.unwrap();
    patiently(async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let request = Request::connect("http://a.example/chat").extension(Protocol::from_static("websocket"));
    let (response, mut sending) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    let response = patiently(response).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().unwrap())
    );
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    sending.send_data("hello".into(), true).unwrap();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(bytes) = patiently(body.data()).await {
        all.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(all, b"welcomehellobye");
    assert!(!target.asked().contains("sec-websocket-key"));
}

#[tokio::test]
async fn a_target_that_takes_none_is_not_asked_and_not_at_fault() {
    let target = Target::start(false).await;
    let under = in_front(settings(), target.upstream());
    for _ in 0..2 {
        assert_eq!(problem(&under, asking("/")).await, (502, "no_upgrade".to_owned()));
    }
    let mut client = under.client().await;
    client.write("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/other");
    assert_eq!((target.asked().as_str(), target.connections.load(SeqCst)), ("", 1));
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
}

#[tokio::test]
async fn what_a_target_answers_instead_is_passed_on() {
    let target = Target::start(true).await;
    let under = in_front(settings(), target.upstream());
    let mut client = under.client().await;
    client.write(asking("/refused")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "not you"));
    client.write("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/other");
    // Only a 200 comes with a stream.
    assert_eq!(problem(&under, asking("/created")).await.0, 502);
    assert_eq!(under.metric("phalanx_tunnels_total"), Some(0.0));
}

#[tokio::test]
async fn what_is_no_websocket_is_not_asked_for() {
    let target = Target::start(true).await;
    let under = in_front(settings(), target.upstream());
    let other = asking("/").replace("WebSocket\r\n", "other\r\n");
    assert_eq!(problem(&under, other).await, (502, "no_upgrade".to_owned()));
    let (key, second) = (
        format!("Sec-WebSocket-Key: {KEY}\r\n"),
        format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Key: x\r\n"),
    );
    for (why, request) in [
        ("no key", asking("/").replace(&key, "")),
        ("two keys", asking("/").replace(&key, &second)),
        ("a key that is none", asking("/").replace(KEY, "key")),
        ("no host", asking("/").replace("Host: a.example", "Host: ")),
    ] {
        assert_eq!(problem(&under, request).await, (400, "invalid".to_owned()), "{why}");
    }
    assert_eq!(target.asked(), "");
}

#[tokio::test]
async fn it_is_waited_for_what_a_target_takes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::start(true).await;
    let under = in_front(settings(), upstream(listener.local_addr().unwrap()));
    let mut client = under.client().await;
    client.write(asking("/chat")).await;
    let (mut stream, _) = patiently(listener.accept()).await.unwrap();
    // A part of a SETTINGS frame.
    stream.write_all(&[0, 0, 6, SETTINGS]).await.unwrap();
    drop(stream);
    assert_eq!(client.answer().await.status, 502, "it ended before it had said anything");
    client.write(asking("/chat")).await;
    let (stream, _) = patiently(listener.accept()).await.unwrap();
    target.serve(stream, true);
    assert_eq!(status(&client.head().await), "101");
    client.exact("welcome").await;
}

#[tokio::test]
async fn settings_that_come_byte_for_byte_are_settings() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front(settings(), upstream(listener.local_addr().unwrap()));
    let mut client = under.client().await;
    client.write(asking("/chat")).await;
    let (mut stream, _) = patiently(listener.accept()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // ENABLE_CONNECT_PROTOCOL (RFC 8441, section 3).
    for byte in frame(SETTINGS, 0, 0, &setting(8, 1)) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut preface = [0; PREFACE.len()];
    patiently(stream.read_exact(&mut preface)).await.unwrap();
    while patiently(next(&mut stream)).await.expect("it is asked once it has said so").kind != HEADERS {}
}

#[tokio::test]
async fn a_target_that_says_nothing_is_given_up_after_the_time_for_connecting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut upstream = upstream(listener.local_addr().unwrap());
    upstream["timeout"] = json!({"connect": "100ms"});
    let under = in_front(settings(), upstream);
    let mut client = under.client().await;
    client.write(asking("/")).await;
    let _silent = patiently(listener.accept()).await.unwrap();
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(1.0));
    // One that speaks, and does not answer.
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut frames = patiently(Frames::accept(&listener)).await;
    let stream = frames.request().await.unwrap();
    frames.ok(stream).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn a_tunnel_counts_as_in_flight_until_it_ends() {
    let target = Target::start(true).await;
    let mut upstream = target.upstream();
    upstream["limits"] = json!({"requests": 1});
    let under = in_front(settings(), upstream);
    let mut client = under.client().await;
    client.write(asking("/chat")).await;
    assert_eq!(status(&client.head().await), "101");
    assert_eq!(problem(&under, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await, (503, "overflow".to_owned()));
    drop(client);
    until(|| under.metric("phalanx_connections") == Some(0.0)).await;
    let mut other = under.client().await;
    other.write("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.answer().await.body, "/a");
}
