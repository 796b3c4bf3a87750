//! A worker's idle connections to targets.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use hyper::client::conn::http1::SendRequest;

use crate::{body::RequestBody, settings::Limits, timer};

/// One side of a connection to a target: what requests are sent by.
pub(crate) type Sender = SendRequest<RequestBody>;

/// A worker's idle connections, by target.
#[derive(Debug)]
pub(crate) struct Pools {
    by_target: RefCell<HashMap<u64, Rc<Pool>, ahash::RandomState>>,
    idle_max: usize,
    idle_ms_max: u64,
}

/// The idle connections to one target, the last used last.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Idle>>,
    idle_max: usize,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
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

    /// The pool of the target of this id.
    pub(crate) fn of(&self, target: u64) -> Rc<Pool> {
        if let Some(pool) = self.by_target.borrow().get(&target) {
            return pool.clone();
        }
        let pool = Rc::new(Pool { idle: RefCell::default(), idle_max: self.idle_max });
        self.by_target.borrow_mut().insert(target, pool.clone());
        pool
    }

    /// Closes what has been idle for too long, and forgets targets with no connection.
    pub(crate) fn sweep(&self) {
        let now = timer::now_ms();
        self.by_target.borrow_mut().retain(|_, pool| {
            let mut idle = pool.idle.borrow_mut();
            idle.retain(|idle| {
                !idle.sender.is_closed() && now.saturating_sub(idle.since_ms) <= self.idle_ms_max
            });
            !idle.is_empty() || Rc::strong_count(pool) > 1
        });
    }
}

impl Pool {
    /// An idle connection that stands, as far as is known.
    pub(crate) fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { sender, .. }) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn give(&self, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.idle_max {
            idle.push(Idle { sender, since_ms: timer::now_ms() });
        }
    }
}

/// A connection in use. Dropped, it goes back to its pool once its exchange has come to a good end.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<(Sender, Rc<Pool>)>,
}

impl Lease {
    pub(crate) fn new(sender: Sender, pool: Rc<Pool>) -> Self {
        Self { connection: Some((sender, pool)) }
    }

    /// Closes the connection.
    pub(crate) fn discard(mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((mut sender, pool)) = self.connection.take() else { return };
        if sender.is_ready() {
            pool.give(sender);
        } else if !sender.is_closed() {
            // Its last bytes are being read, or it is being closed: both are soon known.
            tokio::task::spawn_local(async move {
                if sender.ready().await.is_ok() {
                    pool.give(sender);
                }
            });
        }
    }
}
