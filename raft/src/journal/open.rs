//! Reading the journal that is there.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{
    Inner, Journal, Torn, frame,
    index::Index,
    record::{Head, Record},
    segment::{self, Segment},
};
use crate::{Error, files::Files, record::BadRecord};

impl Journal {
    /// Reads the journal in this folder, or begins there. Changes nothing on the disk: see [`Journal::begin`].
    ///
    /// # Errors
    /// [`Error::Storage`] where a segment that is followed by another is not whole, or entries are missing in the middle.
    pub(crate) fn open(files: Arc<dyn Files>, folder: PathBuf, segment_bytes: u64) -> Result<Self, Error> {
        let there = files.list(&folder).map_err(|error| Error::io(&folder, &error))?;
        let mut numbers: Vec<u64> = there.iter().filter_map(|path| segment::number(path)).collect();
        numbers.sort_unstable();
        let mut found = Found { files: &*files, folder: &folder, torn: None };
        let chain = found.chain(&numbers)?;
        let mut index = chain.first().map(|(_, head)| Index::before(head.clone())).unwrap_or_default();
        let mut segments = BTreeMap::new();
        let ends: Vec<Option<u64>> =
            chain.iter().skip(1).map(|(_, head)| Some(head.previous.as_ref()?.at)).collect();
        for (place, (mut segment, _)) in chain.into_iter().enumerate() {
            found.read(&mut segment, &mut index, ends.get(place).copied().flatten())?;
            segments.insert(segment.number, segment);
        }
        if let Some((from, to)) = index.gap() {
            let place = format!("log entries {from} to {to}");
            return Err(Error::damaged(&folder, place, "they are gone: is a segment missing?"));
        }
        let torn = found.torn;
        let leftovers = numbers.into_iter().filter(|number| !segments.contains_key(number)).collect();
        let inner = Inner { index, segments, leftovers, torn, written: 0, synced: 0, poisoned: false };
        Ok(Self { files, folder, segment_bytes, inner: Mutex::new(inner) })
    }
}

/// What is in the journal's folder, as it is read.
struct Found<'a> {
    files: &'a dyn Files,
    folder: &'a PathBuf,
    torn: Option<Torn>,
}

impl Found<'_> {
    fn open(&self, number: u64) -> Result<(Segment, Result<Head, BadRecord>), Error> {
        let io = |error| Error::io(segment::path(self.folder, number), &error);
        let segment = Segment::open(self.files, self.folder, number).map_err(io)?;
        let head = segment.head().map_err(io)?;
        Ok((segment, head))
    }

    /// The newest segment that was made whole, and those before it that are still there, the oldest first.
    fn chain(&mut self, numbers: &[u64]) -> Result<Vec<(Segment, Head)>, Error> {
        let mut chain = Vec::new();
        let mut next = None;
        for number in numbers.iter().rev() {
            let (segment, head) = self.open(*number)?;
            match head {
                Ok(head) => {
                    next = before(&segment, &head)?;
                    chain.push((segment, head));
                    break;
                }
                // Its maker ended before it was durable, and wrote nothing else to it.
                Err(error) => {
                    self.torn = Some(Torn { file: segment.path, at: 0, reason: error.to_string() });
                }
            }
        }
        while let Some(number) = next.filter(|number| numbers.contains(number)) {
            let (segment, head) = self.open(number)?;
            let head = head.map_err(|error| Error::damaged(&segment.path, "byte 0", error.to_string()))?;
            next = before(&segment, &head)?;
            chain.push((segment, head));
        }
        chain.reverse();
        Ok(chain)
    }

    /// Plays the records of a segment, up to byte `end` where the one behind it says so, else as far as they are good.
    fn read(&mut self, segment: &mut Segment, index: &mut Index, end: Option<u64>) -> Result<(), Error> {
        let bytes = segment.bytes().map_err(|error| Error::io(&segment.path, &error))?;
        loop {
            let at = segment.end;
            if end == Some(at) {
                return Ok(());
            }
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let stop = match frame::open(segment.number, at, rest) {
                Ok(Some((payload, length))) => {
                    let played = Record::decode(payload).and_then(|record| {
                        index.play(&record, segment.number, at, length)?;
                        Ok(record)
                    });
                    match played {
                        Ok(record) => {
                            if let Record::Entry(entry) = record {
                                segment.last = segment.last.max(Some(entry.index));
                            }
                            segment.end += length as u64;
                            continue;
                        }
                        // It was written whole, and is wrong: no crash does that.
                        Err(error) => return Err(damaged(segment, &error.to_string())),
                    }
                }
                Ok(None) if frame::is_zero(rest) => None,
                Ok(None) => Some("there is more behind its end".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            match (stop, end) {
                (stop, Some(end)) => {
                    let reason = stop.unwrap_or_else(|| format!("it ends, and went on up to byte {end}"));
                    return Err(damaged(segment, &reason));
                }
                (Some(reason), None) => {
                    self.torn.get_or_insert(Torn { file: segment.path.clone(), at, reason });
                    return Ok(());
                }
                (None, None) => return Ok(()),
            }
        }
    }
}

/// The segment that this one follows. Numbers rise, or whoever goes back from head to head might never come to an end.
fn before(segment: &Segment, head: &Head) -> Result<Option<u64>, Error> {
    let before = head.previous.as_ref().map(|end| end.segment);
    match before.filter(|before| *before >= segment.number) {
        Some(before) => Err(damaged(segment, &format!("it says that it follows segment {before}"))),
        None => Ok(before),
    }
}

fn damaged(segment: &Segment, reason: &str) -> Error {
    Error::damaged(&segment.path, format!("byte {}", segment.end), reason)
}
