//! Origins of HTTP/1.1 and of HTTP/2, on a thread of their own.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What an answer has for a body unless more is asked for.
const BODY_BYTES: usize = 1024;

/// Reads a request whole and answers it.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // One that breaks off has nobody to answer.
    let _ = body.collect().await;
    let bytes = if head.uri.path() == "/large" { crate::BODY.len() } else { BODY_BYTES };
    let mut response = Response::new(Full::new(Bytes::from_static(crate::BODY).slice(..bytes)));
    if head.uri.path() == crate::MISSING {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("server", "origin"),
        ("cache-control", "max-age=60"),
        ("etag", "\"0123456789\""),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Starts both, and tells where they listen. They end with the process.
pub(crate) fn start() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports"));
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("it is bound"));
    let serving = async move {
        let [first, second] = listeners.map(|listener| {
            listener.set_nonblocking(true).expect("it is a socket");
            TcpListener::from_std(listener).expect("a runtime is there")
        });
        tokio::join!(serve(first, false), serve(second, true));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || runtime.block_on(serving));
    addresses
}

async fn serve(listener: TcpListener, is_http2: bool) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("it is a socket");
        tokio::spawn(async move {
            let (io, service) = (TokioIo::new(stream), service_fn(answer));
            // How a connection ends is the node's to say.
            if is_http2 {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}
