//! The client of the admin API: TLS against the cluster's CA alone, or the local socket of a node.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{context::Context, failure::Failure};

/// How long to wait for one node's connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Speaks to one cluster.
pub(crate) struct Client {
    way: Way,
    timeout: Duration,
}

enum Way {
    Socket(PathBuf),
    Network { addresses: Vec<String>, token: String, tls: TlsConnector },
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Call {
    /// A request of `path`, with its query.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a JSON body.
    pub(crate) fn json(mut self, body: &impl serde::Serialize) -> Result<Self, Failure> {
        self.body =
            serde_json::to_vec(body).map_err(|error| Failure::refused(format!("not JSON: {error}")))?;
        Ok(self.header("content-type", "application/json"))
    }
}

/// How one attempt failed.
enum Attempt {
    /// No byte of the request was sent.
    Unreachable(String),
    /// It may have been done.
    Broken(String),
}

impl Client {
    /// A client of the node whose local socket this is.
    pub(crate) fn socket(path: PathBuf, timeout: Duration) -> Self {
        Self { way: Way::Socket(path), timeout }
    }

    /// A client of the cluster of this context.
    pub(crate) fn network(context: &Context, timeout: Duration) -> Result<Self, Failure> {
        if context.addresses.is_empty() {
            return Err(Failure::usage("the context has no address").hint("give --address HOST:PORT"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(context.ca.as_bytes()) {
            let bad = |what: String| Failure::usage(format!("the CA certificate: {what}"));
            roots
                .add(certificate.map_err(|error| bad(error.to_string()))?)
                .map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(Failure::usage("there is no CA certificate to check the nodes against").hint(
                "set PHALANX_CA to the cluster's CA certificate (PEM, or a file of it), or use a context",
            ));
        }
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Failure::refused(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let way = Way::Network {
            addresses: context.addresses.clone(),
            token: context.token.clone(),
            tls: TlsConnector::from(Arc::new(config)),
        };
        Ok(Self { way, timeout })
    }

    /// Sends the request and reads the answer as `T`.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::refused(format!("the node's answer is not understood: {error}"))
                .hint("`gwctl version` and `gwctl cluster status` show whether the versions differ")
        })
    }

    /// Sends the request and gives the body of a success.
    ///
    /// A node that can't be reached is passed over. A request that was sent is repeated at another node only where
    /// that does no harm: reads, and writes whose `Idempotency-Key` makes the second one answer as the first.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Bytes, Failure> {
        let write = call.method != Method::GET;
        if write {
            call = call.header("idempotency-key", idempotency_key()?);
        }
        // A second answer could not show again what a POST shows once.
        let repeatable = call.method != Method::POST || call.path.starts_with("/v1/apply");
        let addresses: Vec<Option<&str>> = match &self.way {
            Way::Socket(_) => vec![None],
            Way::Network { addresses, .. } => {
                addresses.iter().map(|address| Some(address.as_str())).collect()
            }
        };
        let mut reasons = Vec::new();
        let mut sent = false;
        for address in addresses {
            match tokio::time::timeout(self.timeout, self.attempt(address, &call)).await {
                Ok(Ok((status, body))) if (200..300).contains(&status) => return Ok(body),
                Ok(Ok((status, body))) => return Err(Failure::from_answer(status, &body)),
                Ok(Err(Attempt::Unreachable(reason))) => reasons.push(reason),
                Ok(Err(Attempt::Broken(reason))) => {
                    sent = true;
                    reasons.push(reason);
                    if !repeatable {
                        break;
                    }
                }
                Err(_) => {
                    sent = true;
                    reasons.push(format!("{}: no answer in time", address.unwrap_or("the socket")));
                    break;
                }
            }
        }
        let mut failure = if sent && write {
            Failure::unknown("it is not known whether it was done").hint("look before you repeat it")
        } else if sent {
            Failure::unknown("no answer").hint("see `gwctl cluster status`")
        } else {
            Failure::unavailable("no node can be reached").hint(match self.way {
                Way::Socket(_) => "is gwnode running here? give its --data or --socket",
                Way::Network { .. } => "see `gwctl context show` for the addresses",
            })
        };
        failure.lines = reasons;
        Err(failure)
    }

    async fn attempt(&self, address: Option<&str>, call: &Call) -> Result<(u16, Bytes), Attempt> {
        match (&self.way, address) {
            (Way::Network { token, tls, .. }, Some(address)) => {
                let unreachable = |what: String| Attempt::Unreachable(format!("{address}: {what}"));
                let host = host(address).ok_or_else(|| unreachable("not HOST:PORT".into()))?;
                let name = ServerName::try_from(host.to_owned()).map_err(|e| unreachable(e.to_string()))?;
                let connect = async {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    tls.connect(name, stream).await
                };
                let stream = tokio::time::timeout(CONNECT, connect)
                    .await
                    .map_err(|_| unreachable("no connection in time".into()))?
                    .map_err(|error| unreachable(error.to_string()))?;
                exchange(stream, address, Some(token), call).await
            }
            (Way::Socket(path), _) => {
                let at = path.display().to_string();
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| Attempt::Unreachable(format!("{at}: {error}")))?;
                exchange(stream, "localhost", None, call).await
            }
            (Way::Network { .. }, None) => Err(Attempt::Unreachable("no address".into())),
        }
    }
}

async fn exchange(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    token: Option<&str>,
    call: &Call,
) -> Result<(u16, Bytes), Attempt> {
    let broken = |what: String| Attempt::Broken(format!("{authority}: {what}"));
    let unreachable = |what: String| Attempt::Unreachable(format!("{authority}: {what}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut request =
        Request::builder().method(call.method.clone()).uri(&call.path).header("host", authority);
    request = request.header("user-agent", concat!("gwctl/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in &call.headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(call.body.clone())))
        .map_err(|error| unreachable(format!("the request can't be written: {error}")))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| broken(error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        result = &mut answer => result,
        // The answer may be there in full when the connection ends.
        _ = &mut connection => answer.await,
    }
}

/// The host of `HOST:PORT`, without an IPv6 address's brackets.
pub(crate) fn host(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    (!host.is_empty()).then_some(host)
}

fn idempotency_key() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Failure::refused("the system gives no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address() {
        assert_eq!(host("127.0.0.1:9081"), Some("127.0.0.1"));
        assert_eq!(host("[::1]:9081"), Some("::1"));
        assert_eq!(host("a.example:1"), Some("a.example"));
        for bad in ["a", "a:", ":1", "[::1:1", "a:99999"] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }
}
