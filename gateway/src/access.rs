//! The access log: a line a request, and one for each connection that goes through. A worker writes its lines into a buffer of its own, and hands that to
//! one thread that writes them out; where that thread falls behind, lines are dropped and counted, and no
//! request waits.

mod line;
mod passage;
mod writer;

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use model::Name;

use self::line::Line;
use crate::{metrics::Metrics, upload::Progress};

pub(crate) use passage::PassageLine;
pub(crate) use writer::start;

/// A worker's buffer is handed on once it has so many bytes, and at each tick.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where the access log goes, and how it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to.
    pub to: Destination,
    /// An object of JSON a line, and not words for people.
    pub json: bool,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To standard output.
    Stdout,
    /// To standard error, among the other logs.
    Stderr,
    /// To the end of this file, which is made if it is not there.
    File(PathBuf),
}

/// Whole lines, on their way to the writer.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    count: u64,
}

/// One worker's part of the log.
#[derive(Debug)]
pub(crate) struct Log {
    json: bool,
    buffer: RefCell<Vec<u8>>,
    count: Cell<u64>,
    writer: SyncSender<Lines>,
    metrics: Arc<Metrics>,
}

impl Log {
    pub(crate) fn new(json: bool, writer: SyncSender<Lines>, metrics: Arc<Metrics>) -> Self {
        Self { json, buffer: RefCell::default(), count: Cell::new(0), writer, metrics }
    }

    /// Writes the line of a request that has ended.
    pub(crate) fn write(&self, entry: &Entry, status: StatusCode, bytes_out: u64, duration: Duration) {
        let line = Line::of(entry, SystemTime::now(), status, bytes_out, duration);
        self.put(|json, buffer| if json { line.json(buffer) } else { line.text(buffer) });
    }

    /// Writes the line of a connection that went through and has ended.
    pub(crate) fn write_passage(&self, line: &PassageLine<'_>) {
        let now = SystemTime::now();
        self.put(|json, buffer| if json { line.json(now, buffer) } else { line.text(now, buffer) });
    }

    fn put(&self, line: impl FnOnce(bool, &mut Vec<u8>)) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() == 0 {
            buffer.reserve(BUFFER_BYTES);
        }
        line(self.json, &mut buffer);
        self.count.set(self.count.get() + 1);
        let full = buffer.len() >= BUFFER_BYTES;
        drop(buffer);
        if full {
            self.hand_on();
        }
    }

    /// Hands what there is to the writer, or drops it if that is too far behind.
    pub(crate) fn hand_on(&self) {
        let count = self.count.take();
        if count > 0 && self.writer.try_send(Lines { bytes: self.buffer.take(), count }).is_err() {
            self.metrics.access_log_dropped.add(count);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.hand_on();
    }
}

/// What is noted of a request for its line.
#[derive(Debug)]
pub(crate) struct Entry {
    client: IpAddr,
    id: HeaderValue,
    /// None of a head that was refused.
    asked: Option<Asked>,
    upload: Option<Rc<Progress>>,
    route: Option<Name>,
    consumer: Option<Name>,
    upstream: Option<Name>,
    attempts: u32,
    /// Attempts that were made beside others.
    hedges: u32,
    hedge_won: bool,
    target: Option<Box<str>>,
    attempt_began: Option<Instant>,
    target_time: Option<Duration>,
}

#[derive(Debug)]
struct Asked {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Entry {
    /// Of a request of which nothing is known.
    pub(crate) fn refused(client: IpAddr, id: HeaderValue) -> Self {
        Self {
            client,
            id,
            asked: None,
            upload: None,
            route: None,
            consumer: None,
            upstream: None,
            attempts: 0,
            hedges: 0,
            hedge_won: false,
            target: None,
            attempt_began: None,
            target_time: None,
        }
    }
}

/// A request's entry, where there is a log.
#[derive(Debug, Default)]
pub(crate) struct Note(Option<Box<Entry>>);

impl Note {
    pub(crate) fn of(client: IpAddr, head: &Parts, id: &HeaderValue, upload: Option<Rc<Progress>>) -> Self {
        let host = head.headers.get(header::HOST).cloned();
        let asked = Some(Asked { method: head.method.clone(), uri: head.uri.clone(), host });
        Self(Some(Box::new(Entry { asked, upload, ..Entry::refused(client, id.clone()) })))
    }

    pub(crate) fn take(&mut self) -> Option<Box<Entry>> {
        self.0.take()
    }

    /// This route has taken it.
    pub(crate) fn route(&mut self, route: &Name) {
        if let Some(entry) = &mut self.0 {
            entry.route = Some(route.clone());
        }
    }

    /// This is who calls.
    pub(crate) fn consumer(&mut self, consumer: Option<&Name>) {
        if let Some(entry) = &mut self.0 {
            entry.consumer = consumer.cloned();
        }
    }

    /// It is sent to this target now.
    pub(crate) fn attempt(&mut self, upstream: &Name, target: &str) {
        if let Some(entry) = &mut self.0 {
            entry.upstream = Some(upstream.clone());
            entry.attempts += 1;
            entry.target = Some(target.into());
            entry.attempt_began = Some(Instant::now());
        }
    }

    /// It is sent to one more target besides.
    pub(crate) fn hedged(&mut self) {
        if let Some(entry) = &mut self.0 {
            entry.attempts += 1;
            entry.hedges += 1;
        }
    }

    /// Of those that it was sent to at once this target has answered, after so long, or was the last to fail.
    pub(crate) fn attempted_at(&mut self, target: &str, took: Duration, is_hedge: bool) {
        if let Some(entry) = &mut self.0 {
            entry.target = Some(target.into());
            entry.attempt_began = None;
            entry.target_time = Some(took);
            entry.hedge_won = is_hedge;
        }
    }

    /// The target has answered, or the attempt has failed.
    pub(crate) fn attempted(&mut self) {
        if let Some(entry) = &mut self.0 {
            entry.target_time = entry.attempt_began.take().map(|began| began.elapsed());
        }
    }
}
