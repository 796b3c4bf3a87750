//! The log and the vote, behind openraft's log storage.

use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use prost::Message;

use crate::{
    Error,
    record::{self, BadRecord, EntryV1, KIND_BLANK, KIND_MEMBERSHIP, KIND_REQUEST, LogIdRecord, VoteRecord},
    store::{Step, Store},
    sync::{Raise, Syncer},
    types::{Entry, LogId, Request, Types, Vote, log_id, term},
    wire,
};

/// Bytes of one part of an entry: sled leaks the space of values over 64 KiB.
const PART_BYTES: usize = 48 << 10;
/// Log entries that a truncation or purge deletes in one batch.
const DELETE_BATCH: usize = 1_024;

const VOTE: &[u8] = b"v";
const COMMITTED: &[u8] = b"c";
const PURGED: &[u8] = b"p";
/// Then the index and the part, big-endian.
const ENTRY: u8 = b'l';

/// A handle to the log.
#[derive(Clone)]
pub(crate) struct Log {
    store: Arc<dyn Store>,
    syncer: Syncer,
}

fn entry_key(index: u64, part: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.push(ENTRY);
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&part.to_be_bytes());
    key
}

fn entries_end() -> Vec<u8> {
    vec![ENTRY + 1]
}

fn index_of(key: &[u8]) -> Option<u64> {
    key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)
}

impl From<&LogId> for LogIdRecord {
    fn from(id: &LogId) -> Self {
        Self { term: term(id), index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        log_id(record.term, record.index)
    }
}

/// The bytes in which an entry is stored.
pub(crate) fn encode(entry: &Entry) -> Result<Vec<u8>, BadRecord> {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Vec::new()),
        EntryPayload::Normal(request) => {
            (KIND_REQUEST, cluster_proto::command::Request::from(request).encode_to_vec())
        }
        EntryPayload::Membership(membership) => {
            (KIND_MEMBERSHIP, wire::membership(membership).encode_to_vec())
        }
    };
    EntryV1 { term: term(&entry.log_id), index: entry.log_id.index, kind, body }.encode()
}

/// The entry that is stored in these bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, BadRecord> {
    let bad = |error: &dyn std::fmt::Display| BadRecord::Payload(error.to_string());
    let entry = EntryV1::decode(bytes)?;
    let payload = match entry.kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_REQUEST => {
            let request = cluster_proto::command::Request::decode(&entry.body[..]).map_err(|e| bad(&e))?;
            EntryPayload::Normal(Request::try_from(request).map_err(|e| bad(&e))?)
        }
        KIND_MEMBERSHIP => {
            let membership = cluster_proto::raft::Membership::decode(&entry.body[..]).map_err(|e| bad(&e))?;
            EntryPayload::Membership(wire::read_membership(membership).map_err(|e| bad(&e))?)
        }
        other => return Err(bad(&format!("entries of kind {other} are written by a newer version"))),
    };
    Ok(Entry { log_id: log_id(entry.term, entry.index), payload })
}

impl Log {
    pub(crate) fn new(store: Arc<dyn Store>, syncer: Syncer) -> Self {
        Self { store, syncer }
    }

    fn bad(&self, place: impl Into<String>, error: &BadRecord) -> Error {
        Error::damaged(self.store.file(), place, error.to_string())
    }

    pub(crate) fn vote(&self) -> Result<Option<VoteRecord>, Error> {
        let Some(record) = self.store.get(VOTE)? else { return Ok(None) };
        record::open_message(VOTE, &record).map(Some).map_err(|error| self.bad("the vote", &error))
    }

    fn log_id_at(&self, key: &[u8], what: &str) -> Result<Option<LogId>, Error> {
        let Some(record) = self.store.get(key)? else { return Ok(None) };
        let id: LogIdRecord = record::open_message(key, &record).map_err(|error| self.bad(what, &error))?;
        Ok(Some(id.into()))
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Result<Option<LogId>, Error> {
        self.log_id_at(PURGED, "the purged log id")
    }

    /// The last entry's id, or the last purged one's.
    pub(crate) fn last(&self) -> Result<Option<LogId>, Error> {
        let Some((key, _)) = self.store.last(&[ENTRY], &entries_end())? else { return self.purged() };
        let index = index_of(&key).ok_or_else(|| self.bad("a log key", &BadRecord::Short))?;
        let last = self.read(index..=index)?.pop().map(|entry| entry.log_id);
        // A purge that a crash cut short leaves entries that are purged already.
        Ok(last.max(self.purged()?))
    }

    /// The entries of these indexes that are there, in their order.
    pub(crate) fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, Error> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(index) => *index,
            Excluded(index) => index.saturating_add(1),
            Unbounded => 0,
        };
        let to = match range.end_bound() {
            Included(index) => index.checked_add(1).map_or_else(entries_end, |next| entry_key(next, 0)),
            Excluded(index) => entry_key(*index, 0),
            Unbounded => entries_end(),
        };
        let mut entries = Vec::new();
        let mut whole: Vec<u8> = Vec::new();
        let mut parts_left: u16 = 0;
        for pair in self.store.scan(&entry_key(from, 0), &to) {
            let (key, value) = pair?;
            let place = || format!("log entry {}", index_of(&key).unwrap_or_default());
            let payload = record::open(&key, &value).map_err(|error| self.bad(place(), &error))?;
            let first = key.ends_with(&[0, 0]);
            let payload = if first {
                if parts_left > 0 {
                    return Err(
                        self.bad(place(), &BadRecord::Payload("the one before it is cut short".into()))
                    );
                }
                let (parts, rest) =
                    payload.split_first_chunk::<2>().ok_or_else(|| self.bad(place(), &BadRecord::Short))?;
                parts_left = u16::from_be_bytes(*parts);
                whole.clear();
                rest
            } else {
                payload
            };
            whole.extend_from_slice(payload);
            parts_left = parts_left.checked_sub(1).ok_or_else(|| self.bad(place(), &BadRecord::Short))?;
            if parts_left == 0 {
                entries.push(decode(&whole).map_err(|error| self.bad(place(), &error))?);
            }
        }
        if parts_left > 0 {
            return Err(self.bad("the last log entry", &BadRecord::Short));
        }
        Ok(entries)
    }

    fn put(&self, steps: &mut Vec<Step>, entry: &Entry) -> Result<(), Error> {
        let index = entry.log_id.index;
        let bytes = encode(entry).map_err(|error| self.bad(format!("log entry {index}"), &error))?;
        let parts = bytes.len().div_ceil(PART_BYTES);
        let count = u16::try_from(parts).map_err(|_| {
            self.bad(format!("log entry {index}"), &BadRecord::Payload("it is too large".into()))
        })?;
        for (part, chunk) in (0..count).zip(bytes.chunks(PART_BYTES)) {
            let key = entry_key(index, part);
            let value = if part == 0 {
                record::seal(&key, &[&count.to_be_bytes(), chunk].concat())
            } else {
                record::seal(&key, chunk)
            };
            steps.push(Step::Put(key, value));
        }
        Ok(())
    }

    /// Deletes every entry from `from` on and below `to`, in batches.
    fn delete(&self, from: u64, to: &[u8]) -> Result<(), Error> {
        loop {
            let keys = self.store.scan(&entry_key(from, 0), to).take(DELETE_BATCH);
            let steps = keys.map(|pair| Ok(Step::Delete(pair?.0))).collect::<Result<Vec<_>, Error>>()?;
            if steps.is_empty() {
                return Ok(());
            }
            self.store.apply(steps)?;
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(range)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.vote()?;
        Ok(vote.map(|vote| match vote.committed {
            true => Vote::new_committed(vote.term, vote.node_id),
            false => Vote::new(vote.term, vote.node_id),
        }))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState { last_purged_log_id: self.purged()?, last_log_id: self.last()? })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let leader = &vote.leader_id;
        let vote = VoteRecord { term: leader.term, node_id: leader.voted_for, committed: vote.committed };
        self.store.apply(vec![Step::Put(VOTE.to_vec(), record::seal_message(VOTE, &vote))])?;
        Ok(self.syncer.wait(Raise::Vote(vote)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let step = match committed {
            Some(id) => {
                Step::Put(COMMITTED.to_vec(), record::seal_message(COMMITTED, &LogIdRecord::from(&id)))
            }
            None => Step::Delete(COMMITTED.to_vec()),
        };
        // Not durable by itself: it only spares a restarted node from waiting for a leader to say it again.
        Ok(self.store.apply(vec![step])?)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log_id_at(COMMITTED, "the committed log id")?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut steps = Vec::new();
        let mut last = None;
        for entry in entries {
            self.put(&mut steps, &entry)?;
            last = Some(entry.log_id);
        }
        self.store.apply(steps)?;
        let raise = last.map_or(Raise::Nothing, |id| Raise::Last((&id).into()));
        self.syncer.submit(raise, move |result| callback.io_completed(result.map_err(Into::into)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        // The mark goes down before the log does: else a crash between the two would look like a loss.
        self.syncer.wait(Raise::Lower(last.as_ref().map(Into::into))).await?;
        let from = last.map_or(0, |id| id.index + 1);
        self.delete(from, &entries_end())?;
        Ok(self.syncer.wait(Raise::Nothing).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let raise = match self.last()? {
            Some(last) if last.index > upto.index => Raise::Nothing,
            _ => Raise::Last((&upto).into()),
        };
        let purged = Step::Put(PURGED.to_vec(), record::seal_message(PURGED, &LogIdRecord::from(&upto)));
        self.store.apply(vec![purged])?;
        self.delete(0, &entry_key(upto.index + 1, 0))?;
        Ok(self.syncer.wait(raise).await?)
    }
}
