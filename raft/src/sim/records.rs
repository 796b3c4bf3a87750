//! The store of a simulated node: batches that are durable with the next barrier.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    disk::{End, Liar, Mount},
    runtime::below,
};
use crate::{
    Error,
    record::{self, AppliedRecord},
    state::APPLIED,
    store::{KeyValue, Pair, Step, Store},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the store holds.
#[derive(Default)]
pub(super) struct Records {
    durable: Map,
    /// What a reader sees.
    current: Map,
    /// Batches since the last barrier, in their order.
    pending: Vec<Vec<Step>>,
    /// What the last batch was about.
    last: &'static str,
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
    /// Loses all batches since the last barrier but for the first few, which the system has by itself.
    pub(super) fn lose(&mut self, end: End) {
        let kept = below(self.pending.len() as u64 + 1);
        self.pending.truncate(usize::try_from(kept).unwrap_or_default());
        if end == End::Power {
            self.flush();
        }
        self.current.clone_from(&self.durable);
        self.pending.iter().for_each(|batch| play(&mut self.current, batch));
    }

    fn flush(&mut self) {
        self.pending.drain(..).for_each(|batch| play(&mut self.durable, &batch));
    }

    /// What a batch is about: log.rs, state.rs and state_machine.rs say which keys there are and in which order they come.
    fn about(&self, batch: &[Step]) -> &'static str {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return "nothing" };
        match (first, last) {
            (Step::Put(key, _), _) if key[0] == b'v' => "vote",
            (Step::Put(key, _), _) if key[0] == b'l' => "append",
            (Step::Put(key, _), _) if key[0] == b'p' => "purge",
            (Step::Put(key, _) | Step::Delete(key), _) if key[0] == b'c' => "committed",
            (Step::Delete(key), _) if key[0] == b'l' => match self.last {
                "purge" | "purge entries" => "purge entries",
                _ => "truncate",
            },
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

/// The store as one process sees it.
pub(crate) struct SimStore {
    mount: Mount,
    /// As in sled's: after a failed write nothing is acknowledged any more.
    poisoned: AtomicBool,
}

impl SimStore {
    pub(crate) fn new(mount: Mount) -> Self {
        Self { mount, poisoned: AtomicBool::new(false) }
    }

    fn failed(error: &io::Error) -> Error {
        Error::io("simulated/store", error)
    }

    fn write(&self, step: &'static str, work: impl FnOnce(&mut Records, Option<Liar>)) -> Result<(), Error> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(Self::failed(&io::Error::other("an earlier write failed")));
        }
        let written = self.mount.find_space().and_then(|()| {
            self.mount.operate(step, |contents| {
                work(&mut contents.records, contents.liar);
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

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<KeyValue>, Error> {
        let contents = self.mount.contents().map_err(|error| Self::failed(&error))?;
        let last = contents.records.current.range(from.to_vec()..to.to_vec()).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn apply(&self, batch: Vec<Step>) -> Result<(), Error> {
        let about = self.mount.contents().map_err(|error| Self::failed(&error))?.records.about(&batch);
        self.write(about, |records, liar| {
            records.last = about;
            play(&mut records.current, &batch);
            if liar != Some(Liar::Step(about)) {
                records.pending.push(batch);
            }
        })
    }

    fn barrier(&self) -> Result<(), Error> {
        let pending = self.mount.contents().map_err(|error| Self::failed(&error))?.records.pending.len();
        if pending == 0 {
            // There is nothing that would need space.
            let flushed = self.mount.operate("flush", |_| Ok(()));
            return flushed.map_err(|error| Self::failed(&error));
        }
        self.write("flush", |records, liar| {
            if liar != Some(Liar::Barrier) {
                records.flush();
            }
        })
    }

    fn file(&self) -> &Path {
        Path::new("simulated/store")
    }
}
