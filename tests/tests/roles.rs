//! The admin API over TLS: whom a client believes, and what each role may.

use std::{
    io::{self, BufReader},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use phalanx_tests::{
    Cluster, alone,
    http::{self, Answer},
    until,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};

/// A client that believes this CA alone and shows this token, if any.
struct Client<'a> {
    ca: &'a str,
    token: Option<&'a str>,
}

impl Client<'_> {
    fn ask(&self, address: SocketAddr, method: &str, target: &str, body: &Value) -> io::Result<Answer> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("a certificate");
        roots.add(ca).expect("a CA");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), ServerName::from(address.ip()));
        let session = session.expect("a TLS client");
        let mut stream = BufReader::new(StreamOwned::new(session, TcpStream::connect(address)?));
        let bearer = self.token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        http::exchange(&mut stream, method, target, &headers, &body)
    }

    fn status(&self, address: SocketAddr, method: &str, target: &str, body: &Value) -> u16 {
        self.ask(address, method, target, body).expect("the node answers").status
    }
}

/// Known failures of others: APISIX CVE-2020-13945, a default admin key, and Kong CVE-2020-11710, an admin API that is open to everybody.
#[test]
fn there_is_no_default_token_and_no_open_admin() {
    let _alone = alone();
    let (cluster, other) = (Cluster::form(1), Cluster::form(1));
    let ca = cluster.formed["ca_certificate"].as_str().unwrap();
    let node = &cluster.nodes[0];
    for token in [
        None,
        Some(""),
        Some("admin"),
        Some("edd1c9f034335f136f87ad84b625c8f1"),
        other.formed["admin_token"].as_str(),
    ] {
        let client = Client { ca, token };
        for (method, target) in
            [("GET", "/v1/cluster"), ("GET", "/v1/routes"), ("GET", "/metrics"), ("PUT", "/v1/routes/x")]
        {
            let status = client.status(node.admin_tls, method, target, &json!({"respond": {"status": 200}}));
            assert_eq!(status, 401, "{method} {target} with {token:?}");
        }
    }
    // Nor is it where clients are served.
    for target in ["/v1/cluster", "/v1/routes", "/metrics", "/healthz"] {
        let answer = http::get(node.proxy, target, &[]).expect("the node answers");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (404, Some("no_route")), "{target}");
    }
}

#[test]
fn each_role_may_what_it_may_on_every_node_and_no_more() {
    let _alone = alone();
    let cluster = Cluster::form(3);
    let ca = cluster.formed["ca_certificate"].as_str().unwrap();
    let admin = Client { ca, token: cluster.formed["admin_token"].as_str() };
    let token = |role: &str| {
        let made = admin.ask(
            cluster.nodes[1].admin_tls,
            "POST",
            "/v1/tokens",
            &json!({"role": role, "label": role}),
        );
        made.unwrap().json()
    };
    let (viewer, operator) = (token("viewer"), token("operator"));
    let clients = [
        Client { ca, token: None },
        Client { ca, token: Some("gwa1.nonsense") },
        Client { ca, token: viewer["token"].as_str() },
        Client { ca, token: operator["token"].as_str() },
        admin,
    ];
    let route = json!({"respond": {"status": 200}});
    let member = format!("/v1/cluster/members/{}", u64::MAX);
    // What is asked, and the status that each client gets, in their order.
    let table = [
        ("GET", "/healthz", Value::Null, [200, 200, 200, 200, 200]),
        ("GET", "/readyz", Value::Null, [200, 200, 200, 200, 200]),
        ("GET", "/metrics", Value::Null, [401, 401, 200, 200, 200]),
        ("GET", "/v1/cluster", Value::Null, [401, 401, 200, 200, 200]),
        ("GET", "/v1/routes", Value::Null, [401, 401, 200, 200, 200]),
        ("PUT", "/v1/routes/a", route, [401, 401, 403, 200, 200]),
        ("POST", "/v1/keys", json!({"consumer": "nobody"}), [401, 401, 403, 422, 422]),
        ("POST", "/v1/tokens", json!({"role": "admin", "label": "more"}), [401, 401, 403, 403, 201]),
        ("POST", "/v1/cluster/tokens", json!({}), [401, 401, 403, 403, 201]),
        ("DELETE", &member, Value::Null, [401, 401, 403, 403, 204]),
        // On the socket alone, whoever asks.
        ("POST", "/v1/cluster/init", json!({}), [403, 403, 403, 403, 403]),
    ];
    for node in &cluster.nodes {
        until("the node knows the newest token", || {
            (clients[3].status(node.admin_tls, "GET", "/v1/routes", &Value::Null) == 200).then_some(())
        });
        for (method, target, body, expected) in &table {
            let statuses =
                clients.each_ref().map(|client| client.status(node.admin_tls, method, target, body));
            assert_eq!(statuses, *expected, "{method} {target}");
        }
    }
    let refused = clients[0].ask(cluster.nodes[0].admin_tls, "GET", "/v1/cluster", &Value::Null).unwrap();
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"phalanx\""));
    assert_eq!(refused.json()["code"], "unauthenticated");
    // A token that was deleted opens nothing any more.
    let id = viewer["id"].as_str().unwrap();
    let deleted =
        clients[4].status(cluster.nodes[2].admin_tls, "DELETE", &format!("/v1/tokens/{id}"), &Value::Null);
    assert_eq!(deleted, 204);
    for node in &cluster.nodes {
        until("the node refuses the token", || {
            (clients[2].status(node.admin_tls, "GET", "/v1/routes", &Value::Null) == 401).then_some(())
        });
    }
}

#[test]
fn a_client_refuses_a_node_of_another_ca_and_a_node_refuses_plain_http() {
    let _alone = alone();
    let (cluster, other) = (Cluster::form(1), Cluster::form(1));
    let address = cluster.nodes[0].admin_tls;
    let client = Client { ca: other.formed["ca_certificate"].as_str().unwrap(), token: None };
    let error = client.ask(address, "GET", "/healthz", &Value::Null).expect_err("it is another CA's");
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert!(matches!(tls, Some(rustls::Error::InvalidCertificate(_))), "{error:?}");
    assert!(http::get(address, "/healthz", &[]).is_err());
}
