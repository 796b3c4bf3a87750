//! A disk that forgets what was not flushed, and that crashes its node at a step of the simulator's choice.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::runtime::below;
use crate::{
    Error,
    store::{KeyValue, Pair, Step, Store},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What happens at a disk, counted by the kind of its record.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

#[derive(Default)]
struct Contents {
    durable: Map,
    /// What a reader sees.
    current: Map,
    /// Batches since the last barrier, in their order.
    pending: Vec<Vec<Step>>,
    /// The operation, counted from now, at which the power goes.
    fuse: Option<u64>,
    /// Where the power went.
    blown: Counts,
    /// A barrier says that it was one, and was none.
    skips_barriers: bool,
}

/// One node's disk, which outlives the node's process.
#[derive(Default)]
pub(crate) struct Disk {
    contents: Mutex<Contents>,
}

fn play(map: &mut Map, batch: &[Step]) {
    for step in batch {
        match step {
            Step::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Step::Delete(key) => drop(map.remove(key)),
        }
    }
}

/// What a batch is about, by its first record: log.rs and state.rs say which keys there are.
fn about(batch: &[Step]) -> &'static str {
    match batch.first() {
        Some(Step::Put(key, _)) => match key[0] {
            b'v' => "vote",
            b'l' => "append",
            b'p' => "purge",
            b'c' => "committed",
            _ => "apply",
        },
        Some(Step::Delete(key)) if key[0] == b'l' => "truncate or purge",
        Some(Step::Delete(_)) => "apply",
        None => "nothing",
    }
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Loses what was not flushed, but for the first few batches of it, which the system may have written by itself.
    pub(crate) fn lose_power(&self) {
        let mut contents = self.lock();
        let Contents { durable, current, pending, fuse, .. } = &mut *contents;
        let kept = below(pending.len() as u64 + 1);
        for batch in pending.drain(..).take(usize::try_from(kept).unwrap_or_default()) {
            play(durable, &batch);
        }
        current.clone_from(durable);
        *fuse = None;
    }

    /// Has the power go at this operation, counted from now.
    pub(crate) fn set_fuse(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    /// Has every barrier be none from now on: a fault that the checks must find.
    pub(crate) fn skip_barriers(&self) {
        self.lock().skips_barriers = true;
    }

    /// How often the power went where.
    pub(crate) fn blown(&self) -> Counts {
        self.lock().blown.clone()
    }
}

/// The disk as one process of its node sees it: from its end on, nothing is read or written.
pub(crate) struct SimStore {
    pub(crate) disk: Arc<Disk>,
    pub(crate) alive: Arc<AtomicBool>,
}

impl SimStore {
    fn gone() -> Error {
        Error::Io { file: "simulated".into(), reason: "the power is gone".into() }
    }

    fn contents(&self) -> Result<MutexGuard<'_, Contents>, Error> {
        if self.alive.load(Ordering::SeqCst) { Ok(self.disk.lock()) } else { Err(Self::gone()) }
    }

    /// One operation: `work`, unless the power goes before it; or the power goes after it, and nobody is told.
    fn operate(&self, what: &'static str, work: impl FnOnce(&mut Contents)) -> Result<(), Error> {
        let mut contents = self.contents()?;
        contents.fuse = contents.fuse.map(|left| left.saturating_sub(1));
        let blows = contents.fuse == Some(0);
        if !blows || below(2) == 0 {
            work(&mut contents);
        }
        if blows {
            *contents.blown.entry(what).or_default() += 1;
            self.alive.store(false, Ordering::SeqCst);
            return Err(Self::gone());
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.contents()?.current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_> {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        match self.contents() {
            Ok(contents) => {
                let found = contents.current.range(from.to_vec()..to.to_vec());
                let found: Vec<Pair> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
                Box::new(found.into_iter())
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<KeyValue>, Error> {
        let contents = self.contents()?;
        let last = contents.current.range(from.to_vec()..to.to_vec()).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn apply(&self, batch: Vec<Step>) -> Result<(), Error> {
        self.operate(about(&batch), |contents| {
            play(&mut contents.current, &batch);
            contents.pending.push(batch);
        })
    }

    fn barrier(&self) -> Result<(), Error> {
        self.operate("flush", |contents| {
            if contents.skips_barriers {
                return;
            }
            for batch in std::mem::take(&mut contents.pending) {
                play(&mut contents.durable, &batch);
            }
        })
    }

    fn file(&self) -> &Path {
        Path::new("simulated")
    }
}
