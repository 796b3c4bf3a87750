//! One file of the journal.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    frame,
    record::{End, Head, Record},
};
use crate::{
    files::{Files, OpenFile},
    record::BadRecord,
};

/// A head is some 100 bytes.
const HEAD_BYTES_MAX: usize = 1_024;

/// One file of the journal: frames, a [`Head`] first, and zeros behind them.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn OpenFile>,
    /// The byte behind its last frame.
    pub(super) end: u64,
    /// Up to where it is zeros behind that.
    reserved: u64,
    /// The highest index of an entry in it.
    pub(super) last: Option<u64>,
}

/// The number of the segment of this name.
pub(crate) fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Where the segment of this number is.
pub(crate) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.log"))
}

impl Segment {
    /// Makes a segment, durably and with its name.
    pub(super) fn create(files: &dyn Files, folder: &Path, number: u64, head: Head) -> io::Result<Self> {
        let path = path(folder, number);
        let file = files.create(&path)?;
        let mut segment = Self { number, path, file, end: 0, reserved: 0, last: None };
        let payload = Record::Head(head).encode().map_err(io::Error::other)?;
        let head = frame::seal(number, 0, &payload).map_err(io::Error::other)?;
        segment.append(&head, head.len() as u64)?;
        segment.file.sync()?;
        files.sync_folder(folder)?;
        Ok(segment)
    }

    /// Opens a segment that is there; what is in it is not known yet.
    pub(super) fn open(files: &dyn Files, folder: &Path, number: u64) -> io::Result<Self> {
        let path = path(folder, number);
        let file = files.open(&path)?;
        let reserved = file.length()?;
        Ok(Self { number, path, file, end: 0, reserved, last: None })
    }

    /// Its head, or why that can't be read.
    pub(super) fn head(&self) -> io::Result<Result<Head, BadRecord>> {
        let mut bytes = vec![0; HEAD_BYTES_MAX];
        let length = read_all(&*self.file, &mut bytes, 0)?;
        let payload = frame::open(self.number, 0, &bytes[..length]);
        Ok(payload.and_then(|found| match found.map(|(payload, _)| Record::decode(payload)).transpose()? {
            Some(Record::Head(head)) => Ok(head),
            _ => Err(BadRecord::Payload("it does not begin with a head".into())),
        }))
    }

    /// Everything in it.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.file.length()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let read = read_all(&*self.file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes these frames behind the last, and zeros up to the next multiple of `reserve` where it comes to the end of
    /// those that are there: a sync is quicker where a file keeps its length.
    pub(super) fn append(&mut self, frames: &[u8], reserve: u64) -> io::Result<()> {
        let end = self.end + frames.len() as u64;
        if end > self.reserved {
            let reserved = end.next_multiple_of(reserve);
            let mut bytes = frames.to_vec();
            bytes.resize(usize::try_from(reserved - self.end).map_err(io::Error::other)?, 0);
            self.file.write_at(&bytes, self.end)?;
            self.reserved = reserved;
        } else {
            self.file.write_at(frames, self.end)?;
        }
        self.end = end;
        Ok(())
    }

    /// Where it ends.
    pub(super) fn ends(&self) -> End {
        End { segment: self.number, at: self.end }
    }
}

/// Reads until the buffer is full or the file ends; gives the bytes read.
pub(super) fn read_all(file: &dyn OpenFile, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}
