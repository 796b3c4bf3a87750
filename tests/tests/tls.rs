//! Clients over TLS, served by real nodes: certificates that all of them have, and sessions that go on at any of them.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::{
    io::BufReader,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
};

use phalanx_tests::{
    Cluster, Origin, alone,
    http::{self, Answer},
    node::free_port,
    until,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;

/// A cluster whose nodes serve TLS too, and where.
struct Served {
    cluster: Cluster,
    tls: Vec<SocketAddr>,
    dir: TempDir,
}

/// A certificate for `a.example`, and the files that it is in.
struct Made {
    der: CertificateDer<'static>,
    key: String,
    chain_file: PathBuf,
    key_file: PathBuf,
}

impl Served {
    fn form(count: usize) -> Self {
        let mut cluster = Cluster::form(count);
        let tls: Vec<SocketAddr> = (0..count).map(|_| free_port()).collect();
        for (node, address) in cluster.nodes.iter_mut().zip(&tls) {
            node.environment.insert("PHALANX_PROXY_TLS".to_owned(), address.to_string());
            node.kill();
            node.start();
        }
        until("all are ready", || (0..count).all(|place| cluster.admin(place).is_ready()).then_some(()));
        Self { cluster, tls, dir: TempDir::new().unwrap() }
    }

    fn made(&self, name: &str) -> Made {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (chain_file, key_file) =
            (self.dir.path().join(name), self.dir.path().join(format!("{name}.key")));
        let key = made.signing_key.serialize_pem();
        std::fs::write(&chain_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, &key).unwrap();
        Made { der: made.cert.der().clone(), key, chain_file, key_file }
    }

    /// Runs gwctl on the node at this place.
    fn gwctl(&self, place: usize, line: &str) -> String {
        let socket = self.cluster.admin(place).socket().display().to_string();
        let words: Vec<&str> = ["--socket", &socket].into_iter().chain(line.split(' ')).collect();
        self.cluster.gwctl(&words)
    }

    fn put(&self, place: usize, made: &Made) -> String {
        let (chain, key) = (made.chain_file.display(), made.key_file.display());
        self.gwctl(place, &format!("certificate set shop --chain {chain} --key {key} --wait all"))
    }
}

fn trusting(made: &Made, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(made.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let client = ClientConnection::new(config.clone(), ServerName::try_from("a.example").unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(http::TIMEOUT)).unwrap();
    BufReader::new(StreamOwned::new(client, stream))
}

fn get(stream: &mut Stream) -> std::io::Result<Answer> {
    http::exchange(stream, "GET", "/", &[("host", "a.example")], &[])
}

#[test]
fn a_certificate_is_in_use_on_all_nodes_and_its_key_shown_by_none() {
    let _alone = alone();
    let served = Served::form(3);
    served.cluster.route_to(&Origin::start(), 0);
    let (old, new) = (served.made("old"), served.made("new"));
    let said = served.put(1, &old);
    assert!(said.contains("create certificate shop") || said.contains("certificate shop"), "{said}");
    let mut standing: Vec<_> =
        served.tls.iter().map(|address| connect(*address, &trusting(&old, &TLS13))).collect();
    for stream in &mut standing {
        assert_eq!(get(stream).unwrap().status, 200);
    }
    served.put(2, &new);
    for (address, stream) in served.tls.iter().zip(&mut standing) {
        assert_eq!(get(&mut connect(*address, &trusting(&new, &TLS13))).unwrap().status, 200);
        assert!(get(&mut connect(*address, &trusting(&old, &TLS13))).is_err(), "it is not served any more");
        assert_eq!(get(stream).unwrap().status, 200, "a connection stays as it is");
    }
    let admin = served.cluster.admin(0);
    let shown = admin.must("GET", "/v1/certificates/shop", &Value::Null);
    assert_eq!(shown["spec"]["leaf"]["hosts"][0], "a.example");
    let expiry = served.gwctl(0, "certificate expiry");
    assert!(expiry.contains("shop") && expiry.contains("a.example"), "{expiry}");
    let everything = [
        shown.to_string(),
        expiry,
        said,
        served.gwctl(0, "certificate get shop"),
        served.gwctl(1, "certificate list"),
        served.gwctl(2, "export"),
        admin.must("GET", "/v1/certificates", &Value::Null).to_string(),
        String::from_utf8(admin.ask("GET", "/metrics", &Value::Null).unwrap().body).unwrap(),
        served.cluster.nodes.iter().map(phalanx_tests::Node::log_text).collect::<String>(),
    ];
    for text in everything {
        let secret = |made: &Made| made.key.lines().nth(1).is_some_and(|line| text.contains(line));
        assert!(!text.contains("PRIVATE KEY") && !secret(&old) && !secret(&new), "{text}");
    }
    let refused = admin.ask(
        "PUT",
        "/v1/certificates/bad",
        &serde_json::json!({"chain": std::fs::read_to_string(&old.chain_file).unwrap(), "key": new.key}),
    );
    let refused = refused.unwrap();
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["violations"][0]["path"], "certificates.bad.key");
    served.gwctl(0, "certificate delete shop --wait all");
    assert!(served.tls.iter().all(|address| get(&mut connect(*address, &trusting(&new, &TLS13))).is_err()));
}

#[test]
fn a_session_goes_on_at_another_node_and_after_a_start() {
    let _alone = alone();
    let mut served = Served::form(3);
    served.cluster.route_to(&Origin::start(), 0);
    let made = served.made("a");
    served.put(0, &made);
    for version in [&TLS13, &TLS12] {
        let config = trusting(&made, version);
        let mut kinds = Vec::new();
        for (turn, place) in [0, 1, 2, 1, 0].into_iter().enumerate() {
            if turn == 3 {
                served.cluster.nodes[1].kill();
                served.cluster.nodes[1].start();
            }
            let mut stream = until("the node serves", || {
                TcpStream::connect(served.tls[place]).ok()?;
                Some(connect(served.tls[place], &config))
            });
            assert_eq!(get(&mut stream).unwrap().status, 200);
            kinds.push(stream.get_ref().conn.handshake_kind());
        }
        let resumed: Vec<_> = kinds.iter().map(|kind| *kind == Some(HandshakeKind::Resumed)).collect();
        assert_eq!(resumed, [false, true, true, true, true], "{version:?}");
    }
}
