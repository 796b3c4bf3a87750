//! TCP routes: connections whose bytes go through as they come, told by their listener and by the host that they name in TLS.

pub(crate) mod explain;
pub(crate) mod hello;
mod passage;
mod relay;

use std::{rc::Rc, sync::Arc, time::Duration};

use model::{Name, tcp_route::PROXY_TLS};
use rustls::server::Accepted;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::server::StartHandshake;

use crate::{
    connection::{self, Connection},
    plan::tcp::{self, CompiledTcpRoute, Place},
    settings::Limit,
    timer,
    tls::Begun,
    upstream::{self, stream},
    watched::Watched,
    worker::Worker,
};

use hello::{Reader, Refused};
use relay::Relay;

pub(crate) use passage::{End, Passage, Told};

/// What a client of TLS is told for whose host there is nothing: a fatal alert `unrecognized_name` (RFC 6066, section 3, RFC 8446, section 6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A route for a connection, and what of its bytes has been read.
type Found = (Arc<CompiledTcpRoute>, Vec<u8>);

/// Serves a connection to its end that has come to a listener for TCP routes alone.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    connection: Rc<Connection>,
    listener: Name,
) {
    let mut passage = Passage::begin(&worker, &connection, listener);
    // What a ClientHello is read with is given back before anything else is done.
    let found = Box::pin(find(&mut passage, &mut stream)).await;
    if let Some((route, read)) = found {
        pass(passage, stream, route, read).await;
    }
}

/// The route that takes a connection of a listener for TCP routes.
async fn find(passage: &mut Passage, stream: &mut TcpStream) -> Option<Found> {
    let (worker, connection) = (passage.worker.clone(), passage.connection.clone());
    match worker.plan().tcp.on(passage.listener.as_str()) {
        None => {
            passage.end = End::NoRoute;
            return None;
        }
        Some(on) if !on.reads_hello() => return on.any().cloned().map(|route| (route, Vec::new())),
        Some(_) => {}
    }
    let mut reader = Reader::default();
    let reading = connection.unless_ended(reader.read(stream));
    let read = worker.deadlines.within(worker.settings.limits.handshake_timeout, Box::pin(reading)).await;
    // By the newest Plan: reading may have taken its time.
    let plan = worker.plan();
    let on = plan.tcp.on(passage.listener.as_str());
    let any = || on.and_then(|on| on.any()).cloned();
    let (route, end, alert) = match read {
        Some(Some(Ok(accepted))) => {
            passage.sni = host_of(&accepted);
            let route = on.and_then(|on| on.of(passage.sni.as_deref())).cloned();
            (route, End::NoRoute, &UNRECOGNIZED_NAME[..])
        }
        Some(Some(Err(Refused::Gone))) => (None, End::Gone, &[][..]),
        Some(Some(Err(refused))) => {
            tracing::debug!(peer = %connection.peer, error = %refused, "there is no ClientHello");
            match refused {
                Refused::Bad(_, alert) if any().is_none() => {
                    tell(stream, &alert).await;
                    (None, End::BadHello, &[][..])
                }
                _ => (any(), End::BadHello, &[][..]),
            }
        }
        Some(None) => (None, End::Cut, &[][..]),
        None => {
            worker.metrics.limited(Limit::HandshakeTimeout);
            (None, End::HelloTimeout, &[][..])
        }
    };
    match route {
        Some(route) => Some((route, reader.into_bytes())),
        None => {
            passage.end = end;
            tell(stream, alert).await;
            None
        }
    }
}

/// Serves a connection of the listener for TLS to its end, where some that come there go through: one of these, or one that is ended here.
pub(crate) async fn serve_tls(worker: Rc<Worker>, stream: TcpStream, connection: Rc<Connection>) {
    match Box::pin(sort(&worker, stream, &connection)).await {
        Some(Sorted::Through(passage, stream, (route, read))) => pass(passage, stream, route, read).await,
        Some(Sorted::Here(begun, left)) => {
            Box::pin(connection::serve_begun(worker, begun, left, connection)).await;
        }
        None => {}
    }
}

/// What a connection of the listener for TLS is.
enum Sorted {
    /// One that goes through.
    Through(Passage, TcpStream, Found),
    /// One whose TLS is ended here, and the time that its handshake has left.
    Here(Begun, Duration),
}

async fn sort(worker: &Rc<Worker>, mut stream: TcpStream, connection: &Rc<Connection>) -> Option<Sorted> {
    let since_ms = timer::now_ms();
    let mut reader = Reader::default();
    let reading = connection.unless_ended(reader.read(&mut stream));
    match worker.deadlines.within(worker.settings.limits.handshake_timeout, Box::pin(reading)).await {
        Some(Some(Ok(accepted))) => {
            let host = host_of(&accepted);
            let plan = worker.plan();
            let Some(route) = plan.tcp.of_tls(host.as_deref(), &plan.certificates).cloned() else {
                let stream = Watched::new(stream, connection.watch.clone());
                let begun = Box::new(StartHandshake::from_parts(accepted, stream));
                let passed = Duration::from_millis(timer::now_ms().saturating_sub(since_ms));
                let left = worker.settings.limits.handshake_timeout.saturating_sub(passed);
                return Some(Sorted::Here(Begun::Hello(begun), left));
            };
            let listener = Name::new(PROXY_TLS).ok()?;
            let mut passage = Passage::begin(worker, connection, listener);
            passage.sni = host;
            return Some(Sorted::Through(passage, stream, (route, reader.into_bytes())));
        }
        Some(Some(Err(refused))) => {
            worker.metrics.tls_handshake_failures.add(1);
            tracing::debug!(peer = %connection.peer, error = %refused, "a handshake failed");
            if let Refused::Bad(_, alert) = refused {
                tell(&mut stream, &alert).await;
            }
        }
        Some(None) => {}
        None => {
            worker.metrics.limited(Limit::HandshakeTimeout);
            tracing::debug!(peer = %connection.peer, "a handshake took too long");
        }
    }
    None
}

/// The host that a client names, as it is matched.
fn host_of(accepted: &Accepted) -> Option<String> {
    accepted.client_hello().server_name().map(tcp::host)
}

/// Tells a client why there is nothing for it, as far as there is room for that.
async fn tell(stream: &mut TcpStream, alert: &[u8]) {
    if !alert.is_empty() {
        // Who does not listen is not waited for: a new connection has room for some bytes.
        let _ = stream.write_all(alert).await;
        let _ = stream.shutdown().await;
    }
}

/// Has a connection go through by this route, to its end; what was read of it goes first.
async fn pass(mut passage: Passage, client: TcpStream, route: Arc<CompiledTcpRoute>, read: Vec<u8>) {
    let (worker, connection) = (passage.worker.clone(), passage.connection.clone());
    // No limit for requests is for it.
    connection.watch.become_tunnel();
    passage.takes(&route);
    let max = route.spec.connections_max;
    let place = if max == 0 { None } else { Place::take(&route.state, max) };
    if max > 0 && place.is_none() {
        passage.end = End::Limited;
        return;
    }
    let upstream = {
        let plan = worker.plan();
        route.to.pick(worker.turn()).and_then(|name| plan.upstream(name)).cloned()
    };
    let Some(upstream) = upstream else {
        passage.end = End::Unconnected;
        return;
    };
    let opened = Box::pin(stream::open(&worker, upstream, &connection, &client, &mut passage.told)).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(why) => {
            passage.end =
                if why == upstream::retry::Why::Overflow { End::Overflow } else { End::Unconnected };
            return;
        }
    };
    let stream::Opened { stream: target, mut first, load, counted } = opened;
    let _in_use = (place, load, counted);
    let count = read.len();
    first.extend_from_slice(&read);
    drop(read);
    let mut relay = Relay::new(client, target, (first, count), route.spec.idle_timeout);
    drop(route);
    let ended = relay.run(&worker, |relay| passage.moved(relay.bytes())).await;
    passage.end = ended.into();
}
