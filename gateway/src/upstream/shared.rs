//! Connections that requests share: those of HTTP/2, with as many requests on each as its target takes at once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http2::SendRequest},
};
use tokio::sync::Notify;

use super::{
    breaker,
    connect::{Offer, connect},
    pool::{Pool, Whose, Wire},
    retry::Why,
    said::Said,
};
use crate::{plan::CompiledUpstream, plan::endpoint::Endpoint, timer, upload::RequestBody, worker::Worker};

/// How many requests a target is taken to take at once on a connection, until it has said so of one.
const STREAMS_AT_FIRST: usize = 128;
/// The most connections to one target that a worker opens; above that requests wait for a stream on these.
const CONNECTIONS_MAX: usize = 64;

/// A connection that requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    sender: RefCell<SendRequest<RequestBody>>,
    whose: Option<Box<Whose>>,
    /// Requests on it.
    streams: Cell<usize>,
    /// What its target has said of it.
    said: Rc<Said>,
    /// Whether it gets no more requests.
    retired: Cell<bool>,
    /// When its target last answered something.
    heard_at_ms: Cell<u64>,
    /// When a request on it last ended.
    ended_at_ms: Cell<u64>,
}

impl Shared {
    /// A connection on which requests are sent by `sender`, for these alone if they are given. What is said of it is kept up to date by
    /// whoever runs it.
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        said: Rc<Said>,
        whose: Option<Box<Whose>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            sender: sender.into(),
            whose,
            streams: Cell::new(0),
            said,
            retired: Cell::new(false),
            heard_at_ms: Cell::new(timer::now_ms()),
            ended_at_ms: Cell::new(timer::now_ms()),
        })
    }

    fn is_good(&self) -> bool {
        !self.retired.get() && !self.sender.borrow().is_closed()
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.said.streams_max()
    }

    /// A place for one request.
    pub(super) fn slot(self: &Rc<Self>) -> Slot {
        self.streams.set(self.streams.get() + 1);
        Slot { on: self.clone(), since_ms: timer::now_ms() }
    }
}

/// A request's place on a connection that others use too.
#[derive(Debug)]
pub(crate) struct Slot {
    on: Rc<Shared>,
    since_ms: u64,
}

impl Slot {
    /// Sends the request.
    pub(super) fn send(
        &self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.on.sender.borrow_mut().try_send_request(request)
    }

    /// Whether WebSockets are taken on the connection, once its target has said so; none if it ends before.
    pub(super) async fn takes_websockets(&self) -> Option<bool> {
        self.on.said.websockets().await
    }

    /// The connection gets no more requests.
    pub(super) fn retire(&self) {
        self.on.retired.set(true);
    }

    /// It was answered.
    pub(super) fn answered(&self) {
        self.on.heard_at_ms.set(timer::now_ms());
    }

    /// It was not answered in time. If nothing was since it was sent, the connection may be dead, and gets no more requests.
    pub(super) fn was_late(&self) {
        if self.on.heard_at_ms.get() <= self.since_ms {
            self.retire();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.on.streams.set(self.on.streams.get() - 1);
        self.on.ended_at_ms.set(timer::now_ms());
    }
}

/// A worker's shared connections to one target.
#[derive(Debug)]
pub(crate) struct Shares {
    connections: RefCell<Vec<Rc<Shared>>>,
    openings: RefCell<Vec<Rc<Opening>>>,
    /// How many requests the target takes at once on a connection, as it last said.
    pub(super) streams_max: Rc<Cell<usize>>,
    /// Whether the target, when last asked, chose HTTP/1.1.
    speaks_http1: Cell<bool>,
}

/// A connection that is being made, and who waits for it.
#[derive(Debug)]
struct Opening {
    whose: Option<Box<Whose>>,
    waiting: Cell<usize>,
    /// Why it came to nothing.
    failed: Cell<Option<Why>>,
    over: Notify,
}

/// Ends an opening, however it comes to its end.
struct Ends<'a>(&'a Shares, Rc<Opening>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.openings.borrow_mut().retain(|opening| !Rc::ptr_eq(opening, &self.1));
        self.1.over.notify_waiters();
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            connections: RefCell::default(),
            openings: RefCell::default(),
            streams_max: Rc::new(Cell::new(STREAMS_AT_FIRST)),
            speaks_http1: Cell::new(false),
        }
    }
}

impl Shares {
    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Forgets connections that have ended, and closes those that nobody has used for so long.
    pub(super) fn sweep(&self, now_ms: u64, idle_ms_max: u64) {
        self.connections.borrow_mut().retain(|shared| {
            let idle =
                shared.streams.get() == 0 && now_ms.saturating_sub(shared.ended_at_ms.get()) > idle_ms_max;
            shared.is_good() && !idle
        });
    }

    /// A place on a connection for these that has room; or, where no more are to be opened, on the one with the fewest
    /// requests.
    fn take(&self, whose: Option<&Whose>) -> Option<Slot> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|shared| shared.is_good());
        let ours = || connections.iter().filter(|shared| shared.whose.as_deref() == whose);
        if let Some(shared) = ours().find(|shared| shared.has_room()) {
            return Some(shared.slot());
        }
        if connections.len() + self.openings.borrow().len() < CONNECTIONS_MAX {
            return None;
        }
        if whose.is_some() {
            // Those that are there for others and of no use to them now make room.
            connections.retain(|shared| shared.streams.get() > 0 || shared.whose.as_deref() == whose);
        }
        let ours = || connections.iter().filter(|shared| shared.whose.as_deref() == whose);
        ours().min_by_key(|shared| shared.streams.get()).map(Shared::slot)
    }

    /// A connection for these that is being made and is not waited for by as many as it takes, or gets.
    fn opening(&self, whose: Option<&Whose>, limit: usize) -> Option<Rc<Opening>> {
        let most = self.streams_max.get().min(limit);
        let openings = self.openings.borrow();
        let mut ours = openings.iter().filter(|opening| opening.whose.as_deref() == whose);
        ours.find(|opening| opening.waiting.get() + 1 < most).cloned()
    }

    fn open(&self, whose: Option<&Whose>) -> Ends<'_> {
        let opening = Rc::new(Opening {
            whose: whose.cloned().map(Box::new),
            waiting: Cell::new(0),
            failed: Cell::new(None),
            over: Notify::new(),
        });
        self.openings.borrow_mut().push(opening.clone());
        Ends(self, opening)
    }
}

impl Opening {
    /// Waits for its end, or says why it came to nothing.
    async fn wait(&self) -> Result<(), Why> {
        self.waiting.set(self.waiting.get() + 1);
        self.over.notified().await;
        self.failed.get().map_or(Ok(()), Err)
    }
}

/// A connection to a target that may speak HTTP/2, and whether it was there before: a place on one that others use, or an idle
/// one of HTTP/1.1 unless it is to be `fresh`, or one that is being made, or a new one, for which a place is waited for until `end_ms`.
pub(super) async fn obtain(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
    (whose, fresh): (Option<Box<Whose>>, bool),
    end_ms: Option<u64>,
) -> Result<(Wire, bool), Why> {
    let (shares, limit) = (&pool.shares, upstream.transport.http2.streams_max as usize);
    loop {
        if let Some(slot) = shares.take(whose.as_deref()) {
            return Ok((Wire::Shared(slot), !fresh));
        }
        if !fresh && let Some(link) = pool.take(whose.as_deref()) {
            return Ok((Wire::Own(link), true));
        }
        if shares.speaks_http1.get() {
            let wire = open(worker, upstream, target, pool, whose, end_ms).await?;
            return Ok((wire, false));
        }
        let Some(opening) = shares.opening(whose.as_deref(), limit) else {
            let ends = shares.open(whose.as_deref());
            let opened = open(worker, upstream, target, pool, whose, end_ms).await;
            // Whose own time is over says nothing to others.
            let is_late = end_ms.is_some_and(|end_ms| timer::now_ms() >= end_ms);
            ends.1.failed.set(opened.as_ref().err().copied().filter(|_| !is_late));
            return opened.map(|wire| (wire, false));
        };
        opening.wait().await?;
    }
}

/// A new connection, which others use too if they can.
async fn open(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
    whose: Option<Box<Whose>>,
    end_ms: Option<u64>,
) -> Result<Wire, Why> {
    let counted = breaker::place(worker, upstream, pool, end_ms).await?;
    let wire = connect(worker, upstream, target, pool, whose, counted, Offer::All).await?;
    pool.shares.speaks_http1.set(matches!(wire, Wire::Own(_)));
    if let Wire::Shared(slot) = &wire {
        pool.shares.connections.borrow_mut().push(slot.on.clone());
    }
    Ok(wire)
}
