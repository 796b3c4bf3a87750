//! Upgrades (RFC 9110, section 7.8): after the target's 101, and not before, bytes go both ways as they come.

use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::{
    after::Permit, body::ResponseBody, connection::Connection, headers, upstream::pool::Lease, worker::Worker,
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

/// The client's side of an upgrade that the request asks for validly: a GET of HTTP/1.1 without a body.
pub(crate) fn asked<B>(request: &mut Request<B>, found: headers::Found, has_body: bool) -> Option<OnUpgrade> {
    let valid = found.upgrade
        && request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && !has_body
        && request.headers().get_all(header::UPGRADE).iter().count() == 1
        && request.headers().get(header::UPGRADE).is_some_and(is_tunnelled);
    let client = request.extensions_mut().remove::<OnUpgrade>();
    if valid {
        request.headers_mut().insert(header::CONNECTION, UPGRADE);
        client
    } else {
        request.headers_mut().remove(header::UPGRADE);
        None
    }
}

/// Whether this is what the client's request asked for and no other protocol.
pub(crate) fn agreed(asked: Option<&HeaderValue>, response: &Response<Incoming>) -> bool {
    let answer = response.headers().get(header::UPGRADE);
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && asked
            .zip(answer)
            .is_some_and(|(asked, answer)| asked.as_bytes().eq_ignore_ascii_case(answer.as_bytes()))
}

/// Joins the two sides; the response tells the client so.
pub(crate) fn tunnel(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    client: OnUpgrade,
    mut response: Response<Incoming>,
    (lease, permits): (Lease, Vec<Permit>),
) -> Response<ResponseBody> {
    // From the response on the client's bytes are no HTTP any more.
    connection.watch.become_tunnel();
    let target = hyper::upgrade::on(&mut response);
    let held = lease.hand_over();
    let open = worker.open_tunnel();
    tokio::task::spawn_local(async move {
        // It is in flight as long as the tunnel is open.
        let _open = (open, permits, held);
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
    Response::from_parts(head, ResponseBody::empty())
}
