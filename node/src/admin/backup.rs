//! `GET /v1/cluster/backup`: everything that the cluster agreed on, in one file, read bit by bit.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    admin::{
        Answer, Asked,
        reply::Refusal,
        write::{Manner, may_write},
    },
    node::Node,
};

/// Bytes read at a time.
const PART_BYTES: usize = 64 << 10;
/// For a client to take the next part.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Each takes as much of the disk as a snapshot.
static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// `GET /v1/cluster/backup`: of everything that was committed before it was asked for; with `stale=true`, of what this node has,
/// whether or not it has a quorum.
pub(super) async fn backup(node: Arc<Node>, asked: Asked) -> Answer {
    let Ok(slot) = AT_A_TIME.try_acquire() else {
        let reason = "this node is sending two backups already: try again later, or ask another";
        return Err(Refusal::of_code(model::Code::Exhausted, reason));
    };
    let backup = {
        let member = node.member.read().await;
        let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
        if asked.query("stale") != Some("true") {
            may_write(member)?;
            member.consensus.read_barrier(Manner::read(&asked)?.timeout()).await?;
        }
        member.consensus.backup().await?
    };
    tracing::info!(target: "audit", author = asked.caller.label, revision = %backup.revision, "backup");
    let (length, revision) = (backup.bytes, backup.revision);
    let (parts, body) = mpsc::channel(2);
    tokio::spawn(async move {
        let _slot = slot;
        let mut at = 0;
        while at < length {
            let mut part = vec![0; PART_BYTES];
            let read = backup.read_at(&mut part, at).map(|read| {
                part.truncate(read);
                at += read as u64;
                Frame::data(Bytes::from(part))
            });
            let failed = read.is_err();
            // Where nobody takes it the connection ends early, which the client knows by the length.
            let Ok(Ok(place)) = tokio::time::timeout(STALL_TIMEOUT, parts.reserve()).await else { return };
            place.send(read);
            if failed {
                return;
            }
        }
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(body)).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert("x-phalanx-revision", revision.0.into());
    Ok(response)
}
