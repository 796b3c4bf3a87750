//! Leads traffic of many kinds through one real node and ends it as an operator would: what `release/build` learns from where requests go.
//!
//! `PHALANX_GWNODE=target/release/gwnode cargo run -p tests --example traffic`

mod client;
mod origin;

use std::net::SocketAddr;

use client::{Clients, Wire};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use phalanx_tests::{Cluster, node::free_port, until};
use serde_json::{Value, json};

/// What a browser says with each request.
const BROWSER: [(&str, &str); 9] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("origin", "https://shop.example"),
    ("referer", "https://shop.example/"),
    ("sec-fetch-mode", "cors"),
    ("cache-control", "no-cache"),
];

/// Where the origin has nothing.
const MISSING: &str = "/pages/404";
/// What bodies are made of.
const BODY: &[u8] = &[b'a'; 1 << 20];

/// One kind of traffic.
struct Kind {
    wire: Wire,
    /// Connections at once, and requests at once on each.
    clients: usize,
    streams: usize,
    /// In all.
    requests: usize,
    method: Method,
    /// Asked for in turn.
    paths: &'static [&'static str],
    headers: HeaderMap,
    body_bytes: usize,
}

impl Kind {
    fn get(wire: Wire, requests: usize, paths: &'static [&'static str]) -> Self {
        let streams = if wire == Wire::Http2 { 8 } else { 1 };
        let (method, headers) = (Method::GET, HeaderMap::new());
        Self { wire, clients: 16, streams, requests, method, paths, headers, body_bytes: 0 }
    }

    fn post(wire: Wire, requests: usize, paths: &'static [&'static str], body_bytes: usize) -> Self {
        Self { method: Method::POST, clients: 4, body_bytes, ..Self::get(wire, requests, paths) }
    }

    /// The same from a browser.
    fn of_browser(mut self) -> Self {
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        self.headers.extend(BROWSER.map(line));
        self
    }
}

/// More of what is frequent. What is rare is there so that it is not taken for what never happens.
fn kinds() -> Vec<Kind> {
    let routes = &["/template/7/items/9", "/regex/42", "/a/b/c/d", "/exact?of=query", "/moved", "/fixed"];
    let policies = &["/keys", "/limited", "/cors", "/ids", "/compressed", "/few", "/office", MISSING, "/all"];
    let mut kinds = vec![
        Kind::get(Wire::Plain, 30_000, &["/"]),
        Kind::get(Wire::Tls, 15_000, &["/"]),
        Kind::get(Wire::Http2, 30_000, &["/"]),
        Kind::get(Wire::PlainOnce, 6_000, &["/"]),
        Kind::get(Wire::TlsOnce, 1_500, &["/"]),
        Kind::get(Wire::Plain, 4_000, &["/over-http2"]),
        Kind::get(Wire::Http2, 4_000, &["/over-http2"]),
    ];
    for wire in [Wire::Plain, Wire::Tls, Wire::Http2] {
        kinds.push(Kind::get(wire, 5_000, &["/", "/list?page=2&sort=name"]).of_browser());
        kinds.push(Kind::get(wire, 1_200, routes).of_browser());
        kinds.push(Kind::get(wire, 2_700, policies).of_browser());
        kinds.push(Kind::post(wire, 2_000, &["/form"], 2_000).of_browser());
        kinds.push(Kind { clients: 4, ..Kind::get(wire, 150, &["/large"]) });
        kinds.push(Kind::post(wire, 150, &["/upload"], 1 << 20));
    }
    kinds
}

fn document(origins: [SocketAddr; 2]) -> Value {
    let prefix = |path: &str, policies: &[&str]| json!({"match": [{"path": {"prefix": path}}], "policies": policies, "upstream": "origin"});
    json!({
        "version": 1,
        "upstreams": {
            "origin": {"targets": [{"address": origins[0]}]},
            "http2": {"protocol": "http2", "targets": [{"address": origins[1]}]},
        },
        "consumers": {"shop": {}},
        "policies": {
            "keys": {"type": "api-key"},
            "limited": {"type": "rate-limit", "by": "address", "limit": {"requests": 1_000_000, "per": "1s"}},
            "cors": {"type": "cors", "origins": ["https://shop.example"]},
            "ids": {"type": "request-id"},
            "compressed": {"type": "compress"},
            "few": {"type": "concurrency", "by": "address", "limit": 1000},
            "office": {"type": "ip", "allow": ["127.0.0.0/8"]},
            "pages": {"type": "error-pages", "of": "all", "pages": {"4xx": {"html": "<h1>{{status}} {{title}}</h1>"}}},
            "small": {"type": "body-limit", "max": "4MiB"},
        },
        "routes": {
            "all": {"upstream": "origin"},
            "http2": {"match": [{"path": {"prefix": "/over-http2"}}], "upstream": "http2"},
            "template": {"match": [{"path": {"template": "/template/{id}/items/{item}"}}], "upstream": "origin"},
            "regex": {"match": [{"path": {"regex": "/regex/[0-9]+"}}], "upstream": "origin"},
            "exact": {"match": [{"path": {"exact": "/exact"}, "query": {"of": {"exact": "query"}}, "methods": ["GET"]}], "upstream": "origin"},
            "moved": {"match": [{"path": {"exact": "/moved"}}], "redirect": {"host": "www.example"}},
            "fixed": {"match": [{"path": {"exact": "/fixed"}}], "respond": {"status": 200, "body": "fixed"}},
            "keys": prefix("/keys", &["keys"]),
            "limited": prefix("/limited", &["limited"]),
            "cors": prefix("/cors", &["cors"]),
            "ids": prefix("/ids", &["ids"]),
            "compressed": prefix("/compressed", &["compressed"]),
            "few": prefix("/few", &["few"]),
            "office": prefix("/office", &["office"]),
            "pages": prefix("/pages", &["pages"]),
            "small": prefix("/form", &["small"]),
            "every": prefix("/all", &["keys", "limited", "cors", "ids", "compressed", "few", "office", "small"]),
        },
    })
}

fn main() {
    let certificate = rcgen::generate_simple_self_signed(["traffic.example".to_owned()])
        .expect("a certificate can be made");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let origins = origin::start();
    let mut cluster = Cluster::form(1);
    let tls = free_port();
    cluster.nodes[0].environment.insert("PHALANX_PROXY_TLS".to_owned(), tls.to_string());
    cluster.nodes[0].stop();
    cluster.nodes[0].start();
    until("the node is ready", || cluster.admin(0).is_ready().then_some(()));
    let document = document(origins).to_string();
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document}));
    let pair = json!({"chain": certificate.cert.pem(), "key": certificate.signing_key.serialize_pem(), "default": true});
    cluster.admin(0).must("PUT", "/v1/certificates/all?wait=all", &pair);
    let issued = cluster.admin(0).must("POST", "/v1/keys?wait=all", &json!({"consumer": "shop"}));
    let key: HeaderValue =
        issued["key"].as_str().expect("a key is issued").parse().expect("a key is a header's value");
    let clients = Clients::new(cluster.nodes[0].proxy, tls, certificate.cert.der().clone());
    for mut kind in kinds() {
        // Asked for on some routes; known to none else.
        kind.headers.insert("x-api-key", key.clone());
        let failed = runtime.block_on(clients.run(&kind));
        println!("{:6} requests, {:?}, {} {:?}", kind.requests, kind.wire, kind.method, kind.paths);
        assert_eq!(failed, 0, "answers that are not what was asked for");
    }
    assert!(cluster.nodes[0].stop().success(), "the node ends well");
}
