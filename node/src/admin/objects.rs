//! The config's objects: one by one, as a whole document, keys, and which route a request would take.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use model::{
    Config, Kind, Name, Op, Revision,
    api::{
        Applied, ApplyRequest, ExplainRequest, KeyIssued, KeyRequest, Object, Objects, Step,
        TcpExplainRequest, Verb,
    },
    document::{self, Document},
};
use serde_json::Value;

use crate::{
    admin::{
        Answer, Asked, certificates,
        reply::{self, Refusal},
        write,
    },
    identity,
    node::Node,
};

/// Objects in a page, unless the client says otherwise.
const PAGE: usize = 1_000;
/// The most.
const PAGE_MAX: usize = 10_000;
/// How often a document is planned again when the config went on meanwhile.
const APPLY_RETRIES: usize = 4;
/// For a linearizable read.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a key may be good at the most, in seconds: ten years.
const KEY_TTL_S_MAX: u64 = 10 * 365 * 86_400;

fn kind_and_name(asked: &Asked) -> Result<(Kind, Option<Name>), Refusal> {
    let plural = asked.arguments.first().map(String::as_str).unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural);
    let kind =
        kind.ok_or_else(|| Refusal::not_found(format!("there is no kind of object called {plural:?}")))?;
    let name = asked.arguments.get(1).map(|name| Name::new(name)).transpose();
    Ok((kind, name.map_err(|error| Refusal::invalid(error.to_string()))?))
}

fn show(kind: Kind, name: &Name, stored: &model::config::Stored) -> Object {
    let mut spec: Value = serde_json::from_slice(&stored.doc).unwrap_or_default();
    if kind == Kind::Key
        && let Some(fields) = spec.as_object_mut()
    {
        fields.remove("digest");
    }
    if kind == Kind::Certificate {
        certificates::show(&mut spec);
    }
    Object { kind, name: name.clone(), created: stored.created, changed: stored.changed, spec }
}

/// The config to read: this node's own, or one that has seen everything committed.
async fn config(node: &Node, asked: &Asked) -> Result<Arc<Config>, Refusal> {
    match asked.query("consistency") {
        None | Some("" | "local") => {}
        Some("linearizable") => return newest(node, asked).await,
        Some(other) => {
            return Err(Refusal::invalid(format!("consistency is {other:?}: say linearizable or local")));
        }
    }
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    let config = member.consensus.config().borrow().clone();
    Ok(config)
}

/// The config once it has seen everything that was committed before it was asked for.
async fn newest(node: &Node, asked: &Asked) -> Result<Arc<Config>, Refusal> {
    let timeout = write::Manner::read(asked)?.timeout().min(BARRIER_TIMEOUT);
    let member = node.member.read().await;
    let member = member.as_ref().ok_or_else(Refusal::not_in_cluster)?;
    write::may_write(member)?;
    member.consensus.read_barrier(timeout).await?;
    let config = member.consensus.config().borrow().clone();
    Ok(config)
}

/// The config to plan a document on. What it says already is left out of the change, so that it must be what is so, or what
/// was at the base that is asked for; a dry run says what this node knows.
async fn config_to_plan(
    node: &Node,
    asked: &Asked,
    base: Option<Revision>,
    dry_run: bool,
) -> Result<Arc<Config>, Refusal> {
    let here = config(node, asked).await?;
    match base {
        Some(base) if base <= here.revision => Ok(here),
        None if dry_run => Ok(here),
        _ => newest(node, asked).await,
    }
}

/// `GET /v1/KIND`
pub(super) async fn list(node: Arc<Node>, asked: Asked) -> Answer {
    let (kind, _) = kind_and_name(&asked)?;
    let config = config(&node, &asked).await?;
    let limit = match asked.query("limit").map(str::parse::<usize>) {
        None => PAGE,
        Some(Ok(limit @ 1..=PAGE_MAX)) => limit,
        Some(_) => return Err(Refusal::invalid("limit is a number from 1 to 10,000")),
    };
    let after = asked.query("after").unwrap_or_default();
    let names = config.names(kind);
    let begin = names.partition_point(|name| !after.is_empty() && name.as_str() <= after);
    let page = names[begin..].iter().take(limit);
    let items: Vec<Object> =
        page.filter_map(|name| config.get(kind, name).map(|stored| show(kind, name, &stored))).collect();
    let next = if names.len() > begin + limit { names.get(begin + limit - 1).cloned() } else { None };
    let revision = config.revision;
    reply::tagged(StatusCode::OK, &Objects { revision, items, next }, revision, revision)
}

/// `GET /v1/KIND/NAME`
pub(super) async fn get(node: Arc<Node>, asked: Asked) -> Answer {
    let (kind, name) = kind_and_name(&asked)?;
    let name = name.ok_or_else(|| Refusal::not_found("no name"))?;
    let config = config(&node, &asked).await?;
    let stored =
        config.get(kind, &name).ok_or_else(|| Refusal::not_found(format!("there is no {kind} {name}")))?;
    reply::tagged(StatusCode::OK, &show(kind, &name, &stored), stored.changed, config.revision)
}

/// `PUT /v1/KIND/NAME`
pub(super) async fn put(node: Arc<Node>, asked: Asked) -> Answer {
    let (kind, name) = kind_and_name(&asked)?;
    let name = name.ok_or_else(|| Refusal::not_found("no name"))?;
    if kind == Kind::Key {
        return Err(Refusal::invalid(
            "keys are issued (POST /v1/keys) and revoked (DELETE /v1/keys/ID) alone",
        ));
    }
    let value: Value = asked.json()?;
    let path = format!("{}.{name}", kind.plural());
    let doc = document::read_object(kind, &path, &value).map_err(Refusal::violations)?;
    let expect = write::expect(&asked.headers, kind, &name)?;
    let before = config(&node, &asked).await?.get(kind, &name).map(|stored| show(kind, &name, &stored).spec);
    let mut applied =
        write::change(&node, &asked, vec![Op::Put { kind, name: name.clone(), doc }], expect, None).await?;
    if applied.changed {
        let verb = if before.is_none() { Verb::Create } else { Verb::Update };
        let mut after = value;
        if kind == Kind::Certificate {
            certificates::show(&mut after);
        }
        applied.steps.push(Step { verb, kind, name, before, after: Some(after) });
    }
    reply::tagged(StatusCode::OK, &applied, applied.revision, applied.revision)
}

/// `DELETE /v1/KIND/NAME`
pub(super) async fn delete(node: Arc<Node>, asked: Asked) -> Answer {
    let (kind, name) = kind_and_name(&asked)?;
    let name = name.ok_or_else(|| Refusal::not_found("no name"))?;
    let expect = write::expect(&asked.headers, kind, &name)?;
    // What is not there can't be deleted, and a mistyped name is told. This node may not have heard of it yet.
    if expect.is_empty()
        && config(&node, &asked).await?.get(kind, &name).is_none()
        && newest(&node, &asked).await?.get(kind, &name).is_none()
    {
        return Err(Refusal::not_found(format!("there is no {kind} {name}")));
    }
    let applied = write::change(&node, &asked, vec![Op::Delete { kind, name }], expect, None).await?;
    reply::tagged(StatusCode::OK, &applied, applied.revision, applied.revision)
}

/// `POST /v1/apply`
pub(super) async fn apply(node: Arc<Node>, asked: Asked) -> Answer {
    let request: ApplyRequest = asked.json()?;
    let text = request.document;
    let read = tokio::task::spawn_blocking(move || Document::read(&text)).await;
    let read =
        read.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error.to_string()))?;
    let document = read.map_err(Refusal::violations)?;
    let asked_base = write::if_match(&asked.headers)?;
    let mut tries = 0;
    loop {
        let config = config_to_plan(&node, &asked, asked_base, request.dry_run).await?;
        // Long for large documents, and the other thread has heartbeats to send.
        let (change, steps) = tokio::task::block_in_place(|| {
            let change = document.change(&config, request.prune);
            let steps: Vec<Step> = change.ops.iter().take(PAGE_MAX).map(|op| step(&config, op)).collect();
            (change, steps)
        });
        if request.dry_run {
            if asked_base.is_some_and(|base| base != config.revision) {
                let detail = format!("the config is at revision {}", config.revision);
                return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "conflict", detail));
            }
            let violations = tokio::task::block_in_place(|| crate::member::violations(&config, &change));
            if !violations.is_empty() {
                return Err(Refusal::violations(violations));
            }
            let applied = Applied { revision: config.revision, changed: false, steps, lagging: Vec::new() };
            return reply::json(StatusCode::OK, &applied);
        }
        // With prune, what came meanwhile would be left: then the plan must fit the config that it was made for.
        let base = asked_base.or_else(|| request.prune.then_some(config.revision));
        match write::change(&node, &asked, change.ops, Vec::new(), base).await {
            Ok(mut applied) => {
                applied.steps = steps;
                return reply::tagged(StatusCode::OK, &applied, applied.revision, applied.revision);
            }
            Err(refusal) if refusal.is_conflict() && tries < APPLY_RETRIES => tries += 1,
            Err(refusal) => return Err(refusal),
        }
    }
}

fn step(config: &Config, op: &Op) -> Step {
    let (kind, name) = op.target();
    let before = config.get(kind, name).map(|stored| show(kind, name, &stored).spec);
    let (verb, after) = match op {
        Op::Put { doc, .. } if before.is_none() => (Verb::Create, serde_json::from_slice(doc).ok()),
        Op::Put { doc, .. } => (Verb::Update, serde_json::from_slice(doc).ok()),
        Op::Delete { .. } => (Verb::Delete, None),
    };
    Step { verb, kind, name: name.clone(), before, after }
}

/// `GET /v1/config`
pub(super) async fn export(node: Arc<Node>, asked: Asked) -> Answer {
    let config = config(&node, &asked).await?;
    let document = Document::export(&config);
    match asked.query("format") {
        None | Some("json") => reply::tagged(StatusCode::OK, &document, config.revision, config.revision),
        Some("yaml") => {
            let text =
                serde_yaml_ng::to_string(&document).map_err(|error| Refusal::invalid(error.to_string()))?;
            let mut response = reply::tagged(StatusCode::OK, &document, config.revision, config.revision)?;
            let kind = http::HeaderValue::from_static("application/yaml");
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            *response.body_mut() = reply::whole(text);
            Ok(response)
        }
        Some(other) => Err(Refusal::invalid(format!("format is {other:?}: say json or yaml"))),
    }
}

/// `POST /v1/keys`
pub(super) async fn issue_key(node: Arc<Node>, asked: Asked) -> Answer {
    let asked = write::never_the_same(asked);
    let request: KeyRequest = asked.json()?;
    let config = config(&node, &asked).await?;
    let pepper = config.pepper.clone().ok_or_else(Refusal::not_in_cluster)?;
    if request.label.len() > 256 {
        return Err(Refusal::invalid("label is over 256 bytes"));
    }
    let ttl = request.ttl.as_deref().map(model::duration::parse).transpose().map_err(Refusal::invalid)?;
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl.as_secs() > KEY_TTL_S_MAX) {
        return Err(Refusal::invalid("ttl is from 1s to 3650d"));
    }
    let (credential, digest, hint) = crate::tokens::issue_key(&pepper.0);
    let issued_at_s = identity::now_ms() / 1_000;
    let key = model::Key {
        consumer: request.consumer,
        digest,
        hint,
        label: request.label,
        issued_at_s,
        expires_at_s: ttl.map(|ttl| issued_at_s + ttl.as_secs()),
    };
    let id = Name::new(&format!("k{}", crate::tokens::hex(&crate::tokens::random::<8>())))
        .map_err(|error| Refusal::invalid(error.to_string()))?;
    let value = serde_json::to_value(&key).map_err(|error| Refusal::invalid(error.to_string()))?;
    let op = Op::Put { kind: Kind::Key, name: id.clone(), doc: document::canonical(&value) };
    let Applied { revision, lagging, .. } = write::change(&node, &asked, vec![op], Vec::new(), None).await?;
    let issued = KeyIssued { id, key: credential, revision, lagging };
    let mut response = reply::tagged(StatusCode::CREATED, &issued, revision, revision)?;
    let private = http::HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, private);
    Ok(response)
}

/// `POST /v1/explain`
pub(super) async fn explain(node: Arc<Node>, asked: Asked) -> Answer {
    let request: ExplainRequest = asked.json()?;
    let gateway = node.gateway.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let gateway = gateway
        .as_ref()
        .ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the node is draining"))?;
    let explanation = gateway.explain(&request);
    let revision: Revision = explanation.revision;
    reply::tagged(StatusCode::OK, &explanation, revision, revision)
}

/// `POST /v1/explain/tcp`
pub(super) async fn explain_tcp(node: Arc<Node>, asked: Asked) -> Answer {
    let request: TcpExplainRequest = asked.json()?;
    let gateway = node.gateway.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let gateway = gateway
        .as_ref()
        .ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the node is draining"))?;
    let explanation = gateway.explain_tcp(&request);
    let revision: Revision = explanation.revision;
    reply::tagged(StatusCode::OK, &explanation, revision, revision)
}
