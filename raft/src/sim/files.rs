//! The files beside the store, as one process of a simulated node sees them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{disk::Mount, runtime::below};
use crate::{
    files::{Files, OpenFile},
    journal::kind_name,
};

/// The files of a node, by whole path.
pub(crate) struct SimFiles {
    mount: Mount,
}

struct SimFile {
    mount: Mount,
    file: u64,
    steps: &'static Steps,
}

/// What operations on a file are called.
struct Steps {
    create: &'static str,
    write: &'static str,
    sync: &'static str,
    rename: &'static str,
    remove: &'static str,
    folder_sync: &'static str,
}

static LOG: Steps = Steps {
    create: "log create",
    // What is written has a name of its own.
    write: "log write",
    sync: "log sync",
    rename: "log rename",
    remove: "log remove",
    folder_sync: "log folder sync",
};
static SNAPSHOT: Steps = Steps {
    create: "snapshot create",
    write: "snapshot write",
    sync: "snapshot sync",
    rename: "snapshot rename",
    remove: "snapshot remove",
    folder_sync: "snapshot folder sync",
};
static NEW_MARK: Steps = Steps {
    create: "new mark create",
    write: "new mark write",
    sync: "new mark sync",
    rename: "new mark rename",
    remove: "new mark remove",
    folder_sync: "folder sync",
};
static MARK: Steps = Steps { write: "mark write", sync: "mark sync", ..NEW_MARK };
static BOOT: Steps = Steps { create: "boot create", write: "boot write", remove: "boot remove", ..NEW_MARK };

/// By where it is: storage.rs says what is called what.
fn steps(path: &Path) -> &'static Steps {
    let within = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
    if within("snapshots") {
        &SNAPSHOT
    } else if within("log") {
        &LOG
    } else if within("store-boot") {
        &BOOT
    } else if path.extension().is_some() {
        &NEW_MARK
    } else {
        &MARK
    }
}

/// What this write is called: in the journal, by the kind of its first record, behind a length and a checksum.
fn write_step(steps: &'static Steps, bytes: &[u8]) -> &'static str {
    if steps.write != LOG.write {
        return steps.write;
    }
    bytes.get(9).map_or(steps.write, |kind| kind_name(*kind))
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl SimFiles {
    pub(crate) fn new(mount: Mount) -> Self {
        Self { mount }
    }

    fn file(&self, file: u64, path: &Path) -> Arc<dyn OpenFile> {
        Arc::new(SimFile { mount: self.mount.clone(), file, steps: steps(path) })
    }
}

impl fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimFiles")
    }
}

impl Files for SimFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        self.mount.find_space()?;
        let file = self.mount.operate(steps(path).create, |contents| Ok(contents.folder.create(path)))?;
        Ok(self.file(file, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        let file = self.mount.contents()?.folder.find(path).ok_or_else(missing)?;
        Ok(self.file(file, path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.mount.contents().is_ok_and(|contents| contents.folder.find(path).is_some())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let rename = steps(from).rename;
        self.mount.operate(rename, |contents| contents.folder.rename(from, to).ok_or_else(missing))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path) {
            return Err(missing());
        }
        let remove = steps(path).remove;
        self.mount.operate(remove, |contents| contents.folder.remove(path).ok_or_else(missing))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.mount.contents()?.folder.list(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let step = steps(folder).folder_sync;
        self.mount.operate(step, |contents| {
            if !contents.liar.is_some_and(|liar| liar.lies(step)) {
                contents.folder.sync_names(folder);
            }
            Ok(())
        })
    }
}

impl OpenFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let contents = self.mount.contents()?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let rest = contents.folder.bytes(self.file).get(at..).unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        if let Err(full) = self.mount.find_space() {
            // Some of it is there, as where a write comes to the end of the disk.
            let some = usize::try_from(below(bytes.len() as u64 + 1)).unwrap_or_default();
            self.mount.contents()?.folder.write(self.file, at, &bytes[..some]);
            return Err(full);
        }
        self.mount.operate(write_step(self.steps, bytes), |contents| {
            contents.folder.write(self.file, at, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.mount.operate(self.steps.sync, |contents| {
            if !contents.liar.is_some_and(|liar| liar.lies(self.steps.sync)) {
                contents.folder.sync(self.file);
            }
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.mount.contents()?.folder.bytes(self.file).len() as u64)
    }
}
