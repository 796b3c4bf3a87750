//! A worker's idle connections to targets.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{sync::Notify, task::JoinHandle};

use super::{
    balance::Load,
    breaker::Counted,
    response_head::Awaited,
    shared::{Shares, Slot},
    stream::HeldUp,
};
use crate::{
    settings::Limits,
    timer,
    upload::{Progress, RequestBody},
};

/// How long an upload may stand still once its request is answered.
const UPLOAD_WAIT: Duration = Duration::from_secs(2);
/// How often a worker tells why there is no connection to a target, in milliseconds.
const TOLD_MS: u64 = 10_000;

/// One in so many connections is given up for those who wait for it elsewhere, though somebody waits here.
const FAIR: u32 = 16;

/// A connection to a target, of which one request has the use.
#[derive(Debug)]
pub(crate) struct Link {
    /// What requests are sent by.
    pub(crate) sender: SendRequest<RequestBody>,
    /// What reads and writes.
    pub(crate) task: JoinHandle<()>,
    /// Since when its target takes nothing.
    pub(crate) held_up: HeldUp,
    /// Whether it awaits a response's head.
    pub(crate) awaited: Awaited,
    /// Whose requests it is for; none if for any.
    pub(crate) whose: Option<Box<Whose>>,
    /// Its place among the connections of an upstream that limits them.
    pub(crate) counted: Option<Rc<Counted>>,
}

impl Link {
    /// Closes it at once: left to itself it would first write what its target does not take.
    pub(crate) fn close(self) {
        self.task.abort();
    }

    /// Whether somebody waits for a connection who can't have this one.
    fn is_wanted(&self, waiting_here: u32) -> bool {
        self.counted.as_ref().is_some_and(|counted| counted.is_wanted(waiting_here))
    }
}

/// A connection to a target, for one request.
#[derive(Debug)]
pub(crate) enum Wire {
    /// The request's own.
    Own(Link),
    /// Others are on it too.
    Shared(Slot),
}

/// Whose requests a connection is for, where it is not for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whose {
    /// Those for this host, whose name the target was asked for.
    pub(crate) host: Option<String>,
    /// Those on the connection between these addresses, of the client and ours, which the target was told.
    pub(crate) client: Option<(SocketAddr, SocketAddr)>,
}

/// A worker's idle connections, by target and transport.
#[derive(Debug)]
pub(crate) struct Pools {
    by_target: RefCell<HashMap<(u64, u64), Rc<Pool>, ahash::RandomState>>,
    idle_max: usize,
    idle_ms_max: u64,
}

/// The connections to one target: idle ones, the last used last, and those that requests share.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    idle_max: usize,
    pub(super) shares: Shares,
    /// When somebody was last told why there is no connection.
    told_at_ms: Cell<u64>,
    /// How many requests of this worker wait for a connection to this target.
    pub(crate) waiting: Cell<u32>,
    /// Tells one of them that there is an idle one.
    pub(crate) returned: Notify,
    /// How many were given back.
    given: Cell<u32>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since_ms: u64,
}

impl Pools {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            by_target: RefCell::default(),
            idle_max: limits.upstream_idle_max,
            idle_ms_max: timer::millis(limits.upstream_idle_timeout),
        }
    }

    /// The pool of the target of this id, spoken to by the transport of this id.
    pub(crate) fn of(&self, target: u64, transport: u64) -> Rc<Pool> {
        if let Some(pool) = self.by_target.borrow().get(&(target, transport)) {
            return pool.clone();
        }
        let pool = Rc::new(Pool {
            idle: RefCell::default(),
            idle_max: self.idle_max,
            shares: Shares::default(),
            told_at_ms: Cell::new(0),
            waiting: Cell::new(0),
            returned: Notify::new(),
            given: Cell::new(0),
        });
        self.by_target.borrow_mut().insert((target, transport), pool.clone());
        pool
    }

    /// Closes what has been idle for too long, and forgets targets with no connection.
    pub(crate) fn sweep(&self) {
        let now = timer::now_ms();
        self.by_target.borrow_mut().retain(|_, pool| {
            let mut idle = pool.idle.borrow_mut();
            idle.retain(|idle| {
                !idle.link.sender.is_closed()
                    && now.saturating_sub(idle.since_ms) <= self.idle_ms_max
                    && !idle.link.is_wanted(pool.waiting.get())
            });
            pool.shares.sweep(now, self.idle_ms_max);
            !idle.is_empty() || !pool.shares.is_empty() || Rc::strong_count(pool) > 1
        });
    }
}

impl Pool {
    /// An idle connection that stands, as far as is known, and is for these.
    pub(crate) fn take(&self, whose: Option<&Whose>) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let Idle { link, .. } = match whose {
                None => idle.pop()?,
                Some(whose) => {
                    let at = idle.iter().rposition(|idle| idle.link.whose.as_deref() == Some(whose))?;
                    idle.remove(at)
                }
            };
            if link.sender.is_ready() {
                return Some(link);
            }
        }
    }

    /// Whether it is time to tell again why there is no connection.
    pub(crate) fn may_tell(&self) -> bool {
        let now = timer::now_ms();
        let last = self.told_at_ms.get();
        let may = last == 0 || now.saturating_sub(last) >= TOLD_MS;
        if may {
            self.told_at_ms.set(now);
        }
        may
    }

    fn give(&self, link: Link) {
        let (waiting, given) = (self.waiting.get(), self.given.get().wrapping_add(1));
        self.given.set(given);
        // Those who wait here go first, so that connections are used again, but not always.
        if link.is_wanted(waiting) && (waiting == 0 || given.is_multiple_of(FAIR)) {
            return link.close();
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.idle_max && link.whose.is_some() {
            // For those who come next it may be of no use; that it is there says that these come now.
            idle.remove(0);
        }
        if idle.len() < self.idle_max {
            idle.push(Idle { link, since_ms: timer::now_ms() });
        }
        if waiting > 0 {
            self.returned.notify_one();
        }
    }
}

/// A connection in use. Dropped, it goes back to its pool once its exchange has come to a good end.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<(Wire, Rc<Pool>)>,
    /// Of the request's body, if there is one.
    upload: Option<Rc<Progress>>,
    is_last: bool,
    /// What the exchange is of its target's load.
    pub(crate) load: Load,
}

impl Lease {
    pub(crate) fn new(wire: Wire, pool: Rc<Pool>, upload: Option<Rc<Progress>>) -> Self {
        Self { connection: Some((wire, pool)), upload, is_last: false, load: Load::default() }
    }

    /// Has the connection end with this exchange, if no others are on it.
    pub(crate) fn end_connection(&mut self) {
        self.is_last = true;
    }

    /// The request's place on the connection, if others are on it too.
    pub(super) fn slot(&self) -> Option<&Slot> {
        match &self.connection {
            Some((Wire::Shared(slot), _)) => Some(slot),
            _ => None,
        }
    }

    /// Closes the connection at once, if no others are on it.
    pub(crate) fn discard(mut self) {
        if let Some((Wire::Own(link), _)) = self.connection.take() {
            link.close();
        }
    }

    /// Leaves the connection to the tunnel that it becomes, which is its target's load, and one of the connections that there
    /// may be, for as long as it is open.
    pub(crate) fn hand_over(mut self) -> (Load, Option<Rc<Counted>>) {
        let counted = match self.connection.take() {
            Some((Wire::Own(link), _)) => link.counted,
            _ => None,
        };
        (std::mem::take(&mut self.load), counted)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((Wire::Own(link), pool)) = self.connection.take() else { return };
        if self.is_last {
            link.task.abort();
        } else if link.sender.is_ready() {
            pool.give(link);
        } else if !link.sender.is_closed() {
            // Its last bytes are being read, or it is being closed: both are soon known. Or the target has
            // answered before it had the whole request.
            tokio::task::spawn_local(come_back(link, pool, self.upload.take()));
        }
    }
}

/// Puts the connection back once it is ready. One whose target no longer takes what is sent to it is closed,
/// so that neither it nor the client waits for ever.
async fn come_back(mut link: Link, pool: Rc<Pool>, upload: Option<Rc<Progress>>) {
    loop {
        let before = upload.as_ref().map(|upload| upload.bytes());
        match tokio::time::timeout(UPLOAD_WAIT, link.sender.ready()).await {
            Ok(Ok(())) => return pool.give(link),
            Ok(Err(_)) => return,
            Err(_) if before == upload.as_ref().map(|upload| upload.bytes()) => return link.close(),
            Err(_) => {}
        }
    }
}
