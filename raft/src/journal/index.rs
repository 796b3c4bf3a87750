//! What the journal's records come to: the vote, what was purged, and where each entry is.

use std::collections::VecDeque;

use super::record::{Head, Record};
use crate::record::{BadRecord, LogIdRecord, VoteRecord};

/// Where the frame of an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) id: LogIdRecord,
    pub(super) segment: u64,
    pub(super) at: u64,
    /// Of the whole frame.
    pub(super) bytes: usize,
}

/// What the journal's records come to.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) vote: Option<VoteRecord>,
    pub(super) purged: Option<LogIdRecord>,
    /// Of those that are not purged, one after the other.
    entries: VecDeque<Spot>,
}

impl Index {
    /// What was before a segment, by its head.
    pub(super) fn before(head: Head) -> Self {
        Self { vote: head.vote, purged: head.purged, entries: VecDeque::new() }
    }

    /// Plays one more record, whose frame is so many bytes at byte `at` of this segment.
    pub(super) fn play(
        &mut self,
        record: &Record,
        segment: u64,
        at: u64,
        bytes: usize,
    ) -> Result<(), BadRecord> {
        match record {
            // It only says what is known here.
            Record::Head(_) => {}
            Record::Entry(entry) => {
                let id = LogIdRecord { term: entry.term, index: entry.index };
                if let Some(last) = self.entries.back()
                    && last.id.index.checked_add(1) != Some(id.index)
                {
                    let reason = format!("entry {} follows entry {}", id.index, last.id.index);
                    return Err(BadRecord::Payload(reason));
                }
                self.entries.push_back(Spot { id, segment, at, bytes });
            }
            Record::Vote(vote) => self.vote = Some(vote.clone()),
            Record::Truncated(last) => {
                let kept = |spot: &Spot| last.as_ref().is_some_and(|last| spot.id.index <= last.index);
                while self.entries.pop_back_if(|spot| !kept(spot)).is_some() {}
            }
            Record::Purged(upto) => {
                self.purged = Some(upto.clone());
                while self.entries.pop_front_if(|spot| spot.id.index <= upto.index).is_some() {}
            }
        }
        Ok(())
    }

    /// The last entry, or the last one purged.
    pub(super) fn last(&self) -> Option<LogIdRecord> {
        self.entries.back().map(|spot| spot.id.clone()).or_else(|| self.purged.clone())
    }

    /// Where the entries from `from` on and below `to` are.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = &Spot> {
        let first = self.entries.front().map_or(0, |spot| spot.id.index);
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        self.entries.iter().skip(skipped).take_while(move |spot| spot.id.index < to)
    }

    /// The indexes that should be there and are not: those between what was purged and the first entry.
    pub(super) fn gap(&self) -> Option<(u64, u64)> {
        let from = self.purged.as_ref().map_or(0, |purged| purged.index.saturating_add(1));
        let first = self.entries.front()?.id.index;
        (first > from).then(|| (from, first - 1))
    }
}
