//! What may not be framed, addressed or named as it is, byte for byte, against a gateway with a real origin behind it.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use support::{Origin, header, in_front_of, status, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends each and expects this status with a problem document, a closed connection, and nothing at the origin.
async fn refused(want: &str, requests: &[&str]) {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    for request in requests {
        let response = under.send(request).await;
        assert_eq!(status(&response), want, "{request:?} got {response:?}");
        is_problem(&response);
    }
    let count = requests.len() as f64;
    until(|| under.metric("phalanx_requests_total{class=\"4xx\"}") == Some(count)).await;
    assert_eq!(under.metric("phalanx_refusals_total{code=\"invalid\"}"), Some(count));
    let got: Vec<_> = origin.got.lock().unwrap().iter().map(|got| got.head.clone()).collect();
    assert_eq!(got, [] as [String; 0]);
}

/// Asserts that this is one response, whole, that says what is wrong and that the connection ends.
fn is_problem(response: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response:?}");
    assert_eq!(header(head, "connection"), Some("close"), "{response:?}");
    assert_eq!(header(head, "content-type"), Some("application/problem+json"), "{response:?}");
    assert_eq!(header(head, "content-length").map(str::parse), Some(Ok(body.len())), "{response:?}");
    assert!(header(head, "date").is_some(), "{response:?}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"].to_string(), status(response));
    assert_eq!(problem["request_id"].as_str(), header(head, "x-request-id"));
}

#[tokio::test]
async fn bad_heads_get_400_and_the_connection_ends() {
    refused(
        "400",
        &[
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn bad_addresses_get_400() {
    refused(
        "400",
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://x@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn bad_paths_get_400() {
    refused(
        "400",
        &[
            "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%252Fb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_told_so() {
    let long = "a".repeat(20_000);
    refused("414", &[&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")]).await;
    let huge = "a".repeat(80_000);
    let many = "X: y\r\n".repeat(200);
    refused(
        "431",
        &[
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"),
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn bad_chunks_reach_no_origin_whole() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    for body in [
        "x\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "ffffffffffffffff1\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let response = under.send(&request).await;
        assert_eq!(status(&response), "400", "{body:?} got {response:?}");
        assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    }
    assert_eq!(origin.count(), 0);
    until(|| under.metric("phalanx_framing_refusals_total") == Some(10.0)).await;
}

#[tokio::test]
async fn what_came_before_is_answered_first() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    for cut in [0, 1, 30, 40] {
        let good = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n";
        let mut client = under.client().await;
        client.write(&format!("{good}{}", &bad[..cut])).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
        client.write(&bad[cut..]).await;
        let rest = client.rest().await;
        assert_eq!(status(&rest), "400", "{rest:?}");
        is_problem(&rest);
    }
    let response = under
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\nHost: a\r\n\r\n")
        .await;
    let statuses: Vec<_> =
        response.match_indices("HTTP/1.1 ").map(|(at, _)| &response[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{response:?}");
    is_problem(response.rsplit_once("hello").unwrap().1);
}

/// What hyper itself would answer to a bad head.
const BARE: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn what_reads_like_a_refusal_is_none_if_an_origin_says_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front_of(listener.local_addr().unwrap());
    let mut client = under.client().await;
    // The next head is there already when the last of the body is written.
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n").await;
    let (mut origin, _) = listener.accept().await.unwrap();
    let mut seen = [0; 4096];
    let _ = origin.read(&mut seen).await.unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * BARE.len());
    origin.write_all(head.as_bytes()).await.unwrap();
    client.head().await;
    for _ in 0..2 {
        origin.write_all(BARE.as_bytes()).await.unwrap();
        client.exact(BARE).await;
    }
    is_problem(&client.rest().await);

    let origin = Origin::answering(|_| BARE.to_owned()).await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (400, ""));
    assert_eq!(header(&answer.head, "content-type"), None);
}

#[tokio::test]
async fn a_body_is_no_request() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    let inner = "GET /inner HTTP/1.1\nHost: a\r\n\r\n";
    let mut client = under.client().await;
    client
        .write(&format!("POST /outer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()))
        .await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(origin.last().body, inner);
    client
        .write(&format!(
            "POST /outer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        ))
        .await;
    assert_eq!(client.answer().await.status, 200);
    assert!(origin.last().body.contains(inner));
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn upstreams_are_not_trusted_with_framing_either() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let origin = Origin::answering(move |_| response.to_owned()).await;
        let under = in_front_of(origin.address);
        let mut client = under.client().await;
        client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 502, "{response:?}");
        assert!(!answer.body.contains("127.0.0.1") && answer.body.contains("bad_gateway"), "{answer:?}");
    }
}
