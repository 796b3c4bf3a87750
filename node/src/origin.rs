//! A small origin to try a gateway with: it answers who it is and what it was asked.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Context;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// Binds the address that [`serve`] is to answer on.
pub(crate) async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| format!("listen for requests on {listen}"))
}

/// Answers on this listener under this name, for ever.
pub(crate) async fn serve(name: String, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of descriptors, most likely.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                };
                let name = name.clone();
                connections.spawn(async move {
                    let answering = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&name, &request))));
                    let mut server = hyper::server::conn::http1::Builder::new();
                    server.timer(TokioTimer::new());
                    // A client that goes away is no news.
                    let _ = server.serve_connection(TokioIo::new(stream), answering).await;
                });
            }
        }
    }
}

fn answer(name: &str, request: &Request<Incoming>) -> Response<Full<bytes::Bytes>> {
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body = json!({
        "origin": name,
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
    });
    let mut response = Response::new(Full::from(format!("{body:#}\n")));
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
