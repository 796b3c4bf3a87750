//! Time for a worker: a coarse clock, and deadlines that cost a request next to nothing.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// How often deadlines are looked at, and so how late one may be.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// What every thread's milliseconds count from, so that threads can compare them.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(1) };
}

/// This thread's coarse time in milliseconds, never 0; as old as the last [`refresh`].
pub(crate) fn now_ms() -> u64 {
    NOW_MS.get()
}

/// Reads the clock, and sets the coarse time by it.
pub(crate) fn refresh() -> Instant {
    let now = Instant::now();
    let passed = now.saturating_duration_since(*START);
    NOW_MS.set(millis(passed).saturating_add(1));
    now
}

/// The duration in milliseconds, cut to what fits.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The deadlines that a worker's exchanges wait for: looked at all together at each tick, so that one is set and taken
/// back without a timer of its own.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    waiting: RefCell<Vec<Option<Waiting>>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Waiting {
    at_ms: u64,
    waker: Waker,
}

impl Deadlines {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.borrow().len() == self.free.borrow().len()
    }

    /// Wakes whoever's time has come, once.
    pub(crate) fn tick(&self) {
        let now = now_ms();
        let mut waiting = self.waiting.borrow_mut();
        for waiting in waiting.iter_mut().flatten().filter(|waiting| waiting.at_ms <= now) {
            waiting.at_ms = u64::MAX;
            waiting.waker.wake_by_ref();
        }
    }

    /// Has the waker woken at that time, in the place of what was set in this slot before.
    pub(crate) fn set(&self, slot: &mut Option<usize>, at_ms: u64, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(Some(entry)) = slot.and_then(|slot| waiting.get_mut(slot)) {
            entry.at_ms = at_ms;
            entry.waker.clone_from(waker);
            return;
        }
        let entry = Some(Waiting { at_ms, waker: waker.clone() });
        *slot = Some(match self.free.borrow_mut().pop() {
            Some(slot) => {
                waiting[slot] = entry;
                slot
            }
            None => {
                waiting.push(entry);
                waiting.len() - 1
            }
        });
    }

    /// Takes back what was set in this slot.
    pub(crate) fn unset(&self, slot: &mut Option<usize>) {
        if let Some(slot) = slot.take() {
            self.waiting.borrow_mut()[slot] = None;
            self.free.borrow_mut().push(slot);
        }
    }

    /// The future's output, or none once `limit` has passed.
    pub(crate) fn within<F: Future + Unpin>(&self, limit: Duration, future: F) -> Until<'_, F> {
        self.until(Some(now_ms().saturating_add(millis(limit))), future)
    }

    /// The future's output, or none once it is `at_ms` ([`now_ms`]), if that is given.
    pub(crate) fn until<F: Future + Unpin>(&self, at_ms: Option<u64>, future: F) -> Until<'_, F> {
        Until { future, deadline: at_ms.map(|at_ms| Deadline { deadlines: self, at_ms, slot: None }) }
    }
}

/// A future that is given so much time. It is borrowed, or small: what holds it would hold it twice.
pub(crate) struct Until<'a, F> {
    future: F,
    deadline: Option<Deadline<'a>>,
}

impl<F: Future + Unpin> Future for Until<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        match &mut self.deadline {
            None => Poll::Pending,
            Some(deadline) => Pin::new(deadline).poll(cx).map(|()| None),
        }
    }
}

struct Deadline<'a> {
    deadlines: &'a Deadlines,
    at_ms: u64,
    slot: Option<usize>,
}

impl Future for Deadline<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.at_ms <= now_ms() {
            return Poll::Ready(());
        }
        let Self { deadlines, at_ms, slot } = &mut *self;
        deadlines.set(slot, *at_ms, cx.waker());
        Poll::Pending
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        self.deadlines.unset(&mut self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_ends_what_never_ends_and_leaves_nothing() {
        refresh();
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.within(Duration::from_secs(60), std::future::ready(7)).await, Some(7));
        assert!(deadlines.is_empty());
        let ticking = async {
            loop {
                refresh();
                deadlines.tick();
                tokio::task::yield_now().await;
            }
        };
        let waiting = deadlines.within(Duration::from_millis(5), std::future::pending::<()>());
        tokio::select! {
            ended = waiting => assert_eq!(ended, None),
            () = ticking => {}
        }
        assert!(deadlines.is_empty());
    }
}
