//! Where an exchange may end otherwise than both sides expect: bodies that nobody reads, answers that come
//! early, sides that close, and messages that say one thing and do another.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use model::Kind;
use serde_json::json;
use support::{
    Client, Origin, Under,
    frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, fields, frame},
    header, in_front, in_front_of, ok, patiently, settings, start, status, until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Far more than the sockets between hold.
const MANY_BYTES: usize = 64 << 20;

/// A gateway in front of an origin that the test plays itself.
async fn played() -> (Under, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (in_front_of(listener.local_addr().unwrap()), listener)
}

async fn accept(listener: &TcpListener) -> Client {
    Client(BufReader::new(patiently(listener.accept()).await.unwrap().0))
}

/// A gateway that answers everything itself.
fn answering_itself() -> Under {
    start(settings(), &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "mine"}}))])
}

#[tokio::test]
async fn a_body_goes_with_any_method() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        client
            .write(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, 200, "{method}");
        assert_eq!(origin.last().body, "3\r\nabc\r\n0\r\n\r\n", "{method}");
        client.write(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")).await;
        assert_eq!(client.answer().await.status, 200, "{method}");
        assert_eq!(origin.last().body, "abc", "{method}");
    }
}

#[tokio::test]
async fn trailers_claim_nothing() {
    let origin = Origin::saying("").await;
    let under = in_front_of(origin.address);
    under
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Trailer: X-Consumer, X_Auth_User, X-Forwarded-For, X-Check, Transfer-Encoding\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\nX-Consumer: root\r\nX_Auth_User: root\r\nX-Forwarded-For: 6.6.6.6\r\n\
             X-Check: 1\r\nTransfer-Encoding: gzip\r\nHost: b\r\nContent-Length: 9\r\nTrailer: X-Consumer\r\n\r\n",
        )
        .await;
    assert_eq!(origin.last().body.to_lowercase(), "0\r\nx-check: 1\r\n\r\n");
}

#[tokio::test]
async fn an_early_answer_comes_through_and_ends_the_upload() {
    for closes in [false, true] {
        let (under, listener) = played().await;
        let mut client = under.client().await;
        client
            .write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MANY_BYTES}\r\n\r\nbegin"))
            .await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
        let kept = if closes { None } else { Some(origin) };
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (413, "big"));
        // The rest of the body has nowhere to go: sending it fails, or it is thrown away.
        let block = vec![b'x'; 1 << 16];
        let sending = async {
            for _ in 0..MANY_BYTES / block.len() {
                if client.0.get_mut().write_all(&block).await.is_err() {
                    return;
                }
            }
        };
        patiently(sending).await;
        drop((client, kept));
        // The connection to the origin was left in the middle of a request: the next one gets another.
        let mut client = under.client().await;
        client.write(GET).await;
        let mut origin = accept(&listener).await;
        assert!(origin.head().await.starts_with("GET"));
        origin.write(ok("next")).await;
        assert_eq!(client.answer().await.body, "next");
    }
}

/// Answers no request, and takes nothing but what the sockets hold.
async fn hanging() -> (Under, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = json!({"targets": [{"address": address}], "timeout": {"response": "100ms"}});
    (in_front(settings(), upstream), listener)
}

#[tokio::test]
async fn a_target_that_takes_no_body_times_out() {
    let (under, _listener) = hanging().await;
    let mut client = under.client().await;
    client.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MANY_BYTES}\r\n\r\n")).await;
    let (from, mut to) = client.0.into_inner().into_split();
    let sending = tokio::spawn(async move {
        let block = vec![b'x'; 1 << 16];
        while to.write_all(&block).await.is_ok() {}
    });
    let mut answer = String::new();
    // The end may be a reset, since more was sent than anybody read.
    let _ = patiently(tokio::io::AsyncReadExt::read_to_string(&mut { from }, &mut answer)).await;
    assert_eq!((status(&answer), header(&answer, "connection")), ("504", Some("close")), "{answer}");
    patiently(sending).await.unwrap();
}

#[tokio::test]
async fn a_client_that_pauses_in_its_body_does_not_time_its_target_out() {
    let (under, listener) = hanging().await;
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    // Far more than the timeout passes: others run into it, one after another.
    let mut other = under.client().await;
    for _ in 0..4 {
        other.write(GET).await;
        assert_eq!(other.answer().await.status, 504);
    }
    client.write("56789").await;
    origin.exact("0123456789").await;
    origin.write(ok("patient")).await;
    assert_eq!(client.answer().await.body, "patient");
}

#[tokio::test]
async fn the_answer_to_an_upload_is_due_however_the_upload_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = json!({"targets": [{"address": listener.local_addr().unwrap().to_string()}], "timeout": {"response": "100ms"}});
    let mut settings = settings();
    settings.http2_plain = true;
    let under = in_front(settings, upstream);
    // All that was said to come has, and that it was all is said by a frame of its own, or never.
    for (length, body, ends) in [("5", "hello", true), ("5", "hello", false), ("0", "", false)] {
        let mut client = TcpStream::connect(under.gateway.address()).await.unwrap();
        frames::greet(&mut client).await;
        let head = fields(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "a"),
            ("content-length", length),
        ]);
        let mut request = frame(HEADERS, END_HEADERS, 1, &head);
        if !body.is_empty() {
            request.extend(frame(DATA, 0, 1, body.as_bytes()));
        }
        if ends {
            request.extend(frame(DATA, END_STREAM, 1, b""));
        }
        client.write_all(&request).await.unwrap();
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.exact(body).await;
        let answer = loop {
            let frame = patiently(frames::next(&mut client)).await.unwrap();
            if frame.kind == HEADERS {
                break frame;
            }
        };
        // `:status` of HPACK's static table, and 504 in its Huffman code.
        assert_eq!(answer.payload[..5], [0x48, 0x83, 108, 13, 127], "{length} {ends}: {answer:?}");
    }
}

#[tokio::test]
async fn an_upload_may_end_after_its_answer() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234").await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    origin.write(ok("early")).await;
    assert_eq!(client.answer().await.body, "early");
    client.write(format!("56789{GET}")).await;
    origin.exact("0123456789").await;
    // By then the connection may be back in the pool, or not yet.
    let elsewhere = async {
        let mut origin = accept(&listener).await;
        (origin.head().await, origin)
    };
    let (head, mut origin) = tokio::select! {
        there = elsewhere => there,
        head = origin.head() => (head, origin),
    };
    assert!(head.starts_with("GET"), "{head}");
    origin.write(ok("next")).await;
    assert_eq!(client.answer().await.body, "next");
}

#[tokio::test]
async fn an_upload_may_end_after_its_answer_though_its_connection_does_too() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n01234").await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    origin.write(ok("early")).await;
    let answer = client.answer().await;
    assert_eq!((answer.body.as_str(), header(&answer.head, "connection")), ("early", Some("close")));
    client.write("56789").await;
    origin.exact("0123456789").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_small_body_that_nobody_wants_costs_no_connection() {
    let under = answering_itself();
    let mut client = under.client().await;
    for turn in 0..3 {
        client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, header(&answer.head, "connection")), (200, None), "{turn}");
        client.write("0123456789").await;
        client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        assert_eq!(client.answer().await.body, "mine");
        client.write("3\r\nabc\r\n0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn a_large_body_that_nobody_wants_ends_the_connection_and_says_so() {
    let under = answering_itself();
    let mut client = under.client().await;
    client.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MANY_BYTES}\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.body.as_str(), header(&answer.head, "connection")), ("mine", Some("close")));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_waits_for_100_and_is_answered_otherwise_is_told_of_the_end() {
    let under = answering_itself();
    let mut client = under.client().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 37\r\n\r\n";
    client.write(head).await;
    let answer = client.answer().await;
    assert_eq!((answer.body.as_str(), header(&answer.head, "connection")), ("mine", Some("close")));
    // What it sends now may be the body or the next request: nobody can tell, so it is neither.
    let _ = client.0.get_mut().write_all(GET.as_bytes()).await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_answer_that_has_no_body_gets_none() {
    let origin = Origin::answering(|got| {
        let line = got.head.lines().next().unwrap_or_default();
        match line.split(' ').nth(1) {
            Some("/204-length") => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Some("/204-chunked") => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: \"x\"\r\n\r\n",
            Some("/head-chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some("/205") => "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast",
        }
        .to_owned()
    })
    .await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    for (method, path, want) in [
        ("GET", "/204-length", "204"),
        ("GET", "/204-chunked", "204"),
        ("GET", "/304", "304"),
        ("HEAD", "/head-chunked", "200"),
        ("HEAD", "/304", "304"),
        ("GET", "/205", "205"),
    ] {
        client.write(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(status(&head), want, "{path}: {head}");
        if want == "204" {
            // RFC 9110, section 8.6; RFC 9112, section 6.1.
            assert_eq!(header(&head, "content-length"), None, "{path}: {head}");
        }
        if method == "GET" {
            assert_eq!(header(&head, "transfer-encoding"), None, "{path}: {head}");
        }
    }
    client.write(GET).await;
    assert_eq!(client.answer().await.body, "last");
}

#[tokio::test]
async fn a_100_that_nobody_waits_for_is_passed_over() {
    let origin = Origin::answering(|_| {
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100\r\nX: y\r\n\r\n{}", ok("final"))
    })
    .await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write(GET).await;
        assert_eq!(client.answer().await.body, "final");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_length_either() {
    for status in [204, 304] {
        let under = start(settings(), &[(Kind::Route, "r", json!({"respond": {"status": status}}))]);
        let mut client = under.client().await;
        for method in ["HEAD", "GET"] {
            client.write(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let answer = client.answer().await;
            // RFC 9110, section 8.6.
            assert_eq!((answer.status, header(&answer.head, "content-length")), (status, None), "{method}");
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_looks_like_it() {
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "4\r\nhalf\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz", "4\r\nhalf\r\n"),
    ] {
        let (under, listener) = played().await;
        let mut client = under.client().await;
        client.write(GET).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(answer).await;
        client.head().await;
        client.exact(want).await;
        drop(origin);
        assert_eq!(client.rest().await, "", "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_looks_like_it_to_a_client_that_knows_no_chunks() {
    let (under, listener) = played().await;
    for (rest, whole) in [("", false), ("0\r\n\r\n", true)] {
        let mut client = under.client().await;
        client.write("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        client.head().await;
        client.exact("half").await;
        origin.write(rest).await;
        drop(origin);
        let mut more = Vec::new();
        let ended = patiently(client.0.read_to_end(&mut more)).await;
        assert_eq!((ended.is_ok(), more.len()), (whole, 0), "{ended:?}");
    }
}

#[tokio::test]
async fn an_answer_arrives_whole_though_something_of_the_client_is_never_read() {
    let under = answering_itself();
    // A byte more than is read at once, and behind the request.
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: ";
    let filled = "x".repeat(8 * 1024 - head.len() - 4);
    for _ in 0..10 {
        let mut client = under.client().await;
        client.write(format!("{head}{filled}\r\n\r\n!")).await;
        assert!(client.rest().await.ends_with("mine"));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_comes_whole() {
    for version in ["1.0", "1.1"] {
        let (under, listener) = played().await;
        let mut client = under.client().await;
        client.write(GET).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(format!("HTTP/{version} 200 OK\r\n\r\nhello")).await;
        let head = client.head().await;
        assert_eq!(header(&head, "transfer-encoding"), Some("chunked"), "{head}");
        client.exact("5\r\nhello\r\n").await;
        drop(origin);
        client.exact("0\r\n\r\n").await;
        client.write(GET).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(ok("next")).await;
        assert_eq!(client.answer().await.body, "next");
    }
}

#[tokio::test]
async fn what_an_origin_says_unasked_answers_nobody() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    origin.write(format!("{}{}", ok("asked"), ok("unasked"))).await;
    assert_eq!(client.answer().await.body, "asked");
    assert_eq!(origin.rest().await, "");
    client.write(GET).await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    origin.write(ok("fresh")).await;
    assert_eq!(client.answer().await.body, "fresh");
    assert_eq!(under.metric("phalanx_retries_total"), Some(0.0));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_exchange_with_it() {
    // While its target is asked, while it is answered, and while it sends its own body.
    let upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    for (request, answer) in
        [(GET, ""), (GET, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), (upload, "")]
    {
        let (under, listener) = played().await;
        let mut client = under.client().await;
        client.write(request).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(answer).await;
        if !answer.is_empty() {
            client.head().await;
        }
        drop(client);
        origin.rest().await;
        until(|| under.metric("phalanx_connections ") == Some(0.0)).await;
        assert_eq!(under.metric("phalanx_upstream_failures_total"), Some(0.0));
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_before_its_answer_has_gone() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client.write(GET).await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    client.0.get_mut().shutdown().await.unwrap();
    origin.rest().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let origin = Origin::answering(|got| {
        let path = got.head.split(' ').nth(1).unwrap_or_default();
        ok(&format!("{path} {}", got.body))
    })
    .await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    let mut all = String::new();
    for number in 0..50 {
        all.push_str(&format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"));
        all.push_str(&format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n\r\n"));
    }
    client.write(all).await;
    for number in 0..50 {
        assert_eq!(client.answer().await.body, format!("/{number} ab"));
        assert_eq!(client.answer().await.body, format!("/{number} "));
    }
}

#[tokio::test]
async fn a_client_of_http_10_may_keep_its_connection() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.body.as_str(), header(&answer.head, "connection")), ("hello", Some("keep-alive")));
    }
}

#[tokio::test]
async fn no_tunnel_opens_for_a_client_that_did_not_wait() {
    let (under, listener) = played().await;
    let mut client = under.client().await;
    client
        .write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nno\nHTTP")
        .await;
    let mut origin = accept(&listener).await;
    origin.head().await;
    origin
        .write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let answer = client.rest().await;
    assert_eq!(status(&answer), "400", "{answer}");
    assert_eq!(origin.rest().await, "");
    assert_eq!(under.metric("phalanx_tunnels_total"), Some(0.0));
    until(|| under.metric("phalanx_requests_total{class=\"4xx\"}") == Some(1.0)).await;
    assert_eq!(under.metric("phalanx_refusals_total{code=\"invalid\"}"), Some(1.0));
}

#[tokio::test]
async fn a_route_that_leads_back_here_ends() {
    let under = start(settings(), &[]);
    let address = under.gateway.address().to_string();
    let upstream = json!({"targets": [{"address": address}], "retry": {"attempts": 0}});
    let route = json!({"upstream": "u"});
    let config = support::with(
        &under.config.borrow().clone(),
        &[(Kind::Upstream, "u", upstream), (Kind::Route, "r", route)],
    );
    let mut installed = under.gateway.installed();
    under.config.send_replace(config.clone().into());
    installed.wait_for(|installed| installed.revision == config.revision).await.unwrap();
    let mut client = under.client().await;
    client.write(GET).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 508, "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502_and_harms_no_other() {
    let (large, many) = ("x".repeat(70_000), "X: y\r\n".repeat(300));
    for answer in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nX: {large}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"),
    ] {
        let (under, listener) = played().await;
        let mut client = under.client().await;
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.write(request).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(&answer).await;
        let short = &answer[..answer.len().min(60)];
        assert_eq!(client.answer().await.status, 502, "{short:?}");
        assert_eq!(origin.rest().await, "", "{short:?}");
        client.write(request).await;
        let mut origin = accept(&listener).await;
        origin.head().await;
        origin.write(ok("next")).await;
        assert_eq!(client.answer().await.body, "next", "{short:?}");
    }
}

#[tokio::test]
async fn a_request_that_may_go_no_further_goes_no_further() {
    let origin = Origin::saying("hello").await;
    let under = in_front(settings(), json!({"targets": [{"address": origin.address.to_string()}]}));
    let mut client = under.client().await;
    for (method, hops, want) in
        [("OPTIONS", "5", Some("4")), ("GET", "5", Some("5")), ("OPTIONS", "x", Some("x"))]
    {
        client.write(format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {hops}\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(header(&origin.last().head, "max-forwards"), want, "{method} {hops}");
    }
    let count = origin.count();
    client.write("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.count(), count);
}
