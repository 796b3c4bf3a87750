//! Known failures of other gateways: the attack of each, and that it comes to nothing here.
//!
//! | failure | where else |
//! |---|---|
//! | APISIX CVE-2020-13945 (default admin key), Kong CVE-2020-11710 (open admin) | `tests/tests/roles.rs` |
//! | HTTP/2 rapid reset, CVE-2023-44487 | `tls.rs` |
//! | HTTP/1.1 as such, by rule | `http_rules.rs`, `transfer_encoding.rs` |

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use model::Kind;
use serde_json::{Value, json};
use support::{
    Under, header, patiently,
    recorder::{Recorder, Seen},
    settings, start, status,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `/admin` is for 10.0.0.0/8, where no test comes from; everything else is for everybody.
async fn guarded() -> (Recorder, Under) {
    let target = Recorder::start().await;
    let objects = [
        (Kind::Upstream, "u", json!({"targets": [{"address": target.address.to_string()}]})),
        (Kind::Policy, "inside", json!({"type": "ip", "allow": ["10.0.0.0/8"]})),
        (Kind::Route, "admin", guarded_by(json!([{"path": {"prefix": "/admin"}}]))),
        (Kind::Route, "rest", json!({"upstream": "u"})),
    ];
    let under = start(settings(), &objects);
    (target, under)
}

fn guarded_by(matches: Value) -> Value {
    json!({"match": matches, "policies": ["inside"], "upstream": "u"})
}

/// The status of the answer, and what the target has seen.
async fn send(target: &Recorder, under: &Under, request: impl AsRef<[u8]>) -> (String, Vec<Seen>) {
    let mut client = under.client().await;
    client.write(request).await;
    let answer = client.head().await;
    (status(&answer).to_owned(), target.take())
}

/// Each request is refused with this status, and nothing of it comes to the target.
async fn refused(cases: &[(&str, &[u8], &str)]) {
    let (target, under) = guarded().await;
    for (failure, request, want) in cases {
        let (status, seen) = send(&target, &under, request).await;
        assert_eq!((status.as_str(), seen), (*want, Vec::new()), "{failure}");
    }
}

#[tokio::test]
async fn a_path_is_guarded_however_it_is_written() {
    refused(&[
        ("Envoy CVE-2019-9901: dot segments", b"GET /public/../admin/x HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        (
            "APISIX CVE-2021-43557: the raw target",
            b"GET /public/%2e%2e/admin HTTP/1.1\r\nHost: a\r\n\r\n",
            "403",
        ),
        ("APISIX CVE-2021-43557: a single dot", b"GET /./admin/ HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("Envoy CVE-2021-29492: an encoded slash", b"GET /public%2Fadmin HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (
            "Envoy CVE-2021-29492: an encoded backslash",
            b"GET /x%5C..%5Cadmin HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        ("Envoy CVE-2021-32779: a fragment", b"GET /admin#x HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (
            "Envoy CVE-2021-32779: a fragment before it",
            b"GET /x#/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
        ),
        ("Traefik CVE-2025-66490: encoded letters", b"GET /%61dm%69n HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("Traefik CVE-2025-66490: an encoded NUL", b"GET /admin%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("Traefik CVE-2025-66490: encoded twice", b"GET /%2561dmin HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("OPA-Envoy CVE-2026-26205: two slashes", b"GET //admin/x HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("OPA-Envoy CVE-2026-26205: more", b"GET ////x/..//admin HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("nginx CVE-2013-4547: a space", b"GET /x /../admin HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("nginx CVE-2013-4547: a space and NUL", b"GET /x \0/admin HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        (
            "Caddy CVE-2026-27587: escapes in either case",
            b"GET /%61%44min/%2E%2e/%61dmin HTTP/1.1\r\nHost: a\r\n\r\n",
            "403",
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_matched_is_what_is_forwarded() {
    // Traefik CVE-2025-66490 and APISIX CVE-2021-43557: one view for the route, its policies and the target.
    let (target, under) = guarded().await;
    for (sent, forwarded) in [
        ("/a%3Fb", "/a%3Fb"),
        ("/a%23b", "/a%23b"),
        ("/a%3bb", "/a%3Bb"),
        ("/%7Ex//y/./z", "/~x/y/z"),
        ("/admin/../b?c=../admin", "/b?c=../admin"),
        ("/Admin", "/Admin"),
    ] {
        let request = format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, seen) = send(&target, &under, request).await;
        assert_eq!(status, "200", "{sent}");
        assert_eq!(seen[0].line(), format!("GET {forwarded} HTTP/1.1"));
    }
}

#[tokio::test]
async fn several_values_of_a_header_are_one_list() {
    // Envoy CVE-2021-32777 and CVE-2026-26308: the last value alone, or each by itself, was looked at.
    let target = Recorder::start().await;
    let route = |value: &str| json!({"match": [{"headers": {"x-team": {"exact": value}}}], "upstream": "u"});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": target.address.to_string()}]})),
            (Kind::Route, "blue", route("blue")),
            (Kind::Route, "both", route("red,blue")),
            (
                Kind::Route,
                "regex",
                json!({"match": [{"headers": {"x-word": {"regex": "[a-z]+"}}}], "upstream": "u"}),
            ),
        ],
    );
    for (headers, want) in [
        ("X-Team: blue\r\n", "200"),
        ("X-Team: red\r\nX-Team: blue\r\n", "200"),
        ("X-Team: blue\r\nX-Team: red\r\n", "404"),
        ("X-Team: blue\r\nX-Team: blue\r\n", "404"),
        ("X-Word: a\r\n", "200"),
        ("X-Word: 1\r\nX-Word: a\r\n", "404"),
        ("X-Word: a\r\nX-Word: 1\r\n", "404"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let (status, seen) = send(&target, &under, request).await;
        assert_eq!((status.as_str(), seen.len()), (want, usize::from(want == "200")), "{headers}");
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_itself_is_not_believed() {
    let (target, under) = guarded().await;
    let claims = [
        ("Envoy CVE-2023-27487", "X-Original-Url: /public"),
        ("Envoy CVE-2023-27487", "X-Rewrite-Url: /public"),
        ("Envoy CVE-2023-27487", "X-Phalanx-Path: /public"),
        ("Envoy CVE-2024-45806", "X-Forwarded-For: 10.0.0.1"),
        ("Envoy CVE-2024-45806", "X-Forwarded-For: 127.0.0.1, 192.168.0.1"),
        ("Envoy CVE-2024-45806", "Forwarded: for=10.0.0.1"),
        ("APISIX CVE-2022-24112", "X-Real-Ip: 10.0.0.1"),
        ("APISIX CVE-2022-24112", "X-Client-Ip: 10.0.0.1"),
        ("APISIX CVE-2022-24112", "True-Client-Ip: 10.0.0.1"),
        ("Traefik GHSA-x677-9fxg-v5c5", "X_Auth_User: root"),
        ("Traefik GHSA-x677-9fxg-v5c5", "X.Auth-User: root"),
        ("Traefik GHSA-x677-9fxg-v5c5", "X_Consumer: root"),
        ("Traefik GHSA-x677-9fxg-v5c5", "X_Forwarded.For: 10.0.0.1"),
    ];
    for (failure, claim) in claims {
        // It opens nothing, and the target hears nothing of it.
        let guarded = format!("GET /admin HTTP/1.1\r\nHost: a\r\n{claim}\r\n\r\n");
        assert_eq!(
            send(&target, &under, guarded).await,
            ("403".to_owned(), Vec::new()),
            "{failure}: {claim}"
        );
        let open = format!("GET /x HTTP/1.1\r\nHost: a\r\n{claim}\r\n\r\n");
        let (status, seen) = send(&target, &under, open).await;
        assert_eq!(
            (status.as_str(), seen[0].line().as_str()),
            ("200", "GET /x HTTP/1.1"),
            "{failure}: {claim}"
        );
        let head = String::from_utf8_lossy(&seen[0].head);
        let value = claim.split_once(": ").unwrap().1;
        assert!(!head.contains(value), "{failure}: {claim} in {head}");
    }
}

#[tokio::test]
async fn connection_takes_nothing_away_that_the_target_relies_on() {
    // Traefik CVE-2021-32813 and CVE-2024-45410.
    let (target, under) = guarded().await;
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Host", "Via", "X-Request-Id"] {
        for connection in
            [name.to_owned(), name.to_lowercase(), format!("close, {name}"), format!("{name},{name}")]
        {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            let (status, seen) = send(&target, &under, request).await;
            assert_eq!(status, "200", "{connection}");
            assert_eq!(seen[0].values(name).len(), 1, "{connection}: {:?}", seen[0]);
        }
    }
    let lengths = "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc";
    let (_, seen) = send(&target, &under, lengths).await;
    assert_eq!((&seen[0].body[..], seen[0].fault()), (&b"abc"[..], None));
}

#[tokio::test]
async fn hosts_are_the_same_in_any_case_however_many_there_are() {
    // Caddy CVE-2026-27588: above 100 hosts, their case mattered.
    let target = Recorder::start().await;
    let hosts = |from: usize| (from..from + 60).map(|n| format!("h{n}.example")).collect::<Vec<_>>();
    let mut objects = vec![
        (Kind::Upstream, "u", json!({"targets": [{"address": target.address.to_string()}]})),
        (Kind::Policy, "inside", json!({"type": "ip", "allow": ["10.0.0.0/8"]})),
        (Kind::Route, "rest", json!({"upstream": "u"})),
    ];
    let names = ["a", "b", "c"];
    for (at, name) in names.iter().enumerate() {
        let route = json!({"hosts": hosts(60 * at), "policies": ["inside"], "upstream": "u"});
        objects.push((Kind::Route, name, route));
    }
    let under = start(settings(), &objects);
    for host in ["h0.example", "H0.EXAMPLE", "h179.Example", "H179.example:80", "h100.exaMple"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(send(&target, &under, request).await, ("403".to_owned(), Vec::new()), "{host}");
    }
}

#[tokio::test]
async fn a_message_ends_in_one_place() {
    refused(&[
        (
            "hyper CVE-2021-32714: a chunk's size overflows",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf0000000000000003\r\nabc\r\n0\r\n\r\n",
            "400",
        ),
        (
            "hyper RUSTSEC-2021-0020: Transfer-Encoding twice",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "hyper RUSTSEC-2021-0020: not chunked at its end",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "hyper RUSTSEC-2021-0078: a plus before a length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            "400",
        ),
        (
            "Pingora CVE-2026-2835: Transfer-Encoding in HTTP/1.0",
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "Pingora CVE-2026-2835: Transfer-Encoding of several codings",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
    ])
    .await;
}

#[tokio::test]
async fn nothing_goes_through_an_upgrade_before_the_target_agrees() {
    // Pingora CVE-2026-2833: what came after the request went to the target before its 101.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = support::in_front_of(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (mut target, _) = listener.accept().await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        assert!(patiently(target.read_buf(&mut seen)).await.unwrap() > 0);
    }
    target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await.status, 200);
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("GET / HTTP/1.1\r\n") && !seen.contains("/admin"), "{seen}");
    // It is a request of its own, by the rules for requests.
    let mut next = Vec::new();
    while !next.ends_with(b"\r\n\r\n") {
        assert!(patiently(target.read_buf(&mut next)).await.unwrap() > 0);
    }
    let next = String::from_utf8(next).unwrap();
    assert!(next.starts_with("GET /admin HTTP/1.1\r\n") && header(&next, "via").is_some(), "{next}");
}

#[tokio::test]
async fn no_answer_tells_what_is_inside() {
    // APISIX CVE-2022-29266: an error told the secret that a token was checked with.
    let objects = [
        (Kind::Upstream, "hidden", json!({"targets": [{"address": "127.0.0.1:1"}]})),
        (Kind::Policy, "secret-policy", json!({"type": "api-key", "in": {"header": "x-api-key"}})),
        (
            Kind::Route,
            "keyed",
            json!({"match": [{"path": {"prefix": "/keyed"}}], "policies": ["secret-policy"], "upstream": "hidden"}),
        ),
        (Kind::Route, "open", json!({"upstream": "hidden"})),
    ];
    let under = start(settings(), &objects);
    for (request, want) in [
        (
            "GET /keyed HTTP/1.1\r\nHost: a\r\nX-Api-Key: gw_live_000000000000000000000000000000AAAAAA\r\n\r\n",
            "401",
        ),
        ("GET /keyed HTTP/1.1\r\nHost: a\r\n\r\n", "401"),
        ("GET /open HTTP/1.1\r\nHost: a\r\n\r\n", "502"),
    ] {
        let mut client = under.client().await;
        client.write(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status.to_string(), want);
        let text = format!("{}{}", answer.head, answer.body);
        for inside in ["127.0.0.1", "hidden", "secret-policy", "gw_live", "keyed"] {
            assert!(!text.contains(inside), "{inside} in {text}");
        }
    }
}
