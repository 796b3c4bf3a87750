//! What the data plane's tests share: a gateway on a config, an origin that records what it gets, a client of bytes.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod frames;
pub mod http2;
pub mod recorder;
pub mod tcp;
pub mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use gateway::{Gateway, Settings};
use model::{Change, Config, Kind, Name, Op, Outcome, document};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Far longer than anything takes; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway under test.
pub struct Under {
    pub gateway: Gateway,
    pub registry: prometheus::Registry,
    pub config: watch::Sender<Arc<Config>>,
}

/// The config with these objects put in, as `[("upstream", "a", {..}), ..]`.
pub fn with(config: &Config, objects: &[(Kind, &str, Value)]) -> Config {
    let mut config = config.clone();
    let ops = objects.iter().map(|(kind, name, spec)| Op::Put {
        kind: *kind,
        name: Name::new(name).unwrap(),
        doc: document::canonical(spec),
    });
    let change = Change { base: config.revision, ops: ops.collect() };
    assert!(matches!(config.apply(&change), Outcome::Applied(_) | Outcome::Unchanged(_)));
    assert!(config.unreadable.is_empty(), "{:?}", config.unreadable);
    config
}

pub fn settings() -> Settings {
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.workers = 1;
    settings
}

pub fn start(settings: Settings, objects: &[(Kind, &str, Value)]) -> Under {
    let (sender, receiver) = watch::channel(Arc::new(with(&Config::default(), objects)));
    let registry = prometheus::Registry::new();
    let gateway = Gateway::start(settings, receiver, &registry).unwrap();
    Under { gateway, registry, config: sender }
}

/// A gateway whose one route forwards everything to this target.
pub fn in_front_of(target: SocketAddr) -> Under {
    in_front(settings(), serde_json::json!({"targets": [{"address": target.to_string()}]}))
}

pub fn in_front(settings: Settings, upstream: Value) -> Under {
    let route = serde_json::json!({"upstream": "u"});
    start(settings, &[(Kind::Upstream, "u", upstream), (Kind::Route, "r", route)])
}

impl Under {
    pub async fn client(&self) -> Client {
        Client::connect(self.gateway.address()).await
    }

    /// Sends the bytes on a connection of their own and reads to its end.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.client().await;
        client.write(bytes).await;
        client.rest().await
    }

    pub fn metric(&self, line: &str) -> Option<f64> {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
    }
}

/// A client that says what it is told to, byte for byte.
pub struct Client(pub BufReader<TcpStream>);

/// A response as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything up to the end of the connection, however it ends.
    pub async fn rest(&mut self) -> String {
        String::from_utf8(self.rest_bytes().await).unwrap()
    }

    pub async fn rest_bytes(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let _ = patiently(self.0.read_to_end(&mut all)).await;
        all
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        patiently(self.0.read_line(&mut line)).await.unwrap();
        line
    }

    pub async fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = self.line().await;
            head.push_str(&line);
            if line.is_empty() || line == "\r\n" {
                return head;
            }
        }
    }

    /// One response with a Content-Length, or without a body.
    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        patiently(self.0.read_exact(&mut body)).await.unwrap();
        let status = status.unwrap_or_else(|| panic!("no response: {head:?}"));
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    pub async fn exact(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        patiently(self.0.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }
}

pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came in a long time")
}

/// Waits until it is so.
pub async fn until(mut so: impl FnMut() -> bool) {
    patiently(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The first value of this header of a head, whatever its case.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_default()
}

/// What an origin got.
#[derive(Debug, Clone, Default)]
pub struct Got {
    pub head: String,
    pub body: String,
}

/// A server that records what it gets and answers as told: bytes for each request, and whether to go on.
#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    pub got: Arc<Mutex<Vec<Got>>>,
}

impl Origin {
    /// Answers every request with 200 and this body.
    pub async fn saying(body: &'static str) -> Self {
        Self::answering(move |_| ok(body)).await
    }

    /// Answers with these bytes; an answer of none closes the connection.
    pub async fn answering(answer: impl Fn(&Got) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let (got, answer) = (origin.got.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (got, answer) = (got.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut client = Client(BufReader::new(stream));
                    while let Some(request) = read_request(&mut client).await {
                        let response = answer(&request);
                        got.lock().unwrap().push(request);
                        if response.is_empty()
                            || client.0.get_mut().write_all(response.as_bytes()).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        origin
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    pub fn last(&self) -> Got {
        self.got.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One request; chunked bodies are kept as they came.
async fn read_request(client: &mut Client) -> Option<Got> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if client.0.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        head.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = String::new();
    if header(&head, "transfer-encoding").is_some() {
        while !(body.ends_with("\r\n\r\n") && (body.starts_with("0\r\n") || body.contains("\r\n0\r\n"))) {
            if client.0.read_line(&mut body).await.ok()? == 0 {
                return None;
            }
        }
    } else if let Some(length) = header(&head, "content-length") {
        let mut bytes = vec![0; length.parse().ok()?];
        client.0.read_exact(&mut bytes).await.ok()?;
        body = String::from_utf8(bytes).ok()?;
    }
    Some(Got { head, body })
}
