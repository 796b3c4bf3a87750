//! The log and the vote, behind openraft's log storage.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use openraft::{
    EntryPayload, LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use prost::Message;

use crate::{
    Error,
    journal::{Journal, Record},
    record::{BadRecord, EntryV1, KIND_BLANK, KIND_MEMBERSHIP, KIND_REQUEST, LogIdRecord, VoteRecord},
    sync::{Raise, Syncer},
    types::{Entry, LogId, Request, Types, Vote, log_id, term},
    wire,
};

/// A handle to the log.
#[derive(Clone)]
pub(crate) struct Log {
    journal: Arc<Journal>,
    syncer: Syncer,
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

/// The envelope in which an entry is stored.
pub(crate) fn seal(entry: &Entry) -> EntryV1 {
    let (kind, body) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Vec::new()),
        EntryPayload::Normal(request) => {
            (KIND_REQUEST, cluster_proto::command::Request::from(request).encode_to_vec())
        }
        EntryPayload::Membership(membership) => {
            (KIND_MEMBERSHIP, wire::membership(membership).encode_to_vec())
        }
    };
    EntryV1 { term: term(&entry.log_id), index: entry.log_id.index, kind, body }
}

/// The entry in this envelope.
pub(crate) fn open(entry: EntryV1) -> Result<Entry, BadRecord> {
    let bad = |error: &dyn std::fmt::Display| BadRecord::Payload(error.to_string());
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
    pub(crate) fn new(journal: Arc<Journal>, syncer: Syncer) -> Self {
        Self { journal, syncer }
    }

    /// The last entry's id, or the last purged one's.
    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<LogId> {
        self.journal.last().map(LogId::from)
    }

    /// The entries of these indexes that are there, in their order.
    fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>, Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let mut entries = Vec::new();
        read(&self.journal, from, to, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }
}

/// Calls `each` with the journal's entries from `from` on and below `to` that are there, in their order.
pub(crate) fn read(
    journal: &Journal,
    from: u64,
    to: u64,
    mut each: impl FnMut(Entry) -> Result<(), Error>,
) -> Result<(), Error> {
    journal.read(from, to, |envelope| {
        let place = format!("log entry {}", envelope.index);
        let entry = open(envelope);
        each(entry.map_err(|error| Error::damaged(journal.folder(), place, error.to_string()))?)
    })
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(range)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.journal.vote().map(|vote| match vote.committed {
            true => Vote::new_committed(vote.term, vote.node_id),
            false => Vote::new(vote.term, vote.node_id),
        }))
    }
}

/// What was committed need not be kept: a node plays its log up to the mark that says how far it had applied.
impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let id = |record: Option<LogIdRecord>| record.map(LogId::from);
        Ok(LogState { last_purged_log_id: id(self.journal.purged()), last_log_id: id(self.journal.last()) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let leader = &vote.leader_id;
        let vote = VoteRecord { term: leader.term, node_id: leader.voted_for, committed: vote.committed };
        self.journal.write(&[Record::Vote(vote.clone())])?;
        Ok(self.syncer.wait(Raise::Vote(vote)).await?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut last = None;
        let seal = |entry: Entry| {
            last = Some(LogIdRecord::from(&entry.log_id));
            Record::Entry(seal(&entry))
        };
        let records: Vec<Record> = entries.into_iter().map(seal).collect();
        self.journal.write(&records)?;
        let raise = last.map_or(Raise::Nothing, Raise::Last);
        self.syncer.submit(raise, move |result| callback.io_completed(result.map_err(Into::into)));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.as_ref().map(LogIdRecord::from);
        // The mark goes down before the log does: else a crash between the two would look like a loss.
        self.syncer.wait(Raise::Lower(last.clone())).await?;
        self.journal.write(&[Record::Truncated(last)])?;
        Ok(self.syncer.wait(Raise::Nothing).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let upto = LogIdRecord::from(&upto);
        let raise = match self.journal.last() {
            Some(last) if last.index > upto.index => Raise::Nothing,
            _ => Raise::Last(upto.clone()),
        };
        self.journal.write(&[Record::Purged(upto)])?;
        self.syncer.wait(raise).await?;
        Ok(self.journal.forget_purged()?)
    }
}
