//! Everything that this node has on disk, opened and checked before any network.

use std::{path::Path, sync::Arc};

use model::{Config, Usage, cluster::Cluster};
use tokio::sync::watch;

use crate::{
    Error,
    boot::{self, Boot},
    files::{Files, SystemFiles},
    high_water::{HighWater, Mark},
    journal::{Journal, SEGMENT_BYTES},
    log::{self, Log},
    snapshot::Snapshots,
    state::State,
    state_machine::StateMachine,
    store::{Store, Stores, sled::SledStores},
    sync::{Syncer, Worker},
    types::LogId,
};

/// Replayed entries that share one batch in the store.
const REPLAY_BATCH: usize = 256;

/// Everything that this node has on disk: the log, the state that it amounts to, and how far it was.
///
/// `DIR/log` is the journal with the log and the vote, `DIR/snapshots` has the newest snapshot, `DIR/high-water` is the mark
/// that they may not be behind. `DIR/store` is sled with the state as it is applied, and `DIR/store-boot` says under which boot of
/// the machine it was made: after another, or where it is damaged, it is made anew from the other two.
pub struct Storage {
    pub(crate) log: Log,
    pub(crate) state_machine: StateMachine,
    pub(crate) snapshots: Snapshots,
}

/// What a storage is opened over, but for its folder.
pub(crate) struct Ground {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) stores: Arc<dyn Stores>,
    /// Which boot of the machine this is.
    pub(crate) boot: Option<String>,
    pub(crate) segment_bytes: u64,
}

impl Storage {
    /// Refuses a folder whose log is gone, for a node that is known to have taken part: begun anew, it could vote twice.
    ///
    /// # Errors
    /// [`Error::Storage`] where there is no log.
    pub fn must_be_there(dir: &Path) -> Result<(), Error> {
        let log = dir.join("log");
        if log.exists() {
            return Ok(());
        }
        Err(Error::damaged(log, "the whole folder", "it is gone, and this node is a member of a cluster"))
    }

    /// Opens what is in this folder, or begins there. One process at a time.
    ///
    /// # Errors
    /// [`Error::Storage`] where a file is damaged, foreign, or older than what this node acknowledged: then the node must not
    /// start, let alone vote. [`Error::Io`] where a file can't be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if !dir.exists() {
            std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
            let parent =
                dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            SystemFiles.sync_folder(parent).map_err(|error| Error::io(parent, &error))?;
        }
        let ground = Ground {
            files: Arc::new(SystemFiles),
            stores: Arc::new(SledStores(dir.join("store"))),
            boot: boot::current(),
            segment_bytes: SEGMENT_BYTES,
        };
        let (storage, worker) = Self::open_over(ground, dir)?;
        worker.start()?;
        Ok(storage)
    }

    /// The state that the snapshot and the whole log in this folder come to, whether or not it was committed; for when the
    /// others, who would know, are gone. Changes nothing there.
    ///
    /// # Errors
    /// As of [`Storage::open`].
    pub(crate) fn salvage(dir: &Path) -> Result<State, Error> {
        Self::must_be_there(dir)?;
        let files: Arc<dyn Files> = Arc::new(SystemFiles);
        let snapshots = Snapshots::open(files.clone(), dir.join("snapshots"))?;
        let journal = Journal::open(files.clone(), dir.join("log"), SEGMENT_BYTES)?;
        let high_water = HighWater::open(&*files, &dir.join("high-water"), journal.is_empty())?;
        check_end(&journal, high_water.mark())?;
        let upto = journal.last().map(|last| last.index).max(high_water.mark().applied);
        let current = Current { journal: &journal, snapshots: &snapshots, upto };
        current.replay(current.of_snapshot()?, None)
    }

    /// [`Storage::open`] over another ground; with it, what makes its writes durable.
    pub(crate) fn open_over(ground: Ground, dir: &Path) -> Result<(Self, Worker), Error> {
        let Ground { files, stores, boot, segment_bytes } = ground;
        let snapshots = Snapshots::open(files.clone(), dir.join("snapshots"))?;
        let journal = Arc::new(Journal::open(files.clone(), dir.join("log"), segment_bytes)?);
        let mut high_water = HighWater::open(&*files, &dir.join("high-water"), journal.is_empty())?;
        let mark = high_water.mark().clone();
        check_end(&journal, &mark)?;
        let made = Boot::new(files, dir.join("store-boot"));
        let current = Current { journal: &journal, snapshots: &snapshots, upto: mark.applied };
        let mut known = None;
        if made.is(boot.as_deref())? {
            let opened =
                stores.open().and_then(|store| Ok(current.of_store(&*store)?.map(|state| (state, store))));
            known = match opened {
                // It is a copy: what it was made from is there, and was checked.
                Err(Error::Storage { file, place, reason }) => {
                    let store = file.display();
                    tracing::error!(%store, place, reason, "the store is damaged; it is made anew from the log");
                    None
                }
                opened => opened?,
            };
        }
        let (state, store) = match known {
            Some((state, store)) => {
                journal.begin()?;
                (current.replay(state, Some(&*store))?, store)
            }
            None => {
                let state = current.replay(current.of_snapshot()?, None)?;
                // Nothing was changed up to here, and it is known now that there is all that is needed.
                journal.begin()?;
                made.forget()?;
                let store = stores.make()?;
                StateMachine::fill(&*store, &state)?;
                made.remember(boot.as_deref())?;
                (state, store)
            }
        };
        // What was written and read here may be ahead of the mark. From now on it is shown, so it must not be lost.
        let applied = state.applied.as_ref().map(|id| id.index);
        high_water.write(Mark { vote: journal.vote(), last: journal.last(), applied, ..Mark::default() })?;
        StateMachine::forget_generations_but(&*store, state.generation)?;
        let (syncer, worker) = Syncer::new(journal.clone(), high_water);
        let log = Log::new(journal.clone(), syncer.clone());
        cover_the_log(&journal, &state, &snapshots)?;
        let state_machine = StateMachine::new(store, syncer, snapshots.clone(), state);
        Ok((Self { log, state_machine, snapshots }, worker))
    }

    /// The config as it is applied here: at once after opening, and whenever it changes.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.state_machine.config()
    }

    /// What was used of quotas, as that is applied here.
    pub fn usage(&self) -> watch::Receiver<Usage> {
        self.state_machine.usage()
    }

    /// What the members agree on besides.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.state_machine.cluster()
    }
}

/// The way to the state as it was last shown.
struct Current<'a> {
    journal: &'a Journal,
    snapshots: &'a Snapshots,
    /// The index of the last entry that was applied.
    upto: Option<u64>,
}

impl Current<'_> {
    /// The state of a store, unless that is not whole, or a snapshot is ahead of it that was about to be installed.
    fn of_store(&self, store: &dyn Store) -> Result<Option<State>, Error> {
        let state = StateMachine::load(store)?;
        let whole = state.applied.is_some() && state.applied >= self.snapshots.last();
        Ok(whole.then_some(state))
    }

    fn of_snapshot(&self) -> Result<State, Error> {
        self.snapshots.current().map_or_else(|| Ok(State::default()), |snapshot| snapshot.read())
    }

    /// Plays what this state lacks from the log; into the store too, if there is one.
    fn replay(&self, mut state: State, store: Option<&dyn Store>) -> Result<State, Error> {
        let Some(upto) = self.upto else { return Ok(state) };
        let mut steps = Vec::new();
        loop {
            let from = state.applied.as_ref().map_or(0, |applied| applied.index + 1);
            if from > upto {
                return Ok(state);
            }
            let to = upto.saturating_add(1).min(from.saturating_add(REPLAY_BATCH as u64));
            let mut next = from;
            log::read(self.journal, from, to, |entry| {
                if entry.log_id.index == next {
                    state.apply(&entry, &mut steps);
                    next += 1;
                }
                Ok(())
            })?;
            if next < to {
                let reason = "it is gone; it was applied here, and neither a snapshot nor the store has it";
                return Err(Error::damaged(self.journal.folder(), format!("log entry {next}"), reason));
            }
            match store {
                Some(store) => {
                    steps.push(state.applied_step());
                    store.apply(std::mem::take(&mut steps))?;
                }
                None => steps.clear(),
            }
        }
    }
}

/// Writes a snapshot where what the log lacks is in none.
fn cover_the_log(journal: &Journal, state: &State, snapshots: &Snapshots) -> Result<(), Error> {
    let id = |record: Option<_>| record.map(LogId::from);
    let lacked = if state.applied > id(journal.last()) { state.applied } else { id(journal.purged()) };
    if lacked > snapshots.last() {
        snapshots.write(state)?;
    }
    Ok(())
}

/// A journal that ends before its mark has lost what was acknowledged, whether or not it looks whole.
fn check_end(journal: &Journal, mark: &Mark) -> Result<(), Error> {
    let behind = |what: String| {
        let (file, place) = journal.end();
        let reason =
            format!("{what}: it lost writes that this node acknowledged, which high-water beside it shows");
        Err(Error::damaged(file, place, reason))
    };
    if let Some(want) = &mark.vote {
        let have = journal.vote().unwrap_or_default();
        if (have.term, have.committed) < (want.term, want.committed) {
            return behind(format!("the vote is of term {}, and was of term {}", have.term, want.term));
        }
    }
    if let Some(want) = &mark.last {
        let last = journal.last();
        let (have_term, have) = last.map_or((0, None), |last| (last.term, Some(last.index)));
        if have < Some(want.index) || have_term < want.term {
            let have = have.map_or("is empty".to_owned(), |index| format!("ends at entry {index}"));
            return behind(format!("the log {have}, and ended at {}", want.index));
        }
    }
    Ok(())
}
