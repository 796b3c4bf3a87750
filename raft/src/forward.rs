//! What a node asks of the leader, and how the leader answers.

use std::time::Duration;

use cluster_proto::{
    MESSAGE_BYTES_MAX, common::Header, convert, forward as proto, forward::forward_client::ForwardClient,
};
use model::{Code, NodeId, Revision, Violation, usage::Used};
use tonic::Status;

use crate::{Channel, Command, Edit, Error, Expect, Request, Response, types::usage_report};

/// Why an answer of the leader is none.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Forwarded {
    /// The answer is this error.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Whoever was asked does not lead, can't commit yet, or could not be reached; nothing was proposed.
    #[error("it does not lead, or can't commit yet")]
    NotReady,
    /// It was asked, and no answer came: it may have happened.
    #[error("no answer came")]
    Lost,
}

/// The word for a node that was asked and does not lead, or not yet.
const NOT_READY: &str = "not_ready";
/// The word for an outcome that the leader does not know.
const LOST: &str = "lost";

fn client(channel: &Channel) -> ForwardClient<Channel> {
    ForwardClient::new(channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// Sends a call and gives its answer; a connection that never stood is told from one that broke, and what the leader
/// refuses from what came between.
async fn call<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Forwarded> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) if never_connected(&status) => Err(Forwarded::NotReady),
        // What the other side has said itself has no source; what tonic made of a broken connection has, whatever its code.
        Ok(Err(status)) if std::error::Error::source(&status).is_some() => Err(Forwarded::Lost),
        Ok(Err(status)) if status.code() == tonic::Code::Unavailable => Err(Forwarded::Lost),
        Ok(Err(status)) if status.code() == tonic::Code::Cancelled => Err(Forwarded::Lost),
        Ok(Err(status)) => {
            let reason = format!("the leader refused the call: {}", status.message());
            Err(Forwarded::Failed(Error::Refused { code: Code::Unavailable, reason }))
        }
        Err(_) => Err(Forwarded::Lost),
    }
}

/// Whether no connection stood, so that nothing can have been asked. tonic gives it the code of a broken one.
fn never_connected(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<tonic::ConnectError>())
}

fn read_reply(reply: proto::ForwardReply) -> Result<Response, Forwarded> {
    match reply.result {
        Some(proto::forward_reply::Result::Response(response)) => {
            Response::try_from(response).map_err(|error| Forwarded::Failed(Error::Fatal(error.to_string())))
        }
        Some(proto::forward_reply::Result::Failure(failure)) => Err(read_failure(failure)),
        None => Err(Forwarded::Lost),
    }
}

pub(crate) async fn change(
    channel: &Channel,
    header: Header,
    edit: Edit,
    timeout: Duration,
) -> Result<Response, Forwarded> {
    let expect = edit.expect.iter().map(|expect| proto::Expect {
        kind: expect.kind.plural().to_owned(),
        name: expect.name.to_string(),
        changed: expect.changed.map(|revision| revision.0),
    });
    let request = proto::ChangeRequest {
        header: Some(header),
        ops: edit.ops.iter().map(Into::into).collect(),
        expect: expect.collect(),
        base: edit.base.map(|revision| revision.0),
        author: edit.author,
        idempotency_key: edit.idempotency_key.unwrap_or_default(),
        timeout_ms: ms(timeout),
    };
    read_reply(call(timeout, client(channel).change(request)).await?)
}

pub(crate) fn read_change(request: proto::ChangeRequest) -> Result<Edit, convert::Error> {
    let expect = request.expect.into_iter().map(|expect| {
        Ok(Expect {
            kind: convert::kind(&expect.kind)?,
            name: convert::name(&expect.name)?,
            changed: expect.changed.map(Revision),
        })
    });
    Ok(Edit {
        ops: request.ops.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        expect: expect.collect::<Result<_, convert::Error>>()?,
        base: request.base.map(Revision),
        author: request.author,
        idempotency_key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
    })
}

pub(crate) async fn cluster_change(
    channel: &Channel,
    header: Header,
    request: Request,
    timeout: Duration,
) -> Result<Response, Forwarded> {
    let Command::Cluster(change) = &request.command else {
        return Err(Forwarded::Failed(Error::Fatal(
            "a change to the config was sent as one to the cluster".into(),
        )));
    };
    let request = proto::ClusterChangeRequest {
        header: Some(header),
        change: convert::cluster_change_bytes(change),
        author: request.author,
        idempotency_key: request.idempotency_key.unwrap_or_default(),
        timeout_ms: ms(timeout),
    };
    read_reply(call(timeout, client(channel).cluster_change(request)).await?)
}

pub(crate) async fn report_usage(
    channel: &Channel,
    header: Header,
    report: &[Used],
    timeout: Duration,
) -> Result<Response, Forwarded> {
    let request = proto::ReportUsageRequest {
        header: Some(header),
        report: Some(usage_report(report)),
        timeout_ms: ms(timeout),
    };
    read_reply(call(timeout, client(channel).report_usage(request)).await?)
}

pub(crate) async fn read_index(
    channel: &Channel,
    header: Header,
    timeout: Duration,
) -> Result<u64, Forwarded> {
    let request = proto::ReadIndexRequest { header: Some(header) };
    match call(timeout, client(channel).read_index(request)).await?.result {
        Some(proto::read_index_reply::Result::Index(index)) => Ok(index),
        Some(proto::read_index_reply::Result::Failure(failure)) => Err(read_failure(failure)),
        None => Err(Forwarded::Lost),
    }
}

pub(crate) async fn transfer(
    channel: &Channel,
    header: Header,
    to: Option<NodeId>,
    timeout: Duration,
) -> Result<NodeId, Forwarded> {
    let request =
        proto::TransferRequest { header: Some(header), to: to.map(|id| id.0), timeout_ms: ms(timeout) };
    match call(timeout, client(channel).transfer(request)).await?.result {
        Some(proto::transfer_reply::Result::Leader(leader)) => Ok(NodeId(leader)),
        Some(proto::transfer_reply::Result::Failure(failure)) => Err(read_failure(failure)),
        None => Err(Forwarded::Lost),
    }
}

/// A failure as it goes over the wire.
pub(crate) fn failure(why: &Forwarded) -> proto::Failure {
    let plain =
        |code: &str, reason: String| proto::Failure { code: code.to_owned(), reason, ..Default::default() };
    match why {
        Forwarded::NotReady => plain(NOT_READY, String::new()),
        Forwarded::Lost | Forwarded::Failed(Error::TimedOut(_)) => plain(LOST, String::new()),
        Forwarded::Failed(Error::NoQuorum) => plain("no_quorum", String::new()),
        Forwarded::Failed(Error::Invalid(violations)) => proto::Failure {
            code: Code::Invalid.as_str().to_owned(),
            violations: violations
                .iter()
                .map(|Violation { path, message }| proto::Violation {
                    path: path.clone(),
                    message: message.clone(),
                })
                .collect(),
            ..Default::default()
        },
        Forwarded::Failed(Error::Conflict { what, current }) => proto::Failure {
            code: Code::Conflict.as_str().to_owned(),
            reason: what.clone(),
            current: current.0,
            ..Default::default()
        },
        Forwarded::Failed(Error::Refused { code, reason }) => {
            plain(&format!("refused.{}", code.as_str()), reason.clone())
        }
        Forwarded::Failed(error) => plain("fatal", error.to_string()),
    }
}

fn read_failure(failure: proto::Failure) -> Forwarded {
    let proto::Failure { code, reason, violations, current } = failure;
    if let Some(code) = code.strip_prefix("refused.").and_then(Code::parse) {
        return Forwarded::Failed(Error::Refused { code, reason });
    }
    match code.as_str() {
        NOT_READY => Forwarded::NotReady,
        LOST => Forwarded::Lost,
        "no_quorum" => Forwarded::Failed(Error::NoQuorum),
        "invalid" => Forwarded::Failed(Error::Invalid(
            violations.into_iter().map(|v| Violation { path: v.path, message: v.message }).collect(),
        )),
        "conflict" => Forwarded::Failed(Error::Conflict { what: reason, current: Revision(current) }),
        _ => Forwarded::Failed(Error::Refused {
            code: Code::Unavailable,
            reason: format!("the leader: {reason}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_broke_on_the_way_is_no_refusal() {
        let made =
            |status: Status| call(Duration::from_secs(1), async { Err::<tonic::Response<()>, _>(status) });
        let broken = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(broken.code(), tonic::Code::Unknown);
        assert!(matches!(made(broken).await, Err(Forwarded::Lost)));
        let refused = made(Status::permission_denied("not a member")).await;
        assert!(matches!(refused, Err(Forwarded::Failed(Error::Refused { .. }))));
    }

    #[test]
    fn a_failure_survives_the_wire() {
        let violation = Violation { path: "routes.a".into(), message: "is bad".into() };
        for error in [
            Error::NoQuorum,
            Error::Invalid(vec![violation]),
            Error::Conflict { what: "route a".into(), current: Revision(3) },
            Error::Refused { code: Code::NotFound, reason: "no such".into() },
        ] {
            let text = format!("{error:?}");
            let Forwarded::Failed(back) = read_failure(failure(&Forwarded::Failed(error))) else {
                panic!("{text}")
            };
            assert_eq!(format!("{back:?}"), text);
        }
        assert!(matches!(read_failure(failure(&Forwarded::NotReady)), Forwarded::NotReady));
        assert!(matches!(read_failure(failure(&Forwarded::Lost)), Forwarded::Lost));
    }
}
