//! A snapshot: the whole state in one file, each record with its checksum, and a trailer that says it is whole.
//!
//! `PHXSNAP1`, then frames of `[length u32][record]` (see `record`), keyed by their number, so that none can be dropped,
//! doubled or moved: first the [`AppliedRecord`], then the state's records as `[space u8][key length u16][key][payload]`,
//! last the trailer with their count.

use std::{
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Error,
    files::{Files, OpenFile, Sequential},
    record::{self, AppliedRecord, BadRecord},
    state::State,
    types::LogId,
    wire,
};

const MAGIC: &[u8; 8] = b"PHXSNAP1";
const TRAILER: &[u8] = b"end";
/// The largest frame, in bytes: no record is larger than the message that brought it.
const FRAME_BYTES_MAX: usize = cluster_proto::MESSAGE_BYTES_MAX;
/// How the names of files begin that are not whole yet.
const TEMPORARY: &str = "incoming-";

/// A snapshot's file. A temporary one is deleted when the last handle to it goes.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    files: Arc<dyn Files>,
    path: PathBuf,
    temporary: bool,
}

impl SnapshotFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file, with nothing in it.
    pub(crate) fn create(&self) -> std::io::Result<Arc<dyn OpenFile>> {
        self.files.create(&self.path)
    }

    /// Opens the file, which is there.
    pub(crate) fn open(&self) -> std::io::Result<Arc<dyn OpenFile>> {
        self.files.open(&self.path)
    }

    /// Deletes the file.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        self.files.remove(&self.path)
    }

    /// Reads a whole snapshot and checks every byte of it.
    pub(crate) fn read(&self) -> Result<State, Error> {
        self.read_each(|state, space, rest, payload| state.load(space, rest, payload))
    }

    /// Checks every byte of a snapshot, and gives a state that knows how far it is and has nothing in it.
    pub(crate) fn check(&self) -> Result<State, Error> {
        self.read_each(|_, _, _, _| Ok(()))
    }

    fn read_each(
        &self,
        each: impl FnMut(&mut State, u8, &[u8], &[u8]) -> Result<(), BadRecord>,
    ) -> Result<State, Error> {
        let file = self.open().map_err(|error| Error::io(&self.path, &error))?;
        read_all(Sequential::new(file), &self.path, each)
    }
}

/// Reads a snapshot that lies anywhere, as a backup does, and checks every byte of it.
pub(crate) fn read_backup(path: &Path) -> Result<State, Error> {
    let file = std::fs::File::open(path).map_err(|error| Error::io(path, &error))?;
    read_all(file, path, |state, space, rest, payload| state.load(space, rest, payload))
}

fn read_all(
    input: impl Read,
    path: &Path,
    each: impl FnMut(&mut State, u8, &[u8], &[u8]) -> Result<(), BadRecord>,
) -> Result<State, Error> {
    let mut frames = 0_u64;
    let result = read_frames(&mut BufReader::new(input), &mut frames, each);
    result.map_err(|error| Error::damaged(path, format!("frame {frames}"), error.to_string()))
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.temporary {
            // It may never have been made, or be installed by now; a leftover is cleaned up at the next start.
            let _ = self.remove();
        }
    }
}

/// The folder with the node's own newest snapshot and those that are on their way. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Snapshots {
    files: Arc<dyn Files>,
    folder: PathBuf,
}

impl Snapshots {
    /// The snapshots in this folder, without what an earlier process left behind.
    pub(crate) fn open(files: Arc<dyn Files>, folder: PathBuf) -> Result<Self, Error> {
        for file in files.list(&folder).map_err(|error| Error::io(&folder, &error))? {
            if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY)) {
                files.remove(&file).map_err(|error| Error::io(&file, &error))?;
            }
        }
        // Whoever gave the newest its name may have been killed before that was durable.
        files.sync_folder(&folder).map_err(|error| Error::io(&folder, &error))?;
        Ok(Self { files, folder })
    }

    fn file(&self, name: impl AsRef<Path>, temporary: bool) -> SnapshotFile {
        SnapshotFile { files: self.files.clone(), path: self.folder.join(name), temporary }
    }

    /// A new file that nobody else writes to, and that is not made yet.
    pub(crate) fn temporary(&self) -> SnapshotFile {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.file(format!("{TEMPORARY}{}-{number}", std::process::id()), true)
    }

    /// The node's own newest snapshot.
    pub(crate) fn current(&self) -> Option<SnapshotFile> {
        let file = self.file("current", false);
        self.files.exists(file.path()).then_some(file)
    }

    /// How far the node's own newest snapshot is; none where there is none, or none that begins as one.
    pub(crate) fn last(&self) -> Option<LogId> {
        let mut input = Sequential::new(self.current()?.open().ok()?);
        input.read_exact(&mut [0; MAGIC.len()]).ok()?;
        let applied = read_frame(&mut input, 0).ok()?;
        <AppliedRecord as prost::Message>::decode(&applied[..]).ok()?.last.map(Into::into)
    }

    /// Writes this state as the node's own newest snapshot, durably.
    pub(crate) fn write(&self, state: &State) -> Result<SnapshotFile, Error> {
        self.adopt(self.write_aside(state)?)
    }

    /// Writes this state to a file that goes with its last handle.
    pub(crate) fn write_aside(&self, state: &State) -> Result<SnapshotFile, Error> {
        let file = self.temporary();
        file.create()
            .and_then(|out| write_frames(out, state))
            .map_err(|error| Error::io(file.path(), &error))?;
        Ok(file)
    }

    /// Makes this file the node's own newest snapshot, durably.
    pub(crate) fn adopt(&self, file: SnapshotFile) -> Result<SnapshotFile, Error> {
        let current = self.file("current", false);
        file.open()
            .and_then(|file| file.sync())
            .and_then(|()| self.files.rename(file.path(), current.path()))
            .and_then(|()| self.files.sync_folder(&self.folder))
            .map_err(|error| Error::io(current.path(), &error))?;
        Ok(current)
    }
}

fn write_frames(file: Arc<dyn OpenFile>, state: &State) -> std::io::Result<()> {
    let mut out = Writer { out: BufWriter::new(Sequential::new(file)), frames: 0 };
    out.out.write_all(MAGIC)?;
    let applied = AppliedRecord {
        last: state.applied.as_ref().map(Into::into),
        membership: Some(wire::stored_membership(&state.membership)),
        revision: state.config.revision.0,
        generation: 0,
        made_by: state.made_by,
    };
    out.frame(&prost::Message::encode_to_vec(&applied))?;
    state.records(|space, rest, payload| {
        let length = u16::try_from(rest.len()).map_err(std::io::Error::other)?;
        out.frame(&[&[space][..], &length.to_le_bytes(), rest, payload].concat())
    })?;
    let count = out.frames.to_le_bytes();
    out.frame(&[TRAILER, &count].concat())?;
    out.out.flush()
}

struct Writer {
    out: BufWriter<Sequential>,
    frames: u64,
}

impl Writer {
    fn frame(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let record = record::seal(&self.frames.to_le_bytes(), payload);
        let length = u32::try_from(record.len()).map_err(std::io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&record)?;
        self.frames += 1;
        Ok(())
    }
}

fn read_frames(
    input: &mut impl Read,
    frames: &mut u64,
    mut each: impl FnMut(&mut State, u8, &[u8], &[u8]) -> Result<(), BadRecord>,
) -> Result<State, BadRecord> {
    let bad = |what: &str| BadRecord::Payload(what.to_owned());
    let mut magic = [0; 8];
    input.read_exact(&mut magic).map_err(|_| BadRecord::Short)?;
    if magic != *MAGIC {
        return Err(bad("it is not a snapshot that this version knows"));
    }
    let first = read_frame(input, *frames)?;
    let applied =
        <AppliedRecord as prost::Message>::decode(&first[..]).map_err(|error| bad(&error.to_string()))?;
    let mut state = State::begin(applied)?;
    loop {
        *frames += 1;
        let frame = read_frame(input, *frames)?;
        if let Some(count) = frame.strip_prefix(TRAILER) {
            let whole = count == frames.to_le_bytes() && input.read(&mut [0; 1]).is_ok_and(|read| read == 0);
            return if whole {
                Ok(state)
            } else {
                Err(bad("the trailer does not match what is before or behind it"))
            };
        }
        let (space, frame) = frame.split_first().ok_or(BadRecord::Short)?;
        let (length, frame) = frame.split_first_chunk::<2>().ok_or(BadRecord::Short)?;
        let (rest, payload) =
            frame.split_at_checked(u16::from_le_bytes(*length).into()).ok_or(BadRecord::Short)?;
        each(&mut state, *space, rest, payload)?;
    }
}

fn read_frame(input: &mut impl Read, number: u64) -> Result<Vec<u8>, BadRecord> {
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(|_| BadRecord::Short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(BadRecord::Payload(format!("a frame of {length} bytes")));
    }
    let mut record = vec![0; length];
    input.read_exact(&mut record).map_err(|_| BadRecord::Short)?;
    record::open(&number.to_le_bytes(), &record).map(<[u8]>::to_vec)
}
