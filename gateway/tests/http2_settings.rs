//! What is set of HTTP/2, as those on the other side see it: windows, frames, streams, and pings.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst, time::Duration};

use serde_json::{Value, json};
use support::{
    frames::{
        DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE,
        fields, frame, greet, next,
    },
    http2::Http2Origin,
    in_front, patiently, settings, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// RFC 9113, section 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
/// What a connection takes to begin with (section 6.9.2).
const WINDOW_AT_FIRST: u32 = 65_535;

async fn frame_of(io: &mut TcpStream, kind: u8) -> Frame {
    loop {
        let frame = patiently(next(io)).await.expect("the connection stands");
        if frame.kind == kind {
            return frame;
        }
    }
}

/// The other side's settings, and how much more it takes on the connection.
async fn said(io: &mut TcpStream) -> (BTreeMap<u16, u32>, u32) {
    let settings = frame_of(io, SETTINGS).await;
    let pairs = settings.payload.chunks(6).map(|pair| {
        let value = pair[2..].try_into().unwrap();
        (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes(value))
    });
    let pairs = pairs.collect();
    let update = frame_of(io, WINDOW_UPDATE).await;
    (pairs, u32::from_be_bytes(update.payload.try_into().unwrap()))
}

fn upstream(address: impl ToString, http2: Value) -> Value {
    json!({
        "targets": [{"address": address.to_string()}],
        "protocol": "http2",
        "http2": http2,
        "retry": {"attempts": 0},
    })
}

#[tokio::test]
async fn clients_are_told_what_they_may_send() {
    let mut settings = settings();
    settings.http2_plain = true;
    settings.limits.http2.streams_max = 7;
    settings.limits.http2.stream_window_bytes = 100_000;
    settings.limits.http2.connection_window_bytes = 300_000;
    settings.limits.http2.frame_bytes_max = 20_000;
    let under = support::start(settings, &[]);
    let mut client = TcpStream::connect(under.gateway.address()).await.unwrap();
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let (said, more) = said(&mut client).await;
    let of = [MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE].map(|id| said[&id]);
    assert_eq!(of, [7, 100_000, 20_000]);
    assert_eq!(more + WINDOW_AT_FIRST, 300_000);
}

#[tokio::test]
async fn frames_may_be_as_large_as_is_set() {
    let origin = support::Origin::answering(|got| support::ok(&got.body.len().to_string())).await;
    let mut settings = settings();
    settings.http2_plain = true;
    settings.limits.http2.frame_bytes_max = 20_000;
    let under = in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}));
    for (bytes, want) in [(20_000, DATA), (20_001, GOAWAY)] {
        let mut client = TcpStream::connect(under.gateway.address()).await.unwrap();
        greet(&mut client).await;
        let length = bytes.to_string();
        let head = fields(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            ("content-length", &length),
        ]);
        client.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).await.unwrap();
        client.write_all(&frame(DATA, END_STREAM, 1, &vec![b'x'; bytes])).await.unwrap();
        assert!(frame_of(&mut client, want).await.payload.starts_with(if want == DATA {
            b"20000"
        } else {
            b""
        }));
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_let_go() {
    let mut settings = settings();
    settings.http2_plain = true;
    settings.limits.http2.ping_interval = Some(Duration::from_millis(50));
    settings.limits.http2.ping_timeout = Duration::from_secs(2);
    let under = support::start(settings, &[]);
    let mut client = TcpStream::connect(under.gateway.address()).await.unwrap();
    greet(&mut client).await;
    for _ in 0..3 {
        let ping = frame_of(&mut client, PING).await;
        assert_eq!((ping.flags, ping.payload.len()), (0, 8));
        client.write_all(&frame(PING, END_STREAM, 0, &ping.payload)).await.unwrap();
    }
    frame_of(&mut client, PING).await;
    while patiently(next(&mut client)).await.is_some() {}
    until(|| under.metric("phalanx_connections") == Some(0.0)).await;
}

/// A connection to this target, of which the preface is read.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut target, _) = patiently(listener.accept()).await.unwrap();
    patiently(target.read_exact(&mut [0; PREFACE.len()])).await.unwrap();
    target
}

#[tokio::test]
async fn targets_are_told_what_they_may_send() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http2 = json!({"streams_max": 3, "stream_window": "100KiB", "frame_max": "20KiB"});
    let under = in_front(settings(), upstream(listener.local_addr().unwrap(), http2));
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut target = accept(&listener).await;
    let (said, more) = said(&mut target).await;
    let of = [INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE].map(|id| said[&id]);
    assert_eq!(of, [100 << 10, 20 << 10]);
    assert_eq!(more + WINDOW_AT_FIRST, 3 * (100 << 10), "as much as for all of its streams");
}

#[tokio::test]
async fn a_connection_to_a_target_has_so_many_requests_and_no_more() {
    for (streams_max, connections) in [(2, 5), (5, 2), (100, 1)] {
        let origin = Http2Origin::start(200).await;
        let under = in_front(settings(), upstream(origin.address, json!({"streams_max": streams_max})));
        let mut clients = Vec::new();
        for _ in 0..10 {
            let mut client = under.client().await;
            client.write("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
            clients.push(client);
        }
        until(|| origin.busy.load(SeqCst) == 10).await;
        assert_eq!(origin.connections.load(SeqCst), connections, "{streams_max}");
        origin.release.send_replace(true);
        for mut client in clients {
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
    }
}

#[tokio::test]
async fn a_target_that_does_not_answer_pings_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http2 = json!({"ping_interval": "50ms", "ping_timeout": "2s"});
    let under = in_front(settings(), upstream(listener.local_addr().unwrap(), http2));
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut target = accept(&listener).await;
    target.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    frame_of(&mut target, HEADERS).await;
    for _ in 0..3 {
        let ping = frame_of(&mut target, PING).await;
        target.write_all(&frame(PING, END_STREAM, 0, &ping.payload)).await.unwrap();
    }
    // It stands, and is silent from now on. The answer is not waited for any longer than that.
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(1.0));
    while patiently(next(&mut target)).await.is_some() {}
}
