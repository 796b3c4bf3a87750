//! One thread that makes writes durable, many at a time, and says so in their order.

use std::{sync::Arc, thread};

use tokio::sync::mpsc;

use crate::{
    Error,
    record::{LogIdRecord, VoteRecord},
    store::{
        Store,
        high_water::{HighWater, Mark},
    },
};

/// The most jobs that one barrier serves.
const JOBS_MAX: usize = 4_096;

/// What a durable write changes in the high-water mark.
#[derive(Debug, Clone)]
pub(crate) enum Raise {
    /// This is the vote.
    Vote(VoteRecord),
    /// The log ends here.
    Last(LogIdRecord),
    /// The state machine is here.
    Applied(Option<u64>),
    /// The log ends here (truncated or replaced), and the mark must say so before the store does.
    Lower(Option<LogIdRecord>),
    /// Nothing new: a barrier alone.
    Nothing,
}

type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A handle to what makes writes durable, which ends when the last handle is gone and its queue is empty.
#[derive(Clone)]
pub(crate) struct Syncer {
    jobs: mpsc::UnboundedSender<(Raise, Done)>,
}

impl Syncer {
    /// A handle, and what does the work.
    pub(crate) fn new(store: Arc<dyn Store>, high_water: HighWater) -> (Self, Worker) {
        let (jobs, queue) = mpsc::unbounded_channel();
        (Self { jobs }, Worker { store, high_water, queue, failed: None })
    }

    /// Calls `done`, where the work is done, once everything written before this call is durable.
    pub(crate) fn submit(&self, raise: Raise, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if let Err(mpsc::error::SendError((_, done))) = self.jobs.send((raise, Box::new(done))) {
            done(Err(Error::Fatal("the storage thread has ended".into())));
        }
    }

    /// Waits until everything written before is durable.
    pub(crate) async fn wait(&self, raise: Raise) -> Result<(), Error> {
        let (told, tell) = tokio::sync::oneshot::channel();
        self.submit(raise, move |result| drop(told.send(result)));
        tell.await.unwrap_or_else(|_| Err(Error::Fatal("the storage thread has ended".into())))
    }
}

/// The other end of the [`Syncer`]s.
pub(crate) struct Worker {
    store: Arc<dyn Store>,
    high_water: HighWater,
    queue: mpsc::UnboundedReceiver<(Raise, Done)>,
    /// A failed barrier leaves the disk in a state that no one knows: nothing after it is acknowledged.
    failed: Option<Error>,
}

impl Worker {
    /// Works on a thread of its own.
    pub(crate) fn start(mut self) -> Result<(), Error> {
        let file = self.store.file().to_owned();
        let run = move || {
            while let Some(first) = self.queue.blocking_recv() {
                self.sync(first)
            }
        };
        let thread = thread::Builder::new().name("storage-sync".into()).spawn(run);
        thread.map(drop).map_err(|error| Error::io(file, &error))
    }

    /// Works as a task, each barrier taking a time that `delay` gives, until the process it is of has ended.
    #[cfg(test)]
    pub(crate) async fn simulate(
        mut self,
        alive: Arc<std::sync::atomic::AtomicBool>,
        delay: impl Fn() -> std::time::Duration,
    ) {
        while let Some(first) = self.queue.recv().await {
            tokio::time::sleep(delay()).await;
            if !alive.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            self.sync(first);
        }
    }

    /// One barrier, for this job and all that wait behind it.
    fn sync(&mut self, first: (Raise, Done)) {
        let mut mark = self.high_water.mark().clone();
        let mut done = Vec::new();
        let mut next = Some(first);
        while let Some((raise, job)) = next {
            raise_mark(&mut mark, raise);
            done.push(job);
            next = if done.len() < JOBS_MAX { self.queue.try_recv().ok() } else { None };
        }
        let result = match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.store.barrier().and_then(|()| self.high_water.write(mark)),
        };
        self.failed = self.failed.take().or_else(|| result.clone().err());
        for job in done {
            job(result.clone());
        }
    }
}

fn raise_mark(mark: &mut Mark, raise: Raise) {
    match raise {
        Raise::Vote(vote) => mark.vote = Some(vote),
        Raise::Last(last) => mark.last = Some(last),
        Raise::Lower(last) => mark.last = last,
        Raise::Applied(applied) => mark.applied = applied,
        Raise::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        files::SystemFiles,
        store::{KeyValue, Pair, Step},
    };

    /// A disk whose barrier fails once, and then seems to work.
    struct FailsOnce {
        failing: AtomicBool,
    }

    impl Store for FailsOnce {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            Ok(None)
        }

        fn scan(&self, _: &[u8], _: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_> {
            Box::new(std::iter::empty())
        }

        fn last(&self, _: &[u8], _: &[u8]) -> Result<Option<KeyValue>, Error> {
            Ok(None)
        }

        fn apply(&self, _: Vec<Step>) -> Result<(), Error> {
            Ok(())
        }

        fn barrier(&self) -> Result<(), Error> {
            match self.failing.swap(false, Ordering::SeqCst) {
                true => Err(Error::Io { file: "db".into(), reason: "no space left".into() }),
                false => Ok(()),
            }
        }

        fn file(&self) -> &Path {
            Path::new("db")
        }
    }

    #[tokio::test]
    async fn after_a_failed_barrier_nothing_is_acknowledged_and_the_mark_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("high-water");
        let store = Arc::new(FailsOnce { failing: AtomicBool::new(false) });
        let (syncer, worker) =
            Syncer::new(store.clone(), HighWater::open(&SystemFiles, &path, true).unwrap());
        worker.start().unwrap();
        let last = |index| Raise::Last(LogIdRecord { term: 1, index });
        syncer.wait(last(1)).await.unwrap();
        store.failing.store(true, Ordering::SeqCst);
        assert!(syncer.wait(last(2)).await.is_err());
        // The disk says yes again, and what it lost is not known.
        assert!(syncer.wait(last(3)).await.is_err());
        let mark = HighWater::open(&SystemFiles, &path, false).unwrap().mark().last.clone();
        assert_eq!(mark, Some(LogIdRecord { term: 1, index: 1 }));
    }

    #[tokio::test]
    async fn callbacks_come_in_the_order_of_their_writes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FailsOnce { failing: AtomicBool::new(false) });
        let high_water = HighWater::open(&SystemFiles, &dir.path().join("high-water"), true).unwrap();
        let (syncer, worker) = Syncer::new(store, high_water);
        worker.start().unwrap();
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        for index in 1..=100 {
            let told = told.clone();
            syncer.submit(Raise::Last(LogIdRecord { term: 1, index }), move |_| told.send(index).unwrap());
        }
        for index in 1..=100 {
            assert_eq!(tell.recv().await, Some(index));
        }
    }
}
