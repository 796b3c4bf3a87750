//! Which connections go through by TCP routes, and to which targets.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[path = "support/clients.rs"]
mod client;
mod support;

use std::{net::SocketAddr, time::Duration};

use client::{connect, made, trusting_pem};
use model::Kind;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use support::{
    Origin, Under, patiently, start,
    tcp::{NO_SUCH_NAME, Target, Tcp, exact, hello, nobody, open, put, rest, to, with_listener},
    tls, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Asks over TLS for a path of this host; the answer, or what went wrong.
async fn get(address: SocketAddr, host: &str, pem: &[String]) -> std::io::Result<String> {
    let mut stream = connect(address, host, trusting_pem(pem, &["http/1.1"])).await?;
    let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // Some end without saying so by TLS.
    let _ = patiently(stream.read_to_string(&mut answer)).await;
    Ok(answer)
}

#[tokio::test]
async fn on_the_listener_for_tls_some_hosts_go_through_and_the_rest_is_ended_there() {
    let (ca, own) = (tls::Ca::new(), made(&["www.example", "db.example", "x.www.example"]));
    let behind =
        tls::TlsOrigin::start(tls::server(&ca, &["db.example", "a.b.pool"], &[&TLS13, &TLS12])).await;
    let plain = Origin::saying("ended").await;
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "db", to(&[behind.address])),
            (Kind::Upstream, "web", to(&[plain.address])),
            (Kind::Route, "r", json!({"upstream": "web"})),
            (Kind::TcpRoute, "db", json!({"hosts": ["db.example", "*.pool", "*.example"], "upstream": "db"})),
            (Kind::Certificate, "own", own.spec()),
        ],
    );
    let trusted = [ca.pem.clone(), own.made.cert.pem()];
    for host in ["db.example", "a.b.pool"] {
        let answer = get(under.tls(), host, &trusted).await.unwrap();
        assert!(answer.contains("GET /x"), "{host}: {answer}");
    }
    assert_eq!(
        behind.seen().iter().map(|seen| seen.sni.as_deref()).collect::<Vec<_>>(),
        [Some("db.example"), Some("a.b.pool")]
    );
    // A certificate names exactly that host, and the route only its kind.
    for host in ["www.example", "x.www.example"] {
        let answer = get(under.tls(), host, &trusted).await.unwrap();
        assert!(answer.ends_with("ended"), "{host}: {answer}");
    }
    assert!(get(under.tls(), "nobody.org", &trusted).await.is_err());
    until(|| under.metric("phalanx_tls_no_certificate_total") == Some(1.0)).await;
    assert_eq!(under.metric("phalanx_tls_handshakes_total"), Some(2.0));
    until(|| under.ended("closed") == 2.0).await;
    assert_eq!(under.metric("phalanx_tcp_connections"), Some(0.0));
    assert_eq!(under.metric("phalanx_tcp_route_connections_total{tcp_route=\"db\"}"), Some(2.0));
    let garbage = "GET / HTTP/1.1\r\n\r\n";
    let mut stream = open(under.tls()).await;
    stream.write_all(garbage.as_bytes()).await.unwrap();
    rest(&mut stream).await;
    until(|| under.metric("phalanx_tls_handshake_failures_total") == Some(1.0)).await;
}

#[tokio::test]
async fn what_is_for_no_certificate_goes_through_where_a_route_takes_the_rest() {
    let (ca, own) = (tls::Ca::new(), made(&["www.example"]));
    let behind = tls::TlsOrigin::start(tls::server(&ca, &["any.org"], &[&TLS13])).await;
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", to(&[behind.address])),
            (Kind::Route, "r", json!({"respond": {"status": 200, "body": "ended"}})),
            (Kind::TcpRoute, "rest", json!({"listeners": ["proxy-tls"], "upstream": "u"})),
            (Kind::Certificate, "own", own.spec()),
        ],
    );
    let trusted = [ca.pem.clone(), own.made.cert.pem()];
    assert!(get(under.tls(), "any.org", &trusted).await.unwrap().contains("GET /x"));
    assert!(get(under.tls(), "www.example", &trusted).await.unwrap().ends_with("ended"));
}

#[tokio::test]
async fn what_is_read_of_a_hello_is_replayed_byte_for_byte_however_it_came() {
    let (named, any) = (Target::start("", false).await, Target::start("", false).await);
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "named", to(&[named.address])),
            (Kind::Upstream, "any", to(&[any.address])),
            (
                Kind::TcpRoute,
                "named",
                json!({"listeners": ["one"], "hosts": ["*.example"], "upstream": "named"}),
            ),
            (Kind::TcpRoute, "any", json!({"listeners": ["one"], "upstream": "any"})),
        ],
    );
    let whole = hello("db.example");
    let records: Vec<u8> = whole[5..]
        .chunks(50)
        .flat_map(|part| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()][..], part].concat())
        .collect();
    let mut sent = Vec::new();
    for bytes in [whole, records] {
        let bytes = [&bytes[..], b"and what follows"].concat();
        for piece in [1, 100, bytes.len()] {
            let mut stream = open(under.tcp("one")).await;
            stream.set_nodelay(true).unwrap();
            for piece in bytes.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.shutdown().await.unwrap();
            assert_eq!(rest(&mut stream).await, (b"bye".to_vec(), true));
            sent.push(bytes.clone());
        }
    }
    assert_eq!(named.got(), sent);
    // No host, another host, and no TLS at all.
    let others = [hello("192.0.2.1"), hello("db.org"), b"GET / HTTP/1.0\r\n\r\n".to_vec()];
    for bytes in &others {
        let mut stream = open(under.tcp("one")).await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, (b"bye".to_vec(), true));
    }
    assert_eq!(any.got(), others);
    let bytes: usize = sent.iter().chain(&others).map(Vec::len).sum();
    assert_eq!(under.metric("phalanx_tcp_bytes_total{direction=\"in\"}"), Some(bytes as f64));
}

#[tokio::test]
async fn who_names_no_host_that_is_known_is_told_so() {
    let target = Target::start("", false).await;
    let settings = with_listener(|settings| settings.limits.handshake_timeout = Duration::from_millis(300));
    let under = start(
        settings,
        &[
            (Kind::Upstream, "u", to(&[target.address])),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "hosts": ["db.example"], "upstream": "u"})),
        ],
    );
    for host in ["other.example", "192.0.2.1"] {
        let mut stream = open(under.tcp("one")).await;
        stream.write_all(&hello(host)).await.unwrap();
        assert_eq!(rest(&mut stream).await, (NO_SUCH_NAME.to_vec(), true), "{host}");
    }
    until(|| under.ended("no_route") == 2.0).await;
    // Garbage, and a hello that is none: the latter is told so by TLS.
    let mut stream = open(under.tcp("one")).await;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    assert_eq!(rest(&mut stream).await.0, b"");
    let mut stream = open(under.tcp("one")).await;
    stream.write_all(b"\x16\x03\x01\0\x05\x01\0\0\x01\0").await.unwrap();
    assert_eq!(rest(&mut stream).await.0.first(), Some(&21));
    until(|| under.ended("bad_hello") == 2.0).await;
    // One that takes its time, one that says nothing, one that goes.
    let mut slow = open(under.tcp("one")).await;
    slow.write_all(&hello("db.example")[..20]).await.unwrap();
    let mut silent = open(under.tcp("one")).await;
    assert_eq!((rest(&mut slow).await.0, rest(&mut silent).await.0), (Vec::new(), Vec::new()));
    until(|| under.ended("hello_timeout") == 2.0).await;
    assert_eq!(under.metric("phalanx_client_limits_total{limit=\"handshake_timeout\"}"), Some(2.0));
    drop(open(under.tcp("one")).await);
    until(|| under.ended("gone") == 1.0).await;
    // Nothing is on the other listener.
    let mut stream = open(under.tcp("two")).await;
    assert_eq!(rest(&mut stream).await.0, b"");
    until(|| under.ended("no_route") == 3.0 && under.metric("phalanx_connections") == Some(0.0)).await;
    assert!(target.got().is_empty());
}

#[tokio::test]
async fn a_target_that_takes_none_is_passed_over_and_put_aside() {
    let target = Target::start("hi", false).await;
    let mut upstream = to(&[nobody().await, target.address]);
    upstream["health"] = json!({"passive": {"failures": 1}});
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", upstream),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "upstream": "u"})),
        ],
    );
    for _ in 0..6 {
        exact(&mut open(under.tcp("one")).await, "hi").await;
    }
    assert_eq!(under.metric("phalanx_retries_total"), Some(1.0));
    assert_eq!(under.metric("phalanx_upstream_ejections_total{upstream=\"u\"}"), Some(1.0));
    // Where nobody takes it, its client is let go.
    put(&under, &[(Kind::Upstream, "u", to(&[nobody().await]))]).await;
    assert_eq!(rest(&mut open(under.tcp("one")).await).await.0, b"");
    until(|| under.ended("unconnected") == 1.0).await;
}

#[tokio::test]
async fn a_route_and_an_upstream_have_so_many_and_no_more() {
    let target = Target::start("hi", true).await;
    let mut narrow = to(&[target.address]);
    narrow["limits"] = json!({"connections": 1, "pending": 0});
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "wide", to(&[target.address])),
            (Kind::Upstream, "narrow", narrow),
            (Kind::TcpRoute, "one", json!({"listeners": ["one"], "upstream": "wide", "connections_max": 2})),
            (Kind::TcpRoute, "two", json!({"listeners": ["two"], "upstream": "narrow"})),
        ],
    );
    for (listener, max, how) in [("one", 2, "limited"), ("two", 1, "overflow")] {
        let mut kept = Vec::new();
        for _ in 0..max {
            let mut stream = open(under.tcp(listener)).await;
            exact(&mut stream, "hi").await;
            kept.push(stream);
        }
        assert_eq!(rest(&mut open(under.tcp(listener)).await).await.0, b"");
        until(|| under.ended(how) == 1.0).await;
        let gauge = format!("phalanx_tcp_route_connections{{tcp_route=\"{listener}\"}}");
        assert_eq!(under.metric(&gauge), Some(f64::from(max)));
        drop(kept.pop());
        until(|| under.metric(&gauge) == Some(f64::from(max - 1))).await;
        exact(&mut open(under.tcp(listener)).await, "hi").await;
    }
    assert_eq!(under.metric("phalanx_upstream_overflows_total{upstream=\"narrow\"}"), Some(1.0));
}

#[tokio::test]
async fn targets_are_told_for_whom_and_addresses_are_kept_together() {
    let targets = [Target::start("", false).await, Target::start("", false).await];
    let mut upstream = to(&[targets[0].address, targets[1].address]);
    upstream["proxy_protocol"] = json!("v1");
    upstream["balance"] = json!({"maglev": {"by": "address"}});
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", upstream),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "hosts": ["db.example"], "upstream": "u"})),
        ],
    );
    let hello = hello("db.example");
    let mut wanted = Vec::new();
    for _ in 0..6 {
        let mut stream = open(under.tcp("one")).await;
        let (from, to) = (stream.local_addr().unwrap().port(), under.tcp("one").port());
        stream.write_all(&hello).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await.0, b"bye");
        let announced = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n");
        wanted.push([announced.as_bytes(), &hello].concat());
    }
    let got = targets.each_ref().map(Target::got);
    assert!(got.contains(&wanted) && got.contains(&Vec::new()), "all went to one of the two");
    // What the gateway says of itself is none of the client's bytes.
    let bytes = (6 * hello.len()) as f64;
    assert_eq!(under.metric("phalanx_tcp_route_bytes_total{tcp_route=\"r\",direction=\"in\"}"), Some(bytes));
}
