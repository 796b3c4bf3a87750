//! Which targets this node uses, and why not the others.

use std::sync::{Arc, PoisonError};

use http::StatusCode;
use model::Name;

use crate::{
    admin::{
        Answer, Asked,
        reply::{self, Refusal},
    },
    node::Node,
};

/// `GET /v1/health/targets?upstream=NAME`
pub(super) async fn targets(node: Arc<Node>, asked: Asked) -> Answer {
    let upstream = asked.query("upstream").map(Name::new).transpose();
    let upstream = upstream.map_err(|error| Refusal::invalid(error.to_string()))?;
    let health = {
        let gateway = node.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        gateway.as_ref().map(|gateway| gateway.targets(upstream.as_ref()))
    };
    let health =
        health.ok_or_else(|| Refusal::invalid("this node is ending, and serves no clients any more"))?;
    reply::json(StatusCode::OK, &health)
}
