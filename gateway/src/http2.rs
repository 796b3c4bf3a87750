//! HTTP/2 to clients (RFC 9113): a connection's requests, each made what it would be in HTTP/1.1.

use std::{convert::Infallible, error::Error, io, rc::Rc, task::Poll};

use futures::FutureExt;
use h2::Reason;
use http::{HeaderValue, Uri, header, request::Parts};
use hyper::{server::conn::http2 as server, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    connection::Connection, error::Fault, incoming::Incoming, proxy, settings::Limits, streams::Open, timer,
    websocket, worker::Worker,
};

/// Spawns the tasks of a connection's streams on its worker's thread.
#[derive(Clone)]
struct Spawner(Rc<Connection>);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        self.0.streams.spawned(tokio::task::spawn_local(task).abort_handle());
    }
}

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins with the preface of HTTP/2. What is there of it stays there.
pub(crate) async fn begins(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 || count == PREFACE.len() || !PREFACE.starts_with(&seen[..count]) {
            return Ok(seen[..count] == *PREFACE);
        }
        // It may be either yet, and a look does not wait for more than it has seen.
        tokio::time::sleep(timer::TICK).await;
    }
}

/// Serves the connection to its end.
pub(crate) async fn serve<S>(worker: &Rc<Worker>, io: S, connection: &Rc<Connection>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    worker.metrics.http2_connections_total.add(1);
    connection.watch.lingers_at_its_end();
    let service = {
        let (worker, connection) = (worker.clone(), connection.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let stream = Open::on(&worker, &connection);
            let (head, body) = request.into_parts();
            let (worker, connection, body) = (worker.clone(), connection.clone(), Incoming::H2(body));
            // In a place of its own: hyper hands it on several times before it is a task.
            Box::pin(proxy::handle(worker, connection, Box::new(head), body, Some(stream)))
                .map(Ok::<_, Infallible>)
        })
    };
    let server = server(&worker.settings.limits, Spawner(connection.clone()));
    let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(io), service));
    let mut finishing = false;
    let served = std::future::poll_fn(|cx| {
        if connection.must_end() {
            return Poll::Ready(Ok(()));
        }
        if connection.is_finishing() && !std::mem::replace(&mut finishing, true) {
            serving.as_mut().graceful_shutdown();
        }
        let polled = serving.as_mut().poll(cx);
        if polled.is_pending() {
            connection.wake_by(cx.waker());
        }
        polled
    })
    .await;
    if let Err(error) = &served {
        tracing::debug!(peer = %connection.peer, %error, "a client's connection ended early");
    }
    // What of it is dropped from now on is cancelled by nobody.
    let is_first = connection.end_now();
    if is_first && served.is_err_and(|error| is_flood(&error)) {
        worker.metrics.http2_floods.add(1);
    }
}

fn server(limits: &Limits, spawner: Spawner) -> server::Builder<Spawner> {
    let http2 = &limits.http2;
    let mut server = server::Builder::new(spawner);
    server.max_concurrent_streams(http2.streams_max);
    server.max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX));
    server.max_pending_accept_reset_streams(usize::try_from(http2.resets_max).unwrap_or(usize::MAX));
    server.initial_stream_window_size(http2.stream_window_bytes);
    server.initial_connection_window_size(http2.connection_window_bytes);
    server.max_send_buf_size(http2.send_bytes_max);
    server.max_frame_size(http2.frame_bytes_max);
    if let Some(interval) = http2.ping_interval {
        server.timer(TokioTimer::new()).keep_alive_interval(interval).keep_alive_timeout(http2.ping_timeout);
    }
    server.enable_connect_protocol();
    server
}

/// Whether a connection was ended for asking too much (RFC 9113, section 10.5): resets, CONTINUATION, small frames.
fn is_flood(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| !error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM))
}

/// Makes a request what it would be in HTTP/1.1 (RFC 9113, section 8.3.1): the authority becomes Host, its target a path, and
/// its cookies one field (section 8.2.3).
pub(crate) fn as_http1(head: &mut Parts) -> Result<(), Fault> {
    if let Some(authority) = head.uri.authority() {
        match head.headers.get(header::HOST) {
            // That there is one alone is seen later.
            Some(host) if host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {}
            Some(_) => return Err(Fault::bad_request("Host and :authority name different hosts")),
            None => {
                let host = HeaderValue::try_from(authority.as_str());
                let host = host.map_err(|_| Fault::bad_request("The :authority is not valid"))?;
                head.headers.insert(header::HOST, host);
            }
        }
    }
    if let Some(scheme) = head.uri.scheme()
        && !matches!(scheme.as_str(), "http" | "https")
    {
        return Err(Fault::bad_request("The request's scheme is not served here"));
    }
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    head.uri = Uri::from_parts(parts).map_err(|_| Fault::bad_request("The request has no path"))?;
    if let Some(protocol) = head.extensions.remove::<hyper::ext::Protocol>() {
        websocket::as_http1(head, &protocol)?;
    }
    join_cookies(head)
}

fn join_cookies(head: &mut Parts) -> Result<(), Fault> {
    let mut crumbs = head.headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return Ok(()) };
    let mut joined = first.as_bytes().to_vec();
    for crumb in [second].into_iter().chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined));
    let mut joined = joined.map_err(|_| Fault::bad_request("The cookies are not valid"))?;
    joined.set_sensitive(first.is_sensitive());
    head.headers.insert(header::COOKIE, joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Version};

    use super::*;

    fn made(uri: &str, lines: &[(&str, &str)]) -> Result<Parts, Fault> {
        let mut request = Request::builder().method(Method::GET).uri(uri).version(Version::HTTP_2);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        as_http1(&mut head).map(|()| head)
    }

    #[test]
    fn the_authority_becomes_the_host() {
        let head = made("https://a.example:8443/b?c", &[]).unwrap();
        assert_eq!(
            (head.headers[header::HOST].as_bytes(), head.uri.to_string()),
            (&b"a.example:8443"[..], "/b?c".into())
        );
        let head = made("https://a.example/", &[("host", "A.example")]).unwrap();
        assert_eq!(head.headers.get_all(header::HOST).iter().count(), 1);
        assert!(made("https://a.example/", &[("host", "b.example")]).is_err());
        assert!(made("ftp://a.example/", &[]).is_err());
        assert_eq!(made("/b", &[("host", "a")]).unwrap().uri, "/b");
    }

    #[test]
    fn cookies_become_one_field() {
        let head = made("https://a/", &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("cookie", "c=3")])
            .unwrap();
        let cookies: Vec<_> = head.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        let head = made("https://a/", &[("cookie", "a=1")]).unwrap();
        assert_eq!(head.headers[header::COOKIE], "a=1");
    }
}
