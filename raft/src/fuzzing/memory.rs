//! A store and files in memory, that forget with their owner.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Error,
    files::{Files, OpenFile},
    store::{Pair, Step, Store},
};

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
pub(super) struct MemoryStore(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(lock(&self.0).get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_> {
        let pairs = lock(&self.0);
        let range = pairs.range(from.to_vec()..to.to_vec());
        let found: Vec<Pair> = range.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        Box::new(found.into_iter())
    }

    fn apply(&self, batch: Vec<Step>) -> Result<(), Error> {
        let mut pairs = lock(&self.0);
        for step in batch {
            match step {
                Step::Put(key, value) => drop(pairs.insert(key, value)),
                Step::Delete(key) => drop(pairs.remove(&key)),
            }
        }
        Ok(())
    }

    fn file(&self) -> &Path {
        Path::new("memory")
    }
}

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
pub(super) struct MemoryFiles(Mutex<BTreeMap<PathBuf, Bytes>>);

impl MemoryFiles {
    /// Makes a file of these bytes.
    pub(super) fn put(&self, path: &Path, bytes: &[u8]) {
        lock(&self.0).insert(path.to_owned(), Arc::new(Mutex::new(bytes.to_vec())));
    }

    /// What is in a file.
    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        lock(&self.0).get(path).map(|bytes| lock(bytes).clone()).unwrap_or_default()
    }
}

struct MemoryFile(Bytes);

impl OpenFile for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let file = lock(&self.0);
        let rest = usize::try_from(at).ok().and_then(|at| file.get(at..)).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut file = lock(&self.0);
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let end = at + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[at..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        self.put(path, &[]);
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        let files = lock(&self.0);
        let bytes = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile(bytes.clone())))
    }

    fn exists(&self, path: &Path) -> bool {
        lock(&self.0).contains_key(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(lock(&self.0).keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
