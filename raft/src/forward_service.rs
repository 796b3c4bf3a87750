//! The leader's side of what nodes ask of it.

use std::time::Duration;

use cluster_proto::{
    convert,
    forward::{self as proto, forward_server::Forward},
};
use model::NodeId;
use tonic::{Request, Response, Status};

use crate::{
    Command,
    consensus::{USAGE_ITEMS_MAX, now_ms, usage_request},
    convert_error,
    forward::{self, Forwarded},
    membership,
    serve::PeerId,
    service::{Service, check},
    types::read_usage_report,
};

/// The longest that a call may ask this node to wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

fn timeout(ms: u64) -> Duration {
    Duration::from_millis(ms).min(TIMEOUT_MAX)
}

fn reply(result: Result<crate::Response, Forwarded>) -> Response<proto::ForwardReply> {
    use proto::forward_reply::Result as To;
    let result = match result {
        Ok(response) => To::Response((&response).into()),
        Err(why) => To::Failure(forward::failure(&why)),
    };
    Response::new(proto::ForwardReply { result: Some(result) })
}

#[tonic::async_trait]
impl Forward for Service {
    async fn change(
        &self,
        request: Request<proto::ChangeRequest>,
    ) -> Result<Response<proto::ForwardReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header.take())?;
        let timeout = timeout(message.timeout_ms);
        let edit = forward::read_change(message).map_err(convert_error)?;
        Ok(reply(self.consensus.proposer().change(edit, timeout).await))
    }

    async fn cluster_change(
        &self,
        request: Request<proto::ClusterChangeRequest>,
    ) -> Result<Response<proto::ForwardReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let mut message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header.take())?;
        let request = crate::Request {
            idempotency_key: Some(message.idempotency_key).filter(|key| !key.is_empty()),
            author: message.author,
            at_ms: now_ms(),
            link: crate::Link::default(),
            command: Command::Cluster(convert::cluster_change(&message.change).map_err(convert_error)?),
        };
        let timeout = timeout(message.timeout_ms);
        Ok(reply(membership::change_cluster(&self.consensus, request, timeout).await))
    }

    async fn report_usage(
        &self,
        request: Request<proto::ReportUsageRequest>,
    ) -> Result<Response<proto::ForwardReply>, Status> {
        let peer = request.extensions().get::<PeerId>().copied();
        let message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header)?;
        let report = read_usage_report(message.report.unwrap_or_default());
        if report.len() > USAGE_ITEMS_MAX {
            return Err(Status::invalid_argument("a report of usage has 1,000 items at the most"));
        }
        let request = usage_request(report);
        Ok(reply(self.consensus.proposer().request(request, timeout(message.timeout_ms)).await))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        use proto::read_index_reply::Result as To;
        let peer = request.extensions().get::<PeerId>().copied();
        check(&self.consensus, peer.as_ref(), request.into_inner().header)?;
        let result = match self.consensus.read_index(self.consensus.settings().election_max).await {
            Ok(index) => To::Index(index),
            Err(why) => To::Failure(forward::failure(&why)),
        };
        Ok(Response::new(proto::ReadIndexReply { result: Some(result) }))
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferReply>, Status> {
        use proto::transfer_reply::Result as To;
        let peer = request.extensions().get::<PeerId>().copied();
        let message = request.into_inner();
        check(&self.consensus, peer.as_ref(), message.header)?;
        let timeout = timeout(message.timeout_ms);
        let result = match membership::transfer(&self.consensus, message.to.map(NodeId), timeout).await {
            Ok(leader) => To::Leader(leader.0),
            Err(why) => To::Failure(forward::failure(&why)),
        };
        Ok(Response::new(proto::TransferReply { result: Some(result) }))
    }
}
