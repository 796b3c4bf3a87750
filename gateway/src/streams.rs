//! The requests in flight on a connection of HTTP/2: watched each for itself, since one that stands still must not end the others.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::task::AbortHandle;

use crate::{connection::Connection, pace::Pace, settings::Limit, timer, worker::Worker};

/// How fast cancelled requests are forgotten.
const FORGET_MS: u64 = 100;

/// The requests in flight on a connection of HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: RefCell<Vec<Rc<Stream>>>,
    /// The one that hyper is about to spawn the task of.
    spawning: RefCell<Option<Rc<Stream>>>,
    cancelled: Cancelled,
}

/// How many requests a client cancelled lately.
#[derive(Debug, Default)]
struct Cancelled {
    count: Cell<u64>,
    as_of_ms: Cell<u64>,
}

impl Cancelled {
    /// One more; gives how many there were lately.
    fn add(&self, now_ms: u64) -> u64 {
        let passed = now_ms.saturating_sub(self.as_of_ms.get()) / FORGET_MS;
        if passed > 0 {
            self.count.set(self.count.get().saturating_sub(passed));
            self.as_of_ms.set(now_ms);
        }
        self.count.set(self.count.get() + 1);
        self.count.get()
    }
}

/// One request in flight.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Its place among those that are open.
    place: Cell<usize>,
    task: RefCell<Option<AbortHandle>>,
    /// At which the client sends its body.
    sending: Pace,
    /// At which it takes the answer.
    taking: Pace,
    /// What hyper was given of the answer last, in bytes.
    given: Cell<usize>,
    /// In bytes a second.
    rate_min: u64,
    /// Whether its answer has begun.
    answered: Cell<bool>,
    /// Whether hyper has all of the answer.
    complete: Cell<bool>,
}

impl Stream {
    /// More of its body is waited for.
    pub(crate) fn waits_for_more(&self) {
        self.sending.waits(timer::now_ms());
    }

    /// So many bytes of its body have come.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sending.moved(timer::now_ms(), usize::try_from(bytes).unwrap_or(usize::MAX), self.rate_min);
    }

    /// Its answer has begun. What more the client sends is between it and the target: a call of gRPC may be silent for hours.
    pub(crate) fn answered(&self) {
        self.answered.set(true);
    }

    /// hyper asks for more of the answer: the client has taken what there was.
    pub(crate) fn asked(&self) {
        self.taking.moved(timer::now_ms(), self.given.replace(0), self.rate_min);
    }

    /// hyper has been given so many bytes of the answer, which it holds until the client takes them.
    pub(crate) fn given(&self, bytes: usize) {
        self.given.set(bytes);
        self.taking.waits(timer::now_ms());
    }

    /// hyper has been given all of the answer.
    pub(crate) fn complete(&self) {
        self.complete.set(true);
    }

    /// The limit that it runs into, if it is too far behind.
    fn stands_still(&self, now_ms: u64, stall_ms: u64) -> Option<Limit> {
        let sending = if self.answered.get() { (0, 0) } else { self.sending.behind_ms(now_ms) };
        let late =
            [sending, self.taking.behind_ms(now_ms)].into_iter().find(|(_, behind)| *behind > stall_ms);
        late.map(|(waiting, _)| if waiting > stall_ms { Limit::StallTimeout } else { Limit::ClientRate })
    }
}

impl Streams {
    /// The task of the stream that came last is this one.
    pub(crate) fn spawned(&self, task: AbortHandle) {
        if let Some(stream) = self.spawning.borrow_mut().take() {
            *stream.task.borrow_mut() = Some(task);
        }
    }

    /// Ends each stream that has waited for its client for too long, of which the client is told by RST_STREAM; gives the limit
    /// that one of them has just run into.
    pub(crate) fn sweep(&self, now_ms: u64, stall_ms: u64) -> Option<Limit> {
        let mut ran_into = None;
        for stream in &*self.open.borrow() {
            if let Some(limit) = stream.stands_still(now_ms, stall_ms)
                && let Some(task) = stream.task.borrow_mut().take()
            {
                task.abort();
                ran_into = Some(limit);
            }
        }
        ran_into
    }

    fn open(&self, rate_min: u64) -> Rc<Stream> {
        let mut open = self.open.borrow_mut();
        let stream = Rc::new(Stream { place: Cell::new(open.len()), rate_min, ..Stream::default() });
        open.push(stream.clone());
        *self.spawning.borrow_mut() = Some(stream.clone());
        stream
    }

    fn close(&self, stream: &Stream) {
        let mut open = self.open.borrow_mut();
        let place = stream.place.get();
        open.swap_remove(place);
        if let Some(moved) = open.get(place) {
            moved.place.set(place);
        }
    }
}

/// A stream for as long as it is open.
pub(crate) struct Open {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    stream: Rc<Stream>,
}

impl std::ops::Deref for Open {
    type Target = Rc<Stream>;

    fn deref(&self) -> &Rc<Stream> {
        &self.stream
    }
}

impl Open {
    /// One more on this connection.
    pub(crate) fn on(worker: &Rc<Worker>, connection: &Rc<Connection>) -> Self {
        let stream = connection.streams.open(worker.settings.limits.client_rate_min);
        Self { worker: worker.clone(), connection: connection.clone(), stream }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.connection.streams;
        streams.close(&self.stream);
        // Requests that are cancelled cost a client next to nothing, and us a target's work each (rapid reset, CVE-2023-44487).
        let cancelled_max = u64::from(self.worker.settings.limits.http2.resets_max);
        if !self.stream.complete.get()
            && streams.cancelled.add(timer::now_ms()) > cancelled_max
            && self.connection.end_now()
        {
            self.worker.metrics.http2_floods.add(1);
            self.worker.metrics.limited(Limit::Http2Resets);
            tracing::debug!(peer = %self.connection.peer, "a client cancels too many requests");
        }
    }
}
