//! Targets of TCP routes, and clients that say byte for byte what they are told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use gateway::Settings;
use model::{Kind, Name};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Under, patiently, settings, tls::provider, with};

/// `unrecognized_name`, fatal (RFC 6066, section 3).
pub const NO_SUCH_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

pub fn with_listener(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    let any = "127.0.0.1:0".parse().unwrap();
    settings.listen_tls = Some(any);
    settings.listen_tcp = vec![(Name::new("one").unwrap(), any), (Name::new("two").unwrap(), any)];
    change(&mut settings);
    settings
}

pub fn to(targets: &[SocketAddr]) -> Value {
    let targets: Vec<_> = targets.iter().map(|target| json!({"address": target.to_string()})).collect();
    json!({"targets": targets})
}

pub trait Tcp {
    fn tcp(&self, name: &str) -> SocketAddr;
    fn ended(&self, how: &str) -> f64;
}

impl Tcp for Under {
    fn tcp(&self, name: &str) -> SocketAddr {
        self.gateway.addresses_tcp().iter().find(|(other, _)| other.as_str() == name).unwrap().1
    }

    fn ended(&self, how: &str) -> f64 {
        self.metric(&format!("phalanx_tcp_connections_total{{end=\"{how}\"}}")).unwrap()
    }
}

/// A target that keeps what it is sent, says what it is told to at first, and echoes if it is told to.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Target {
    pub async fn start(greeting: &'static str, echoes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let got = target.got.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let got = got.clone();
                let place = {
                    let mut got = got.lock().unwrap();
                    got.push(Vec::new());
                    got.len() - 1
                };
                tokio::spawn(async move {
                    stream.write_all(greeting.as_bytes()).await.unwrap();
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        got.lock().unwrap()[place].extend_from_slice(&buffer[..count]);
                        if echoes && stream.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                    // The client has ended; this side has a last word.
                    let _ = stream.write_all(b"bye").await;
                });
            }
        });
        target
    }

    pub fn got(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().clone()
    }
}

pub async fn open(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

pub async fn exact(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    patiently(stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// What comes up to the end, and whether that was a clean one.
pub async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = patiently(stream.read_to_end(&mut bytes)).await;
    (bytes, ended.is_ok())
}

/// The address of nobody.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A ClientHello for this host; for an address it names none.
pub fn hello(host: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// Changes the config, and waits until it is in use.
pub async fn put(under: &Under, objects: &[(Kind, &str, Value)]) {
    let config = with(&under.config.borrow().clone(), objects);
    install(under, config).await;
}

pub async fn install(under: &Under, config: model::Config) {
    let revision = config.revision;
    under.config.send_replace(Arc::new(config));
    let mut installed = under.gateway.installed();
    patiently(installed.wait_for(|installed| installed.revision == revision)).await.unwrap();
}
