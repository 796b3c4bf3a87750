//! The journal: the log and the vote in segment files, each record with a checksum, an append and a sync for what is new.
//!
//! Segments are written one after the other and never again. Where a process or the power ended in mid-write, the newest
//! ends in what is no frame: the journal ends before it, and goes on in a new segment that says where this one ended. So
//! what lies behind an end is never taken for records later. Whether something is missing at an end is not for the journal
//! to know: the high-water mark tells.
//!
//! sled had this part, and does not bear writes that reach the disk out of their order (docs/adr/0011).

mod frame;
mod index;
mod open;
mod record;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[cfg(test)]
pub(crate) use self::record::kind_name;
pub(crate) use self::record::{Head, Record};
#[cfg(feature = "fuzzing")]
pub(crate) use self::{
    frame::seal as seal_frame,
    record::End,
    segment::{number as segment_number, path as segment_path},
};
use self::{
    index::{Index, Spot},
    segment::Segment,
};
use crate::{
    Error,
    files::{Files, OpenFile},
    record::{EntryV1, LogIdRecord, VoteRecord},
};

/// Bytes after which a segment is followed by the next.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// So many times in a segment's life are zeros written ahead.
const RESERVES: u64 = 16;

/// The log and the vote, on disk.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    folder: PathBuf,
    segment_bytes: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    index: Index,
    /// By their number. The last is written to.
    segments: BTreeMap<u64, Segment>,
    /// Segments that are no part of it and go with the first write: see [`Journal::begin`].
    leftovers: Vec<u64>,
    /// Where reading stopped at what is no frame, if it did.
    torn: Option<Torn>,
    /// Writes so far, and those that are durable.
    written: u64,
    synced: u64,
    /// After a failed write nothing is acknowledged any more until a restart: what is on disk is not known.
    poisoned: bool,
}

/// Where the newest segment stops being readable, and why.
#[derive(Debug, Clone)]
struct Torn {
    file: PathBuf,
    at: u64,
    reason: String,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing was ever written.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.segments.is_empty() && inner.leftovers.is_empty()
    }

    /// The file and place at which it ends, for an error about what is missing behind it.
    pub(crate) fn end(&self) -> (PathBuf, String) {
        let inner = self.lock();
        match (&inner.torn, inner.segments.values().next_back()) {
            (Some(torn), _) => (torn.file.clone(), format!("byte {} ({})", torn.at, torn.reason)),
            (None, Some(newest)) => (newest.path.clone(), format!("byte {}, its end", newest.end)),
            (None, None) => (self.folder.clone(), "the whole folder".to_owned()),
        }
    }

    /// Makes it ready for writing, once it is known that nothing is missing at its end: until then nothing on the disk was
    /// changed.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        // What a process that was killed had written is read here, and need not be on the disk yet. Nobody may be told of
        // it before it is.
        if let Some(newest) = inner.segments.values().next_back() {
            newest.file.sync().map_err(|error| Error::io(&newest.path, &error))?;
            self.files.sync_folder(&self.folder).map_err(|error| Error::io(&self.folder, &error))?;
        }
        // A number is never used again, or what was left behind under it could be taken for what follows.
        let highest = inner.segments.keys().chain(&inner.leftovers).max().copied();
        if inner.torn.take().is_some() || inner.segments.is_empty() {
            let number = match highest {
                None => 0,
                Some(highest) => highest.checked_add(1).ok_or_else(|| {
                    Error::damaged(
                        &self.folder,
                        format!("segment {highest}"),
                        "no number is left for the next",
                    )
                })?,
            };
            self.next_segment(inner, number)?;
        }
        for number in inner.leftovers.drain(..) {
            let path = segment::path(&self.folder, number);
            self.files.remove(&path).map_err(|error| Error::io(&path, &error))?;
        }
        Ok(())
    }

    fn next_segment(&self, inner: &mut Inner, number: u64) -> Result<(), Error> {
        let head = Head {
            previous: inner.segments.values().next_back().map(Segment::ends),
            vote: inner.index.vote.clone(),
            purged: inner.index.purged.clone(),
        };
        let segment = Segment::create(&*self.files, &self.folder, number, head)
            .map_err(|error| Error::io(segment::path(&self.folder, number), &error))?;
        inner.segments.insert(number, segment);
        Ok(())
    }

    /// The vote.
    pub(crate) fn vote(&self) -> Option<VoteRecord> {
        self.lock().index.vote.clone()
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<LogIdRecord> {
        self.lock().index.purged.clone()
    }

    /// The last entry, or the last one purged.
    pub(crate) fn last(&self) -> Option<LogIdRecord> {
        self.lock().index.last()
    }

    /// Calls `each` with the entries from `from` on and below `to` that are there, in their order.
    pub(crate) fn read(
        &self,
        from: u64,
        to: u64,
        mut each: impl FnMut(EntryV1) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let spots: Vec<(Spot, Arc<dyn OpenFile>)> = {
            let inner = self.lock();
            let spots = inner.index.range(from, to);
            spots
                .filter_map(|spot| Some((spot.clone(), inner.segments.get(&spot.segment)?.file.clone())))
                .collect()
        };
        spots.into_iter().try_for_each(|(spot, file)| each(self.read_entry(&spot, &*file)?))
    }

    fn read_entry(&self, spot: &Spot, file: &dyn OpenFile) -> Result<EntryV1, Error> {
        let path = segment::path(&self.folder, spot.segment);
        let mut bytes = vec![0; spot.bytes];
        let read = segment::read_all(file, &mut bytes, spot.at).map_err(|error| Error::io(&path, &error))?;
        let entry = frame::open(spot.segment, spot.at, &bytes[..read])
            .and_then(|found| found.map(|(payload, _)| Record::decode(payload)).transpose());
        match entry {
            Ok(Some(Record::Entry(entry))) => Ok(entry),
            Ok(_) => Err(self.damaged(spot, "log entry", "it is there no more")),
            Err(error) => Err(self.damaged(spot, "log entry", &error.to_string())),
        }
    }

    fn damaged(&self, spot: &Spot, what: &str, reason: &str) -> Error {
        let place = format!("{what} {} at byte {}", spot.id.index, spot.at);
        Error::damaged(segment::path(&self.folder, spot.segment), place, reason)
    }

    /// Writes these records, in one piece. Read by everyone on return; durable after the next [`Journal::barrier`].
    pub(crate) fn write(&self, records: &[Record]) -> Result<(), Error> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        self.sound(inner)?;
        let written = self.write_sound(inner, records);
        inner.poisoned |= matches!(written, Err(Error::Io { .. }));
        written
    }

    fn sound(&self, inner: &Inner) -> Result<(), Error> {
        if !inner.poisoned {
            return Ok(());
        }
        let reason = "an earlier write failed; nothing is written until a restart".to_owned();
        Err(Error::Io { file: self.folder.clone(), reason })
    }

    fn write_sound(&self, inner: &mut Inner, records: &[Record]) -> Result<(), Error> {
        let full = |segment: &Segment| segment.end >= self.segment_bytes;
        if let Some(newest) = inner.segments.values().next_back().filter(|newest| full(newest)) {
            // The next one's head says where it ends: that much of it must be there.
            newest.file.sync().map_err(|error| Error::io(&newest.path, &error))?;
            inner.synced = inner.written;
            let number = newest.number + 1;
            self.next_segment(inner, number)?;
        }
        let Some(mut newest) = inner.segments.last_entry() else {
            return Err(Error::Fatal("the journal was not begun".into()));
        };
        let newest = newest.get_mut();
        let (mut frames, mut spots) = (Vec::new(), Vec::with_capacity(records.len()));
        for record in records {
            let at = newest.end + frames.len() as u64;
            let frame = record.encode().and_then(|payload| frame::seal(newest.number, at, &payload));
            let frame = frame
                .map_err(|error| Error::damaged(&newest.path, format!("byte {at}"), error.to_string()))?;
            spots.push((at, frame.len()));
            frames.extend_from_slice(&frame);
        }
        newest
            .append(&frames, (self.segment_bytes / RESERVES).max(1))
            .map_err(|error| Error::io(&newest.path, &error))?;
        inner.written += 1;
        for (record, (at, bytes)) in records.iter().zip(spots) {
            if let Record::Entry(entry) = record {
                newest.last = newest.last.max(Some(entry.index));
            }
            inner
                .index
                .play(record, newest.number, at, bytes)
                .map_err(|error| Error::damaged(&newest.path, format!("byte {at}"), error.to_string()))?;
        }
        Ok(())
    }

    /// Returns when everything written before is on the disk.
    pub(crate) fn barrier(&self) -> Result<(), Error> {
        let (file, path, written) = {
            let inner = self.lock();
            self.sound(&inner)?;
            match inner.segments.values().next_back() {
                Some(newest) if inner.synced < inner.written => {
                    (newest.file.clone(), newest.path.clone(), inner.written)
                }
                _ => return Ok(()),
            }
        };
        let synced = file.sync();
        let mut inner = self.lock();
        inner.poisoned |= synced.is_err();
        inner.synced = inner.synced.max(written);
        synced.map_err(|error| Error::io(path, &error))
    }

    /// Removes the segments in which every entry is purged, once that they are is durable.
    pub(crate) fn forget_purged(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        let Some(purged) = inner.index.purged.as_ref().map(|purged| purged.index) else { return Ok(()) };
        while inner.segments.len() > 1
            && let Some(oldest) = inner.segments.first_entry()
            && oldest.get().last <= Some(purged)
        {
            let oldest = oldest.remove();
            self.files.remove(&oldest.path).map_err(|error| Error::io(&oldest.path, &error))?;
        }
        Ok(())
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}
