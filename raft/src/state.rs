//! What the applied log amounts to, in memory, and the records in which the store holds it.

use std::{collections::BTreeMap, sync::Arc};

use cluster_proto::command;
use model::{
    Config, Kind, Name, NodeId, Op, Outcome, Revision, Usage,
    cluster::{Cluster, ClusterOutcome},
    config::{Pepper, Stored},
};
use openraft::EntryPayload;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error,
    outcomes::{self, Kept, Outcomes},
    record::{self, AppliedRecord, BadRecord, ObjectRecord, OutcomeRecord},
    store::Step,
    types::{Command, Entry, LogId, Request, Response, StoredMembership},
    wire,
};

/// The key of the [`AppliedRecord`].
pub(crate) const APPLIED: &[u8] = b"a";

const OBJECT: u8 = b'o';
const CLUSTER: u8 = b'k';
const OUTCOME: u8 = b'i';
const USAGE: u8 = b'u';
/// The first bytes of every record that belongs to a generation.
pub(crate) const SPACES: [u8; 4] = [OBJECT, CLUSTER, OUTCOME, USAGE];

/// What the applied log amounts to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    pub config: Config,
    /// The id of the change that made the config's revision, 0 where nothing was made yet.
    pub made_by: u64,
    pub cluster: Arc<Cluster>,
    pub usage: Usage,
    outcomes: Outcomes,
    pub generation: u32,
}

/// The key of a record of this generation.
pub(crate) fn key(space: u8, generation: u32, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + rest.len());
    key.push(space);
    key.extend_from_slice(&generation.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Upstream => 1,
        Kind::Policy => 2,
        Kind::Group => 3,
        Kind::Consumer => 4,
        Kind::Route => 5,
        Kind::Key => 6,
        Kind::Certificate => 7,
        Kind::TcpRoute => 8,
    }
}

fn object_key(generation: u32, kind: Kind, name: &Name) -> Vec<u8> {
    let mut rest = vec![kind_byte(kind)];
    rest.extend_from_slice(name.as_str().as_bytes());
    key(OBJECT, generation, &rest)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the model's types are plain JSON")
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadRecord> {
    serde_json::from_slice(bytes).map_err(|error| BadRecord::Payload(error.to_string()))
}

/// The cluster cut into records, each by what is behind the generation in its key.
fn cluster_parts(cluster: &Cluster) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut parts = BTreeMap::new();
    if let Some(founding) = &cluster.founding {
        parts.insert(b"f".to_vec(), json(founding));
    }
    for (id, node) in &cluster.nodes {
        parts.insert([b"n".as_slice(), &id.0.to_be_bytes()].concat(), json(node));
    }
    for (id, token) in &cluster.join_tokens {
        parts.insert([b"j", id.as_bytes()].concat(), json(token));
    }
    for (id, token) in &cluster.admin_tokens {
        parts.insert([b"t", id.as_bytes()].concat(), json(token));
    }
    if !cluster.gossip_keys.is_empty() {
        parts.insert(b"g".to_vec(), json(&cluster.gossip_keys));
    }
    parts
}

fn insert_cluster_part(cluster: &mut Cluster, part: &[u8], value: &[u8]) -> Result<(), BadRecord> {
    let bad = |what: &str| BadRecord::Payload(what.to_owned());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad("a token's id is not UTF-8"));
    match part.split_first() {
        Some((b'f', [])) => cluster.founding = Some(read_json(value)?),
        Some((b'g', [])) => cluster.gossip_keys = read_json(value)?,
        Some((b'n', id)) => {
            let id = id.try_into().map_err(|_| bad("a node's id is not 8 bytes"))?;
            cluster.nodes.insert(NodeId(u64::from_be_bytes(id)), read_json(value)?);
        }
        Some((b'j', id)) => drop(cluster.join_tokens.insert(text(id)?, read_json(value)?)),
        Some((b't', id)) => drop(cluster.admin_tokens.insert(text(id)?, read_json(value)?)),
        _ => return Err(bad("a part of the cluster that this version does not know")),
    }
    Ok(())
}

fn pepper(cluster: &Cluster) -> Option<Arc<Pepper>> {
    let hex = &cluster.founding.as_ref()?.pepper.0;
    let mut pepper = [0; 32];
    for (at, byte) in pepper.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(Arc::new(Pepper(pepper)))
}

impl State {
    /// Applies a committed entry, and adds what it changes in the store to `steps`.
    pub(crate) fn apply(&mut self, entry: &Entry, steps: &mut Vec<Step>) -> Response {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Response::None,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Response::None
            }
            EntryPayload::Normal(request) => self.request(request, entry.log_id.index, steps),
        }
    }

    fn request(&mut self, request: &Request, index: u64, steps: &mut Vec<Step>) -> Response {
        let fingerprint = outcomes::fingerprint(&request.command);
        if let Some(known) = request.idempotency_key.as_ref().and_then(|key| self.outcome(key, fingerprint)) {
            return known.unwrap_or(Response::None);
        }
        let response = match &request.command {
            // It was checked against a config that another change has taken the place of, under the same revision.
            Command::Change(_) if request.link.after != self.made_by => {
                Response::Change(Outcome::Conflict(self.config.revision))
            }
            Command::Change(change) => {
                let outcome = self.config.apply(change);
                if let Outcome::Applied(_) = outcome {
                    self.made_by = request.link.id;
                    change.ops.iter().for_each(|op| steps.push(self.object_step(op)));
                }
                Response::Change(outcome)
            }
            Command::Cluster(change) => {
                let before = cluster_parts(&self.cluster);
                let outcome = Arc::make_mut(&mut self.cluster).apply(change, index, request.at_ms);
                self.cluster_steps(&before, steps);
                self.config.pepper = pepper(&self.cluster);
                Response::Cluster(outcome)
            }
            Command::Usage(report) => {
                for key in self.usage.apply(report, request.at_ms) {
                    steps.push(self.usage_step(key));
                }
                Response::Cluster(ClusterOutcome::Done)
            }
        };
        // A conflict of revisions is not an outcome: the edit is checked and proposed again under the same key.
        if !matches!(response, Response::Change(Outcome::Conflict(_)))
            && let Some(key) = &request.idempotency_key
        {
            let kept = Kept { key: key.clone(), fingerprint: Some(fingerprint), response: response.clone() };
            self.remember(index, kept, steps);
        }
        response
    }

    /// The outcome that is kept under this idempotency key; an error if it is that of something else.
    pub(crate) fn outcome(&self, key: &str, fingerprint: u32) -> Option<Result<Response, Error>> {
        self.outcomes.known(key, fingerprint)
    }

    fn remember(&mut self, index: u64, kept: Kept, steps: &mut Vec<Step>) {
        let at = self::key(OUTCOME, self.generation, &index.to_be_bytes());
        steps.push(Step::Put(at.clone(), record::seal_message(&at, &OutcomeRecord::from(&kept))));
        self.outcomes.insert(index, kept);
        while let Some(oldest) = self.outcomes.evict() {
            steps.push(Step::Delete(self::key(OUTCOME, self.generation, &oldest.to_be_bytes())));
        }
    }

    fn object_step(&self, op: &Op) -> Step {
        let (kind, name) = op.target();
        let at = object_key(self.generation, kind, name);
        match self.config.get(kind, name) {
            Some(stored) => {
                let record = object_record(&stored);
                Step::Put(at.clone(), record::seal_message(&at, &record))
            }
            None => Step::Delete(at),
        }
    }

    fn usage_step(&self, usage_key: u64) -> Step {
        let at = key(USAGE, self.generation, &usage_key.to_be_bytes());
        match self.usage.get(usage_key) {
            Some(used) => Step::Put(at.clone(), record::seal_message(&at, &command::Used::from(&**used))),
            None => Step::Delete(at),
        }
    }

    fn cluster_steps(&self, before: &BTreeMap<Vec<u8>, Vec<u8>>, steps: &mut Vec<Step>) {
        let after = cluster_parts(&self.cluster);
        for part in before.keys().filter(|part| !after.contains_key(*part)) {
            steps.push(Step::Delete(key(CLUSTER, self.generation, part)));
        }
        for (part, value) in after {
            if before.get(&part) != Some(&value) {
                let at = key(CLUSTER, self.generation, &part);
                steps.push(Step::Put(at.clone(), record::seal(&at, &value)));
            }
        }
    }

    /// The step that says how far this state is.
    pub(crate) fn applied_step(&self) -> Step {
        let record = AppliedRecord {
            last: self.applied.as_ref().map(Into::into),
            membership: Some(wire::stored_membership(&self.membership)),
            revision: self.config.revision.0,
            generation: self.generation,
            made_by: self.made_by,
        };
        Step::Put(APPLIED.to_vec(), record::seal_message(APPLIED, &record))
    }

    /// Begins a state from its applied record.
    pub(crate) fn begin(applied: AppliedRecord) -> Result<Self, BadRecord> {
        let membership = wire::read_stored_membership(applied.membership.unwrap_or_default())
            .map_err(|error| BadRecord::Payload(error.to_string()))?;
        let mut state = Self {
            applied: applied.last.map(Into::into),
            membership,
            generation: applied.generation,
            made_by: applied.made_by,
            ..Self::default()
        };
        state.config.revision = Revision(applied.revision);
        Ok(state)
    }

    /// Puts in one record of the state, given what is behind the generation in its key.
    pub(crate) fn load(&mut self, space: u8, rest: &[u8], payload: &[u8]) -> Result<(), BadRecord> {
        use prost::Message;
        let bad = |error: &dyn std::fmt::Display| BadRecord::Payload(error.to_string());
        match space {
            OBJECT => {
                let (kind, name) = rest.split_first().ok_or(BadRecord::Short)?;
                let kind = Kind::ALL.into_iter().find(|known| kind_byte(*known) == *kind);
                let kind = kind.ok_or_else(|| bad(&"an object of a kind that this version does not know"))?;
                let name = std::str::from_utf8(name).map_err(|error| bad(&error))?;
                let name = Name::new(name).map_err(|error| bad(&error))?;
                let object = ObjectRecord::decode(payload).map_err(|error| bad(&error))?;
                let stored = Stored {
                    created: Revision(object.created),
                    changed: Revision(object.changed),
                    doc: object.doc.into(),
                };
                self.config.insert(kind, name, stored);
            }
            CLUSTER => {
                insert_cluster_part(Arc::make_mut(&mut self.cluster), rest, payload)?;
                self.config.pepper = pepper(&self.cluster);
            }
            OUTCOME => {
                let index = rest.try_into().map(u64::from_be_bytes).map_err(|_| BadRecord::Short)?;
                let outcome = OutcomeRecord::decode(payload).map_err(|error| bad(&error))?;
                self.outcomes.insert(index, outcome.try_into().map_err(|error| bad(&error))?);
            }
            USAGE => {
                let used = command::Used::decode(payload).map_err(|error| bad(&error))?;
                if rest != used.key.to_be_bytes() {
                    return Err(bad(&"a record of usage under another key than its own"));
                }
                self.usage.insert(used.into());
            }
            _ => return Err(bad(&"a record of a space that this version does not know")),
        }
        Ok(())
    }

    /// Calls `each` with every record of this state: its space, what is behind the generation in its key, its payload.
    pub(crate) fn records<E>(
        &self,
        mut each: impl FnMut(u8, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        use prost::Message;
        for kind in Kind::ALL {
            let unreadable =
                self.config.unreadable.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone());
            for name in self.config.names(kind).into_iter().chain(unreadable.collect::<Vec<_>>()) {
                let Some(stored) = self.config.get(kind, &name) else { continue };
                let rest = [&[kind_byte(kind)], name.as_str().as_bytes()].concat();
                each(OBJECT, &rest, &object_record(&stored).encode_to_vec())?;
            }
        }
        for (part, value) in cluster_parts(&self.cluster) {
            each(CLUSTER, &part, &value)?;
        }
        for (index, kept) in self.outcomes.iter() {
            each(OUTCOME, &index.to_be_bytes(), &OutcomeRecord::from(kept).encode_to_vec())?;
        }
        for used in self.usage.iter() {
            each(USAGE, &used.key.to_be_bytes(), &command::Used::from(&**used).encode_to_vec())?;
        }
        Ok(())
    }
}

fn object_record(stored: &Stored) -> ObjectRecord {
    ObjectRecord { created: stored.created.0, changed: stored.changed.0, doc: stored.doc.to_vec() }
}
