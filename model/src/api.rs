//! What the admin API and its clients say to each other, as JSON; the paths are in the OpenAPI document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Kind, Name, NodeId, Revision, Violation, cluster::Role};

/// An object and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The revision at which it came to be.
    pub created: Revision,
    /// The revision that last changed it: its ETag, quoted.
    pub changed: Revision,
    /// What it is; for a key, without its digest; for a certificate, without its private key, and with what its first
    /// certificate says of itself under `leaf`.
    pub spec: Value,
}

/// A page of objects in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    /// The revision that was read.
    pub revision: Revision,
    /// Up to `limit` of them (1,000 unless said; 10,000 at most).
    pub items: Vec<Object>,
    /// Pass it as `after` to go on; none at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// `POST /v1/apply`: a whole document at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// The document, as YAML or JSON text.
    pub document: String,
    /// Delete what is in the config and not in the document (never keys and certificates).
    #[serde(default)]
    pub prune: bool,
    /// Say what it would do, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision that holds it.
    pub revision: Revision,
    /// Whether that revision is its own.
    pub changed: bool,
    /// What was done, or would be done in a dry run, object by object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// With `wait`: the nodes that have not installed the revision in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lagging: Vec<NodeId>,
}

/// One object that a write touches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What happens to it.
    pub verb: Verb,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// What it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// It comes to be.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// `POST /v1/keys`: issue a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRequest {
    /// For whom.
    pub consumer: Name,
    /// What its owner calls it.
    #[serde(default)]
    pub label: String,
    /// For how long it is good, as `30d`; none is for ever.
    #[serde(default)]
    pub ttl: Option<String>,
}

/// A key as it was issued: the only time the credential is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyIssued {
    /// Its name.
    pub id: Name,
    /// The credential.
    pub key: String,
    /// The revision that holds it.
    pub revision: Revision,
    /// With `wait`: the nodes that have not installed it in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lagging: Vec<NodeId>,
}

/// `POST /v1/explain`: which route would take this request, and why not the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// The method.
    pub method: String,
    /// The absolute URL, or a path beginning with `/` (then give `host`).
    pub url: String,
    /// The Host, where the URL has none.
    #[serde(default)]
    pub host: Option<String>,
    /// Headers, in order.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// The answer to an [`ExplainRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The revision whose Plan was asked.
    pub revision: Revision,
    /// The host as it is matched.
    pub host: String,
    /// The path as it is matched and forwarded, after normalisation.
    pub path: String,
    /// Why the request would be refused before any route is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The TCP route by which a connection for this host goes through unread, where it comes over TLS: no route sees its requests then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_route: Option<Name>,
    /// The route that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// What that route's policies are, in the order in which they run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Name>,
    /// Where it goes, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Each candidate in order of precedence, the winner included; 100 at most.
    pub candidates: Vec<Candidate>,
}

/// One route's match that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The route.
    pub route: Name,
    /// Which of its matches, from 0.
    pub index: usize,
    /// The match in words, as `api.example GET prefix /orders`.
    pub matcher: String,
    /// The first predicate that failed, as `header x-beta: want "1", have none`; none if it took the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// `POST /v1/explain/tcp`: which TCP route would take a connection, and why not the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpExplainRequest {
    /// The listener that it comes to; `proxy-tls` unless said.
    #[serde(default)]
    pub listener: Option<String>,
    /// The host that its client names in TLS; none if it names none, or does not speak TLS.
    #[serde(default)]
    pub host: Option<String>,
}

/// The answer to a [`TcpExplainRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpExplanation {
    /// The revision whose Plan was asked.
    pub revision: Revision,
    /// The listener.
    pub listener: String,
    /// Whether the node that answers has this listener.
    pub has_listener: bool,
    /// The host as it is matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether the connection is read up to the host before it goes anywhere. Where it is not, targets may speak first.
    pub reads_hello: bool,
    /// The TCP route that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// Where it goes, in words; without a route, what becomes of it.
    pub action: String,
    /// Each TCP route of the listener in order of precedence, the winner included; 100 at most.
    pub candidates: Vec<TcpCandidate>,
}

/// One host of a TCP route that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TcpCandidate {
    /// The TCP route.
    pub route: Name,
    /// The host as it is written; `*` for any.
    pub host: String,
    /// Why it did not take the connection; none if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// `POST /v1/cluster/init`: form a cluster of this node. Only on the local socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitRequest {
    /// `host:port` at which peers will reach this node; none takes the setting's.
    #[serde(default)]
    pub advertise: Option<String>,
}

/// What forming a cluster made: the only time the token is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Formed {
    /// 32 hexadecimal digits.
    pub cluster_id: String,
    /// This node's.
    pub node_id: NodeId,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// `host:port` of this node's admin API.
    pub admin: String,
    /// An admin token, shown once.
    pub admin_token: String,
    /// A join token, good for an hour and two nodes.
    pub join_token: String,
    /// The address to give to `gwctl cluster join`.
    pub join_address: String,
}

/// `POST /v1/cluster/join`: make this node a member of a cluster. Only on the local socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// `host:port` of any member.
    pub address: String,
    /// A join token.
    pub token: String,
    /// `host:port` at which peers will reach this node; none takes the setting's.
    #[serde(default)]
    pub advertise: Option<String>,
}

/// What joining made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// 32 hexadecimal digits.
    pub cluster_id: String,
    /// This node's.
    pub node_id: NodeId,
}

/// `POST /v1/cluster/tokens`: make a join token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTokenRequest {
    /// For how long it is good, as `1h`.
    #[serde(default)]
    pub ttl: Option<String>,
    /// How many nodes it admits.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// A join token as it was made: the only time it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTokenMade {
    /// By what it is deleted.
    pub id: String,
    /// The token.
    pub token: String,
    /// An address to join at.
    pub address: String,
    /// Milliseconds since the Unix epoch from which it is refused.
    pub expires_at_ms: u64,
}

/// `POST /v1/tokens`: make an admin token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdminTokenRequest {
    /// What its holder may do.
    pub role: Role,
    /// Whose it is, for the audit log.
    pub label: String,
    /// For how long it is good, as `30d`; none is for ever.
    #[serde(default)]
    pub ttl: Option<String>,
}

/// An admin token as it was made: the only time it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdminTokenMade {
    /// By what it is deleted.
    pub id: String,
    /// The token.
    pub token: String,
}

/// An admin token or join token in a list, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenListed {
    /// By what it is deleted.
    pub id: String,
    /// What its holder may do; none for a join token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Milliseconds since the Unix epoch from which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// For a join token, how many more nodes it admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
}

/// `POST /v1/cluster/transfer`: move the leadership.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TransferRequest {
    /// To whom; none picks the voter that is furthest.
    #[serde(default)]
    pub to: Option<NodeId>,
}

/// `GET /v1/cluster`: the cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// 32 hexadecimal digits; none before it is formed or joined.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// Its epoch.
    #[serde(default)]
    pub epoch: u64,
    /// The node that answers.
    pub node_id: Option<NodeId>,
    /// The leader that it sees.
    #[serde(default)]
    pub leader: Option<NodeId>,
    /// The term.
    #[serde(default)]
    pub term: u64,
    /// Whether the node that answers was removed: what it shows is what it last heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Whether a majority answers.
    pub quorum: bool,
    /// How many voters may fail with a majority left.
    pub tolerates: usize,
    /// The config's revision here.
    pub revision: Revision,
    /// How long ago, in milliseconds, this node last heard from a leader; none if never.
    #[serde(default)]
    pub leader_contact_ms: Option<u64>,
    /// Milliseconds since it asked what a majority has confirmed: that what it serves is the newest. None if none has yet.
    #[serde(default)]
    pub confirmed_ms: Option<u64>,
    /// Every member, this node included.
    pub members: Vec<MemberStatus>,
}

/// One member, as the answering node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// `host:port` for peers.
    pub address: String,
    /// `host:port` of its admin API.
    pub admin: String,
    /// `leader`, `voter` or `learner`.
    pub role: String,
    /// `healthy`, `suspect` or `down`.
    pub health: String,
    /// `starting`, `ready` or `draining`; empty while unknown.
    #[serde(default)]
    pub phase: String,
    /// How long ago, in milliseconds, it was last heard; 0 for the answering node.
    #[serde(default)]
    pub last_contact_ms: Option<u64>,
    /// Revision that its state machine has applied.
    #[serde(default)]
    pub applied: Option<Revision>,
    /// Revision that its data plane has installed.
    #[serde(default)]
    pub installed: Option<Revision>,
    /// Revisions behind the answering node's newest.
    #[serde(default)]
    pub lag: Option<u64>,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Milliseconds since the Unix epoch at which its certificate ends.
    #[serde(default)]
    pub certificate_expires_at_ms: Option<u64>,
}

/// `GET /v1/usage`: what was used of quotas in their present periods, and the last ones of those of which nothing was used since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotasUsed {
    /// How many keys there are, under all quotas or those of the policy that was asked for.
    pub keys: usize,
    /// Those most used up, the most first.
    pub items: Vec<QuotaUsed>,
}

/// What was used of one key's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUsed {
    /// The counter's, 16 hexadecimal digits.
    pub key: String,
    /// The policy.
    pub policy: String,
    /// Which of the policy's quotas, where it has several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// Who or what is counted, as `consumer acme`; empty where all are counted together.
    #[serde(default)]
    pub by: String,
    /// How many requests there may be in the period.
    pub requests: u64,
    /// What was used, as far as the answering node knows.
    pub used: u64,
    /// What of that the nodes have agreed on, so that it outlives a restart of all of them.
    pub agreed: u64,
    /// Seconds since the Unix epoch at which the period ends.
    pub ends_at_s: u64,
    /// Whether it is over: nothing was used since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
    /// What each node has counted of what was agreed on.
    pub nodes: Vec<NodeAdmitted>,
}

/// `GET /v1/health/targets`: which targets this node uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetsHealth {
    /// How many there are, of all upstreams or the one that was asked for.
    pub targets: usize,
    /// How many of them get no traffic.
    pub out: usize,
    /// Those that get none first; at most a thousand.
    pub items: Vec<TargetHealth>,
}

/// A target as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    /// Of this upstream.
    pub upstream: Name,
    /// Its address.
    pub target: String,
    /// `in_use`, `ejected` for what happened to its traffic, or `unhealthy` by its checks.
    pub state: String,
    /// Why it is not in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When an ejection is over, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_in_ms: Option<u64>,
    /// Requests in a row that failed.
    pub failures: u32,
    /// Whether it is checked.
    pub checked: bool,
    /// What checks have found of it of late, by node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<TargetFound>,
}

/// What a node's checks have found of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFound {
    /// The node; 0 is the one that is asked, while it is in no cluster.
    pub node_id: NodeId,
    /// Whether the target is well.
    pub well: bool,
    /// How long ago the node that is asked found so or heard it, in milliseconds.
    pub age_ms: u64,
}

/// `GET /v1/limits`: the rate limits that are most used up, as this node knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsUsed {
    /// The node that answers.
    pub node_id: NodeId,
    /// How many nodes share limits with it, itself among them.
    pub nodes: u32,
    /// Whether it is cut off from most of the nodes, and has but a part of the limits.
    pub cut_off: bool,
    /// How many keys it counts, under all limits or those of the policy that was asked for.
    pub keys: usize,
    /// Those most used up, the most first.
    pub items: Vec<LimitUsed>,
    /// What is in flight under limits of concurrency, the fullest first.
    #[serde(default)]
    pub in_flight: Vec<InFlightUsed>,
}

/// What is in flight under one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightUsed {
    /// The counter's, 16 hexadecimal digits.
    pub key: String,
    /// The policy; none while the node does not know the key by name.
    #[serde(default)]
    pub policy: Option<Name>,
    /// Who or what is counted, as `consumer acme`; empty where all are counted together.
    #[serde(default)]
    pub by: String,
    /// How many there may be.
    pub limit: u32,
    /// Whether each node counts by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_node: bool,
    /// How many the answering node has.
    pub here: u32,
    /// How many the others have, as far as it has heard.
    pub elsewhere: u32,
    /// What it refused for as long as it knows the key.
    pub refused: u32,
}

/// One key under one limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitUsed {
    /// The counter's, 16 hexadecimal digits.
    pub key: String,
    /// The policy; none while the node does not know the key by name.
    #[serde(default)]
    pub policy: Option<Name>,
    /// Which of the policy's limits, where it has several.
    #[serde(default)]
    pub limit: Option<Name>,
    /// Who or what is counted, as `consumer acme`; empty where all are counted together.
    #[serde(default)]
    pub by: String,
    /// How many requests a window has.
    pub requests: u32,
    /// The window's length.
    #[serde(with = "crate::duration")]
    pub per: std::time::Duration,
    /// Whether each node counts by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_node: bool,
    /// What all who share it admitted in this window.
    pub admitted: u64,
    /// What remains.
    pub remaining: u32,
    /// What the answering node refused for as long as it knows the key.
    pub refused: u32,
    /// What each node admitted in this window.
    pub nodes: Vec<NodeAdmitted>,
}

/// What one node admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAdmitted {
    /// The node.
    pub id: NodeId,
    /// How many requests, or what they cost.
    pub admitted: u64,
}

/// A problem document (RFC 9457) as the admin API gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:phalanx:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in a few words; the same for every one of its type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The word that programs look at, as `no_quorum`, `conflict`, `invalid`.
    pub code: String,
    /// Every violation, where the request's content was at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// By what the request is found in the logs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Anything else of this problem.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}
