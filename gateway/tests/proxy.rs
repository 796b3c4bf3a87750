//! What the proxy does to requests and responses that are well, with real sockets on both sides.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{Config, Kind, Name, Revision};
use serde_json::json;
use support::{Origin, header, in_front_of, ok, settings, start, status, until, with};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[tokio::test]
async fn requests_go_through_on_kept_connections() {
    let origin = Origin::saying("hello").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    for _ in 0..3 {
        client.write("GET /a/./b/../c?x=1 HTTP/1.1\r\nHost: Example:80\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
        assert!(header(&answer.head, "date").is_some());
    }
    let got = origin.last().head;
    assert!(got.starts_with("GET /a/c?x=1 HTTP/1.1\r\n"), "{got}");
    assert_eq!(header(&got, "host"), Some("Example:80"));
    assert_eq!(header(&got, "via"), Some("1.1 phalanx"));
    assert_eq!(under.metric("phalanx_upstream_connections_total"), Some(1.0));
    until(|| under.metric("phalanx_requests_total{class=\"2xx\"}") == Some(3.0)).await;
}

#[tokio::test]
async fn hop_by_hop_headers_stop_here_and_claims_are_dropped() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n"
            .to_owned()
    })
    .await;
    let under = in_front_of(origin.address);
    let response = under
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, X-Forwarded-For, Host\r\nX-Mine: 1\r\nTE: trailers\r\n\
             Keep-Alive: 1\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded.Proto: https\r\n\
             Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Consumer: root\r\nX-Consumer: root\r\nX-Request-Id: mine\r\n\
             X-End: 1\r\nContent_Length: 5\r\n\r\n",
        )
        .await;
    assert_eq!(status(&response), "200");
    assert_eq!(header(&response, "x-end"), Some("1"));
    assert_eq!(header(&response, "x-hop"), None);
    assert_eq!(header(&response, "keep-alive"), None);
    let got = origin.last().head;
    assert!(!got.contains("6.6.6.6") && !got.contains("root") && !got.contains("mine"), "{got}");
    for gone in ["x-mine", "keep-alive", "forwarded", "x-real-ip", "content_length"] {
        assert_eq!(header(&got, gone), None, "{got}");
    }
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a"),
        ("te", "trailers"),
        ("connection", "te"),
        ("x-end", "1"),
        ("host", "a"),
    ] {
        assert_eq!(header(&got, name), Some(value), "{name} in {got}");
    }
    assert!(header(&got, "x-request-id").is_some());
}

#[tokio::test]
async fn a_trusted_peer_is_believed() {
    let origin = Origin::saying("").await;
    let mut settings = settings();
    settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let under = support::in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}));
    under
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-forwarded-for\r\nX-Forwarded-For: 192.0.2.1\r\n\
             X-Forwarded-Proto: https\r\nX-Request-Id: mine\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
        )
        .await;
    let got = origin.last().head;
    assert_eq!(header(&got, "x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(header(&got, "x-forwarded-proto"), Some("https"));
    assert_eq!(header(&got, "x-request-id"), Some("mine"));
    assert!(!got.contains("6.6.6.6"));
}

#[tokio::test]
async fn routes_redirect_respond_rewrite_and_change_headers() {
    let origin = Origin::saying("hello").await;
    let upstream = json!({"targets": [{"address": origin.address.to_string()}]});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", upstream),
            (
                Kind::Route,
                "go",
                json!({"match": [{"path": {"prefix": "/old"}}],
                "redirect": {"status": 308, "scheme": "https", "path": {"prefix": "/new"}}}),
            ),
            (
                Kind::Route,
                "say",
                json!({"match": [{"path": {"exact": "/say"}}],
                "respond": {"status": 418, "headers": {"X-Pot": "tea"}, "body": "short and stout"}}),
            ),
            (
                Kind::Route,
                "forward",
                json!({"match": [{"path": {"prefix": "/in"}}], "upstream": "u",
                "request": {"path": {"prefix": "/out"}, "host": "inside", "headers":
                    {"remove": ["X-Gone"], "set": {"X-Set": "1"}, "add": {"X-More": "2"}}},
                "response": {"headers": {"set": {"X-Back": "3"}}}}),
            ),
        ],
    );
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Gone: 1\r\nX-More: 1\r\n\r\n")
    };
    let response = under.send(get("/old/x?y=z")).await;
    assert_eq!(status(&response), "308");
    assert_eq!(header(&response, "location"), Some("https://a/new/x?y=z"));
    let response = under.send(get("/say")).await;
    assert!(response.ends_with("\r\n\r\nshort and stout") && status(&response) == "418", "{response}");
    assert_eq!(header(&response, "x-pot"), Some("tea"));
    let response = under.send(get("/in/x?y")).await;
    assert_eq!(header(&response, "x-back"), Some("3"));
    let got = origin.last().head;
    assert!(
        got.starts_with("GET /out/x?y HTTP/1.1\r\n")
            && got.contains("x-more: 1\r\n")
            && got.contains("x-more: 2\r\n")
    );
    assert_eq!(
        (header(&got, "host"), header(&got, "x-set"), header(&got, "x-gone")),
        (Some("inside"), Some("1"), None)
    );
    assert_eq!(header(&got, "x-forwarded-host"), Some("a"));
    let response = under.send(get("/nothing")).await;
    assert_eq!(status(&response), "404");
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    assert!(response.contains("\"code\":\"no_route\"") && response.contains("request_id"), "{response}");
}

#[tokio::test]
async fn a_new_config_is_obeyed_and_told() {
    let under = start(settings(), &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "one"}}))]);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(under.send(request).await.ends_with("one"));
    let newer = with(
        &under.config.borrow().clone(),
        &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "two"}}))],
    );
    let mut installed = under.gateway.installed();
    under.config.send_replace(newer.clone().into());
    installed.wait_for(|installed| installed.revision == newer.revision).await.unwrap();
    assert!(under.send(request).await.ends_with("two"));
}

#[tokio::test]
async fn a_config_that_does_not_compile_leaves_the_last_one_and_is_told() {
    let under = start(settings(), &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "one"}}))]);
    assert_eq!(under.metric("phalanx_config_failed_revision"), Some(0.0));
    let mut installed = under.gateway.installed();
    let good = under.config.borrow().clone();
    let bad = with(&good, &[(Kind::Policy, "p", json!({"type": "of a newer version"}))]);
    let route = json!({"policies": ["p"], "respond": {"status": 200, "body": "two"}});
    let bad = with(&bad, &[(Kind::Route, "r", route)]);
    under.config.send_replace(bad.clone().into());
    installed.wait_for(|installed| installed.error.is_some()).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(under.send(request).await.ends_with("one"));
    assert_eq!(under.metric("phalanx_config_failed_revision"), Some(bad.revision.0 as f64));
    assert_eq!(under.metric("phalanx_config_failures_total"), Some(1.0));
    let better = with(&bad, &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "three"}}))]);
    let better = with(&better, &[(Kind::Policy, "p", json!({"type": "ip", "deny": ["192.0.2.0/24"]}))]);
    under.config.send_replace(better.clone().into());
    installed.wait_for(|installed| installed.revision == better.revision).await.unwrap();
    assert_eq!(under.metric("phalanx_config_failed_revision"), Some(0.0));
}

#[tokio::test]
async fn responses_without_bodies_stay_so() {
    let origin = Origin::answering(|got| {
        if got.head.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_owned()
        } else if got.head.contains("/304") {
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_owned()
        } else {
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
        }
    })
    .await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(header(&head, "content-length"), Some("1234"));
    assert_eq!(client.answer().await.status, 304);
    assert_eq!(client.answer().await.status, 204);
}

#[tokio::test]
async fn clients_of_http_10_are_served() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned()
    })
    .await;
    let under = in_front_of(origin.address);
    let response = under.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("\r\n\r\nhello"), "{response}");
    assert_eq!(header(&response, "transfer-encoding"), None);
    assert_eq!(header(&origin.last().head, "via"), Some("1.0 phalanx"));
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n".to_owned()
    })
    .await;
    let under = in_front_of(origin.address);
    let response = under
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTE: trailers\r\nTrailer: X-Check\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 1\r\n\r\n",
        )
        .await;
    assert!(response.to_lowercase().ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{response:?}");
    assert_eq!(origin.last().body.to_lowercase(), "3\r\nabc\r\n0\r\nx-check: 1\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_before_its_body() {
    let origin = Origin::saying("done").await;
    let under = in_front_of(origin.address);
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    client.exact("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write("hello").await;
    assert_eq!(client.answer().await.body, "done");
    let got = origin.last();
    assert_eq!((got.body.as_str(), header(&got.head, "expect")), ("hello", None));
}

#[tokio::test]
async fn a_client_that_expects_100_may_be_refused_without() {
    let under = start(settings(), &[]);
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
}

#[tokio::test]
async fn large_bodies_come_whole() {
    let origin = Origin::answering(|got| ok(&got.body)).await;
    let under = in_front_of(origin.address);
    let body: String = (0..500_000).map(|number| format!("{number:08}\n")).collect();
    let mut client = under.client().await;
    for _ in 0..2 {
        client.write(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        client.write(&body).await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.body == body);
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front_of(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let (mut origin, _) = listener.accept().await.unwrap();
    let mut seen = vec![0; 4096];
    let _ = origin.read(&mut seen).await.unwrap();
    origin.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    for turn in 0..5 {
        client.write("1\r\na\r\n").await;
        let mut got = String::new();
        while !got.ends_with("1\r\na\r\n") {
            let count = origin.read(&mut seen).await.unwrap();
            got.push_str(std::str::from_utf8(&seen[..count]).unwrap());
        }
        let chunk = format!("1\r\n{turn}\r\n");
        origin.write_all(chunk.as_bytes()).await.unwrap();
        client.exact(&chunk).await;
    }
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_origin() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = in_front_of(listener.local_addr().unwrap());
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    const TOTAL: usize = 256 << 20;
    let origin = tokio::spawn(async move {
        let (mut origin, _) = listener.accept().await.unwrap();
        let mut seen = [0; 4096];
        let _ = origin.read(&mut seen).await.unwrap();
        origin
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let block = vec![b'x'; 1 << 16];
        while origin.write_all(&block).await.is_ok() {
            SENT.fetch_add(block.len(), Ordering::Relaxed);
        }
    });
    client.head().await;
    let mut before = usize::MAX;
    let mut still = 0;
    until(|| {
        let now = SENT.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
        still > 40
    })
    .await;
    assert!(before < 64 << 20, "{before} bytes went into something without bounds");
    drop(client);
    origin.await.unwrap();
}

#[tokio::test]
async fn a_slow_origin_is_a_timeout_without_details() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = json!({"targets": [{"address": address}], "timeout": {"response": "100ms"}});
    let under = support::in_front(settings(), upstream);
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 504);
    assert!(!answer.body.contains(&address) && answer.body.contains("\"code\":\"timeout\""), "{answer:?}");
}

#[tokio::test]
async fn a_client_that_stalls_in_its_head_or_idles_is_cut_off() {
    let origin = Origin::answering(|_| ok("hello")).await;
    let mut settings = settings();
    settings.limits.header_timeout = Duration::from_millis(100);
    settings.limits.idle_timeout = Duration::from_millis(200);
    settings.limits.stall_timeout = Duration::from_millis(100);
    let under = support::in_front(settings, json!({"targets": [{"address": origin.address.to_string()}]}));
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost:").await;
    assert_eq!(client.rest().await, "");
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.rest().await.ends_with("hello"));
    let mut client = under.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nh").await;
    assert!(!client.rest().await.contains("200"));
}

#[tokio::test]
async fn the_access_log_has_a_line_a_request_and_no_query() {
    let origin = Origin::saying("hello").await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    for json in [true, false] {
        let _ = std::fs::remove_file(&path);
        let mut settings = settings();
        let to = gateway::access::Destination::File(path.clone());
        settings.access_log = Some(gateway::AccessLog { to, json });
        let address = origin.address.to_string();
        let under = support::in_front(settings, json!({"targets": [{"address": address}]}));
        let mut client = under.client().await;
        client.write("POST /a/b?key=secret HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
        assert_eq!(client.answer().await.status, 200);
        client.write("GET /c HTTP/1.1\nHost: a\r\n\r\n").await;
        let refused = client.rest().await;
        let id = header(&refused, "x-request-id").unwrap();
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        // Drained, it has written all.
        support::patiently(under.gateway.drain(Duration::from_secs(60))).await;
        let log = read();
        assert!(!log.contains("secret"), "{log}");
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2, "{log}");
        if json {
            let lines: Vec<serde_json::Value> =
                lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            for (field, want) in [
                ("client", json!("127.0.0.1")),
                ("method", json!("POST")),
                ("host", json!("a")),
                ("path", json!("/a/b")),
                ("status", json!(200)),
                ("bytes_in", json!(3)),
                ("bytes_out", json!(5)),
                ("route", json!("r")),
                ("upstream", json!("u")),
                ("target", json!(address)),
                ("retries", json!(0)),
                ("consumer", json!(null)),
            ] {
                assert_eq!(lines[0][field], want, "{field} in {log}");
            }
            assert!(lines[0]["duration_ms"].as_f64() >= lines[0]["target_ms"].as_f64(), "{log}");
            let got = origin.last().head;
            assert_eq!(lines[0]["request_id"].as_str(), header(&got, "x-request-id"));
            assert_eq!((&lines[1]["status"], &lines[1]["request_id"]), (&json!(400), &json!(id)));
        } else {
            let wanted = " 200 in=3 out=5 ms=";
            assert!(lines[0].contains(wanted) && lines[0].contains(" 127.0.0.1 POST a /a/b "), "{log}");
            assert!(lines[0].contains(&format!(" route=r upstream=u target={address} target_ms=")), "{log}");
            assert!(lines[1].contains(" 127.0.0.1 - - - 400 ") && lines[1].ends_with(id), "{log}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_for_what_came_ahead_has_one_line() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut settings = settings();
    let to = gateway::access::Destination::File(path.clone());
    settings.access_log = Some(gateway::AccessLog { to, json: true });
    let upstream = json!({"targets": [{"address": origin.address.to_string()}]});
    let under = support::in_front(settings, upstream);
    let answer = under
        .send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nahead")
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    support::patiently(under.gateway.drain(Duration::from_secs(60))).await;
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let id = header(&answer, "x-request-id");
    assert_eq!((&lines[0]["status"], &lines[0]["path"]), (&json!(400), &json!("/a")));
    assert!(id.is_some() && lines[0]["request_id"].as_str() == id, "{log}");
    assert_eq!(header(&origin.last().head, "x-request-id"), id);
}

#[tokio::test]
async fn a_config_is_let_go_of_once_another_is_in_use() {
    let origin = Origin::saying("hello").await;
    let mut settings = settings();
    settings.workers = 2;
    let upstream = json!({"targets": [{"address": origin.address.to_string()}]});
    let under = support::in_front(settings, upstream);
    let old = {
        let config = under.config.borrow();
        Arc::downgrade(&config.upstreams[&Name::new("u").unwrap()].spec)
    };
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "hello");
    // No request comes that would need the new one.
    let mut empty = Config::default();
    empty.revision = Revision(9);
    under.config.send_replace(Arc::new(empty));
    until(|| old.upgrade().is_none()).await;
}

#[tokio::test]
async fn connections_are_capped() {
    let under = {
        let mut settings = settings();
        settings.limits.connections_max = 2;
        start(settings, &[(Kind::Route, "r", json!({"respond": {"status": 200, "body": "x"}}))])
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = under.client().await;
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
        kept.push(client);
    }
    assert_eq!(under.client().await.rest().await, "");
    kept.clear();
    until(|| under.metric("phalanx_connections ") == Some(0.0)).await;
    let mut client = under.client().await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn grpc_is_answered_in_grpc() {
    let origin = Origin::saying("hello").await;
    let keys = json!({"type": "api-key"});
    let under = start(
        settings(),
        &[
            (Kind::Upstream, "u", json!({"targets": [{"address": origin.address.to_string()}]})),
            (Kind::Upstream, "gone", json!({"targets": [{"address": "127.0.0.1:1"}]})),
            (Kind::Policy, "keys", keys),
            (
                Kind::Route,
                "r",
                json!({"match": [{"path": {"prefix": "/a.B"}}], "policies": ["keys"], "upstream": "u"}),
            ),
            (Kind::Route, "gone", json!({"match": [{"path": {"prefix": "/c.D"}}], "upstream": "gone"})),
        ],
    );
    for (path, kind, status) in [
        ("/a.B/C", "application/grpc", "16"),
        ("/c.D/E", "application/grpc+proto", "14"),
        ("/nobody/E", "application/grpc-web-text", "12"),
        ("/%2f", "application/grpc", "3"),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 0\r\nTE: trailers\r\n\r\n"
        );
        let mut client = under.client().await;
        client.write(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        assert_eq!(header(&answer.head, "grpc-status"), Some(status), "{path}");
        assert_eq!(header(&answer.head, "content-type"), Some(kind));
        assert!(header(&answer.head, "grpc-message").is_some_and(|message| !message.is_empty()));
    }
    let mut client = under.client().await;
    client.write("GET /a.B/C HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 401, "what is no POST is no gRPC");
}
