//! HTTP/2 as RFC 9113 and 7541 have it, rule by rule: what a client sends frame by frame, and what must come of it.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
mod support;

use std::{sync::Arc, time::Duration};

use Must::{Answer, EndConnection, EndStream};
use client::{connect_with, made, trusting};
use model::Kind;
use rustls::version::TLS13;
use serde_json::json;
use support::{
    Under,
    frames::{
        self, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
        FRAME_SIZE_ERROR, Frame, GOAWAY, HEADERS, PADDED, PING, PRIORITISED, PRIORITY, PROTOCOL_ERROR,
        PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, fields, frame, request, setting,
    },
    patiently,
    recorder::Recorder,
    settings, start,
};
use tokio::io::{AsyncRead, AsyncWriteExt};

/// What must come of it.
#[derive(Debug, Clone, Copy)]
enum Must {
    /// This stream is answered with 200.
    Answer(u32),
    /// A stream, or the connection, ends with one of these errors.
    EndStream(&'static [u32]),
    /// The connection ends with one of these errors.
    EndConnection(&'static [u32]),
}

type Case = (&'static str, Vec<Vec<u8>>, Must);

const BOTH: u8 = END_STREAM | END_HEADERS;
const PROTOCOL: &[u32] = &[PROTOCOL_ERROR];
// `h2` calls some errors by the general name.
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];
const SIZE: &[u32] = &[FRAME_SIZE_ERROR, PROTOCOL_ERROR];
const FLOW: &[u32] = &[FLOW_CONTROL_ERROR, PROTOCOL_ERROR];
const COMPRESSION: &[u32] = &[COMPRESSION_ERROR, PROTOCOL_ERROR];
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, BOTH, stream, &request("GET"))
}

/// The head of a request whose body follows.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST"))
}

/// A whole request with these fields after the usual ones.
fn with(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, BOTH, 1, &[request("GET"), fields(more)].concat())
}

/// A whole request of these fields alone.
fn only(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, BOTH, 1, &fields(all))
}

fn depends_on(stream: u32) -> Vec<u8> {
    [&stream.to_be_bytes()[..], &[15]].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn frames_and_streams() -> Vec<Case> {
    let large = vec![0; 16_385];
    vec![
        ("3.4 a preface", vec![get(1)], Answer(1)),
        ("4.1 an unknown type", vec![frame(22, 0, 0, &[0; 8]), get(1)], Answer(1)),
        ("4.1 an undefined flag", vec![frame(PING, 0x16, 0, &[0; 8]), get(1)], Answer(1)),
        ("4.1 the reserved bit", vec![frame(PING, 0, 1 << 31, &[0; 8]), get(1)], Answer(1)),
        ("4.2 data of 2^14 bytes", vec![post(1), frame(DATA, END_STREAM, 1, &large[1..])], Answer(1)),
        ("4.2 data of more", vec![post(1), frame(DATA, END_STREAM, 1, &large)], EndStream(SIZE)),
        ("4.2 fields of more", vec![frame(HEADERS, BOTH, 1, &large)], EndConnection(SIZE)),
        ("4.3 fields that can't be read", vec![frame(HEADERS, BOTH, 1, &[0x40])], EndConnection(COMPRESSION)),
        (
            "4.3 another frame among fields",
            vec![frame(HEADERS, END_STREAM, 1, &request("GET")), frame(PRIORITY, 0, 1, &depends_on(0))],
            EndConnection(PROTOCOL),
        ),
        (
            "4.3 another stream among fields",
            vec![frame(HEADERS, END_STREAM, 1, &request("GET")), get(3)],
            EndConnection(PROTOCOL),
        ),
        ("5.1 idle: data", vec![frame(DATA, END_STREAM, 1, b"x")], EndConnection(PROTOCOL)),
        ("5.1 idle: reset", vec![frame(RST_STREAM, 0, 1, &number(8))], EndConnection(PROTOCOL)),
        ("5.1 idle: window", vec![frame(WINDOW_UPDATE, 0, 1, &number(100))], EndConnection(PROTOCOL)),
        ("5.1 idle: priority", vec![frame(PRIORITY, 0, 3, &depends_on(0)), get(1)], Answer(1)),
        (
            "5.1 idle: continuation",
            vec![frame(CONTINUATION, END_HEADERS, 1, &request("GET"))],
            EndConnection(PROTOCOL),
        ),
        ("5.1 half closed: data", vec![get(1), frame(DATA, END_STREAM, 1, b"x")], EndStream(CLOSED)),
        ("5.1 half closed: fields", vec![get(1), get(1)], EndStream(CLOSED)),
        (
            "5.1 half closed: continuation",
            vec![get(1), frame(CONTINUATION, END_HEADERS, 1, &request("GET"))],
            EndStream(CLOSED),
        ),
        ("5.1 half closed: window", vec![get(1), frame(WINDOW_UPDATE, 0, 1, &number(1)), get(3)], Answer(3)),
        ("5.1 half closed: priority", vec![get(1), frame(PRIORITY, 0, 1, &depends_on(0)), get(3)], Answer(3)),
        ("5.1 half closed: reset", vec![get(1), frame(RST_STREAM, 0, 1, &number(8)), get(3)], Answer(3)),
        (
            "5.1 closed: fields after a reset",
            vec![post(1), frame(RST_STREAM, 0, 1, &number(8)), get(1)],
            EndStream(CLOSED),
        ),
        (
            "5.1 closed: continuation after a reset",
            vec![
                post(1),
                frame(RST_STREAM, 0, 1, &number(8)),
                frame(CONTINUATION, END_HEADERS, 1, &request("GET")),
            ],
            EndStream(CLOSED),
        ),
        ("5.1.1 an even stream", vec![get(2)], EndConnection(PROTOCOL)),
        ("5.1.1 a lower stream", vec![get(5), get(3)], EndConnection(PROTOCOL)),
        ("5.1.1 stream 0", vec![get(0)], EndConnection(PROTOCOL)),
        (
            "5.3.1 fields that depend on themselves",
            vec![frame(HEADERS, BOTH | PRIORITISED, 1, &[depends_on(1), request("GET")].concat())],
            EndStream(PROTOCOL),
        ),
        (
            "5.3.1 priority that depends on itself",
            vec![frame(PRIORITY, 0, 1, &depends_on(1))],
            EndStream(PROTOCOL),
        ),
        ("5.4.1 what ends a connection", vec![frame(PING, 0, 0, &[0; 6])], EndConnection(SIZE)),
        ("5.5 an unknown frame", vec![frame(0xee, 0, 0, b"unknown"), get(1)], Answer(1)),
        (
            "5.5 an unknown frame among fields",
            vec![frame(HEADERS, END_STREAM, 1, &request("GET")), frame(0xee, 0, 1, b"unknown")],
            EndConnection(PROTOCOL),
        ),
    ]
}

fn definitions() -> Vec<Case> {
    let padded =
        |kind, flags, pad: u8, rest: &[u8]| frame(kind, flags | PADDED, 1, &[&[pad][..], rest].concat());
    let settings = |all: &[Vec<u8>]| frame(SETTINGS, 0, 0, &all.concat());
    vec![
        ("6.1 data on stream 0", vec![frame(DATA, END_STREAM, 0, b"x")], EndConnection(PROTOCOL)),
        (
            "6.1 data of several frames",
            vec![post(1), frame(DATA, 0, 1, b"x"), frame(DATA, END_STREAM, 1, b"y")],
            Answer(1),
        ),
        ("6.1 data with padding", vec![post(1), padded(DATA, END_STREAM, 2, b"x\0\0")], Answer(1)),
        (
            "6.1 more padding than there is",
            vec![post(1), padded(DATA, END_STREAM, 6, b"hello")],
            EndConnection(PROTOCOL),
        ),
        ("6.2 fields on stream 0", vec![frame(HEADERS, BOTH, 0, &request("GET"))], EndConnection(PROTOCOL)),
        (
            "6.2 fields with padding",
            vec![padded(HEADERS, BOTH, 2, &[request("GET"), vec![0; 2]].concat())],
            Answer(1),
        ),
        ("6.2 more padding than there is", vec![padded(HEADERS, BOTH, 100, b"x")], EndStream(PROTOCOL)),
        (
            "6.2 fields with a priority",
            vec![frame(HEADERS, BOTH | PRIORITISED, 1, &[depends_on(0), request("GET")].concat())],
            Answer(1),
        ),
        ("6.3 priority of stream 0", vec![frame(PRIORITY, 0, 0, &depends_on(1))], EndConnection(PROTOCOL)),
        ("6.3 priority of 4 bytes", vec![post(1), frame(PRIORITY, 0, 1, &number(0))], EndStream(SIZE)),
        ("6.4 reset of stream 0", vec![frame(RST_STREAM, 0, 0, &number(8))], EndConnection(PROTOCOL)),
        ("6.4 reset of 3 bytes", vec![post(1), frame(RST_STREAM, 0, 1, &[0; 3])], EndStream(SIZE)),
        (
            "6.5 an acknowledgement with settings",
            vec![frame(SETTINGS, END_STREAM, 0, &[0])],
            EndConnection(SIZE),
        ),
        ("6.5 settings of a stream", vec![frame(SETTINGS, 0, 1, &setting(3, 100))], EndConnection(PROTOCOL)),
        ("6.5 settings of 3 bytes", vec![frame(SETTINGS, 0, 0, &[0; 3])], EndConnection(SIZE)),
        ("6.5.2 push that is neither on nor off", vec![settings(&[setting(2, 2)])], EndConnection(PROTOCOL)),
        ("6.5.2 a window above the largest", vec![settings(&[setting(4, 1 << 31)])], EndConnection(FLOW)),
        ("6.5.2 frames below the smallest", vec![settings(&[setting(5, 16_383)])], EndConnection(PROTOCOL)),
        ("6.5.2 frames above the largest", vec![settings(&[setting(5, 1 << 24)])], EndConnection(PROTOCOL)),
        ("6.5.2 an unknown setting", vec![settings(&[setting(0xff, 1)]), get(1)], Answer(1)),
        (
            "6.5.3 the last of several values",
            vec![settings(&[setting(4, 100), setting(4, 1)]), get(1)],
            Answer(1),
        ),
        ("6.7 ping of a stream", vec![frame(PING, 0, 1, &[0; 8])], EndConnection(PROTOCOL)),
        ("6.7 ping of 6 bytes", vec![frame(PING, 0, 0, &[0; 6])], EndConnection(SIZE)),
        ("6.7 an answer to no ping", vec![frame(PING, END_STREAM, 0, b"unasked!"), get(1)], Answer(1)),
        (
            "6.8 an end of a stream",
            vec![frame(GOAWAY, 0, 1, &[number(0), number(0)].concat())],
            EndConnection(PROTOCOL),
        ),
        ("6.9 a window by 0", vec![frame(WINDOW_UPDATE, 0, 0, &number(0))], EndConnection(PROTOCOL)),
        (
            "6.9 a stream's window by 0",
            vec![post(1), frame(WINDOW_UPDATE, 0, 1, &number(0))],
            EndStream(PROTOCOL),
        ),
        ("6.9 a window of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], EndConnection(SIZE)),
        (
            "6.9.1 a window above the largest",
            vec![frame(WINDOW_UPDATE, 0, 0, &number((1 << 31) - 1)); 2],
            EndConnection(FLOW),
        ),
        (
            "6.9.1 a stream's window above the largest",
            vec![
                post(1),
                frame(WINDOW_UPDATE, 0, 1, &number((1 << 31) - 1)),
                frame(WINDOW_UPDATE, 0, 1, &number((1 << 31) - 1)),
            ],
            EndStream(FLOW),
        ),
        (
            "6.9.2 a first window above the largest",
            vec![settings(&[setting(4, u32::MAX)])],
            EndConnection(FLOW),
        ),
        (
            "6.10 fields in several frames",
            vec![
                frame(HEADERS, END_STREAM, 1, &request("GET")),
                frame(CONTINUATION, 0, 1, &fields(&[("x-a", "b")])),
                frame(CONTINUATION, END_HEADERS, 1, &fields(&[("x-b", "c")])),
            ],
            Answer(1),
        ),
        (
            "6.10 another frame after one that goes on",
            vec![frame(HEADERS, END_STREAM, 1, &request("GET")), frame(DATA, END_STREAM, 1, b"x")],
            EndConnection(PROTOCOL),
        ),
        (
            "6.10 on stream 0",
            vec![frame(HEADERS, END_STREAM, 1, &request("GET")), frame(CONTINUATION, END_HEADERS, 0, &[])],
            EndConnection(PROTOCOL),
        ),
        (
            "6.10 after the end of fields",
            vec![
                frame(HEADERS, END_HEADERS, 1, &request("POST")),
                frame(CONTINUATION, END_HEADERS, 1, &fields(&[("x", "y")])),
            ],
            EndConnection(PROTOCOL),
        ),
        (
            "6.10 after data",
            vec![
                post(1),
                frame(DATA, 0, 1, b"x"),
                frame(CONTINUATION, END_HEADERS, 1, &fields(&[("x", "y")])),
            ],
            EndConnection(PROTOCOL),
        ),
        (
            "7 a reset for an unknown reason",
            vec![post(1), frame(RST_STREAM, 0, 1, &number(0xff)), get(3)],
            Answer(3),
        ),
        (
            "8.4 a client's push",
            vec![frame(PUSH_PROMISE, BOTH, 1, &[number(2).to_vec(), request("GET")].concat())],
            EndConnection(PROTOCOL),
        ),
    ]
}

fn messages() -> Vec<Case> {
    let usual = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a.example")];
    let without = |left_out: &str| {
        let left: Vec<_> = usual.into_iter().filter(|(name, _)| *name != left_out).collect();
        vec![only(&left)]
    };
    let twice = |name: &str| {
        let again = usual.into_iter().find(|(found, _)| *found == name);
        vec![only(&usual.into_iter().chain(again).collect::<Vec<_>>())]
    };
    let measured = |length: &str, data: &[&[u8]]| {
        let mut all = vec![frame(
            HEADERS,
            END_HEADERS,
            1,
            &[request("POST"), fields(&[("content-length", length)])].concat(),
        )];
        for (at, part) in data.iter().enumerate() {
            all.push(frame(DATA, if at + 1 == data.len() { END_STREAM } else { 0 }, 1, part));
        }
        all
    };
    vec![
        ("8.1 a body", vec![post(1), frame(DATA, END_STREAM, 1, b"x")], Answer(1)),
        (
            "8.1 trailers",
            vec![post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, BOTH, 1, &fields(&[("x-a", "b")]))],
            Answer(1),
        ),
        (
            "8.1 trailers that do not end it",
            vec![post(1), frame(HEADERS, END_HEADERS, 1, &fields(&[("x-a", "b")]))],
            EndStream(PROTOCOL),
        ),
        (
            // `h2` takes no notice of it, where it should call the request malformed.
            "8.1 a pseudo-field in trailers",
            vec![post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, BOTH, 1, &fields(&[(":method", "GET")]))],
            Answer(1),
        ),
        ("8.1.1 a length", measured("2", &[b"xy"]), Answer(1)),
        ("8.1.1 a length that is not that of the body", measured("1", &[b"test"]), EndStream(PROTOCOL)),
        ("8.1.1 nor of all its parts", measured("1", &[b"te", b"st"]), EndStream(PROTOCOL)),
        (
            "8.1.1 a length of a body that is none",
            vec![with(&[("content-length", "1")])],
            EndStream(PROTOCOL),
        ),
        ("8.2 a name in upper case", vec![with(&[("X-Test", "ok")])], EndStream(PROTOCOL)),
        ("8.2.2 connection", vec![with(&[("connection", "keep-alive")])], EndStream(PROTOCOL)),
        ("8.2.2 keep-alive", vec![with(&[("keep-alive", "timeout=5")])], EndStream(PROTOCOL)),
        ("8.2.2 proxy-connection", vec![with(&[("proxy-connection", "keep-alive")])], EndStream(PROTOCOL)),
        ("8.2.2 upgrade", vec![with(&[("upgrade", "h2c")])], EndStream(PROTOCOL)),
        ("8.2.2 transfer-encoding", vec![with(&[("transfer-encoding", "chunked")])], EndStream(PROTOCOL)),
        (
            "8.2.2 te of anything but trailers",
            vec![with(&[("te", "trailers, deflate")])],
            EndStream(PROTOCOL),
        ),
        ("8.2.2 te of trailers", vec![with(&[("te", "trailers")])], Answer(1)),
        ("8.3 an unknown pseudo-field", vec![with(&[(":test", "ok")])], EndStream(PROTOCOL)),
        ("8.3 a pseudo-field of responses", vec![with(&[(":status", "200")])], EndStream(PROTOCOL)),
        (
            "8.3 a pseudo-field after a field",
            vec![only(&[
                (":method", "GET"),
                (":scheme", "https"),
                ("x-a", "b"),
                (":path", "/"),
                (":authority", "a.example"),
            ])],
            EndStream(PROTOCOL),
        ),
        (
            "8.3.1 an empty path",
            vec![only(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", ""),
                (":authority", "a.example"),
            ])],
            EndStream(PROTOCOL),
        ),
        ("8.3.1 no method", without(":method"), EndStream(PROTOCOL)),
        ("8.3.1 no scheme", without(":scheme"), EndStream(PROTOCOL)),
        ("8.3.1 no path", without(":path"), EndStream(PROTOCOL)),
        ("8.3.1 two methods", twice(":method"), EndStream(PROTOCOL)),
        ("8.3.1 two schemes", twice(":scheme"), EndStream(PROTOCOL)),
        ("8.3.1 two paths", twice(":path"), EndStream(PROTOCOL)),
    ]
}

/// Sections of RFC 7541.
fn compression() -> Vec<Case> {
    let fields = |bytes: &[u8]| vec![frame(HEADERS, BOTH, 1, &[&request("GET"), bytes].concat())];
    vec![
        ("2.3.3 an index that there is not", fields(&[0xc6]), EndConnection(COMPRESSION)),
        (
            "2.3.3 a name by an index that there is not",
            fields(&[0x7f, 0x07, 1, b'x']),
            EndConnection(COMPRESSION),
        ),
        ("4.2 a table's size at the end", fields(&[0x3f, 0xe1, 0x1f]), EndConnection(COMPRESSION)),
        (
            "5.1 an integer without end",
            fields(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            EndConnection(COMPRESSION),
        ),
        (
            "5.2 Huffman padded by more than 7 bits",
            fields(&[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff]),
            EndConnection(COMPRESSION),
        ),
        (
            "5.2 Huffman padded by zeros",
            fields(&[0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90]),
            EndConnection(COMPRESSION),
        ),
        (
            "5.2 Huffman with an end in it",
            fields(&[
                0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x87, 0x49, 0x51, 0xff, 0xff, 0xff, 0xfa, 0x7f,
            ]),
            EndConnection(COMPRESSION),
        ),
        ("6.1 an index of 0", fields(&[0x80]), EndConnection(COMPRESSION)),
        (
            "6.3 a table above the most",
            vec![frame(HEADERS, BOTH, 1, &[&[0x3f, 0xe2, 0x1f][..], &request("GET")].concat())],
            EndConnection(COMPRESSION),
        ),
        (
            "6.3 a table of nothing",
            vec![frame(HEADERS, BOTH, 1, &[&[0x20][..], &request("GET")].concat())],
            Answer(1),
        ),
        (
            "6.1 fields by index",
            vec![frame(
                HEADERS,
                BOTH,
                1,
                &[0x82, 0x87, 0x84, 0x01, 9, b'a', b'.', b'e', b'x', b'a', b'm', b'p', b'l', b'e'],
            )],
            Answer(1),
        ),
        ("6.2.1 a literal that is indexed", fields(&[0x40, 1, b'x', 1, b'y', 0xbe]), Answer(1)),
        ("6.2.3 a literal that never is", fields(&[0x10, 1, b'x', 1, b'y']), Answer(1)),
    ]
}

/// Sends each on a connection of its own.
async fn hold(cases: Vec<Case>) {
    let target = Recorder::start().await;
    let certificate = made(&["a.example"]);
    let settings = gateway::Settings { listen_tls: Some("127.0.0.1:0".parse().unwrap()), ..settings() };
    let objects = [
        (Kind::Upstream, "u", json!({"targets": [{"address": target.address.to_string()}]})),
        (Kind::Route, "r", json!({"upstream": "u"})),
        (Kind::Certificate, "c", certificate.spec()),
    ];
    let under = start(settings, &objects);
    let config = Arc::new(trusting(&[&certificate], &["h2"], &[&TLS13]));
    let mut broken = Vec::new();
    for (rule, sent, must) in cases {
        let mut client = connect_with(under.tls(), "a.example", config.clone()).await.unwrap();
        frames::greet(&mut client).await;
        // It may be hung up on.
        let _ = client.write_all(&sent.concat()).await;
        let _ = client.flush().await;
        let told = tokio::time::timeout(PATIENCE, outcome(&mut client, must)).await;
        broken.extend(told.unwrap_or(Err(None)).err().map(|frame| (rule, frame)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Whether it comes to what must come of it; if not, the frame that says so.
async fn outcome(client: &mut (impl AsyncRead + Unpin), must: Must) -> Result<(), Option<Frame>> {
    let ends = |codes: &[u32], frame: Frame| match frame.code() {
        Some(code) if codes.contains(&code) => Ok(()),
        _ => Err(Some(frame)),
    };
    loop {
        let Some(frame) = frames::next(client).await else {
            return if matches!(must, Answer(_)) { Err(None) } else { Ok(()) };
        };
        match (must, frame.kind) {
            // Index 8 of the static table is a status of 200.
            (Answer(stream), HEADERS) if frame.stream == stream => {
                return if frame.payload.first() == Some(&0x88) { Ok(()) } else { Err(Some(frame)) };
            }
            (Answer(_), RST_STREAM | GOAWAY) => return Err(Some(frame)),
            (EndStream(codes), RST_STREAM) => return ends(codes, frame),
            (EndStream(codes) | EndConnection(codes), GOAWAY) => return ends(codes, frame),
            _ => {}
        }
    }
}

#[tokio::test]
async fn frames_and_streams_are_as_defined() {
    hold(frames_and_streams()).await;
}

#[tokio::test]
async fn each_frame_is_as_defined() {
    hold(definitions()).await;
}

#[tokio::test]
async fn messages_are_well_formed() {
    hold(messages()).await;
}

#[tokio::test]
async fn fields_are_compressed_as_defined() {
    hold(compression()).await;
}
