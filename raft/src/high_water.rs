//! How far this node once was, in a file beside the journal: a journal that is behind it has lost what was acknowledged.
//!
//! A journal whose end is damaged looks like one whose end a crash cut off. A Raft node that starts from one votes twice or
//! forgets what it acknowledged, so it must not start. The file has two slots, each with a checksum and a sequence number.
//! A mark is written to the one that need not be durable, and once it is, to the other, too: a write cut short leaves the mark
//! before it, and one slot that is damaged later leaves this one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message;

use crate::{
    Error,
    files::{Files, OpenFile},
    record::{self, LogIdRecord, VoteRecord},
};

const SLOT_BYTES: usize = 512;
const KEY: &[u8] = b"high-water";

/// What was durable once.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Mark {
    /// Which write it was.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(message, optional, tag = "2")]
    pub vote: Option<VoteRecord>,
    /// The log's last entry, or the last one purged.
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdRecord>,
    /// The last entry applied.
    #[prost(uint64, optional, tag = "4")]
    pub applied: Option<u64>,
}

/// The file.
pub(crate) struct HighWater {
    file: Arc<dyn OpenFile>,
    path: PathBuf,
    mark: Mark,
    /// The slot, 0 or 1, in which the mark is durable.
    durable: usize,
}

impl HighWater {
    /// Opens the file, or makes it where `fresh` says that the journal has nothing in it either.
    pub(crate) fn open(files: &dyn Files, path: &Path, fresh: bool) -> Result<Self, Error> {
        let io = |error| Error::io(path, &error);
        let exists = files.exists(path);
        if !exists && !fresh {
            return Err(Error::damaged(
                path,
                "the whole file",
                "it is gone, and the log beside it is not empty",
            ));
        }
        if !exists {
            create(files, path).map_err(io)?;
        }
        // Whoever made it or wrote to it may have been killed before this, and then the power may go.
        files.sync_folder(folder(path)).map_err(io)?;
        let file = files.open(path).map_err(io)?;
        file.sync().map_err(io)?;
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let length = file.read_at(&mut bytes, 0).map_err(io)?;
        if length < bytes.len() {
            return Err(Error::damaged(path, format!("byte {length}"), "it is cut short"));
        }
        let slots = bytes.chunks(SLOT_BYTES).map(read_slot).enumerate();
        let marks = slots.filter_map(|(slot, mark)| Some((slot, mark?)));
        // One slot may be cut short by a crash in mid-write, and never both.
        match marks.max_by_key(|(_, mark)| mark.sequence) {
            Some((durable, mark)) => Ok(Self { file, path: path.to_owned(), mark, durable }),
            None => Err(Error::damaged(path, "both slots", "neither checksum matches")),
        }
    }

    /// The newest mark.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Makes this the newest mark, durably.
    pub(crate) fn write(&mut self, mut mark: Mark) -> Result<(), Error> {
        mark.sequence = self.mark.sequence + 1;
        if mark.vote == self.mark.vote && mark.last == self.mark.last && mark.applied == self.mark.applied {
            return Ok(());
        }
        self.write_both(&slot(&mark)).map_err(|error| Error::io(&self.path, &error))?;
        self.mark = mark;
        Ok(())
    }

    fn write_both(&mut self, slot: &[u8]) -> io::Result<()> {
        let other = 1 - self.durable;
        self.file.write_at(slot, (other * SLOT_BYTES) as u64)?;
        self.file.sync()?;
        let before = std::mem::replace(&mut self.durable, other);
        // Durable with the next mark, which goes here.
        self.file.write_at(slot, (before * SLOT_BYTES) as u64)
    }
}

/// Makes the file whole or not at all: from its first moment one of its slots is good.
fn create(files: &dyn Files, path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut bytes = slot(&Mark::default());
    bytes.resize(2 * SLOT_BYTES, 0);
    let file = files.create(&new)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    files.rename(&new, path)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn slot(mark: &Mark) -> Vec<u8> {
    let mut slot = record::seal_message(KEY, mark);
    let record_bytes = u16::try_from(slot.len()).expect("a mark is some 60 bytes").to_le_bytes();
    slot.splice(0..0, record_bytes);
    slot.resize(SLOT_BYTES, 0);
    slot
}

fn read_slot(slot: &[u8]) -> Option<Mark> {
    let (length, rest) = slot.split_first_chunk::<2>()?;
    let record = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    record::open_message(KEY, record).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SystemFiles;

    fn mark(index: u64) -> Mark {
        Mark { last: Some(LogIdRecord { term: 1, index }), ..Mark::default() }
    }

    #[test]
    fn the_newest_mark_is_read_back_and_a_torn_write_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("high-water");
        let mut file = HighWater::open(&SystemFiles, &path, true).unwrap();
        for index in 1..=5 {
            file.write(mark(index)).unwrap();
        }
        assert_eq!(HighWater::open(&SystemFiles, &path, false).unwrap().mark().last, mark(5).last);
        let next = (1 - file.durable) * SLOT_BYTES;
        file.file.write_at(&slot(&Mark { sequence: 6, ..mark(6) })[..12], next as u64).unwrap();
        assert_eq!(HighWater::open(&SystemFiles, &path, false).unwrap().mark().last, mark(5).last);
    }

    #[test]
    fn a_slot_that_is_damaged_later_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("high-water");
        for index in 1..=5 {
            HighWater::open(&SystemFiles, &path, index == 1).unwrap().write(mark(index)).unwrap();
            let good = std::fs::read(&path).unwrap();
            for at in [9, SLOT_BYTES + 9] {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                std::fs::write(&path, bytes).unwrap();
                assert_eq!(
                    HighWater::open(&SystemFiles, &path, false).unwrap().mark().last,
                    mark(index).last
                );
            }
            std::fs::write(&path, good).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_gone_empty_short_or_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("high-water");
        assert!(HighWater::open(&SystemFiles, &path, false).is_err());
        HighWater::open(&SystemFiles, &path, true).unwrap().write(mark(1)).unwrap();
        let good = std::fs::read(&path).unwrap();
        for bad in [Vec::new(), good[..700].to_vec(), vec![7; good.len()]] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(HighWater::open(&SystemFiles, &path, false), Err(Error::Storage { .. })));
        }
    }
}
