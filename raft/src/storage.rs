//! Everything that this node has on disk, opened and checked before any network.

use std::{path::Path, sync::Arc};

use model::{Config, cluster::Cluster};
use tokio::sync::watch;

use crate::{
    Error,
    files::{Files, SystemFiles},
    log::Log,
    snapshot::Snapshots,
    state::State,
    state_machine::StateMachine,
    store::{
        Store,
        high_water::{HighWater, Mark},
        sled::SledStore,
    },
    sync::{Syncer, Worker},
    types::term,
};

/// Everything that this node has on disk: the log, the state that it amounts to, and how far it was.
///
/// In `DIR/store` sled, in `DIR/high-water` the mark that it may not be behind, in `DIR/snapshots` the newest snapshot.
pub struct Storage {
    pub(crate) log: Log,
    pub(crate) state_machine: StateMachine,
    pub(crate) snapshots: Snapshots,
}

impl Storage {
    /// Refuses a folder whose store is gone, for a node that is known to have taken part: begun anew, it could vote twice.
    ///
    /// # Errors
    /// [`Error::Storage`] where there is no store.
    pub fn must_be_there(dir: &Path) -> Result<(), Error> {
        let store = dir.join("store");
        if store.exists() {
            return Ok(());
        }
        Err(Error::damaged(store, "the whole folder", "it is gone, and this node is a member of a cluster"))
    }

    /// Opens what is in this folder, or begins there.
    ///
    /// # Errors
    /// [`Error::Storage`] where a file is damaged, foreign, or older than what this node acknowledged: then the node must not
    /// start, let alone vote. [`Error::Io`] where a file can't be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let store_dir = dir.join("store");
        let high_water = dir.join("high-water");
        let fresh = !store_dir.exists();
        if fresh && high_water.exists() {
            return Err(Error::damaged(
                store_dir,
                "the whole folder",
                "it is gone, and the high-water file is not",
            ));
        }
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
        let store = Arc::new(SledStore::open(&store_dir)?);
        let (storage, worker) = Self::open_over(store, Arc::new(SystemFiles), dir)?;
        worker.start()?;
        Ok(storage)
    }

    /// [`Storage::open`] over another store and other files; with it, what makes its writes durable.
    pub(crate) fn open_over(
        store: Arc<dyn Store>,
        files: Arc<dyn Files>,
        dir: &Path,
    ) -> Result<(Self, Worker), Error> {
        // What a process that was killed had written is read here, and need not be on the disk yet. Nobody may be told of it
        // before it is.
        store.barrier()?;
        let snapshots = Snapshots::open(files.clone(), dir.join("snapshots"))?;
        let empty = store.scan(&[0], &[0xff]).next().is_none();
        let high_water = HighWater::open(&*files, &dir.join("high-water"), empty)?;
        let state = StateMachine::load(&*store)?;
        StateMachine::forget_generations_but(&*store, state.generation)?;
        let mark = high_water.mark().clone();
        let applied = state.applied.as_ref().map(|id| id.index);
        let (syncer, worker) = Syncer::new(store.clone(), high_water);
        let log = Log::new(store.clone(), syncer.clone());
        check_mark(&log, applied, &mark, store.file())?;
        cover_the_log(&log, &state, &snapshots)?;
        let state_machine = StateMachine::new(store, syncer, snapshots.clone(), state);
        Ok((Self { log, state_machine, snapshots }, worker))
    }

    /// The config as it is applied here: at once after opening, and whenever it changes.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.state_machine.config()
    }

    /// What the members agree on besides.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.state_machine.cluster()
    }
}

/// Writes a snapshot where what the log lacks is in none: a crash came between the state of an installed snapshot and its
/// file. Without it this node, as leader, could bring no one up who needs those entries.
fn cover_the_log(log: &Log, state: &State, snapshots: &Snapshots) -> Result<(), Error> {
    let lacked = if state.applied > log.last()? { state.applied } else { log.purged()? };
    if lacked > snapshots.last() {
        snapshots.write(state)?;
    }
    Ok(())
}

/// A store behind its mark has lost what was acknowledged, whether or not it looks consistent.
fn check_mark(log: &Log, applied: Option<u64>, mark: &Mark, file: &Path) -> Result<(), Error> {
    let behind = |what: String| {
        let reason =
            format!("{what}: it lost writes that this node acknowledged, which high-water beside it shows");
        Err(Error::damaged(file, "its end", reason))
    };
    if let Some(want) = &mark.vote {
        let have = log.vote()?.unwrap_or_default();
        if (have.term, have.committed) < (want.term, want.committed) {
            return behind(format!("its vote is of term {}, and was of term {}", have.term, want.term));
        }
    }
    if let Some(want) = &mark.last {
        let last = log.last()?;
        let (have_term, have) = last.as_ref().map_or((0, None), |id| (term(id), Some(id.index)));
        if have < Some(want.index) || have_term < want.term {
            let have = have.map_or("is empty".to_owned(), |index| format!("ends at {index}"));
            return behind(format!("its log {have}, and ended at {}", want.index));
        }
    }
    if applied < mark.applied {
        return behind(format!("it has applied {applied:?}, and had applied {:?}", mark.applied));
    }
    Ok(())
}
