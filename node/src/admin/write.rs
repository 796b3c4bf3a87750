//! Writes: proposed through consensus, then waited for where the client asks.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use model::{Kind, Name, NodeId, Op, Outcome, Revision, api::Applied};
use raft::{Edit, Expect};

use crate::{
    admin::{Asked, reply::Refusal},
    member::{Member, others},
    node::Node,
    renew,
};

/// For a write to be committed, unless the client says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a client may wait.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;

/// Whom a write waits for.
enum Wait {
    Nobody,
    Quorum,
    All,
    One(NodeId),
}

/// How a write is to be made, read from its query and headers.
pub(crate) struct Manner {
    wait: Wait,
    timeout: Duration,
    idempotency_key: Option<String>,
}

impl Manner {
    pub(crate) fn read(asked: &Asked) -> Result<Self, Refusal> {
        let wait = match asked.query("wait") {
            None | Some("" | "none") => Wait::Nobody,
            Some("quorum") => Wait::Quorum,
            Some("all") => Wait::All,
            Some(node) => Wait::One(NodeId(node.parse().map_err(|_| {
                Refusal::invalid(format!("wait is {node:?}: say all, quorum, or a node's id"))
            })?)),
        };
        let timeout =
            asked.query("timeout").map(model::duration::parse).transpose().map_err(Refusal::invalid)?;
        let key =
            asked.headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default().to_owned());
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Refusal::invalid("Idempotency-Key must be 1 to 128 visible characters"));
        }
        // Whose it is, is part of the key: nobody is given another's outcome.
        let idempotency_key = key.map(|key| format!("{}/{key}", asked.caller.label));
        Ok(Self { wait, timeout: timeout.unwrap_or(TIMEOUT).min(TIMEOUT_MAX), idempotency_key })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn idempotency_key(&self) -> Option<String> {
        self.idempotency_key.clone()
    }
}

/// Of a request for a new secret: asked twice, two are made. With the same idempotency key the second would not be
/// stored, and its answer would show a secret that opens nothing.
pub(crate) fn never_the_same(mut asked: Asked) -> Asked {
    asked.headers.remove("idempotency-key");
    asked
}

/// What `If-Match` and `If-None-Match` (RFC 9110, section 13.1) ask of this object.
pub(crate) fn expect(headers: &HeaderMap, kind: Kind, name: &Name) -> Result<Vec<Expect>, Refusal> {
    let of = |changed| Ok(vec![Expect { kind, name: name.clone(), changed }]);
    if let Some(value) = headers.get(header::IF_NONE_MATCH) {
        return match value.to_str() {
            Ok("*") => of(None),
            _ => Err(Refusal::invalid("If-None-Match takes * alone")),
        };
    }
    if_match(headers)?.map_or(Ok(Vec::new()), |revision| of(Some(revision)))
}

/// The revision that `If-Match` names.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Refusal> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.trim_matches('"').parse().ok());
    match revision {
        Some(revision) => Ok(Some(Revision(revision))),
        None => Err(Refusal::invalid("If-Match takes one revision, as \"17\"")),
    }
}

/// Refuses where the others refuse every call of this node: it would look as if there were no quorum.
pub(crate) fn may_write(member: &Member) -> Result<(), Refusal> {
    match member.consensus.was_removed_itself() {
        true => Err(Refusal::removed()),
        false => Ok(()),
    }
}

/// Makes a change and waits for it. Gives the revision and, of whom was waited for, who has not installed it.
pub(crate) async fn change(
    node: &Arc<Node>,
    asked: &Asked,
    ops: Vec<Op>,
    expect: Vec<Expect>,
    base: Option<Revision>,
) -> Result<Applied, Refusal> {
    let manner = Manner::read(asked)?;
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    may_write(member)?;
    if let Wait::One(id) = manner.wait
        && !member.consensus.cluster().borrow().nodes.contains_key(&id)
    {
        return Err(Refusal::invalid(format!(
            "wait is {id}, and no member has that id; nothing was changed"
        )));
    }
    let conditional = asked.headers.contains_key(header::IF_MATCH) || !expect.is_empty();
    let what: Vec<String> =
        ops.iter().take(8).map(|op| format!("{} {}", op.target().0, op.target().1)).collect();
    let edit = Edit {
        expect,
        base,
        author: asked.caller.label.clone(),
        idempotency_key: manner.idempotency_key.clone(),
        ops,
    };
    let outcome = member.consensus.change(edit, manner.timeout).await;
    let author = &asked.caller.label;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::info!(target: "audit", author, ?what, %error, "refused");
            return Err(match error {
                raft::Error::Conflict { .. } if conditional => {
                    Refusal::new(StatusCode::PRECONDITION_FAILED, "conflict", error.to_string())
                }
                error => error.into(),
            });
        }
    };
    let (revision, changed) = match outcome {
        Outcome::Applied(revision) => (revision, true),
        Outcome::Unchanged(revision) => (revision, false),
        Outcome::Conflict(current) => {
            let detail = format!("the config went on to revision {current} meanwhile; read it and try again");
            return Err(Refusal::new(StatusCode::CONFLICT, "conflict", detail));
        }
    };
    tracing::info!(target: "audit", author, ?what, %revision, changed, "changed");
    let lagging = wait_for(node, member, &manner, revision).await;
    Ok(Applied { revision, changed, steps: Vec::new(), lagging })
}

async fn wait_for(node: &Node, member: &Member, manner: &Manner, revision: Revision) -> Vec<NodeId> {
    let me = member.identity.node_id;
    let others = others(&member.consensus.cluster().borrow(), me);
    let (nodes, enough) = match manner.wait {
        Wait::Nobody => return Vec::new(),
        Wait::One(id) => (vec![id], 1),
        Wait::All => ([vec![me], others].concat(), usize::MAX),
        Wait::Quorum => {
            let nodes = [vec![me], others].concat();
            let majority = nodes.len() / 2 + 1;
            (nodes, majority)
        }
    };
    let mut waiting: futures::stream::FuturesUnordered<_> = nodes
        .iter()
        .map(|id| async {
            let done = if *id == me {
                let mut installed = node.installed.clone();
                let reached = installed.wait_for(|installed| *installed >= revision);
                tokio::time::timeout(manner.timeout, reached).await.is_ok_and(|reached| reached.is_ok())
            } else {
                let asked = renew::await_installed(
                    &member.consensus,
                    &member.identity,
                    *id,
                    revision,
                    manner.timeout,
                );
                asked.await.is_ok_and(|installed| installed >= revision)
            };
            (*id, done)
        })
        .collect();
    let mut done = Vec::new();
    while let Some((id, installed)) = futures::StreamExt::next(&mut waiting).await {
        if installed {
            done.push(id);
        }
        if done.len() >= enough {
            return Vec::new();
        }
    }
    drop(waiting);
    nodes.into_iter().filter(|id| !done.contains(id)).collect()
}
