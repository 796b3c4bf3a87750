//! HTTP/2 to targets (RFC 9113): what its connections are set up with, and requests in its form.

use std::error::Error;

use h2::Reason;
use http::{
    HeaderValue, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::client::conn::http2 as client;
use hyper_util::rt::TokioTimer;
use model::upstream::Http2;

use super::said::UNSAID;
use crate::{settings::Limits, upload::RequestBody};

/// How large windows, and frames, can be (RFC 9113, sections 6.9.1 and 6.5.2).
const WINDOWS: (u32, u32) = (1, (1 << 31) - 1);
const FRAMES: (u32, u32) = (1 << 14, (1 << 24) - 1);
/// What of one request's body is kept that the target has not taken, in bytes.
const SEND_BYTES_MAX: usize = 256 * 1024;

const TE: HeaderValue = HeaderValue::from_static("te");

/// Has hyper's tasks run on their worker's thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// What connections are set up with, as the upstream says. As much may come on one as on all of its streams together, so that clients that
/// take nothing keep up none but themselves.
pub(super) fn builder(limits: &Limits, spec: &Http2) -> client::Builder<Local> {
    // Configs are not checked anew by who gets them, and h2 panics at what no frame can say.
    let within =
        |bytes: u64, (least, most): (u32, u32)| u32::try_from(bytes).unwrap_or(most).clamp(least, most);
    let mut client = client::Builder::new(Local);
    let windows = spec.stream_window.saturating_mul(u64::from(spec.streams_max));
    client.initial_stream_window_size(within(spec.stream_window, WINDOWS));
    client.initial_connection_window_size(within(windows, WINDOWS));
    client.max_frame_size(within(spec.frame_max, FRAMES));
    if !spec.ping_interval.is_zero() {
        client.timer(TokioTimer::new());
        client.keep_alive_interval(spec.ping_interval).keep_alive_timeout(spec.ping_timeout);
    }
    client.max_send_buf_size(SEND_BYTES_MAX);
    client.initial_max_send_streams(UNSAID);
    client.max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX));
    client
}

/// Makes a request what it is in HTTP/2 (RFC 9113, sections 8.2.2 and 8.3.1): the Host becomes the authority, and what is of the
/// connection goes.
pub(super) fn to_http2(request: &mut Request<RequestBody>, secure: bool) {
    let headers = request.headers_mut();
    headers.remove(header::CONNECTION);
    let host = headers.remove(header::HOST);
    // Without one hyper says a scheme by itself.
    let Some(authority) = host.and_then(|host| Authority::try_from(host.as_bytes()).ok()) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    // Made of parts that are all there.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// Makes a request that was not sent what it was before [`to_http2`].
pub(super) fn to_http1(request: &mut Request<RequestBody>) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let host = parts.authority.take().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    parts.scheme = None;
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("")));
    if headers.contains_key(header::TE) {
        headers.insert(header::CONNECTION, TE);
    }
}

/// Why a target has done nothing for a request (RFC 9113, section 8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undone {
    /// It takes no more on this connection, and the request came after the last that it took.
    GoneAway,
    /// It has refused this one.
    Refused,
}

/// Whether the target says that it has done nothing for the request.
pub(super) fn undone(error: &hyper::Error) -> Option<Undone> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    if !error.is_remote() {
        None
    } else if error.is_go_away() {
        Some(Undone::GoneAway)
    } else {
        (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM)).then_some(Undone::Refused)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_request_is_the_same_again_after_it_was_one_of_http2() {
        for (target, host) in [("/a/b?c=d", "a.example:8080"), ("/", "[::1]"), ("*", "a"), ("/x", "")] {
            let mut request = Request::new(RequestBody::Empty);
            *request.method_mut() = Method::OPTIONS;
            *request.uri_mut() = target.parse().unwrap();
            for (name, value) in [("host", host), ("te", "trailers"), ("connection", "te"), ("x", "1")] {
                request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
            }
            let before = (request.uri().clone(), request.headers().clone());
            to_http2(&mut request, true);
            let headers = request.headers();
            assert!(!headers.contains_key("host") && !headers.contains_key("connection"));
            assert_eq!((&headers["te"], &headers["x"]), (&TRAILERS, &HeaderValue::from_static("1")));
            if !host.is_empty() {
                assert_eq!(request.uri().authority().unwrap().as_str(), host);
                assert_eq!(request.uri().scheme(), Some(&Scheme::HTTPS));
            }
            assert_eq!(request.uri().path_and_query().unwrap().as_str(), target);
            to_http1(&mut request);
            assert_eq!((request.uri().clone(), request.headers().clone()), before);
        }
    }

    const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
}
