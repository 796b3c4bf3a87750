use std::{
    collections::VecDeque,
    io::Read,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context as Cx, Poll, Wake, Waker},
};

use bytes::Bytes;
use http_body::Frame;
use proptest::prelude::*;

use super::*;
use crate::{
    body::{BodyError, Wrapping},
    metrics::Metrics,
    policy::test::{policy, respond},
};

static GET: Method = Method::GET;
static HEAD: Method = Method::HEAD;

const ALL: &str = r#"{"type": "compress"}"#;

/// A body that comes as it is told to: a frame, or nothing for now.
struct Script(VecDeque<Option<Frame<Bytes>>>);

impl Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Cx<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.0.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

impl Wrapping for Script {
    fn inner(&mut self) -> Option<&mut ResponseBody> {
        None
    }
}

fn data(bytes: &[u8]) -> Option<Frame<Bytes>> {
    Some(Frame::data(Bytes::copy_from_slice(bytes)))
}

fn response(kind: &'static str, script: Vec<Option<Frame<Bytes>>>) -> Response<ResponseBody> {
    let mut body = ResponseBody::empty();
    body.wrap(|_| Script(script.into()));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What becomes of a response for a client that says this.
fn ask(
    doc: &str,
    method: &'static Method,
    request: &[(HeaderName, &'static str)],
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let prepare = |exchange: &mut Exchange<'_>| {
        exchange.method = method;
        for (name, value) in request {
            exchange.headers.append(name, HeaderValue::from_static(value));
        }
    };
    respond(&*policy(doc).unwrap(), prepare, response)
}

fn taking(encodings: &'static str, response: Response<ResponseBody>) -> Response<ResponseBody> {
    ask(ALL, &GET, &[(header::ACCEPT_ENCODING, encodings)], response)
}

fn header_of<'r>(response: &'r Response<ResponseBody>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The next frame, however often it must be asked for.
fn next(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, BodyError>> {
    loop {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut Cx::from_waker(Waker::noop())) {
            return frame;
        }
    }
}

/// All of a body, and its trailers.
fn read(response: Response<ResponseBody>) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut body, mut all, mut trailers) = (response.into_body(), Vec::new(), None);
    while let Some(frame) = next(&mut body) {
        match frame.unwrap().into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (all, trailers)
}

/// As far as it can be read; an end that is missing is no error.
fn decode(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let mut from: Box<dyn Read> = match encoding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        _ => panic!("{encoding:?}"),
    };
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_head_tells_what_the_body_is() {
    let full = || {
        let mut full = response("text/html", vec![data(&[b'a'; 5000])]);
        for (name, value) in [
            (header::CONTENT_LENGTH, "5000"),
            (header::ETAG, "\"abc\""),
            (header::ACCEPT_RANGES, "bytes"),
            (HeaderName::from_static("content-digest"), "sha-256=:x:"),
        ] {
            full.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        full
    };
    let encoded = taking("gzip, br;q=0.9", full());
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-length", ""),
        ("etag", "W/\"abc\""),
        ("accept-ranges", ""),
        ("content-digest", ""),
        ("vary", "accept-encoding"),
    ] {
        assert_eq!(header_of(&encoded, name), value, "{name}");
    }
    let (bytes, _) = read(encoded);
    assert!(bytes.len() < 100);
    assert_eq!(decode("gzip", &bytes), [b'a'; 5000]);
    // Another client may have it as it is, and caches know that there are others.
    let plain = ask(ALL, &GET, &[], full());
    for (name, value) in [
        ("content-encoding", ""),
        ("content-length", "5000"),
        ("etag", "\"abc\""),
        ("vary", "accept-encoding"),
    ] {
        assert_eq!(header_of(&plain, name), value, "{name}");
    }
    let head = ask(ALL, &HEAD, &[(header::ACCEPT_ENCODING, "gzip")], full());
    assert_eq!((header_of(&head, "content-encoding"), header_of(&head, "vary")), ("", "accept-encoding"));
}

#[test]
fn what_is_better_left_alone_is() {
    let long = || response("text/html", vec![data(&[b'a'; 5000])]);
    let with = |name: HeaderName, value: &'static str| {
        let mut response = long();
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    };
    let of_status = |status: u16| {
        let mut response = long();
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    let small = || Response::new(ResponseBody::full(Bytes::from_static(b"small")));
    for (what, response) in [
        ("encoded", with(header::CONTENT_ENCODING, "br")),
        ("a part", with(header::CONTENT_RANGE, "bytes 0-1/2")),
        ("not to be changed", with(header::CACHE_CONTROL, "public, No-Transform")),
        ("an image", with(header::CONTENT_TYPE, "image/png")),
        ("of unknown type", Response::new(ResponseBody::full(Bytes::from(vec![b'a'; 5000])))),
        ("small", with(header::CONTENT_LENGTH, "1023")),
        ("a part by its status", of_status(206)),
        ("a tunnel", of_status(101)),
        ("known to be small", {
            let mut response = small();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }),
    ] {
        let encoding = response.headers().get(header::CONTENT_ENCODING).cloned();
        let left = taking("gzip", response);
        assert_eq!(left.headers().get(header::CONTENT_ENCODING), encoding.as_ref(), "{what}");
        assert_eq!(header_of(&left, "vary"), "", "{what}");
    }
    assert_eq!(header_of(&taking("gzip", long()), "content-encoding"), "gzip");
    assert_eq!(header_of(&taking("gzip", of_status(404)), "content-encoding"), "gzip");
}

#[test]
fn what_a_client_asks_again_about_is_what_it_was_given() {
    let unchanged = || {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"abc\""));
        response
    };
    let asked = |tags| ask(ALL, &GET, &[(header::IF_NONE_MATCH, tags)], unchanged());
    assert_eq!(header_of(&asked("\"x\", W/\"abc\""), "etag"), "W/\"abc\"");
    assert_eq!(header_of(&asked("\"abc\""), "etag"), "\"abc\"");
}

#[test]
fn a_client_has_what_there_is_while_the_target_makes_more() {
    for encoding in ["gzip", "br", "zstd"] {
        let events: [&[u8]; 2] = [b"data: one\n\n", b"data: two\n\n"];
        let script = vec![data(events[0]), None, None, data(events[1]), None, None];
        let response = taking(encoding, response("text/event-stream", script));
        assert_eq!(header_of(&response, "content-encoding"), encoding);
        let (mut body, mut all) = (response.into_body(), Vec::new());
        for event in 1..=2 {
            // Others have a turn first, in which there may come more of it.
            assert!(Pin::new(&mut body).poll_frame(&mut Cx::from_waker(Waker::noop())).is_pending());
            let Poll::Ready(Some(Ok(frame))) =
                Pin::new(&mut body).poll_frame(&mut Cx::from_waker(Waker::noop()))
            else {
                panic!("event {event} is held back");
            };
            all.extend_from_slice(frame.data_ref().unwrap());
            assert_eq!(decode(encoding, &all), events[..event].concat(), "{encoding}");
        }
    }
}

#[test]
fn a_long_body_leaves_turns_to_others() {
    let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut body = taking("gzip", response("text/plain", vec![data(&bytes)])).into_body();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let (mut pending, mut all) = (0, Vec::new());
    loop {
        match Pin::new(&mut body).poll_frame(&mut Cx::from_waker(&waker)) {
            Poll::Pending => pending += 1,
            Poll::Ready(Some(frame)) => all.extend_from_slice(frame.unwrap().data_ref().unwrap()),
            Poll::Ready(None) => break,
        }
    }
    assert!(pending >= 31, "{pending} turns");
    assert_eq!(woken.0.load(Ordering::Relaxed), pending, "whoever waits is woken");
    assert_eq!(decode("gzip", &all), bytes);
}

#[test]
fn trailers_come_last_and_a_broken_body_stays_broken() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let script = vec![data(b"some text"), Some(Frame::trailers(trailers.clone()))];
    let (bytes, told) = read(taking("zstd", response("text/plain", script)));
    assert_eq!((decode("zstd", &bytes), told), (b"some text".to_vec(), Some(trailers)));

    struct Broken;
    impl Body for Broken {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Cx<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(Some(Err(BodyError::Encode(std::io::ErrorKind::BrokenPipe.into()))))
        }
    }
    impl Wrapping for Broken {
        fn inner(&mut self) -> Option<&mut ResponseBody> {
            None
        }
    }
    let mut broken = response("text/plain", vec![]);
    broken.body_mut().wrap(|_| Broken);
    let mut body = taking("zstd", broken).into_body();
    assert!(matches!(next(&mut body), Some(Err(_))));
}

#[test]
fn without_memory_a_body_goes_as_it_is_or_in_a_smaller_encoding() {
    let how = How {
        encodings: vec![Encoding::Br, Encoding::Gzip],
        levels: Levels::default(),
        types: Types::usual(),
        min_size: 0,
    };
    let how = Arc::new(how);
    let metrics = Arc::<Metrics>::default();
    let encoders = Memory::new(1 << 20);
    let offer = || {
        let accepted = how.encodings.iter().copied().collect();
        Box::new(Offer { how: how.clone(), accepted, is_head: false, knows_weak: false })
    };
    let about =
        About { problem: None, id: &HeaderValue::from_static("id"), metrics: &metrics, encoders: &encoders };
    let mut responses: Vec<_> = (0..3).map(|_| response("text/plain", vec![data(b"text")])).collect();
    responses.iter_mut().for_each(|response| offer().respond(response, &about));
    let encodings: Vec<&str> =
        responses.iter().map(|response| header_of(response, "content-encoding")).collect();
    assert_eq!(encodings, ["gzip", "gzip", ""]);
    assert_eq!(metrics.compress_skipped.get(), 1);
    assert_eq!(read(responses.pop().unwrap()).0, b"text");
    drop(responses);
    let mut after = response("text/plain", vec![data(b"text")]);
    offer().respond(&mut after, &about);
    assert_eq!(header_of(&after, "content-encoding"), "gzip");
}

#[test]
fn what_is_wrong_names_its_place() {
    for (doc, places) in [
        (r#"{"type": "compress", "encodings": []}"#, &["policies.p.encodings"][..]),
        (r#"{"type": "compress", "encodings": ["br", "br"]}"#, &["policies.p.encodings[1]"]),
        (r#"{"type": "compress", "encodings": ["deflate"]}"#, &["policies.p.encodings[0]"]),
        (r#"{"type": "compress", "types": ["html"]}"#, &["policies.p.types[0]"]),
        (r#"{"type": "compress", "min_size": "1MB"}"#, &["policies.p.min_size"]),
        (
            r#"{"type": "compress", "levels": {"gzip": 0, "br": 11, "zstd": 22}}"#,
            &["policies.p.levels.gzip", "policies.p.levels.br", "policies.p.levels.zstd"],
        ),
    ] {
        let found: Vec<String> =
            policy(doc).unwrap_err().into_iter().map(|violation| violation.path).collect();
        assert_eq!(found, places, "{doc}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_client_reads_is_what_was_sent(
        pieces in proptest::collection::vec(
            proptest::option::weighted(0.8, proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..6000)),
            0..24,
        ),
        encoding in prop_oneof![Just("gzip"), Just("br"), Just("zstd")],
        told in any::<bool>(),
    ) {
        let all = pieces.iter().flatten().flatten().copied().collect::<Vec<u8>>();
        let script = pieces.iter().map(|piece| piece.as_deref().and_then(data)).collect();
        let mut response = response("text/plain", script);
        if told {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(all.len()));
        }
        let doc = r#"{"type": "compress", "min_size": 0}"#;
        let response = ask(doc, &GET, &[(header::ACCEPT_ENCODING, encoding)], response);
        prop_assert_eq!(header_of(&response, "content-encoding"), encoding);
        prop_assert_eq!(decode(encoding, &read(response).0), all);
    }
}
