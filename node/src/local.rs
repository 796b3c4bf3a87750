//! A client of a node's own socket, for this process's other commands.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use model::api::Problem;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the node whose data is in this folder; its refusal is an error.
pub(crate) async fn ask<T: DeserializeOwned>(
    data: &Path,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<T> {
    let asking = send(data, method, path, serde_json::to_vec(body)?);
    let (status, body) = tokio::time::timeout(TIMEOUT, asking).await.context("no answer within 30 s")??;
    if !status.is_success() {
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => bail!("{}: {}", problem.code, problem.detail),
            Err(_) => bail!("{status}"),
        }
    }
    Ok(serde_json::from_slice(&body)?)
}

async fn send(data: &Path, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<(StatusCode, Bytes)> {
    let socket = data.join("admin.sock");
    let stream =
        UnixStream::connect(&socket).await.with_context(|| format!("connect to {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    // The connection ends with the sender, which the exchange drops.
    let (answered, _) = tokio::join!(exchange, connection);
    answered
}
