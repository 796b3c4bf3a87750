//! The journal over files in memory.

use std::{path::Path, sync::Arc};

use prost::Message;

use super::{memory::MemoryFiles, text};
use crate::{
    files::Files,
    journal::{self, End, Head, Journal, Record},
    record::{EntryV1, LogIdRecord, VoteRecord},
};

const FOLDER: &str = "/log";

/// A log id: term and index.
pub type LogId = (u64, u64);

/// What a journal comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The vote, as a message.
    pub vote: Option<Vec<u8>>,
    /// The last entry that was purged.
    pub purged: Option<LogId>,
    /// The log id and the body of each entry, in their order.
    pub entries: Vec<(LogId, Vec<u8>)>,
}

/// What is written to a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The first of a segment: the segment before it, and the byte at which that ends.
    Head(Option<(u64, u64)>),
    /// An entry with this body.
    Entry(LogId, Vec<u8>),
    /// A vote: term and node.
    Vote(u64, u64),
    /// No entry follows this one.
    Truncated(Option<LogId>),
    /// No entry up to this one is needed.
    Purged(LogId),
}

impl From<&Step> for Record {
    fn from(step: &Step) -> Self {
        let id = |(term, index): &LogId| LogIdRecord { term: *term, index: *index };
        match step {
            Step::Head(previous) => {
                let previous = previous.map(|(segment, at)| End { segment, at });
                Self::Head(Head { previous, ..Head::default() })
            }
            Step::Entry((term, index), body) => {
                Self::Entry(EntryV1 { term: *term, index: *index, kind: 0, body: body.clone() })
            }
            Step::Vote(term, node) => {
                Self::Vote(VoteRecord { term: *term, node_id: *node, committed: false })
            }
            Step::Truncated(last) => Self::Truncated(last.as_ref().map(id)),
            Step::Purged(upto) => Self::Purged(id(upto)),
        }
    }
}

/// The frame of this step, for byte `at` of a segment.
///
/// # Errors
/// If it is too large.
pub fn frame(segment: u64, at: u64, step: &Step) -> Result<Vec<u8>, String> {
    let payload = Record::from(step).encode().map_err(text)?;
    journal::seal_frame(segment, at, &payload).map_err(text)
}

/// The segments of a journal.
#[derive(Debug, Default)]
pub struct Segments {
    files: Arc<MemoryFiles>,
}

impl Segments {
    /// Makes a segment of these bytes.
    pub fn put(&self, number: u64, bytes: &[u8]) {
        self.files.put(&journal::segment_path(Path::new(FOLDER), number), bytes);
    }

    /// The numbers and bytes of all.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, Vec<u8>)> {
        let paths = self.files.list(Path::new(FOLDER)).unwrap_or_default();
        let of = |path: &std::path::PathBuf| Some((journal::segment_number(path)?, self.files.bytes(path)));
        paths.iter().filter_map(of).collect()
    }

    fn open(&self, segment_bytes: u64) -> Result<Journal, String> {
        Journal::open(self.files.clone(), FOLDER.into(), segment_bytes).map_err(text)
    }

    /// What they come to.
    ///
    /// # Errors
    /// If they are damaged; they are as they were.
    pub fn read(&self) -> Result<Contents, String> {
        contents(&self.open(u64::MAX)?)
    }

    /// Goes on from them with these steps, in segments of so many bytes.
    ///
    /// # Errors
    /// If they are damaged, or a step can't follow.
    pub fn write(&self, segment_bytes: u64, steps: &[Step]) -> Result<(), String> {
        let journal = self.open(segment_bytes)?;
        journal.begin().map_err(text)?;
        for step in steps {
            journal.write(&[step.into()]).map_err(text)?;
            journal.barrier().map_err(text)?;
            if matches!(step, Step::Purged(_)) {
                journal.forget_purged().map_err(text)?;
            }
        }
        Ok(())
    }
}

fn contents(journal: &Journal) -> Result<Contents, String> {
    let mut entries = Vec::new();
    let take = |entry: EntryV1| {
        entries.push(((entry.term, entry.index), entry.body));
        Ok(())
    };
    journal.read(0, u64::MAX, take).map_err(text)?;
    let vote = journal.vote().map(|vote| vote.encode_to_vec());
    let purged = journal.purged().map(|purged| (purged.term, purged.index));
    Ok(Contents { vote, purged, entries })
}
