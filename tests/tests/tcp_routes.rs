//! Connections that go through real nodes by TCP routes: put in with gwctl on one node, in use on all.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use phalanx_tests::{Cluster, alone, http, node::free_port, until};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What targets that speak TLS are asked: to the gateway it is a bad request.
const WORD: &[u8] = b"who?\r\n\r\n";

/// A target that says hello first, and then all that it is sent, to the end.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(b"hello\n");
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    let _ = stream.write_all(&all);
                }
            });
        }
    });
    address
}

/// A target that speaks TLS with a certificate of its own for this host, and says which host it was asked for.
fn behind_tls(host: &str) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let (certificate, key) =
        (made.cert.der().clone(), PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut word = [0; WORD.len()];
                if tls.read_exact(&mut word).is_ok() {
                    let host = tls.conn.server_name().unwrap_or("nobody").to_owned();
                    let _ = tls.write_all(host.as_bytes());
                    tls.conn.send_close_notify();
                    let _ = tls.flush();
                }
            });
        }
    });
    (address, certificate)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(http::TIMEOUT)).unwrap();
    stream
}

/// What who ends behind this address says over TLS, as who has this certificate for this host.
fn ask(address: SocketAddr, host: &str, certificate: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = StreamOwned::new(client, connect(address));
    tls.write_all(WORD)?;
    let mut said = String::new();
    tls.read_to_string(&mut said).map(|_| said)
}

/// What the greeter behind this address says to this.
fn greet(address: SocketAddr, word: &str) -> String {
    let mut stream = connect(address);
    // One that is let go may be gone at any of these.
    let _ = stream.write_all(word.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    said
}

/// A cluster whose nodes have listeners for TCP routes and for TLS.
struct Served {
    cluster: Cluster,
    tls: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    dir: TempDir,
}

impl Served {
    fn form(count: usize) -> Self {
        let mut cluster = Cluster::form(count);
        let ports = || (0..count).map(|_| free_port()).collect();
        let (tls, tcp): (Vec<SocketAddr>, Vec<SocketAddr>) = (ports(), ports());
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            node.environment.insert("PHALANX_PROXY_TLS".to_owned(), tls[place].to_string());
            node.environment.insert("PHALANX_TCP".to_owned(), format!("greet={}", tcp[place]));
            node.kill();
            node.start();
        }
        until("all are ready", || (0..count).all(|place| cluster.admin(place).is_ready()).then_some(()));
        Self { cluster, tls, tcp, dir: TempDir::new().unwrap() }
    }

    /// Runs gwctl on the node at this place.
    fn gwctl(&self, place: usize, line: &str) -> String {
        let socket = self.cluster.admin(place).socket().display().to_string();
        let words: Vec<&str> = ["--socket", &socket].into_iter().chain(line.split(' ')).collect();
        self.cluster.gwctl(&words)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

#[test]
fn a_tcp_route_is_in_use_on_all_nodes_beside_what_is_ended_there() {
    let _alone = alone();
    let served = Served::form(3);
    let (target, (vault, certificate)) = (greeter(), behind_tls("vault.example"));
    let said = served.gwctl(1, &format!("tcp-route add greet --listener greet --to {target} --wait all"));
    assert!(said.contains("create tcp_route greet") && said.contains("create upstream greet"), "{said}");
    served.gwctl(2, &format!("tcp-route add vault --host *.example --to {vault} --wait all"));
    for address in &served.tcp {
        assert_eq!(greet(*address, "hi"), "hello\nhi");
    }
    for address in &served.tls {
        assert_eq!(ask(*address, "vault.example", &certificate).unwrap(), "vault.example");
    }
    // A certificate for another host of the wildcard is more exact, and what it is for is ended there.
    let own = rcgen::generate_simple_self_signed(["www.example".to_owned()]).unwrap();
    let (chain, key) =
        (served.file("c.pem", &own.cert.pem()), served.file("k.pem", &own.signing_key.serialize_pem()));
    served.gwctl(0, "route add all --respond 200:ended");
    served.gwctl(0, &format!("certificate add www --chain {chain} --key {key} --wait all"));
    let told = served.gwctl(1, "tcp-route explain www.example");
    assert!(told.contains("ended here") && told.contains("more exactly"), "{told}");
    let told = served.gwctl(1, "tcp-route explain vault.example");
    assert!(told.contains("vault -> forward to vault"), "{told}");
    let told = served.gwctl(1, "route explain GET https://vault.example/x");
    assert!(told.contains("goes through unread, by tcp-route vault"), "{told}");
    assert!(!served.gwctl(1, "route explain GET https://www.example/x").contains("unread"));
    assert!(served.gwctl(1, "tcp-route explain --listener nowhere").contains("does not have that listener"));
    for address in &served.tls {
        assert!(ask(*address, "www.example", own.cert.der()).unwrap_or_default().contains("400 Bad Request"));
        assert_eq!(ask(*address, "vault.example", &certificate).unwrap(), "vault.example");
    }
    let metrics = served.cluster.admin(0).ask("GET", "/metrics", &Value::Null).unwrap().body;
    let metrics = String::from_utf8(metrics).unwrap();
    for line in [
        "phalanx_tcp_route_connections_total{tcp_route=\"greet\"} 1",
        "phalanx_tcp_route_connections_total{tcp_route=\"vault\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn a_tcp_route_is_part_of_documents() {
    let _alone = alone();
    let served = Served::form(1);
    let target = greeter();
    let document = format!(
        "version: 1\nupstreams: {{greet: {{targets: [{{address: '{target}'}}]}}}}\n\
         tcp_routes: {{greet: {{listeners: [greet], upstream: greet}}}}\n"
    );
    let file = served.file("all.yaml", &document);
    let plan = served.gwctl(0, &format!("plan -f {file}"));
    assert!(plan.contains("create tcp_route greet"), "{plan}");
    assert_eq!(greet(served.tcp[0], "hi"), "");
    served.gwctl(0, &format!("apply -f {file} --wait all"));
    assert_eq!(greet(served.tcp[0], "hi"), "hello\nhi");
    let exported = served.gwctl(0, "export");
    assert!(exported.contains("tcp_routes:"), "{exported}");
    let again = served.file("again.yaml", &exported);
    assert!(served.gwctl(0, &format!("apply -f {again} --prune")).contains("Nothing to change"));
    // What would take the same connections, and what its upstream is still used by, is refused.
    let admin = served.cluster.admin(0);
    let same = json!({"listeners": ["greet"], "upstream": "greet"});
    let refused = admin.ask("PUT", "/v1/tcp_routes/other", &same).unwrap();
    assert_eq!(
        (refused.status, &refused.json()["violations"][0]["path"]),
        (422, &json!("tcp_routes.other.hosts"))
    );
    let refused = admin.ask("DELETE", "/v1/upstreams/greet", &Value::Null).unwrap();
    assert_eq!((refused.status, &refused.json()["violations"][0]["path"]), (422, &json!("upstreams.greet")));
    served.gwctl(0, "tcp-route delete greet --wait all");
    assert_eq!(greet(served.tcp[0], "hi"), "");
}
