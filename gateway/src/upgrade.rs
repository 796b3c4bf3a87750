//! Upgrades (RFC 9110, section 7.8): after the target's 101, and not before, bytes go both ways as they come.

use std::rc::Rc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::{
    after::Permit,
    body::ResponseBody,
    connection::Connection,
    error::X_REQUEST_ID,
    h1::io::{Duplex, Io, Rewound},
    headers,
    upstream::{answered::Answered, breaker::Counted, pool::Lease},
    websocket::{self, Key},
    worker::Worker,
};

/// What `Connection` says where there is an `Upgrade`.
pub(crate) const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Protocols never upgraded to, by how they begin: in a tunnel of HTTP or TLS requests would go on with no route, no
/// policy and no rule of ours (known as h2c smuggling).
const REFUSED: [&[u8]; 3] = [b"h2", b"http", b"tls"];

/// Whether it names one protocol, and not one of [`REFUSED`].
fn is_tunnelled(protocol: &[u8]) -> bool {
    let refused = |name: &&[u8]| {
        protocol.get(..name.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(name))
    };
    !protocol.is_empty() && !protocol.contains(&b',') && !REFUSED.iter().any(refused)
}

/// An upgrade that a client has asked for.
pub(crate) struct Asked {
    /// Of HTTP/2, the client's stream, once it is no HTTP any more.
    client: Option<OnUpgrade>,
    protocol: HeaderValue,
    /// The request's.
    id: Option<HeaderValue>,
    /// Of HTTP/2, what the target must prove that it has understood.
    key: Option<Key>,
}

/// The upgrade that the request asks for validly: a GET without a body, of HTTP/1.1 or made of what HTTP/2 has for it.
pub(crate) fn asked<B>(request: &mut Request<B>, found: headers::Found, has_body: bool) -> Option<Asked> {
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let key = request.extensions_mut().remove::<Key>();
    let valid = found.upgrade
        && request.method() == Method::GET
        && (request.version() == Version::HTTP_11 || key.is_some())
        && !has_body
        && request.headers().get_all(header::UPGRADE).iter().count() == 1;
    let protocol =
        request.headers().get(header::UPGRADE).filter(|protocol| is_tunnelled(protocol.as_bytes())).cloned();
    match protocol {
        Some(protocol) if valid => {
            request.headers_mut().insert(header::CONNECTION, UPGRADE);
            let id = request.headers().get(X_REQUEST_ID).cloned();
            Some(Asked { client, protocol, id, key })
        }
        _ => {
            request.headers_mut().remove(header::UPGRADE);
            None
        }
    }
}

/// The protocols that a target's 426 wants its client to upgrade to, of those that it may (RFC 9110, section 15.5.22).
pub(crate) fn wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(header::UPGRADE).iter();
    let named = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let taken: Vec<&[u8]> = named.filter(|protocol| is_tunnelled(protocol)).collect();
    HeaderValue::from_bytes(&taken.join(&b", "[..])).ok().filter(|protocols| !protocols.is_empty())
}

impl Asked {
    /// Whether this is what the client's request asked for and no other protocol.
    pub(crate) fn agreed(&self, response: &Response<Answered>) -> bool {
        let answer = response.headers().get(header::UPGRADE);
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && answer.is_some_and(|answer| self.protocol.as_bytes().eq_ignore_ascii_case(answer.as_bytes()))
            && self.key.as_ref().is_none_or(|key| key.is_proven(response.headers()))
    }
}

/// Two connections whose bytes go both ways as they come, once the client has been told so.
pub(crate) struct Tunnel {
    /// That of the request for it.
    pub(crate) id: Option<HeaderValue>,
    target: Rewound,
    /// Its place among the connections of an upstream that limits them.
    counted: Option<Rc<Counted>>,
    /// It is in flight as long as the tunnel is open.
    permits: Vec<Permit>,
    lease: Lease,
}

impl Tunnel {
    /// Joins the client's side to the target's, to the end of both.
    pub(crate) async fn run(self, worker: &Worker, mut client: impl Duplex) {
        worker.metrics.tunnels.add(1);
        let Self { mut target, counted, permits, lease, .. } = self;
        let _in_flight = (counted, permits, lease);
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut target).await {
            tracing::debug!(%error, "a tunnel broke off");
        }
    }
}

/// The response that tells the client that there is a tunnel from here on; none if the target's side is gone.
pub(crate) fn tunnel(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    asked: Asked,
    response: Response<Answered>,
    (lease, permits): (Lease, Vec<Permit>),
) -> Option<Response<ResponseBody>> {
    let (mut head, body) = response.into_parts();
    let (target, counted) = match body {
        Answered::Own(body) => body.into_tunnel()?,
        Answered::Switched(stream) => (Rewound::new(BytesMut::new(), Io::Layered(Box::new(stream))), None),
        Answered::Shared(_) => return None,
    };
    let tunnel = Tunnel { id: asked.id, target, counted, permits, lease };
    headers::clean_response(&mut head.headers, true);
    head.headers.insert(header::CONNECTION, UPGRADE);
    let Some(client) = asked.client.filter(|_| asked.key.is_some()) else {
        return Some(Response::from_parts(head, ResponseBody::tunnel(tunnel)));
    };
    // Its connection has others beside it, and is not idle while it is open.
    let (worker, busy) = (worker.clone(), connection.busy());
    tokio::task::spawn_local(async move {
        let _busy = busy;
        match client.await {
            Ok(client) => tunnel.run(&worker, TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "an upgrade broke off"),
        }
    });
    let mut response = Response::from_parts(head, ResponseBody::empty());
    websocket::as_http2(&mut response);
    Some(response)
}
