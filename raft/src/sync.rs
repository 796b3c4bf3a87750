//! One thread that makes writes durable, many at a time, and says so in their order.

use std::{sync::Arc, thread};

use tokio::sync::mpsc;

use crate::{
    Error,
    high_water::{HighWater, Mark},
    journal::Journal,
    record::{LogIdRecord, VoteRecord},
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
    pub(crate) fn new(journal: Arc<Journal>, high_water: HighWater) -> (Self, Worker) {
        let (jobs, queue) = mpsc::unbounded_channel();
        (Self { jobs }, Worker { journal, high_water, queue, failed: None })
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
    journal: Arc<Journal>,
    high_water: HighWater,
    queue: mpsc::UnboundedReceiver<(Raise, Done)>,
    /// A failed barrier leaves the disk in a state that no one knows: nothing after it is acknowledged.
    failed: Option<Error>,
}

impl Worker {
    /// Works on a thread of its own.
    pub(crate) fn start(mut self) -> Result<(), Error> {
        let file = self.journal.folder().to_owned();
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
            None => self.journal.barrier().and_then(|()| self.high_water.write(mark)),
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
        io,
        path::{Path, PathBuf},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{
        files::{Files, OpenFile, SystemFiles},
        journal::{Record, SEGMENT_BYTES},
    };

    /// A disk whose sync fails once, and then seems to work.
    #[derive(Debug, Default, Clone)]
    struct FailsOnce {
        failing: Arc<AtomicBool>,
    }

    struct File {
        file: Arc<dyn OpenFile>,
        disk: FailsOnce,
    }

    impl OpenFile for File {
        fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
            self.file.read_at(bytes, at)
        }

        fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            self.file.write_at(bytes, at)
        }

        fn sync(&self) -> io::Result<()> {
            match self.disk.failing.swap(false, Ordering::SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.file.sync(),
            }
        }

        fn length(&self) -> io::Result<u64> {
            self.file.length()
        }
    }

    impl Files for FailsOnce {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
            Ok(Arc::new(File { file: SystemFiles.create(path)?, disk: self.clone() }))
        }

        fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
            Ok(Arc::new(File { file: SystemFiles.open(path)?, disk: self.clone() }))
        }

        fn exists(&self, path: &Path) -> bool {
            SystemFiles.exists(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            SystemFiles.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            SystemFiles.remove(path)
        }

        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            SystemFiles.list(folder)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            SystemFiles.sync_folder(folder)
        }
    }

    fn start(disk: &FailsOnce, dir: &Path) -> (Arc<Journal>, Syncer) {
        let journal = Journal::open(Arc::new(disk.clone()), dir.join("log"), SEGMENT_BYTES).unwrap();
        journal.begin().unwrap();
        let journal = Arc::new(journal);
        let high_water = HighWater::open(disk, &dir.join("high-water"), true).unwrap();
        let (syncer, worker) = Syncer::new(journal.clone(), high_water);
        worker.start().unwrap();
        (journal, syncer)
    }

    fn last(index: u64) -> LogIdRecord {
        LogIdRecord { term: 1, index }
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_is_acknowledged_and_the_mark_stays() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FailsOnce::default());
        let (journal, syncer) = start(&disk, dir.path());
        let purged = |index| journal.write(&[Record::Purged(last(index))]);
        purged(1).unwrap();
        syncer.wait(Raise::Last(last(1))).await.unwrap();
        disk.failing.store(true, Ordering::SeqCst);
        purged(2).unwrap();
        assert!(syncer.wait(Raise::Last(last(2))).await.is_err());
        // The disk says yes again, and what it lost is not known.
        assert!(syncer.wait(Raise::Last(last(3))).await.is_err());
        assert!(purged(3).is_err());
        let high_water = HighWater::open(&SystemFiles, &dir.path().join("high-water"), false).unwrap();
        assert_eq!(high_water.mark().last, Some(last(1)));
    }

    #[tokio::test]
    async fn callbacks_come_in_the_order_of_their_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (_journal, syncer) = start(&FailsOnce::default(), dir.path());
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        for index in 1..=100 {
            let told = told.clone();
            syncer.submit(Raise::Last(last(index)), move |_| told.send(index).unwrap());
        }
        for index in 1..=100 {
            assert_eq!(tell.recv().await, Some(index));
        }
    }
}
