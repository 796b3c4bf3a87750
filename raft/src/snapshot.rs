//! A snapshot: the whole state in one file, each record with its checksum, and a trailer that says it is whole.
//!
//! `PHXSNAP1`, then frames of `[length u32][record]` (see `record`), keyed by their number, so that none can be dropped,
//! doubled or moved: first the [`AppliedRecord`], then the state's records as `[space u8][key length u16][key][payload]`,
//! last the trailer with their count.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Error,
    record::{self, AppliedRecord, BadRecord},
    state::State,
    store::high_water::sync_folder,
    types::LogId,
    wire,
};

const MAGIC: &[u8; 8] = b"PHXSNAP1";
const TRAILER: &[u8] = b"end";
/// The largest frame, in bytes: no record is larger than the message that brought it.
const FRAME_BYTES_MAX: usize = cluster_proto::MESSAGE_BYTES_MAX;

/// A snapshot's file. A temporary one is deleted when the last handle to it goes.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    temporary: bool,
}

impl SnapshotFile {
    /// A new file in this folder that nobody else writes to.
    pub(crate) fn temporary(folder: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("incoming-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { path: folder.join(name), temporary: true }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.temporary {
            // It may never have been made, or be installed by now; a leftover is cleaned up at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Deletes what an earlier process left behind.
pub(crate) fn clean(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, &error))?;
    let files = std::fs::read_dir(folder).map_err(|error| Error::io(folder, &error))?;
    for file in files.flatten() {
        if file.file_name().to_string_lossy().starts_with("incoming-") {
            std::fs::remove_file(file.path()).map_err(|error| Error::io(file.path(), &error))?;
        }
    }
    Ok(())
}

/// The node's own newest snapshot.
pub(crate) fn current(folder: &Path) -> Option<SnapshotFile> {
    let path = folder.join("current");
    path.exists().then_some(SnapshotFile { path, temporary: false })
}

/// How far the node's own newest snapshot is; none where there is none, or none that begins as one.
pub(crate) fn last(folder: &Path) -> Option<LogId> {
    let mut input = File::open(current(folder)?.path()).ok()?;
    input.read_exact(&mut [0; MAGIC.len()]).ok()?;
    let applied = read_frame(&mut input, 0).ok()?;
    <AppliedRecord as prost::Message>::decode(&applied[..]).ok()?.last.map(Into::into)
}

/// Writes this state as the node's own newest snapshot, durably.
pub(crate) fn write(folder: &Path, state: &State) -> Result<SnapshotFile, Error> {
    let file = SnapshotFile::temporary(folder);
    let failed = |error: std::io::Error| Error::io(file.path(), &error);
    let mut out = Writer { out: BufWriter::new(File::create(file.path()).map_err(failed)?), frames: 0 };
    out.out.write_all(MAGIC).map_err(failed)?;
    let applied = AppliedRecord {
        last: state.applied.as_ref().map(Into::into),
        membership: Some(wire::stored_membership(&state.membership)),
        revision: state.config.revision.0,
        generation: 0,
    };
    out.frame(&prost::Message::encode_to_vec(&applied)).map_err(failed)?;
    state
        .records(|space, rest, payload| {
            let length = u16::try_from(rest.len()).map_err(std::io::Error::other)?;
            out.frame(&[&[space][..], &length.to_le_bytes(), rest, payload].concat())
        })
        .map_err(failed)?;
    let count = out.frames.to_le_bytes();
    out.frame(&[TRAILER, &count].concat()).map_err(failed)?;
    out.out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    adopt(folder, file)
}

/// Makes this file the node's own newest snapshot, durably.
pub(crate) fn adopt(folder: &Path, file: SnapshotFile) -> Result<SnapshotFile, Error> {
    let path = folder.join("current");
    let failed = |error: std::io::Error| Error::io(&path, &error);
    File::open(file.path()).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(file.path(), &path).map_err(failed)?;
    sync_folder(&path)?;
    Ok(SnapshotFile { path, temporary: false })
}

struct Writer {
    out: BufWriter<File>,
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

/// Reads a whole snapshot and checks every byte of it.
pub(crate) fn read(path: &Path) -> Result<State, Error> {
    read_each(path, |state, space, rest, payload| state.load(space, rest, payload))
}

/// Checks every byte of a snapshot, and gives a state that knows how far it is and has nothing in it.
pub(crate) fn check(path: &Path) -> Result<State, Error> {
    read_each(path, |_, _, _, _| Ok(()))
}

fn read_each(
    path: &Path,
    each: impl FnMut(&mut State, u8, &[u8], &[u8]) -> Result<(), BadRecord>,
) -> Result<State, Error> {
    let mut input = BufReader::new(File::open(path).map_err(|error| Error::io(path, &error))?);
    let mut frames = 0_u64;
    let result = read_frames(&mut input, &mut frames, each);
    result.map_err(|error| Error::damaged(path, format!("frame {frames}"), error.to_string()))
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
