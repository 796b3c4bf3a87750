//! The store of a simulated node: batches of which the last may go with the process, and any with the power.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    disk::{End, Mount},
    runtime::{below, percent},
};
use crate::{
    Error,
    record::{self, AppliedRecord},
    state::APPLIED,
    store::{Pair, Step, Store, Stores},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the store holds.
#[derive(Default)]
pub(super) struct Records {
    /// What the system was given.
    given: Map,
    /// What a reader sees.
    current: Map,
    /// Batches that the system was not given yet, in their order.
    pending: Vec<Vec<Step>>,
}

fn play(map: &mut Map, batch: &[Step]) {
    for step in batch {
        match step {
            Step::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
            Step::Delete(key) => drop(map.remove(key)),
        }
    }
}

impl Records {
    /// Loses the last batches with their process; with the power, any of them.
    pub(super) fn lose(&mut self, end: End) {
        let kept = below(self.pending.len() as u64 + 1);
        for (batch, number) in self.pending.drain(..).zip(0..) {
            if if end == End::Power { percent(50) } else { number < kept } {
                play(&mut self.given, &batch);
            }
        }
        self.current.clone_from(&self.given);
    }

    /// What a batch is about: state.rs and state_machine.rs say which keys there are and in which order they come.
    fn about(&self, batch: &[Step]) -> &'static str {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return "nothing" };
        match (first, last) {
            (Step::Put(key, value), _) if key == APPLIED => {
                let old = self.current.get(APPLIED).map(|value| generation(value));
                if old.is_some_and(|old| old != generation(value)) { "install switch" } else { "apply" }
            }
            (_, Step::Put(key, _)) if key == APPLIED => "apply",
            (_, Step::Put(..)) => "install records",
            (_, Step::Delete(_)) => "forget records",
        }
    }
}

fn generation(applied: &[u8]) -> u32 {
    let applied: AppliedRecord =
        record::open_message(APPLIED, applied).expect("a record that was just sealed");
    applied.generation
}

/// The place of a node's store.
pub(crate) struct SimStores {
    pub(crate) mount: Mount,
}

impl Stores for SimStores {
    fn open(&self) -> Result<Arc<dyn Store>, Error> {
        Ok(Arc::new(SimStore::new(self.mount.clone())))
    }

    fn make(&self) -> Result<Arc<dyn Store>, Error> {
        let made = self.mount.operate("store make", |contents| {
            contents.records = Records::default();
            Ok(())
        });
        made.map_err(|error| SimStore::failed(&error))?;
        self.open()
    }
}

/// The store as one process sees it.
struct SimStore {
    mount: Mount,
    /// As in sled's: after a failed write nothing is written any more.
    poisoned: AtomicBool,
}

impl SimStore {
    fn new(mount: Mount) -> Self {
        Self { mount, poisoned: AtomicBool::new(false) }
    }

    fn failed(error: &io::Error) -> Error {
        Error::io("simulated/store", error)
    }

    fn write(&self, step: &'static str, work: impl FnOnce(&mut Records)) -> Result<(), Error> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(Self::failed(&io::Error::other("an earlier write failed")));
        }
        let written = self.mount.find_space().and_then(|()| {
            self.mount.operate(step, |contents| {
                work(&mut contents.records);
                Ok(())
            })
        });
        written.map_err(|error| {
            self.poisoned.store(true, Ordering::SeqCst);
            Self::failed(&error)
        })
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let contents = self.mount.contents().map_err(|error| Self::failed(&error))?;
        Ok(contents.records.current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_> {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        match self.mount.contents() {
            Ok(contents) => {
                let found = contents.records.current.range(from.to_vec()..to.to_vec());
                let found: Vec<Pair> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
                Box::new(found.into_iter())
            }
            Err(error) => Box::new(std::iter::once(Err(Self::failed(&error)))),
        }
    }

    fn apply(&self, batch: Vec<Step>) -> Result<(), Error> {
        let about = self.mount.contents().map_err(|error| Self::failed(&error))?.records.about(&batch);
        self.write(about, |records| {
            play(&mut records.current, &batch);
            records.pending.push(batch);
        })
    }

    fn file(&self) -> &Path {
        Path::new("simulated/store")
    }
}
