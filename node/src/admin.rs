//! The admin API: REST and JSON, over TLS with bearer tokens, and over a socket that the machine's own admin may open.

mod backup;
mod certificates;
mod cluster;
mod health;
mod limits;
mod metrics;
mod objects;
mod openapi;
mod reply;
#[cfg(test)]
mod tests;
mod tokens;
mod usage;
mod write;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{
        openapi::{OPERATIONS, Operation},
        reply::Refusal,
    },
    node::Node,
};

/// Connections at a time, on each listener.
const CONNECTIONS_MAX: usize = 512;
/// For TLS to stand, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole request, its waiting for nodes included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// Of a body that is too large, what is read and thrown away before the answer, and for how long.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// For a request to be answered once the node stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose token it was, for the audit log.
    pub(crate) label: String,
}

/// One request, read whole.
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    /// What stands for the path's placeholders, in their order.
    pub(crate) arguments: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The first query parameter of this name.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = if self.body.is_empty() { &b"{}"[..] } else { &self.body };
        serde_json::from_slice(body)
            .map_err(|error| Refusal::invalid(format!("the body is not what it should be: {error}")))
    }
}

/// The body of an answer: whole, or read bit by bit.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Answer = Result<Response<Body>, Refusal>;

/// Serves the socket until told to stop.
pub(crate) async fn serve_socket(node: Arc<Node>, listener: UnixListener, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match (accepted, slots.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(slot)) => {
                    let (node, stop) = (node.clone(), stop.clone());
                    connections.spawn(async move {
                        serve(node, stream, true, stop).await;
                        drop(slot);
                    });
                }
                (Ok(_), Err(_)) => {}
                (Err(_), _) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    finish(connections).await;
}

/// Serves the TLS listener until told to stop.
pub(crate) async fn serve_tls(
    node: Arc<Node>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    let (acceptor, slots) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match (accepted, slots.clone().try_acquire_owned()) {
                (Ok((stream, from)), Ok(slot)) => {
                    let (node, acceptor, stop) = (node.clone(), acceptor.clone(), stop.clone());
                    connections.spawn(async move {
                        match tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => serve(node, stream, false, stop).await,
                            Ok(Err(error)) => tracing::debug!(%from, %error, "an admin connection failed in TLS"),
                            Err(_) => tracing::debug!(%from, "an admin connection took too long in TLS"),
                        }
                        drop(slot);
                    });
                }
                (Ok((_, from)), Err(_)) => tracing::warn!(%from, "refused an admin connection: too many are open"),
                (Err(_), _) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    finish(connections).await;
}

/// Lets what was asked be answered: each connection has been told to stop, and has its own limit.
async fn finish(mut connections: JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

async fn serve<S>(node: Arc<Node>, stream: S, local: bool, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(&node, request, local).await) }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection ended early");
        },
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(STOP_GRACE * 2, connection).await;
        }
    }
}

async fn answer(node: &Arc<Node>, request: Request<Incoming>, local: bool) -> Response<Body> {
    let request_id = crate::tokens::hex(&crate::tokens::random::<8>());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let stopped = async {
        node.stopping().cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    // A request that is dropped lets go of the node's parts, so that these can be stopped.
    let answered = tokio::select! {
        answered = tokio::time::timeout(REQUEST_TIMEOUT, route(node, request, local)) => {
            answered.unwrap_or_else(|_| Err(Refusal::timeout("the request took over 90 s")))
        }
        () = stopped => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unknown_outcome",
            "the node stopped meanwhile; ask another with the same idempotency key",
        )),
    };
    let mut response = answered.unwrap_or_else(|refusal| refusal.response(&request_id));
    tracing::debug!(%method, path, status = response.status().as_u16(), request_id, "admin");
    if let Ok(id) = header::HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

async fn route(node: &Arc<Node>, request: Request<Incoming>, local: bool) -> Answer {
    let path = request.uri().path().to_owned();
    let mut allowed = Vec::new();
    let found = OPERATIONS.iter().find_map(|operation| {
        let arguments = operation.arguments(&path)?;
        if operation.method == request.method()
            || (operation.method == Method::GET && request.method() == Method::HEAD)
        {
            return Some((operation, arguments));
        }
        allowed.push(operation.method.as_str());
        None
    });
    let Some((operation, arguments)) = found else {
        return Err(match allowed.is_empty() {
            true => Refusal::not_found(format!(
                "there is nothing at {path}; GET /openapi.json says what there is"
            )),
            false => Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("{path} takes {}", allowed.join(", ")),
            ),
        });
    };
    let caller = authorise(node, &request, operation, local).await?;
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let body = read_body(body, operation.body_bytes_max()).await?;
    let known = match operation.method == Method::GET {
        true => parts.headers.get(header::IF_NONE_MATCH).cloned(),
        false => None,
    };
    let asked = Asked { caller, arguments, query: read_query(query), headers: parts.headers, body };
    let mut response = (operation.handle)(node.clone(), asked).await?;
    if operation.method == Method::GET {
        tell_age(node, &mut response).await;
    }
    if known.is_some() && response.headers().get(header::ETAG) == known.as_ref() {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_TYPE);
        *response.body_mut() = reply::whole(Bytes::new());
    }
    Ok(response)
}

/// How old what this node says may be: what its data plane has installed, and how long ago it heard of a leader, which
/// is left out if it never did.
async fn tell_age(node: &Node, response: &mut Response<Body>) {
    let member = node.member.read().await;
    let Some(member) = &*member else { return };
    let headers = response.headers_mut();
    headers.insert("x-phalanx-installed", node.installed.borrow().0.into());
    if let Some(heard) = member.consensus.status().leader_contact {
        let ms = u64::try_from(heard.as_millis()).unwrap_or(u64::MAX);
        headers.insert("x-phalanx-leader-contact-ms", ms.into());
    }
}

/// The whole body. The rest of one that is too large is read and thrown away for a while: a client that is still sending
/// would see a broken connection in place of the answer.
async fn read_body(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    if let Ok(whole) = Limited::new(&mut body, bytes_max).collect().await {
        return Ok(whole.to_bytes());
    }
    let mut rest = Limited::new(body, DISCARDED_BYTES_MAX);
    let discard = async { while let Some(Ok(_)) = rest.frame().await {} };
    // Whoever sends for longer is cut off.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
    let detail = format!("the body is over {bytes_max} bytes, or broke off");
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail))
}

async fn authorise(
    node: &Node,
    request: &Request<Incoming>,
    operation: &Operation,
    local: bool,
) -> Result<Caller, Refusal> {
    if operation.local && !local {
        return Err(Refusal::denied(
            "this is done on the node's own socket alone: gwctl --socket DIR/admin.sock",
        ));
    }
    if local {
        return Ok(Caller { label: "socket".to_owned() });
    }
    let Some(needed) = operation.role else {
        return Ok(Caller { label: String::new() });
    };
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let Some(token) = token else {
        return Err(Refusal::unauthenticated("an admin token is needed: Authorization: Bearer gwa1.…"));
    };
    let member = node.member.read().await;
    let known = member.as_ref().and_then(|member| {
        crate::tokens::verify_admin(&member.consensus.cluster().borrow(), token, crate::identity::now_ms())
    });
    let Some((label, role)) = known else {
        return Err(Refusal::unauthenticated("the admin token is unknown, expired or mistyped"));
    };
    if role < needed {
        let role = format!("{role:?}").to_lowercase();
        let needed = format!("{needed:?}").to_lowercase();
        return Err(Refusal::denied(format!("this needs the role {needed}, and the token has {role}")));
    }
    Ok(Caller { label })
}

fn read_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [byte, after @ ..] = rest {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let hex = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            (bytes, rest) = match (byte, hex) {
                (b'%', Some(decoded)) => (push(bytes, decoded), &after[2..]),
                (b'+', _) => (push(bytes, b' '), after),
                _ => (push(bytes, *byte), after),
            };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(64);
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// `GET /healthz`: the process runs.
async fn healthz(_: Arc<Node>, _: Asked) -> Answer {
    reply::json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// `GET /readyz`: a balancer may send clients here.
async fn readyz(node: Arc<Node>, _: Asked) -> Answer {
    match node.ready().await {
        Ok(()) => reply::json(StatusCode::OK, &serde_json::json!({"status": "ready"})),
        Err(why) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why)),
    }
}
