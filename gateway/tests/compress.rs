//! Responses that are compressed on their way, with real sockets on both sides.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::io::Read;

use model::Kind;
use serde_json::json;
use support::{Client, Origin, Under, header, patiently, settings, start, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// A gateway that compresses what this target answers.
fn compressing(address: std::net::SocketAddr) -> Under {
    start(
        settings(),
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": address.to_string()}]})),
            (Kind::Policy, "small", json!({"type": "compress"})),
            (Kind::Route, "r", json!({"policies": ["small"], "upstream": "u"})),
        ],
    )
}

/// The next chunk's bytes; none of the last.
async fn chunk(client: &mut Client) -> Vec<u8> {
    let line = client.line().await;
    let length = usize::from_str_radix(line.trim_end(), 16).unwrap();
    let mut bytes = vec![0; length + 2];
    patiently(client.0.read_exact(&mut bytes)).await.unwrap();
    bytes.truncate(length);
    bytes
}

/// As far as it can be read.
fn gunzipped(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    // It ends in the middle, as streams do that go on.
    let _ = flate2::read::GzDecoder::new(bytes).read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = compressing(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let (target, _) = patiently(listener.accept()).await.unwrap();
    let mut target = Client(BufReader::new(target));
    let asked = target.head().await;
    assert_eq!(header(&asked, "accept-encoding"), Some("gzip"));
    target
        .write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(header(&head, "content-encoding"), Some("gzip"));
    assert_eq!(header(&head, "vary"), Some("accept-encoding"));
    let (mut seen, mut sent) = (Vec::new(), String::new());
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        target.write(format!("{:x}\r\n{event}\r\n", event.len())).await;
        sent.push_str(&event);
        while gunzipped(&seen) != sent {
            seen.extend(chunk(&mut client).await);
        }
    }
    target.write("0\r\n\r\n").await;
    loop {
        let chunk = chunk(&mut client).await;
        if chunk.is_empty() {
            break;
        }
        seen.extend(chunk);
    }
    let mut whole = String::new();
    flate2::read::GzDecoder::new(&seen[..]).read_to_string(&mut whole).unwrap();
    assert_eq!(whole, sent);
    until(|| under.metric("phalanx_compress_in_bytes_total{encoding=\"gzip\"}") == Some(sent.len() as f64))
        .await;
    let out = under.metric("phalanx_compress_out_bytes_total{encoding=\"gzip\"}");
    assert_eq!(out, Some(seen.len() as f64));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_made_to_look_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = compressing(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: zstd\r\n\r\n").await;
    let (mut target, _) = patiently(listener.accept()).await.unwrap();
    let mut asked = vec![0; 1024];
    assert!(patiently(target.read(&mut asked)).await.unwrap() > 0);
    let text = "word ".repeat(1000);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10000\r\n\r\n";
    target.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
    let head = client.head().await;
    assert_eq!(header(&head, "content-encoding"), Some("zstd"));
    assert_eq!(header(&head, "content-length"), None);
    drop(target);
    let mut all = Vec::new();
    let _ = patiently(client.0.read_to_end(&mut all)).await;
    assert!(!all.ends_with(b"0\r\n\r\n"), "the end of a whole body");
}

#[tokio::test]
async fn a_connection_is_kept_through_compressed_and_plain_answers() {
    let origin = Origin::answering(|_| {
        let body = "words ".repeat(500);
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await;
    let under = compressing(origin.address);
    let mut client = under.client().await;
    for _ in 0..3 {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.len()), (200, 3000));
        assert_eq!(header(&answer.head, "vary"), Some("accept-encoding"));
        client.write("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(header(&head, "content-encoding"), Some("gzip"));
        let mut seen = Vec::new();
        loop {
            let chunk = chunk(&mut client).await;
            if chunk.is_empty() {
                break;
            }
            seen.extend(chunk);
        }
        assert_eq!(gunzipped(&seen).len(), 3000);
    }
    assert_eq!(under.metric("phalanx_upstream_connections_total"), Some(1.0));
}

#[tokio::test]
async fn an_upload_may_end_after_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = compressing(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nContent-Length: 10\r\n\r\n01234")
        .await;
    let mut target = Client(BufReader::new(patiently(listener.accept()).await.unwrap().0));
    target.head().await;
    target
        .write(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3000\r\n\r\n{}",
            "words ".repeat(500)
        ))
        .await;
    assert_eq!(header(&client.head().await, "content-encoding"), Some("gzip"));
    while !chunk(&mut client).await.is_empty() {}
    client.write("56789").await;
    target.exact("0123456789").await;
}
