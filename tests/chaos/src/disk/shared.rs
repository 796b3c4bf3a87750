//! What the kernel's requests and the one who makes faults have in common.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fuser::Errno;

use super::{Figures, tree::Tree};

/// What is wrong with the disk.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) fsync_delay: Duration,
    pub(super) fsync_error: Option<Errno>,
    pub(super) ignores_fsync: bool,
}

/// The disk at one moment.
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    pub(super) figures: Figures,
}

/// The disk.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when the faults change, for the syncs that wait.
    changed: Condvar,
}

impl Shared {
    pub(super) fn new(tree: Tree) -> Self {
        let state = State { tree, faults: Faults::default(), figures: Figures::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes or mends a fault.
    pub(super) fn set(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.lock().faults);
        self.changed.notify_all();
    }

    /// Writes as much of this as there is room for; gives how much.
    pub(super) fn write(&self, number: u64, at: usize, bytes: &[u8]) -> Result<usize, Errno> {
        let mut state = self.lock();
        state.figures.writes += 1;
        let written = state.tree.write(number, at, bytes);
        state.figures.full += u64::from(written.is_err());
        written
    }

    /// Counts a sync that begins; gives the time until which it is to make changes durable.
    pub(super) fn begin_sync(&self) -> u64 {
        let mut state = self.lock();
        state.figures.fsyncs += 1;
        state.tree.time()
    }

    /// A sync that has begun, until its end.
    pub(super) fn sync(&self, number: u64, until: u64) -> Result<(), Errno> {
        let begun = Instant::now();
        let slow = |state: &mut State| begun.elapsed() < state.faults.fsync_delay;
        let mut state = self.lock();
        while slow(&mut state) {
            let left = state.faults.fsync_delay.saturating_sub(begun.elapsed());
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        match state.faults.fsync_error {
            Some(error) => {
                state.figures.failed_fsyncs += 1;
                state.tree.fail_sync(number, until);
                Err(error)
            }
            None if state.faults.ignores_fsync => Ok(()),
            None => {
                state.tree.sync(number, until);
                Ok(())
            }
        }
    }
}
