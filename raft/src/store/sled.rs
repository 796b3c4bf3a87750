//! The store over sled 0.34: one tree, and atomic batches.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Pair, Step, Store, Stores};
use crate::Error;

/// Bytes of sled's page cache: what is read often is in memory anyway, as the config.
const CACHE_BYTES: u64 = 8 << 20;

/// The folder of a node's store.
pub(crate) struct SledStores(pub(crate) PathBuf);

impl Stores for SledStores {
    fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(SledStore::open(&self.0)?))
    }

    fn make(&self) -> Result<Arc<dyn Store>, Error> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&self.0, &error)),
            _ => self.open(),
        }
    }
}

/// The store over sled.
pub(crate) struct SledStore {
    db: sled::Db,
    file: PathBuf,
    /// After a failed write nothing is written any more until a restart: what is on disk is not known.
    poisoned: AtomicBool,
}

impl SledStore {
    /// Opens the store in this folder, or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let file = dir.join("db");
        let failed = |error: sled::Error| match error {
            // Another process has it, or the disk can't be read: no sign of damage.
            sled::Error::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Error::io(&file, &error)
            }
            error => Error::damaged(&file, "opening it", error.to_string()),
        };
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .open()
            .map_err(failed)?;
        Ok(Self { db, file, poisoned: AtomicBool::new(false) })
    }

    fn failed(&self, doing: &str, error: &dyn std::fmt::Display) -> Error {
        Error::damaged(&self.file, doing, error.to_string())
    }

    fn poison(&self, doing: &str, error: &dyn std::fmt::Display) -> Error {
        self.poisoned.store(true, Ordering::SeqCst);
        // A full disk most often, and no sign of damage to what is there.
        Error::Io { file: self.file.clone(), reason: format!("{doing}: {error}") }
    }

    fn sound(&self) -> Result<(), Error> {
        if self.poisoned.load(Ordering::SeqCst) {
            let reason = "an earlier write failed; nothing is written until a restart".to_owned();
            return Err(Error::Io { file: self.file.clone(), reason });
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.db.get(key).map_err(|error| self.failed("reading", &error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_> {
        Box::new(self.db.range(from..to).map(|pair| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .map_err(|error| self.failed("scanning", &error))
        }))
    }

    fn apply(&self, steps: Vec<Step>) -> Result<(), Error> {
        self.sound()?;
        let mut batch = sled::Batch::default();
        for step in steps {
            match step {
                Step::Put(key, value) => batch.insert(key, value),
                Step::Delete(key) => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|error| self.poison("writing", &error))
    }

    fn file(&self) -> &Path {
        &self.file
    }
}
