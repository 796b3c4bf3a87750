//! One thread that makes writes durable, many at a time, and says so in their order.

use std::{
    sync::{Arc, mpsc},
    thread,
};

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

/// A handle to the thread. The thread ends when the last handle is gone and its queue is empty.
#[derive(Clone)]
pub(crate) struct Syncer {
    jobs: mpsc::Sender<(Raise, Done)>,
}

impl Syncer {
    /// Starts the thread.
    pub(crate) fn start(store: Arc<dyn Store>, high_water: HighWater) -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel();
        let file = store.file().to_owned();
        thread::Builder::new()
            .name("storage-sync".into())
            .spawn(move || run(&*store, high_water, &queue))
            .map_err(|error| Error::io(file, &error))?;
        Ok(Self { jobs })
    }

    /// Calls `done`, on the thread, once everything written before this call is durable.
    pub(crate) fn submit(&self, raise: Raise, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        if let Err(mpsc::SendError((_, done))) = self.jobs.send((raise, Box::new(done))) {
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

fn run(store: &dyn Store, mut high_water: HighWater, queue: &mpsc::Receiver<(Raise, Done)>) {
    let mut failed: Option<Error> = None;
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(JOBS_MAX));
        let mut mark = high_water.mark().clone();
        let mut done = Vec::with_capacity(jobs.len());
        for (raise, job) in jobs {
            raise_mark(&mut mark, raise);
            done.push(job);
        }
        let result = match &failed {
            Some(error) => Err(error.clone()),
            None => make_durable(store, &mut high_water, mark),
        };
        // A failed barrier leaves the disk in a state that no one knows: nothing after it is acknowledged.
        failed = failed.or_else(|| result.clone().err());
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

fn make_durable(store: &dyn Store, high_water: &mut HighWater, mark: Mark) -> Result<(), Error> {
    store.barrier()?;
    high_water.write(mark)
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::store::{KeyValue, Pair, Step};

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
        let syncer = Syncer::start(store.clone(), HighWater::open(&path, true).unwrap()).unwrap();
        let last = |index| Raise::Last(LogIdRecord { term: 1, index });
        syncer.wait(last(1)).await.unwrap();
        store.failing.store(true, Ordering::SeqCst);
        assert!(syncer.wait(last(2)).await.is_err());
        // The disk says yes again, and what it lost is not known.
        assert!(syncer.wait(last(3)).await.is_err());
        let mark = HighWater::open(&path, false).unwrap().mark().last.clone();
        assert_eq!(mark, Some(LogIdRecord { term: 1, index: 1 }));
    }

    #[tokio::test]
    async fn callbacks_come_in_the_order_of_their_writes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(FailsOnce { failing: AtomicBool::new(false) });
        let high_water = HighWater::open(&dir.path().join("high-water"), true).unwrap();
        let syncer = Syncer::start(store, high_water).unwrap();
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
