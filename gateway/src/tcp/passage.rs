//! One connection on its way through: what is known of it for people, and told at its end, however it ends.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use model::Name;

use super::relay::Ended;
use crate::{
    connection::Connection,
    plan::tcp::{CompiledTcpRoute, TcpFigures},
    worker::Worker,
};

/// How a connection that was to go through ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides have ended.
    Closed,
    /// The client broke off.
    ClientReset,
    /// The target broke off.
    TargetReset,
    /// Neither side has sent anything for too long.
    Idle,
    /// No TCP route takes it.
    NoRoute,
    /// What its client sent is no ClientHello, and nothing else is taken there.
    BadHello,
    /// Its client took too long to name a host.
    HelloTimeout,
    /// Its client has gone before it named a host.
    Gone,
    /// The TCP route has as many as it may.
    Limited,
    /// The upstream has as many as it may.
    Overflow,
    /// No target takes it.
    Unconnected,
    /// The node was stopped, and the time for connections to end was over.
    Cut,
}

impl End {
    /// All of them, in the order of the enum, each with its word.
    pub(crate) const ALL: [(Self, &str); 12] = [
        (Self::Closed, "closed"),
        (Self::ClientReset, "client_reset"),
        (Self::TargetReset, "target_reset"),
        (Self::Idle, "idle"),
        (Self::NoRoute, "no_route"),
        (Self::BadHello, "bad_hello"),
        (Self::HelloTimeout, "hello_timeout"),
        (Self::Gone, "gone"),
        (Self::Limited, "limited"),
        (Self::Overflow, "overflow"),
        (Self::Unconnected, "unconnected"),
        (Self::Cut, "cut"),
    ];

    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        // Its place in `ALL` (a test).
        Self::ALL[self as usize].1
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => Self::Closed,
            Ended::ClientReset => Self::ClientReset,
            Ended::TargetReset => Self::TargetReset,
            Ended::Idle => Self::Idle,
        }
    }
}

/// Where a connection went, as it becomes known.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) upstream: Option<Name>,
    /// The target that was tried last.
    pub(crate) target: Option<Box<str>>,
    pub(crate) attempts: u32,
    /// How long the last attempt took.
    pub(crate) took: Option<Duration>,
}

/// A connection on its way through. Counted and written to the access log when this is dropped.
pub(crate) struct Passage {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) listener: Name,
    began: Instant,
    /// The host that its client names.
    pub(crate) sni: Option<String>,
    pub(crate) told: Told,
    pub(crate) end: End,
    route: Option<Arc<CompiledTcpRoute>>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Passage {
    /// Of a connection that has come to this listener.
    pub(crate) fn begin(worker: &Rc<Worker>, connection: &Rc<Connection>, listener: Name) -> Self {
        worker.metrics.tcp.open.add(1);
        Self {
            worker: worker.clone(),
            connection: connection.clone(),
            listener,
            began: Instant::now(),
            sni: None,
            told: Told::default(),
            end: End::Cut,
            route: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    fn figures(&self) -> Option<&TcpFigures> {
        let workers = || self.worker.settings.worker_count();
        self.route.as_ref().map(|route| route.state.figures.of(self.worker.number, workers))
    }

    /// This route takes it.
    pub(crate) fn takes(&mut self, route: &Arc<CompiledTcpRoute>) {
        self.route = Some(route.clone());
        if let Some(figures) = self.figures() {
            figures.connections.add(1);
            figures.open.add(1);
        }
    }

    /// So many bytes have come of the client and of the target.
    pub(crate) fn moved(&mut self, (bytes_in, bytes_out): (u64, u64)) {
        if (bytes_in, bytes_out) == (self.bytes_in, self.bytes_out) {
            return;
        }
        let (more_in, more_out) =
            (bytes_in.wrapping_sub(self.bytes_in), bytes_out.wrapping_sub(self.bytes_out));
        (self.bytes_in, self.bytes_out) = (bytes_in, bytes_out);
        self.worker.metrics.tcp.moved(more_in, more_out);
        if let Some(figures) = self.figures() {
            figures.bytes_in.add(more_in);
            figures.bytes_out.add(more_out);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let metrics = &self.worker.metrics.tcp;
        metrics.open.sub(1);
        metrics.ended(self.end, took);
        if let Some(figures) = self.figures() {
            figures.open.sub(1);
        }
        let Some(access) = &self.worker.access else { return };
        let line = crate::access::PassageLine {
            client: self.connection.peer.ip().to_canonical(),
            listener: self.listener.as_str(),
            sni: self.sni.as_deref(),
            end: self.end.word(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            took,
            route: self.route.as_ref().map(|route| route.name.as_str()),
            upstream: self.told.upstream.as_ref().map(Name::as_str),
            target: self.told.target.as_deref(),
            target_took: self.told.took,
            attempts: self.told.attempts,
        };
        access.write_passage(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_word() {
        for (at, (end, word)) in End::ALL.into_iter().enumerate() {
            assert_eq!((end as usize, end.word()), (at, word));
        }
    }
}
