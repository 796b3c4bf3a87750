//! gRPC through the gateway, from clients of HTTP/2 over TLS to targets of HTTP/2: what grpc/doc/interop-test-descriptions.md asks of
//! two sides that speak directly, and what the gateway says itself. Messages are any bytes: nothing here reads what is in them.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
#[path = "support/mod.rs"]
mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use client::{connect, made, trusting};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Kind;
use rustls::version::TLS13;
use serde_json::json;
use support::{Under, header, patiently, settings, start, until};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc};

type Body = BoxBody<Bytes, Infallible>;
type Sender = http2::SendRequest<Body>;
/// What a body is made of, as it comes.
type Parts = mpsc::UnboundedSender<Frame<Bytes>>;

fn streamed() -> (Parts, Body) {
    let (parts, frames) = mpsc::unbounded_channel();
    let frames = futures::stream::unfold(frames, |mut frames| async {
        let frame: Frame<Bytes> = frames.recv().await?;
        Some((Ok(frame), frames))
    });
    (parts, StreamBody::new(frames).boxed())
}

/// A message as it is sent: not compressed, its length, and so many bytes.
fn message(bytes: &[u8]) -> Frame<Bytes> {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(bytes.len()).unwrap());
    message.put_slice(bytes);
    Frame::data(message.freeze())
}

fn zeros(length: usize) -> Frame<Bytes> {
    message(&vec![0; length])
}

fn trailers(status: &str, text: &str, more: Option<&HeaderValue>) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::try_from(status).unwrap());
    trailers.insert("grpc-message", HeaderValue::try_from(text).unwrap());
    more.into_iter().for_each(|value| drop(trailers.insert("x-trailing-bin", value.clone())));
    Frame::trailers(trailers)
}

/// Reads a body's messages.
struct Messages {
    body: Incoming,
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Messages {
    fn of(body: Incoming) -> Self {
        Self { body, bytes: BytesMut::new(), trailers: None }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(head) = self.bytes.get(..5) {
                let length = usize::try_from((&head[1..]).get_u32()).unwrap();
                if self.bytes.len() >= 5 + length {
                    self.bytes.advance(5);
                    return Some(self.bytes.split_to(length).freeze());
                }
            }
            let frame = patiently(self.body.frame()).await?.ok()?;
            match frame.into_data() {
                Ok(data) => self.bytes.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }
}

/// A server of gRPC. How many calls it is in is counted, and they are as they come from the wire.
#[derive(Clone, Default)]
struct Server {
    calls: Arc<AtomicUsize>,
}

struct InCall(Arc<AtomicUsize>);

impl Drop for InCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Server {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, server) = (listener.local_addr().unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| serve(server.clone(), request));
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }
}

async fn serve(server: Server, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    server.calls.fetch_add(1, SeqCst);
    let call = InCall(server.calls.clone());
    let (head, body) = request.into_parts();
    assert_eq!(head.headers["te"], "trailers");
    let (parts, answer) = streamed();
    let mut response = Response::new(answer);
    let headers = response.headers_mut();
    headers.insert("content-type", head.headers["content-type"].clone());
    if let Some(value) = head.headers.get("x-initial") {
        headers.insert("x-initial", value.clone());
    }
    let more = head.headers.get("x-trailing-bin").cloned();
    let mut messages = Messages::of(body);
    match head.uri.path() {
        "/t.Test/Unary" => {
            let length = messages.next().await.unwrap().get_u32();
            parts.send(zeros(usize::try_from(length).unwrap())).unwrap();
            parts.send(trailers("0", "", more.as_ref())).unwrap();
        }
        "/t.Test/Sum" => {
            let mut sum = 0;
            while let Some(message) = messages.next().await {
                sum += message.len();
            }
            parts.send(message(&u32::try_from(sum).unwrap().to_be_bytes())).unwrap();
            parts.send(trailers("0", "", None)).unwrap();
        }
        "/t.Test/Lengths" => {
            tokio::spawn(async move {
                let _call = call;
                while let Some(mut message) = messages.next().await {
                    parts.send(zeros(usize::try_from(message.get_u32()).unwrap())).unwrap();
                }
                let _ = parts.send(trailers("0", "", more.as_ref()));
            });
        }
        "/t.Test/Fail" => {
            let status = messages.next().await.unwrap();
            parts.send(trailers("2", std::str::from_utf8(&status).unwrap(), None)).unwrap();
        }
        "/t.Test/Never" => std::future::pending().await,
        _ => {
            // A head alone.
            let headers = response.headers_mut();
            headers.insert("grpc-status", HeaderValue::from_static("12"));
            *response.body_mut() = http_body_util::Empty::new().boxed();
        }
    }
    Ok(response)
}

/// A gateway in front of the server, and a client of it.
async fn through(server: &Server) -> (Under, Sender) {
    let certificate = made(&["grpc.example"]);
    let address = server.start().await.to_string();
    let under = start(
        gateway::Settings { listen_tls: Some("127.0.0.1:0".parse().unwrap()), ..settings() },
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": address}], "protocol": "http2"})),
            (Kind::Upstream, "gone", json!({"targets": [{"address": "127.0.0.1:1"}], "protocol": "http2"})),
            (Kind::Route, "r", json!({"match": [{"path": {"prefix": "/t.Test"}}], "upstream": "u"})),
            (Kind::Route, "gone", json!({"match": [{"path": {"prefix": "/t.Gone"}}], "upstream": "gone"})),
            (Kind::Certificate, "c", certificate.spec()),
        ],
    );
    let config = trusting(&[&certificate], &["h2"], &[&TLS13]);
    let stream = connect(under.tls(), "grpc.example", config).await.unwrap();
    let (sender, connection) =
        patiently(http2::handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    (under, sender)
}

fn call(method: &str, headers: &[(&str, &str)]) -> (Parts, Request<Body>) {
    let (parts, body) = streamed();
    let mut request = Request::post(format!("https://grpc.example{method}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    (parts, request.body(body).unwrap())
}

/// Calls the method with these messages; its head, the lengths of what comes, and the trailers.
async fn called(
    sender: &mut Sender,
    method: &str,
    headers: &[(&str, &str)],
    messages: Vec<Frame<Bytes>>,
) -> (HeaderMap, Vec<Bytes>, HeaderMap) {
    let (parts, request) = call(method, headers);
    messages.into_iter().for_each(|message| parts.send(message).unwrap());
    drop(parts);
    let response = patiently(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let (head, body) = response.into_parts();
    let (mut messages, mut all) = (Messages::of(body), Vec::new());
    while let Some(message) = messages.next().await {
        all.push(message);
    }
    (head.headers, all, messages.trailers.unwrap_or_default())
}

fn length(length: u32) -> Vec<u8> {
    length.to_be_bytes().to_vec()
}

#[tokio::test]
async fn empty_and_large_unary() {
    let (_under, mut sender) = through(&Server::default()).await;
    for (request, response) in [(4, 0), (271_828, 314_159)] {
        let mut bytes = length(response);
        bytes.resize(request, 0);
        let (_, messages, trailers) = called(&mut sender, "/t.Test/Unary", &[], vec![message(&bytes)]).await;
        assert_eq!(messages.iter().map(Bytes::len).collect::<Vec<_>>(), [usize::try_from(response).unwrap()]);
        assert_eq!(trailers["grpc-status"], "0");
    }
}

#[tokio::test]
async fn client_streaming() {
    let (_under, mut sender) = through(&Server::default()).await;
    let messages = [27_182, 8, 1_828, 45_904].map(zeros).into_iter().collect();
    let (_, answer, _) = called(&mut sender, "/t.Test/Sum", &[], messages).await;
    assert_eq!(answer, [Bytes::from(length(74_922))]);
}

#[tokio::test]
async fn server_streaming_and_empty_stream() {
    let (_under, mut sender) = through(&Server::default()).await;
    let lengths: [u32; 4] = [31_415, 9, 2_653, 58_979];
    let messages = lengths.iter().map(|&of| message(&length(of))).collect();
    let (_, answer, trailers) = called(&mut sender, "/t.Test/Lengths", &[], messages).await;
    assert_eq!(
        answer.iter().map(Bytes::len).collect::<Vec<_>>(),
        lengths.map(|of| usize::try_from(of).unwrap())
    );
    assert_eq!(trailers["grpc-status"], "0");
    let (_, answer, trailers) = called(&mut sender, "/t.Test/Lengths", &[], Vec::new()).await;
    assert!(answer.is_empty() && trailers["grpc-status"] == "0");
}

#[tokio::test]
async fn ping_pong() {
    let (_under, mut sender) = through(&Server::default()).await;
    let (parts, request) = call("/t.Test/Lengths", &[]);
    let response = patiently(sender.send_request(request)).await.unwrap();
    let mut messages = Messages::of(response.into_body());
    for of in [31_415, 9, 2_653, 58_979] {
        parts.send(message(&length(of))).unwrap();
        assert_eq!(
            messages.next().await.unwrap().len(),
            usize::try_from(of).unwrap(),
            "before the next is sent"
        );
    }
    drop(parts);
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn status_and_messages() {
    let (_under, mut sender) = through(&Server::default()).await;
    let special = "%0A%09test with whitespace%0D%0Aand Unicode BMP %E2%98%BA";
    for text in ["test status message", special] {
        let (_, _, trailers) = called(&mut sender, "/t.Test/Fail", &[], vec![message(text.as_bytes())]).await;
        assert_eq!(
            (trailers["grpc-status"].as_bytes(), trailers["grpc-message"].as_bytes()),
            (&b"2"[..], text.as_bytes())
        );
    }
}

#[tokio::test]
async fn unimplemented() {
    let (under, mut sender) = through(&Server::default()).await;
    // The method by the server; the service by the gateway, which has no route for it.
    for (method, refused) in [("/t.Test/Nothing", 0.0), ("/t.Nothing/Unary", 1.0)] {
        let (head, messages, trailers) = called(&mut sender, method, &[], vec![zeros(0)]).await;
        assert_eq!(head["grpc-status"], "12");
        assert!(messages.is_empty() && trailers.is_empty());
        assert_eq!(under.metric("phalanx_refusals_total{code=\"not_found\"}"), Some(refused));
    }
}

#[tokio::test]
async fn custom_metadata() {
    let (_under, mut sender) = through(&Server::default()).await;
    let metadata = [("x-initial", "test_initial_metadata_value"), ("x-trailing-bin", "q6ur")];
    let (head, _, trailers) =
        called(&mut sender, "/t.Test/Unary", &metadata, vec![message(&length(9))]).await;
    assert_eq!(
        (&head["x-initial"], &trailers["x-trailing-bin"]),
        (&HeaderValue::from_static(metadata[0].1), &HeaderValue::from_static("q6ur"))
    );
    let (head, _, trailers) =
        called(&mut sender, "/t.Test/Lengths", &metadata, vec![message(&length(9))]).await;
    assert!(head.contains_key("x-initial") && trailers.contains_key("x-trailing-bin"));
}

#[tokio::test]
async fn who_cancels_is_not_served_on() {
    let server = Server::default();
    let (_under, mut sender) = through(&server).await;
    // Before there is an answer, and in the midst of it.
    let (parts, request) = call("/t.Test/Never", &[]);
    parts.send(zeros(1)).unwrap();
    let calling = sender.send_request(request);
    until(|| server.calls.load(SeqCst) == 1).await;
    drop(calling);
    until(|| server.calls.load(SeqCst) == 0).await;
    let (parts, request) = call("/t.Test/Lengths", &[]);
    parts.send(message(&length(1))).unwrap();
    let response = patiently(sender.send_request(request)).await.unwrap();
    let mut messages = Messages::of(response.into_body());
    assert!(messages.next().await.is_some() && server.calls.load(SeqCst) == 1);
    drop((messages, parts));
    until(|| server.calls.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_target_that_can_not_be_had_is_unavailable() {
    let (_under, mut sender) = through(&Server::default()).await;
    let (head, _, _) = called(&mut sender, "/t.Gone/Unary", &[], vec![zeros(0)]).await;
    assert_eq!(head["grpc-status"], "14");
    assert_eq!(head["content-type"], "application/grpc+proto");
}

#[tokio::test]
async fn a_deadline_ends_a_call_whatever_it_has_come_to() {
    let server = Server::default();
    let (_under, mut sender) = through(&server).await;
    let soon = [("grpc-timeout", "100m")];
    let (head, _, _) = called(&mut sender, "/t.Test/Never", &soon, vec![zeros(0)]).await;
    assert_eq!(head["grpc-status"], "4");
    // One that has begun to answer ends with trailers.
    let (parts, request) = call("/t.Test/Lengths", &soon);
    parts.send(message(&length(3))).unwrap();
    let response = patiently(sender.send_request(request)).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    let mut messages = Messages::of(response.into_body());
    assert_eq!(messages.next().await.unwrap().len(), 3);
    assert_eq!(messages.next().await, None);
    assert_eq!(messages.trailers.unwrap()["grpc-status"], "4");
    drop(parts);
    until(|| server.calls.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn who_can_not_call_grpc_calls_it_by_grpc_web() {
    let server = Server::default();
    let address = server.start().await.to_string();
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": address}], "protocol": "http2"})),
            (Kind::Policy, "web", json!({"type": "grpc-web"})),
            (Kind::Route, "r", json!({"policies": ["web"], "upstream": "u"})),
        ],
    );
    // A message of four bytes that asks for one of three.
    let asked = [0, 0, 0, 0, 4, 0, 0, 0, 3];
    let status = b"grpc-status: 0\r\ngrpc-message: \r\n";
    let mut want = vec![0, 0, 0, 0, 3, 0, 0, 0, 0x80, 0, 0, 0, u8::try_from(status.len()).unwrap()];
    want.extend(status);
    for (kind, is_text) in [("application/grpc-web+proto", false), ("application/grpc-web-text", true)] {
        let body = if is_text { BASE64.encode(asked).into_bytes() } else { asked.to_vec() };
        let mut request = format!(
            "POST /t.Test/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body);
        let mut client = under.client().await;
        client.write(request).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(kind), "{head}");
        let mut got = Vec::new();
        loop {
            let line = client.line().await;
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            patiently(client.0.read_exact(&mut chunk)).await.unwrap();
            if length == 0 {
                break;
            }
            let chunk = &chunk[..length];
            // Each part has its own padding.
            got.extend(if is_text { BASE64.decode(chunk).unwrap() } else { chunk.to_vec() });
        }
        assert_eq!(got, want, "{kind}");
    }
    let mut client = under.client().await;
    client
        .write("POST /t.Test/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nContent-Length: 4\r\n\r\n*!*!")
        .await;
    let answer = client.answer().await;
    assert_eq!(header(&answer.head, "grpc-status"), Some("3"), "{answer:?}");
}
