//! What is counted of each upstream: every worker for itself, and summed when somebody reads.

use std::sync::OnceLock;

use crate::metrics::Count;

use super::retry::Why;

/// The reasons of retries, as they are labelled.
pub(crate) const REASONS: [&str; 4] = ["connect", "reset", "timeout", "status"];

/// What one worker has counted of one upstream.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Figures {
    /// Requests that were to be forwarded.
    pub(crate) requests: Count,
    /// Attempts at targets.
    pub(crate) attempts: Count,
    /// Attempts that failed by a fault of the target.
    pub(crate) failures: Count,
    /// Attempts after a request's first, by [`REASONS`].
    pub(crate) retries: [Count; REASONS.len()],
    /// Retries that the budget did not allow.
    pub(crate) retries_refused: Count,
    /// Attempts made beside others that had not been answered yet.
    pub(crate) hedges: Count,
    /// Those whose answer was passed on.
    pub(crate) hedges_won: Count,
    /// Those that the budget did not allow.
    pub(crate) hedges_refused: Count,
    /// Requests that were refused because the upstream had as much to do as it may.
    pub(crate) overflows: Count,
    /// Targets taken out of use.
    pub(crate) ejections: Count,
    /// Copies of requests that were sent to it.
    pub(crate) mirrors: Count,
    /// Those that could not be.
    pub(crate) mirrors_dropped: Count,
    /// Checks of targets.
    pub(crate) checks: Count,
    /// Those that did not find them well.
    pub(crate) checks_failed: Count,
}

impl Figures {
    /// A request is tried again for this reason.
    pub(crate) fn retried(&self, why: Why) {
        let at = match why {
            Why::Connect => 0,
            Why::Reset => 1,
            Why::Timeout => 2,
            Why::Status | Why::Nonsense | Why::Client | Why::Overflow => 3,
        };
        self.retries[at].add(1);
    }
}

/// What all workers have counted of one upstream, or of something else. Takes no memory before there is traffic.
#[derive(Debug)]
pub(crate) struct ByWorker<T = Figures>(OnceLock<Box<[T]>>);

impl<T> Default for ByWorker<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> ByWorker<T> {
    /// Those of the worker of this number.
    pub(crate) fn of(&self, worker: usize, workers: impl FnOnce() -> usize) -> &T {
        let all = self.0.get_or_init(|| (0..workers().max(1)).map(|_| T::default()).collect());
        &all[worker % all.len()]
    }

    /// All workers' together.
    pub(crate) fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.0.get().into_iter().flatten().fold(0, |sum, figures| sum.wrapping_add(read(figures)))
    }

    /// Whether there ever was traffic.
    pub(crate) fn is_used(&self) -> bool {
        self.0.get().is_some()
    }
}
