//! A disk that forgets what was not made durable, that is full at times, and that ends its node's process at an operation of
//! the simulator's choice.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    folder::Folder,
    fuse::{Counts, Fuse, frailty},
    records::Records,
    runtime::{below, percent},
};

/// A fault of the disk that the checks must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liar {
    /// Any sync says that it was one, and was none.
    Sync,
    /// This one alone.
    Step(&'static str),
}

impl Liar {
    /// Whether it lies at this step, which is a sync.
    pub(super) fn lies(self, step: &str) -> bool {
        match self {
            Self::Sync => true,
            Self::Step(lie) => lie == step,
        }
    }
}

/// How a process ends in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine goes with it: what was not made durable is lost, or some of it.
    Power,
    /// It alone: what it gave to the system is still there, but no more durable than it was.
    Kill,
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) records: Records,
    pub(super) folder: Folder,
    fuse: Fuse,
    /// Whether rare steps fail by themselves no more.
    sound: bool,
    /// Where the fuse blew.
    blown: Counts,
    full: bool,
    /// How often the machine was down.
    boots: u64,
    pub(super) liar: Option<Liar>,
}

/// One node's disk, which outlives the node's process.
#[derive(Default)]
pub(crate) struct Disk {
    contents: Mutex<Contents>,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Loses what is lost when the process ends like this.
    pub(crate) fn lose(&self, end: End) {
        let mut contents = self.lock();
        contents.fuse = Fuse::Never;
        contents.records.lose(end);
        if end == End::Power {
            contents.boots += 1;
            contents.folder.lose_power();
        }
    }

    pub(crate) fn set_fuse(&self, fuse: Fuse) {
        self.lock().fuse = fuse;
    }

    /// Has nothing end a process any more.
    pub(crate) fn spare(&self) {
        let mut contents = self.lock();
        (contents.fuse, contents.sound) = (Fuse::Never, true);
    }

    /// Has most writes fail from now on, or none.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lock().full
    }

    /// Has the disk lie from now on.
    pub(crate) fn lie(&self, liar: Liar) {
        self.lock().liar = Some(liar);
    }

    /// How often the fuse blew where.
    pub(crate) fn blown(&self) -> Counts {
        self.lock().blown.clone()
    }
}

/// The disk as one process of its node sees it: from the process's end on, nothing is read or written.
#[derive(Clone)]
pub(crate) struct Mount {
    disk: Arc<Disk>,
    alive: Arc<AtomicBool>,
    refused: Arc<AtomicBool>,
}

impl Mount {
    pub(crate) fn new(disk: Arc<Disk>, alive: Arc<AtomicBool>) -> Self {
        Self { disk, alive, refused: Arc::default() }
    }

    /// Whether the disk had no space for something that this process wrote.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// Which boot of the machine this is.
    pub(crate) fn boot(&self) -> Option<String> {
        Some(format!("boot {}", self.disk.lock().boots))
    }

    pub(super) fn contents(&self) -> io::Result<MutexGuard<'_, Contents>> {
        if self.alive.load(Ordering::SeqCst) { Ok(self.disk.lock()) } else { Err(gone()) }
    }

    /// Says that there is no space, where the disk is full: to most, for something small may still find some.
    pub(super) fn find_space(&self) -> io::Result<()> {
        if self.contents()?.full && percent(70) {
            self.refused.store(true, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// One operation: `work`; or where the fuse blows, `work` or not, and nobody is told.
    pub(super) fn operate<T>(
        &self,
        step: &'static str,
        work: impl FnOnce(&mut Contents) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut contents = self.contents()?;
        let rare = !contents.sound && percent(frailty(step));
        if !contents.fuse.blows(step) && !rare {
            return work(&mut contents);
        }
        if below(2) == 0 {
            let _ = work(&mut contents);
        }
        *contents.blown.entry(step).or_default() += 1;
        self.alive.store(false, Ordering::SeqCst);
        Err(gone())
    }
}

fn gone() -> io::Error {
    io::Error::other("the process has ended")
}
