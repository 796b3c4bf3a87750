//! The state machine behind openraft's: each batch of entries is one atomic batch in the store, and is published after it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use futures::{Stream, StreamExt};
use model::{Config, Usage, cluster::Cluster};
use openraft::{
    OptionalSend, RaftSnapshotBuilder, SnapshotMeta as RaftSnapshotMeta,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use tokio::sync::watch;

use crate::{
    Error, blocking,
    snapshot::{SnapshotFile, Snapshots},
    state::{APPLIED, SPACES, State, key},
    store::{Step, Store},
    sync::{Raise, Syncer},
    types::{CommittedLeaderId, LogId, PeerNode, Response, SnapshotMeta, StoredMembership, Types},
};

/// Entries that share one batch in the store.
const BATCH_ENTRIES_MAX: usize = 256;
/// Records that an installed snapshot writes in one batch.
const INSTALL_BATCH: usize = 4_096;

/// A handle to the state machine.
#[derive(Clone)]
pub(crate) struct StateMachine {
    store: Arc<dyn Store>,
    syncer: Syncer,
    snapshots: Snapshots,
    state: Arc<Mutex<State>>,
    /// Held from reading the state until its snapshot is the node's own: a build that began before an install must not put
    /// an older one over it.
    own_snapshot: Arc<tokio::sync::Mutex<()>>,
    config: watch::Sender<Arc<Config>>,
    cluster: watch::Sender<Arc<Cluster>>,
    usage: watch::Sender<Usage>,
    applied: watch::Sender<Option<u64>>,
}

type RaftSnapshot = Snapshot<CommittedLeaderId, u64, PeerNode, SnapshotFile>;

fn meta(state: &State) -> SnapshotMeta {
    RaftSnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() }
}

impl StateMachine {
    pub(crate) fn new(store: Arc<dyn Store>, syncer: Syncer, snapshots: Snapshots, state: State) -> Self {
        let config = watch::Sender::new(Arc::new(state.config.clone()));
        let cluster = watch::Sender::new(state.cluster.clone());
        let usage = watch::Sender::new(state.usage.clone());
        let applied = watch::Sender::new(state.applied.as_ref().map(|id| id.index));
        let (state, own_snapshot) = (Arc::new(Mutex::new(state)), Arc::default());
        Self { store, syncer, snapshots, state, own_snapshot, config, cluster, usage, applied }
    }

    pub(crate) fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    pub(crate) fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.cluster.subscribe()
    }

    pub(crate) fn usage(&self) -> watch::Receiver<Usage> {
        self.usage.subscribe()
    }

    /// The index of the last entry that is applied and published.
    pub(crate) fn applied(&self) -> watch::Receiver<Option<u64>> {
        self.applied.subscribe()
    }

    /// The outcome that is kept under this idempotency key; an error if it is that of something else.
    pub(crate) fn outcome(&self, key: &str, fingerprint: u32) -> Option<Result<Response, Error>> {
        self.lock().outcome(key, fingerprint)
    }

    /// The config as it is applied and published, and the id of the change that made its revision.
    pub(crate) fn newest(&self) -> (Config, u64) {
        let state = self.lock();
        (state.config.clone(), state.made_by)
    }

    /// The state as it is applied here.
    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes up a state whose records are in the store, and tells everyone.
    async fn publish(&self, state: State) -> Result<(), Error> {
        // Nobody may see a revision that a power loss could take back.
        self.syncer.wait(Raise::Applied(state.applied.as_ref().map(|id| id.index))).await?;
        let (config, cluster) = (Arc::new(state.config.clone()), state.cluster.clone());
        let (usage, applied) = (state.usage.clone(), state.applied.as_ref().map(|id| id.index));
        *self.lock() = state;
        self.cluster.send_if_modified(|old| replace(old, cluster));
        self.config.send_if_modified(|old| {
            let differs = old.revision != config.revision || old.pepper != config.pepper;
            *old = config;
            differs
        });
        self.usage.send_if_modified(|old| {
            let differs = !old.is_same(&usage);
            *old = usage;
            differs
        });
        self.applied.send_replace(applied);
        Ok(())
    }

    /// Deletes the records of every generation but this one.
    pub(crate) fn forget_generations_but(store: &dyn Store, generation: u32) -> Result<(), Error> {
        for space in SPACES {
            let ranges = [(key(space, 0, b""), key(space, generation, b"")), {
                let next = generation.checked_add(1).map_or(vec![space + 1], |next| key(space, next, b""));
                (next, vec![space + 1])
            }];
            for (from, to) in ranges {
                loop {
                    let pairs = store.scan(&from, &to).take(INSTALL_BATCH);
                    let steps =
                        pairs.map(|pair| Ok(Step::Delete(pair?.0))).collect::<Result<Vec<_>, Error>>()?;
                    if steps.is_empty() {
                        break;
                    }
                    store.apply(steps)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a snapshot the node's own, then writes its records beside the current ones, makes them the current ones in one
    /// step, and only then deletes the old. A node that starts and finds the snapshot ahead of its store takes the snapshot.
    async fn install(&self, file: SnapshotFile) -> Result<(), Error> {
        // Off the runtime's threads: a large one takes its time.
        let (file, state) = blocking::run(move || {
            let state = file.read();
            (file, state)
        })
        .await?;
        let mut state = state?;
        let own_snapshot = self.own_snapshot.lock().await;
        self.snapshots.adopt(file)?;
        drop(own_snapshot);
        let old = self.lock().generation;
        state.generation = old.wrapping_add(1);
        Self::forget_generations_but(&*self.store, old)?;
        Self::fill(&*self.store, &state)?;
        let generation = state.generation;
        self.publish(state).await?;
        Self::forget_generations_but(&*self.store, generation)
    }

    /// Writes the records of a state under its generation, and last which one it is.
    pub(crate) fn fill(store: &dyn Store, state: &State) -> Result<(), Error> {
        let mut steps = Vec::with_capacity(INSTALL_BATCH);
        state.records(|space, rest, payload| {
            let at = key(space, state.generation, rest);
            steps.push(Step::Put(at.clone(), crate::record::seal(&at, payload)));
            if steps.len() == INSTALL_BATCH {
                return store.apply(std::mem::take(&mut steps));
            }
            Ok::<_, Error>(())
        })?;
        store.apply(steps)?;
        store.apply(vec![state.applied_step()])
    }

    /// Reads the state that is in the store.
    pub(crate) fn load(store: &dyn Store) -> Result<State, Error> {
        use crate::record::{self, AppliedRecord};
        let Some(applied) = store.get(APPLIED)? else { return Ok(State::default()) };
        let bad = |place: &str, error: &dyn std::fmt::Display| {
            Error::damaged(store.file(), place, error.to_string())
        };
        let applied: AppliedRecord =
            record::open_message(APPLIED, &applied).map_err(|error| bad("the applied record", &error))?;
        let generation = applied.generation;
        let mut state = State::begin(applied).map_err(|error| bad("the applied record", &error))?;
        for space in SPACES {
            let end = generation.checked_add(1).map_or(vec![space + 1], |next| key(space, next, b""));
            for pair in store.scan(&key(space, generation, b""), &end) {
                let (key, value) = pair?;
                let place = || format!("record {}", String::from_utf8_lossy(&key[5..]));
                let payload = record::open(&key, &value).map_err(|error| bad(&place(), &error))?;
                state.load(space, &key[5..], payload).map_err(|error| bad(&place(), &error))?;
            }
        }
        Ok(state)
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let differs = *old != new;
    *old = new;
    differs
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let _own_snapshot = self.own_snapshot.lock().await;
        let state = self.lock().clone();
        let snapshots = self.snapshots.clone();
        let meta = meta(&state);
        let snapshot = blocking::run(move || snapshots.write(&state)).await??;
        Ok(Snapshot { meta, snapshot })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.lock();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.ready_chunks(BATCH_ENTRIES_MAX);
        while let Some(chunk) = entries.next().await {
            let mut state = self.lock().clone();
            let mut steps = Vec::new();
            let mut answers = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                let response = state.apply(&entry, &mut steps);
                answers.extend(responder.map(|responder| (responder, response)));
            }
            steps.push(state.applied_step());
            self.store.apply(steps)?;
            self.publish(state).await?;
            for (responder, response) in answers {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, snapshot: SnapshotFile) -> Result<(), io::Error> {
        Ok(self.install(snapshot).await?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let Some(file) = self.snapshots.current() else { return Ok(None) };
        // Checked, not read: openraft asks for it at every start, and a second state would double the memory.
        let (file, checked) = blocking::run(move || {
            let checked = file.check();
            (file, checked)
        })
        .await?;
        match checked {
            Ok(state) => Ok(Some(Snapshot { meta: meta(&state), snapshot: file })),
            // The state is here, checked record by record, and the log may lack what only a snapshot has.
            Err(error @ Error::Storage { .. }) => {
                tracing::error!(%error, "this node's own snapshot is damaged, and is made anew from the state");
                Ok(Some(self.build_snapshot().await?))
            }
            Err(error) => Err(error.into()),
        }
    }
}
