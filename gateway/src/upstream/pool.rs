//! A worker's idle connections to targets.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
};

use tokio::sync::Notify;

use super::{
    balance::Load,
    shared::{Shares, Slot},
};
use crate::{h1::client::Link, settings::Limits, timer};

/// How often a worker tells why there is no connection to a target, in milliseconds.
const TOLD_MS: u64 = 10_000;

/// One in so many connections is given up for those who wait for it elsewhere, though somebody waits here.
const FAIR: u32 = 16;

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
                now.saturating_sub(idle.since_ms) <= self.idle_ms_max
                    && idle.link.is_quiet()
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
            if link.is_quiet() {
                return Some(link);
            }
        }
    }

    /// Closes what is idle.
    pub(super) fn clear(&self) {
        self.idle.borrow_mut().clear();
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

    /// Keeps a connection that is used no more, for those who come next.
    pub(crate) fn give(&self, link: Link) {
        let (waiting, given) = (self.waiting.get(), self.given.get().wrapping_add(1));
        self.given.set(given);
        // Those who wait here go first, so that connections are used again, but not always.
        if link.is_wanted(waiting) && (waiting == 0 || given.is_multiple_of(FAIR)) {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.idle_max && link.whose.is_some() && !idle.is_empty() {
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

/// What an exchange has of its target for as long as it goes on.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// Its place on a connection that others use too.
    #[expect(dead_code, reason = "given up when dropped")]
    pub(super) slot: Option<Slot>,
    /// What it is of its target's load.
    pub(crate) load: Load,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::io::Io;

    #[tokio::test]
    async fn where_nothing_is_kept_nothing_is() {
        let pools = Pools::new(&Limits { upstream_idle_max: 0, ..Limits::default() });
        let pool = pools.of(1, 1);
        for whose in [None, Some(Whose { host: Some("a".to_owned()), client: None })] {
            let (near, _far) = tokio::io::duplex(64);
            pool.give(Link::new(Io::Layered(Box::new(near)), whose.clone().map(Box::new), None));
            assert!(pool.take(whose.as_ref()).is_none());
        }
    }
}
