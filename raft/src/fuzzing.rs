//! What the targets in fuzz/ ask of this crate, and nobody else does.

pub mod journal;
mod memory;

use std::{path::Path, sync::Arc};

use cluster_proto::raft as proto;
use prost::Message;

use self::memory::{MemoryFiles, MemoryStore};
use crate::{
    high_water::{HighWater, Mark},
    log,
    record::{self, AppliedRecord, EntryV1, LogIdRecord, ObjectRecord, OutcomeRecord, VoteRecord},
    snapshot::Snapshots,
    state::State,
    state_machine::StateMachine,
    store::Store,
    wire,
};

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The payload of the record under `key`.
///
/// # Errors
/// If it is damaged.
pub fn open_record<'r>(key: &[u8], record: &'r [u8]) -> Result<&'r [u8], String> {
    record::open(key, record).map_err(text)
}

/// The record that holds `payload` under `key`.
#[must_use]
pub fn seal_record(key: &[u8], payload: &[u8]) -> Vec<u8> {
    record::seal(key, payload)
}

/// The messages that records hold: how many there are for [`message_again`].
pub const MESSAGES: u8 = 6;

/// A record's message of this sort, read and written again.
///
/// # Errors
/// If it can't be read.
pub fn message_again(sort: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
    fn again<M: Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, String> {
        M::decode(bytes).map(|message| message.encode_to_vec()).map_err(text)
    }
    match sort % MESSAGES {
        0 => again::<VoteRecord>(bytes),
        1 => again::<LogIdRecord>(bytes),
        2 => again::<AppliedRecord>(bytes),
        3 => again::<ObjectRecord>(bytes),
        4 => again::<OutcomeRecord>(bytes),
        _ => again::<Mark>(bytes),
    }
}

/// The bytes of a log entry of this kind, as they are stored. The kinds are 0 blank, 1 request, 2 membership.
///
/// # Errors
/// If it is too large.
pub fn log_entry(term: u64, index: u64, kind: u8, body: &[u8]) -> Result<Vec<u8>, String> {
    EntryV1 { term, index, kind, body: body.to_vec() }.encode().map_err(text)
}

/// A stored log entry, read and written again.
///
/// # Errors
/// If it can't be read.
pub fn log_entry_again(bytes: &[u8]) -> Result<Vec<u8>, String> {
    EntryV1::decode(bytes).and_then(log::open).and_then(|entry| log::seal(&entry).encode()).map_err(text)
}

/// An entry on the wire, read and written again.
///
/// # Errors
/// If it can't be read.
pub fn wire_entry_again(message: proto::Entry) -> Result<proto::Entry, String> {
    wire::read_entry(message).map(|entry| wire::entry(&entry)).map_err(text)
}

/// A membership on the wire, read and written again.
///
/// # Errors
/// If it can't be read.
pub fn wire_membership_again(message: proto::StoredMembership) -> Result<proto::StoredMembership, String> {
    wire::read_stored_membership(message).map(|stored| wire::stored_membership(&stored)).map_err(text)
}

/// A vote on the wire, read and written again.
#[must_use]
pub fn wire_vote_again(message: proto::Vote) -> proto::Vote {
    wire::vote(&wire::read_vote(message))
}

/// A record of the state: its space, what is behind the generation in its key, its payload.
pub type StateRecord = (u8, Vec<u8>, Vec<u8>);

/// A state machine over a store in memory.
#[derive(Debug, Default)]
pub struct Machine {
    state: State,
    store: MemoryStore,
}

impl Machine {
    /// Applies a stored log entry, as it is committed; the store follows.
    ///
    /// # Errors
    /// If it can't be read; then nothing was done.
    pub fn apply(&mut self, entry: &[u8]) -> Result<(), String> {
        let entry = EntryV1::decode(entry).and_then(log::open).map_err(text)?;
        let mut steps = Vec::new();
        self.state.apply(&entry, &mut steps);
        steps.push(self.state.applied_step());
        self.store.apply(steps).map_err(text)
    }

    /// Puts in one record; the store does not follow.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn load(&mut self, space: u8, rest: &[u8], payload: &[u8]) -> Result<(), String> {
        self.state.load(space, rest, payload).map_err(text)
    }

    /// How far it is, in a message, and every record.
    #[must_use]
    pub fn records(&self) -> (Vec<u8>, Vec<StateRecord>) {
        let applied = AppliedRecord {
            last: self.state.applied.as_ref().map(Into::into),
            membership: Some(wire::stored_membership(&self.state.membership)),
            revision: self.state.config.revision.0,
            generation: 0,
            made_by: self.state.made_by,
        };
        let mut records = Vec::new();
        let Ok(()) = self.state.records(|space, rest, payload| {
            records.push((space, rest.to_vec(), payload.to_vec()));
            Ok::<_, std::convert::Infallible>(())
        });
        (applied.encode_to_vec(), records)
    }

    /// The machine that starts from what is in the store of this one.
    ///
    /// # Errors
    /// If the store is damaged.
    pub fn restarted(self) -> Result<Self, String> {
        Ok(Self { state: StateMachine::load(&self.store).map_err(text)?, store: self.store })
    }

    /// Its snapshot.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn snapshot(&self) -> Result<Vec<u8>, String> {
        let files = Arc::new(MemoryFiles::default());
        let snapshots = Snapshots::open(files.clone(), FOLDER.into()).map_err(text)?;
        let file = snapshots.write(&self.state).map_err(text)?;
        Ok(files.bytes(file.path()))
    }

    /// The machine of a snapshot, with nothing in its store.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn of_snapshot(snapshot: &[u8]) -> Result<Self, String> {
        let files = Arc::new(MemoryFiles::default());
        files.put(&Path::new(FOLDER).join("current"), snapshot);
        let snapshots = Snapshots::open(files, FOLDER.into()).map_err(text)?;
        let file = snapshots.current().ok_or("there is no snapshot")?;
        let read = file.read().map_err(text);
        // What a node checks before it takes a snapshot is what it reads at last, but for the records' own form.
        assert!(read.is_err() || file.check().is_ok(), "read, and not whole");
        Ok(Self { state: read?, store: MemoryStore::default() })
    }
}

const FOLDER: &str = "/snapshots";
const HIGH_WATER: &str = "/high-water";

/// Opens a high-water file of these bytes, and raises it by a vote of the next term. Gives the file's bytes then.
///
/// # Errors
/// If it is damaged.
pub fn raise_high_water(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (files, path) = (MemoryFiles::default(), Path::new(HIGH_WATER));
    files.put(path, bytes);
    let mut file = HighWater::open(&files, path, false).map_err(text)?;
    let before = file.mark().clone();
    let term = before.vote.as_ref().map_or(0, |vote| vote.term);
    // Neither gets there by counting.
    if before.sequence == u64::MAX || term == u64::MAX {
        return Err("the end of all numbers".into());
    }
    let vote = Some(VoteRecord { term: term + 1, ..VoteRecord::default() });
    let raised = Mark { vote, ..before.clone() };
    file.write(raised.clone()).map_err(text)?;
    let read = HighWater::open(&files, path, false).map_err(text)?;
    assert_eq!(*read.mark(), Mark { sequence: before.sequence + 1, ..raised }, "what was raised fell back");
    Ok(files.bytes(path))
}
