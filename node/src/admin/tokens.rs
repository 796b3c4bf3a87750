//! Tokens: those that let a node join, and those that open this API.

use std::sync::Arc;

use http::StatusCode;
use model::{
    api::{AdminTokenMade, AdminTokenRequest, JoinTokenMade, JoinTokenRequest, TokenListed},
    cluster::ClusterChange,
};

use crate::{
    admin::{
        Answer, Asked, cluster,
        reply::{self, Refusal},
        write,
    },
    identity,
    node::Node,
    tokens,
};

/// For how long a join token is good, unless said otherwise, in milliseconds.
const JOIN_TTL_MS: u64 = 3_600_000;
/// The longest that any token may be good, in milliseconds: ten years.
const TTL_MS_MAX: u64 = 10 * 365 * 86_400_000;

fn ttl_ms(text: Option<&str>) -> Result<Option<u64>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let ttl = model::duration::parse(text).map_err(Refusal::invalid)?;
    match u64::try_from(ttl.as_millis()) {
        Ok(ms @ 1..=TTL_MS_MAX) => Ok(Some(ms)),
        _ => Err(Refusal::invalid("ttl is from 1ms to 3650d")),
    }
}

/// `GET /v1/cluster/tokens`
pub(super) async fn list_join(node: Arc<Node>, _: Asked) -> Answer {
    let member = node.member.read().await;
    let cluster = member.as_ref().ok_or_else(Refusal::not_in_cluster)?.consensus.cluster().borrow().clone();
    let tokens = cluster.join_tokens.iter().map(|(id, token)| TokenListed {
        id: id.clone(),
        role: None,
        label: String::new(),
        expires_at_ms: Some(token.expires_at_ms),
        uses_left: Some(token.uses_left),
    });
    reply::json(StatusCode::OK, &tokens.collect::<Vec<_>>())
}

/// `POST /v1/cluster/tokens`
pub(super) async fn make_join(node: Arc<Node>, asked: Asked) -> Answer {
    let asked = write::never_the_same(asked);
    let request: JoinTokenRequest = asked.json()?;
    let uses = request.uses.unwrap_or(1);
    if !(1..=1_000).contains(&uses) {
        return Err(Refusal::invalid("uses is from 1 to 1,000"));
    }
    let expires_at_ms = identity::now_ms() + ttl_ms(request.ttl.as_deref())?.unwrap_or(JOIN_TTL_MS);
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let token = tokens::Join::generate(member.identity.ca_sha256()?);
    let change =
        ClusterChange::PutJoinToken { id: token.id.clone(), token: token.stored(expires_at_ms, uses) };
    cluster::propose(member, &asked, change).await?;
    let address = node.advertised();
    let made = JoinTokenMade { id: token.id.clone(), token: token.text(), address, expires_at_ms };
    reply::json(StatusCode::CREATED, &made)
}

/// `DELETE /v1/cluster/tokens/ID`
pub(super) async fn delete_join(node: Arc<Node>, asked: Asked) -> Answer {
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let id = asked.arguments.first().cloned().unwrap_or_default();
    cluster::propose(member, &asked, ClusterChange::DeleteJoinToken { id }).await?;
    reply::done()
}

/// `GET /v1/tokens`
pub(super) async fn list_admin(node: Arc<Node>, _: Asked) -> Answer {
    let member = node.member.read().await;
    let cluster = member.as_ref().ok_or_else(Refusal::not_in_cluster)?.consensus.cluster().borrow().clone();
    let tokens = cluster.admin_tokens.iter().map(|(id, token)| TokenListed {
        id: id.clone(),
        role: Some(token.role),
        label: token.label.clone(),
        expires_at_ms: token.expires_at_ms,
        uses_left: None,
    });
    reply::json(StatusCode::OK, &tokens.collect::<Vec<_>>())
}

/// `POST /v1/tokens`
pub(super) async fn make_admin(node: Arc<Node>, asked: Asked) -> Answer {
    let asked = write::never_the_same(asked);
    let request: AdminTokenRequest = asked.json()?;
    if request.label.is_empty() || request.label.len() > 128 {
        return Err(Refusal::invalid("label says whose the token is, in 1 to 128 bytes"));
    }
    let expires_at_ms = ttl_ms(request.ttl.as_deref())?.map(|ttl| identity::now_ms() + ttl);
    let token = tokens::Admin::generate();
    let change = ClusterChange::PutAdminToken {
        id: token.id.clone(),
        token: token.stored(request.role, request.label, expires_at_ms),
    };
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    cluster::propose(member, &asked, change).await?;
    reply::json(StatusCode::CREATED, &AdminTokenMade { id: token.id.clone(), token: token.text() })
}

/// `DELETE /v1/tokens/ID`
pub(super) async fn delete_admin(node: Arc<Node>, asked: Asked) -> Answer {
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let id = asked.arguments.first().cloned().unwrap_or_default();
    cluster::propose(member, &asked, ClusterChange::DeleteAdminToken { id }).await?;
    reply::done()
}
