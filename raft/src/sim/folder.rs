//! The files of a simulated node: what they hold and what they are called, durable each with a sync of its own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::runtime::{below, percent};

/// Something done to a file since its last sync.
enum Edit {
    Empty,
    Write(usize, Vec<u8>),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// In their order.
    unsynced: Vec<Edit>,
}

/// Something done to names since the last sync of their folder.
#[derive(Clone)]
enum Naming {
    Made(PathBuf, u64),
    Renamed(PathBuf, PathBuf, u64),
    Removed(PathBuf, u64),
}

type Names = BTreeMap<PathBuf, u64>;

/// Files by their number, in the order in which they were made, and their names.
#[derive(Default)]
pub(super) struct Folder {
    files: BTreeMap<u64, File>,
    made: u64,
    durable: Names,
    current: Names,
    /// In their order.
    unsynced: Vec<Naming>,
}

impl Edit {
    fn play(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Empty => bytes.clear(),
            Self::Write(at, written) => {
                let end = at + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(written);
            }
        }
    }

    /// The beginning of it alone.
    fn tear(self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Write(at, mut written) => {
                written.truncate(usize::try_from(below(written.len() as u64 + 1)).unwrap_or_default());
                Self::Write(at, written)
            }
        }
    }
}

impl Naming {
    fn play(&self, names: &mut Names) {
        match self {
            Self::Made(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Renamed(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Removed(path, file) => {
                if names.get(path) == Some(file) {
                    names.remove(path);
                }
            }
        }
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Made(path, _) | Self::Renamed(_, path, _) | Self::Removed(path, _) => path.parent(),
        }
    }
}

/// What of this survives: nothing, the first few, or each by chance, for a system may write things in any order.
fn survivors<T>(done: Vec<T>) -> Vec<T> {
    match below(3) {
        0 => Vec::new(),
        1 => {
            let kept = below(done.len() as u64 + 1);
            done.into_iter().take(usize::try_from(kept).unwrap_or_default()).collect()
        }
        _ => done.into_iter().filter(|_| percent(50)).collect(),
    }
}

impl Folder {
    pub(super) fn find(&self, path: &Path) -> Option<u64> {
        self.current.get(path).copied()
    }

    fn name(&mut self, naming: Naming) {
        naming.play(&mut self.current);
        self.unsynced.push(naming);
    }

    fn edit(&mut self, file: u64, edit: Edit) {
        if let Some(file) = self.files.get_mut(&file) {
            edit.play(&mut file.current);
            file.unsynced.push(edit);
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> u64 {
        if let Some(file) = self.find(path) {
            self.edit(file, Edit::Empty);
            return file;
        }
        self.made += 1;
        self.files.insert(self.made, File::default());
        self.name(Naming::Made(path.to_owned(), self.made));
        self.made
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Option<()> {
        let file = self.find(from)?;
        self.name(Naming::Renamed(from.to_owned(), to.to_owned(), file));
        Some(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Option<()> {
        let file = self.find(path)?;
        self.name(Naming::Removed(path.to_owned(), file));
        Some(())
    }

    /// In the order in which they were made, whatever they are called.
    pub(super) fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let here = self.current.iter().filter(|(path, _)| path.parent() == Some(folder));
        let mut files: Vec<_> = here.map(|(path, file)| (*file, path.clone())).collect();
        files.sort_unstable_by_key(|(file, _)| *file);
        files.into_iter().map(|(_, path)| path).collect()
    }

    pub(super) fn sync_names(&mut self, folder: &Path) {
        let (here, elsewhere) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|naming| naming.folder() == Some(folder));
        self.unsynced = elsewhere;
        let here: Vec<Naming> = here;
        here.iter().for_each(|naming| naming.play(&mut self.durable));
    }

    pub(super) fn bytes(&self, file: u64) -> &[u8] {
        self.files.get(&file).map(|file| &file.current[..]).unwrap_or_default()
    }

    pub(super) fn write(&mut self, file: u64, at: usize, bytes: &[u8]) {
        self.edit(file, Edit::Write(at, bytes.to_vec()));
    }

    pub(super) fn sync(&mut self, file: u64) {
        if let Some(file) = self.files.get_mut(&file) {
            file.durable.clone_from(&file.current);
            file.unsynced.clear();
        }
    }

    /// Loses what was not synced, or some of it; a write that survives may be torn.
    pub(super) fn lose_power(&mut self) {
        for naming in survivors(std::mem::take(&mut self.unsynced)) {
            naming.play(&mut self.durable);
        }
        self.current.clone_from(&self.durable);
        let named: Vec<u64> = self.current.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for file in self.files.values_mut() {
            for edit in survivors(std::mem::take(&mut file.unsynced)) {
                let edit = if percent(30) { edit.tear() } else { edit };
                edit.play(&mut file.durable);
            }
            file.current.clone_from(&file.durable);
        }
    }
}
