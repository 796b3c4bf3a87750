//! What a target answers, to the byte: what is not HTTP to the letter becomes a 502, or breaks off, and harms no other answer.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use support::{Client, Origin, header, in_front_of, ok, patiently, status};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// Not to be sent twice.
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

async fn accept(listener: &TcpListener) -> Client {
    let (stream, _) = patiently(listener.accept()).await.unwrap();
    Client(BufReader::new(stream))
}

/// The next client is answered by another connection of the target, with what is meant for it.
async fn next_is_answered(under: &support::Under, listener: &TcpListener, why: &str) {
    let mut client = under.client().await;
    client.write(POST).await;
    let mut target = accept(listener).await;
    target.head().await;
    target.write(ok("next")).await;
    assert_eq!(client.answer().await.body, "next", "{why}");
}

#[tokio::test]
async fn heads_that_are_none_are_502() {
    let flood = format!("{}{}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100), ok(""));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(1_000));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(100_000));
    for (why, answer) in [
        ("no HTTP", "SSH-2.0-OpenSSH\r\n\r\n"),
        ("an empty line before it", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("no version", "200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a status that is none", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
        ("LF alone after the status line", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
        ("LF alone after a header", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n"),
        ("LF alone at the end", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n"),
        ("CR in a value", "HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 0\r\n\r\n"),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 0\r\n\r\n"),
        ("NUL in a name", "HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 0\r\n\r\n"),
        ("a fold", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n"),
        ("a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        ("no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
        ("the same length twice", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n"),
        ("a length with a plus", "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n"),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        ("a length above 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n"),
        (
            "a length and a coding",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a coding and a length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        ("two codings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n"),
        ("a disguised coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("a coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "a 101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ),
        ("interim responses without end", &flood),
        ("too many headers", &many),
        ("too large a header", &large),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let under = in_front_of(listener.local_addr().unwrap());
        let mut client = under.client().await;
        client.write(POST).await;
        let mut target = accept(&listener).await;
        target.head().await;
        // It may be hung up on.
        let _ = target.0.get_mut().write_all(answer.as_bytes()).await;
        let mut told = client.answer().await;
        while told.status == 103 {
            told = client.answer().await;
        }
        assert_eq!(
            (told.status, header(&told.head, "content-type")),
            (502, Some("application/problem+json")),
            "{why}"
        );
        next_is_answered(&under, &listener, why).await;
    }
}

#[tokio::test]
async fn bodies_that_break_the_rules_break_off() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n";
    for (why, rest) in [
        ("a size that is none", "x\r\nbad\r\n0\r\n\r\n"),
        ("a size with a sign", "+3\r\nbad\r\n0\r\n\r\n"),
        ("a size above 64 bits", "ffffffffffffffff3\r\nbad\r\n0\r\n\r\n"),
        ("LF alone after a size", "3\nbad\r\n0\r\n\r\n"),
        ("no end of data", "2\r\nbad\r\n0\r\n\r\n"),
        ("LF in an extension", "3;\nbad\r\n0\r\n\r\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let under = in_front_of(listener.local_addr().unwrap());
        let mut client = under.client().await;
        client.write(POST).await;
        let mut target = accept(&listener).await;
        target.head().await;
        target.write(chunked).await;
        assert_eq!(status(&client.head().await), "200", "{why}");
        client.exact("4\r\ngood\r\n").await;
        let _ = target.0.get_mut().write_all(rest.as_bytes()).await;
        let rest = client.rest().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "{why}: {rest:?}");
        next_is_answered(&under, &listener, why).await;
    }
}

/// RFC 9112, section 6.3: what has no body has none, whatever its target sends; that must not answer the next request.
#[tokio::test]
async fn a_body_where_there_is_none_answers_nobody() {
    let poison = ok("poison");
    for (why, request, answer) in [
        ("204", POST, format!("HTTP/1.1 204 No Content\r\n\r\n{poison}")),
        (
            "204 with a length",
            POST,
            format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{poison}", poison.len()),
        ),
        (
            "204 in chunks",
            POST,
            format!(
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{poison}\r\n0\r\n\r\n",
                poison.len()
            ),
        ),
        (
            "304",
            POST,
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{poison}", poison.len()),
        ),
        (
            "HEAD",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{poison}", poison.len()),
        ),
        ("more than its length", POST, format!("{}{poison}", ok(""))),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let under = in_front_of(listener.local_addr().unwrap());
        let mut client = under.client().await;
        client.write(request).await;
        let mut target = accept(&listener).await;
        target.head().await;
        target.write(&answer).await;
        let head = client.head().await;
        assert!(matches!(status(&head), "200" | "204" | "304"), "{why}: {head}");
        assert_eq!(target.rest().await, "", "{why}");
        next_is_answered(&under, &listener, why).await;
    }
}

#[tokio::test]
async fn what_a_target_says_too_late_answers_nobody() {
    // A 204 that says that there is more: what comes of it later could be taken for the answer to what was sent meanwhile.
    for framing in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let under = in_front_of(listener.local_addr().unwrap());
        let mut client = under.client().await;
        client.write(POST).await;
        let mut target = accept(&listener).await;
        target.head().await;
        target.write(format!("HTTP/1.1 204 No Content\r\n{framing}\r\n\r\n")).await;
        assert_eq!(status(&client.head().await), "204");
        next_is_answered(&under, &listener, framing).await;
    }
}

#[tokio::test]
async fn a_426_says_to_what_its_client_is_to_upgrade() {
    const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    // It knows of no upgrade.
    const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    for (offered, request, upgrade, connection) in [
        ("Upgrade: websocket, x\r\n", GET, Some("websocket, x"), Some("upgrade")),
        ("Upgrade: websocket\r\nUpgrade: x\r\n", GET, Some("websocket, x"), Some("upgrade")),
        ("Upgrade: websocket\r\n", CLOSE, Some("websocket"), Some("close, upgrade")),
        ("Upgrade: websocket\r\n", OLD, None, Some("close")),
        // No request for these would be taken.
        ("Upgrade: h2c, websocket, TLS/1.2\r\n", GET, Some("websocket"), Some("upgrade")),
        ("Upgrade: TLS/1.2, HTTP/1.1\r\n", GET, None, None),
        ("Upgrade: \r\n", GET, None, None),
        ("", GET, None, None),
    ] {
        let answer = format!(
            "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade, y\r\n{offered}Y: z\r\nContent-Length: 0\r\n\r\n"
        );
        let origin = Origin::answering(move |_| answer.clone()).await;
        let under = in_front_of(origin.address);
        let mut client = under.client().await;
        client.write(request).await;
        let head = client.answer().await.head;
        assert_eq!((status(&head), header(&head, "y")), ("426", None), "{head}");
        assert_eq!((header(&head, "upgrade"), header(&head, "connection")), (upgrade, connection), "{head}");
    }
}
