//! What becomes of bytes on connections that go through by TCP routes, and how these end.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::time::Duration;

use model::{Change, Kind, Name, Op};
use serde_json::{Value, json};
use support::{
    patiently, start,
    tcp::{Target, Tcp, exact, install, open, put, rest, to, with_listener},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn without_hosts_a_target_may_speak_first_and_each_end_is_passed_on_for_itself() {
    let target = Target::start("220 hello\r\n", true).await;
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", to(&[target.address])),
            (Kind::TcpRoute, "r", json!({"listeners": ["one", "two"], "upstream": "u"})),
        ],
    );
    for listener in ["one", "two"] {
        let mut stream = open(under.tcp(listener)).await;
        exact(&mut stream, "220 hello\r\n").await;
        stream.write_all(b"MAIL").await.unwrap();
        exact(&mut stream, "MAIL").await;
        // Only this side ends: the other has a last word.
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, (b"bye".to_vec(), true));
    }
    until(|| under.ended("closed") == 2.0).await;
    assert_eq!(under.metric("phalanx_tcp_bytes_total{direction=\"out\"}"), Some(2.0 * (11 + 4 + 3) as f64));
    // The other way round: the target ends, and goes on to listen.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    put(&under, &[(Kind::Upstream, "u", to(&[listener.local_addr().unwrap()]))]).await;
    let mut client = open(under.tcp("one")).await;
    let (mut accepted, _) = patiently(listener.accept()).await.unwrap();
    accepted.write_all(b"all").await.unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, (b"all".to_vec(), true));
    client.write_all(b"thanks").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut accepted).await, (b"thanks".to_vec(), true));
    until(|| under.ended("closed") == 3.0).await;
}

#[tokio::test]
async fn silence_ends_a_connection_where_the_route_says_so() {
    let target = Target::start("", true).await;
    let route = |idle: &str| json!({"listeners": ["one"], "upstream": "u", "idle_timeout": idle});
    let under = start(
        with_listener(|_| {}),
        &[(Kind::Upstream, "u", to(&[target.address])), (Kind::TcpRoute, "r", route("200ms"))],
    );
    rest(&mut open(under.tcp("one")).await).await;
    until(|| under.ended("idle") == 1.0).await;
    put(&under, &[(Kind::TcpRoute, "r", route("0s"))]).await;
    let mut kept = open(under.tcp("one")).await;
    kept.write_all(b"here").await.unwrap();
    exact(&mut kept, "here").await;
    put(&under, &[(Kind::TcpRoute, "r", route("200ms"))]).await;
    rest(&mut open(under.tcp("one")).await).await;
    kept.write_all(b"still").await.unwrap();
    exact(&mut kept, "still").await;
    until(|| under.ended("idle") == 2.0).await;
}

#[tokio::test]
async fn who_breaks_off_is_not_taken_for_one_who_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", to(&[listener.local_addr().unwrap()])),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "upstream": "u"})),
        ],
    );
    let mut client = open(under.tcp("one")).await;
    let (mut target, _) = patiently(listener.accept()).await.unwrap();
    target.write_all(b"half of").await.unwrap();
    exact(&mut client, "half of").await;
    socket2::SockRef::from(&target).set_linger(Some(Duration::ZERO)).unwrap();
    drop(target);
    assert_eq!(rest(&mut client).await, (Vec::new(), false));
    until(|| under.ended("target_reset") == 1.0).await;
    let client = open(under.tcp("one")).await;
    let (mut target, _) = patiently(listener.accept()).await.unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rest(&mut target).await, (Vec::new(), false));
    until(|| under.ended("client_reset") == 1.0).await;
}

#[tokio::test]
async fn who_takes_nothing_is_sent_nothing_and_nothing_is_lost() {
    static PIECE: [u8; 64 * 1024] = [7; 64 * 1024];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let under = start(
        with_listener(|_| {}),
        &[
            (Kind::Upstream, "u", to(&[listener.local_addr().unwrap()])),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "upstream": "u"})),
        ],
    );
    for client_sends in [true, false] {
        let client = open(under.tcp("one")).await;
        let (target, _) = patiently(listener.accept()).await.unwrap();
        let (mut from, mut to) = if client_sends { (client, target) } else { (target, client) };
        // Until nobody takes any more: sockets have room for some megabytes, and the gateway for next to nothing.
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), from.write(&PIECE)).await {
            sent += written.unwrap();
            assert!(sent < 64 << 20, "there is no end to it");
        }
        let sending = tokio::spawn(async move { from.shutdown().await.map(|()| from) });
        let mut got = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match patiently(to.read(&mut buffer)).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
        assert_eq!(got, sent, "client sends: {client_sends}");
        drop(sending.await.unwrap());
    }
}

#[tokio::test]
async fn connections_live_on_when_their_route_and_their_upstream_go() {
    let (old, new) = (Target::start("old", true).await, Target::start("new", true).await);
    let route = json!({"listeners": ["one"], "upstream": "u"});
    let under = start(
        with_listener(|_| {}),
        &[(Kind::Upstream, "u", to(&[old.address])), (Kind::TcpRoute, "r", route)],
    );
    let mut kept = open(under.tcp("one")).await;
    exact(&mut kept, "old").await;
    put(&under, &[(Kind::Upstream, "u", to(&[new.address]))]).await;
    exact(&mut open(under.tcp("one")).await, "new").await;
    let mut config = under.config.borrow().as_ref().clone();
    let gone = |kind, name: &str| Op::Delete { kind, name: Name::new(name).unwrap() };
    let ops = vec![gone(Kind::TcpRoute, "r"), gone(Kind::Upstream, "u")];
    config.apply(&Change { base: config.revision, ops });
    install(&under, config).await;
    assert_eq!(rest(&mut open(under.tcp("one")).await).await.0, b"");
    kept.write_all(b"still here").await.unwrap();
    exact(&mut kept, "still here").await;
    kept.shutdown().await.unwrap();
    assert_eq!(rest(&mut kept).await, (b"bye".to_vec(), true));
}

#[tokio::test]
async fn a_node_that_stops_lets_connections_end_and_cuts_those_that_do_not_in_time() {
    let target = Target::start("hi", true).await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let settings = with_listener(|settings| {
        let to = gateway::access::Destination::File(log.clone());
        settings.access_log = Some(gateway::AccessLog { to, json: true });
    });
    let under = start(
        settings,
        &[
            (Kind::Upstream, "u", to(&[target.address])),
            (Kind::TcpRoute, "r", json!({"listeners": ["one"], "upstream": "u"})),
        ],
    );
    let address = under.tcp("one");
    let (mut ending, mut staying) = (open(address).await, open(address).await);
    exact(&mut ending, "hi").await;
    exact(&mut staying, "hi").await;
    let draining = tokio::spawn(under.gateway.drain(Duration::from_secs(2)));
    patiently(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for stream in [&mut ending, &mut staying] {
        stream.write_all(b"on").await.unwrap();
        exact(stream, "on").await;
    }
    ending.shutdown().await.unwrap();
    assert_eq!(rest(&mut ending).await, (b"bye".to_vec(), true));
    assert_eq!(rest(&mut staying).await, (Vec::new(), false), "it has not ended, it was cut");
    patiently(draining).await.unwrap();
    let lines = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = lines.iter().map(|line| (line["end"].as_str().unwrap(), line["bytes_out"].as_u64().unwrap()));
    assert!(told.clone().any(|told| told == ("closed", 7)), "{lines:?}");
    assert!(told.clone().any(|told| told == ("cut", 4)), "{lines:?}");
    assert_eq!(lines[0]["tcp_route"], "r");
    assert_eq!(lines[0]["target"], target.address.to_string());
}
