//! Upgrades (RFC 9110, section 7.8): after the target's 101, and not before, bytes go both ways as they come.

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::{
    after::Permit,
    body::ResponseBody,
    connection::Connection,
    headers,
    upstream::pool::Lease,
    websocket::{self, Key},
    worker::Worker,
};

const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Protocols never upgraded to, by how they begin: in a tunnel of HTTP or TLS requests would go on with no route, no
/// policy and no rule of ours (known as h2c smuggling).
const REFUSED: [&[u8]; 3] = [b"h2", b"http", b"tls"];

/// Whether it names one protocol, and not one of [`REFUSED`].
fn is_tunnelled(protocol: &HeaderValue) -> bool {
    let protocol = protocol.as_bytes();
    let refused = |name: &&[u8]| {
        protocol.get(..name.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(name))
    };
    !protocol.is_empty() && !protocol.contains(&b',') && !REFUSED.iter().any(refused)
}

/// An upgrade that a client has asked for.
pub(crate) struct Asked {
    client: OnUpgrade,
    protocol: HeaderValue,
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
    let protocol = request.headers().get(header::UPGRADE).filter(|protocol| is_tunnelled(protocol)).cloned();
    match (client, protocol) {
        (Some(client), Some(protocol)) if valid => {
            request.headers_mut().insert(header::CONNECTION, UPGRADE);
            Some(Asked { client, protocol, key })
        }
        _ => {
            request.headers_mut().remove(header::UPGRADE);
            None
        }
    }
}

impl Asked {
    /// Whether this is what the client's request asked for and no other protocol.
    pub(crate) fn agreed(&self, response: &Response<Incoming>) -> bool {
        let answer = response.headers().get(header::UPGRADE);
        response.status() == StatusCode::SWITCHING_PROTOCOLS
            && answer.is_some_and(|answer| self.protocol.as_bytes().eq_ignore_ascii_case(answer.as_bytes()))
            && self.key.as_ref().is_none_or(|key| key.is_proven(response.headers()))
    }
}

/// Joins the two sides; the response tells the client so.
pub(crate) fn tunnel(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    asked: Asked,
    mut response: Response<Incoming>,
    (lease, permits): (Lease, Vec<Permit>),
) -> Response<ResponseBody> {
    let Asked { client, key, .. } = asked;
    let busy = if key.is_some() {
        // Its connection has others beside it, and is not idle while it is open.
        Some(connection.busy())
    } else {
        // From the response on the client's bytes are no HTTP any more.
        connection.watch.become_tunnel();
        None
    };
    let target = hyper::upgrade::on(&mut response);
    let held = lease.hand_over();
    let open = worker.open_tunnel();
    tokio::task::spawn_local(async move {
        // It is in flight as long as the tunnel is open.
        let _open = (open, permits, held, busy);
        let (client, target) = match futures::future::try_join(client, target).await {
            Ok(sides) => sides,
            Err(error) => {
                tracing::debug!(%error, "an upgrade broke off");
                return;
            }
        };
        let (mut client, mut target) = (TokioIo::new(client), TokioIo::new(target));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut target).await {
            tracing::debug!(%error, "a tunnel broke off");
        }
    });
    let (mut head, _) = response.into_parts();
    headers::clean_response(&mut head.headers, true);
    head.headers.insert(header::CONNECTION, UPGRADE);
    let mut response = Response::from_parts(head, ResponseBody::empty());
    if key.is_some() {
        websocket::as_http2(&mut response);
    }
    response
}
