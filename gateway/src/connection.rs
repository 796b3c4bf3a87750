//! One client's connection: what is watched of it, and what ends it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use tokio::net::TcpStream;

use crate::{
    access::Entry,
    authority::LastHost,
    error::Fault,
    h1::{self, interims::Interims},
    http2,
    pace::Pace,
    settings::{Limit, Limits},
    streams::Streams,
    timer,
    tls::{self, Begun, ClientCertificate, Proved, certificates::Certificates},
    watched::Watched,
    worker::Worker,
};

/// How long a client that is still sending is listened to after its answer.
const LINGER_MS: u64 = 1_000;

/// How long a connection is spared by a drain while its first request may be on its way.
const FRESH_MS: u64 = 500;

/// What is known of a connection's bytes and of its exchanges. It never leaves its worker's thread; only the socket below
/// TLS asks that it could, so it is made of atomics. Times are those of
/// [`timer::now_ms`], 0 for "does not wait".
#[derive(Debug, Default)]
pub(crate) struct Watch {
    tunnel: AtomicBool,
    /// Whether a client is listened to for a little after its connection was ended.
    lingers: AtomicBool,
    refused: OnceLock<h1::Fault>,
    /// Exchanges that have begun and not ended.
    exchanges: AtomicU32,
    head_since_ms: AtomicU64,
    /// At which it sends bodies.
    sending: Pace,
    /// At which it takes responses.
    taking: Pace,
    /// In bytes a second.
    rate_min: u64,
    linger_since_ms: AtomicU64,
}

impl Watch {
    fn new(rate_min: u64) -> Self {
        Self { rate_min, ..Self::default() }
    }

    /// From now on the bytes are no HTTP.
    pub(crate) fn become_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// Who still sends when its connection is ended is listened to for a little.
    pub(crate) fn lingers_at_its_end(&self) {
        self.lingers.store(true, Relaxed);
    }

    pub(crate) fn is_lingering(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    /// The stream was framed badly.
    pub(crate) fn refuse(&self, fault: h1::Fault) {
        // A connection ends with its first fault.
        let _ = self.refused.set(fault);
    }

    /// What is wrong with the stream's framing, if something is.
    pub(crate) fn refused(&self) -> Option<h1::Fault> {
        self.refused.get().copied()
    }

    fn begin(&self) {
        self.head_since_ms.store(0, Relaxed);
        self.exchanges.store(self.exchanges.load(Relaxed) + 1, Relaxed);
    }

    fn end(&self) {
        self.exchanges.store(self.exchanges.load(Relaxed).saturating_sub(1), Relaxed);
    }

    fn in_exchange(&self) -> bool {
        self.exchanges.load(Relaxed) > 0
    }

    /// The client is waited for to send.
    pub(crate) fn reading(&self, in_message: bool, in_head: bool) {
        if in_message {
            if !in_head {
                self.sending.waits(timer::now_ms());
            } else if self.head_since_ms.load(Relaxed) == 0 {
                self.head_since_ms.store(timer::now_ms(), Relaxed);
            }
        } else {
            self.head_since_ms.store(0, Relaxed);
        }
    }

    /// The client has sent so many bytes. A head's time goes on: drop by drop is no excuse.
    pub(crate) fn read(&self, bytes: usize) {
        self.sending.moved(timer::now_ms(), bytes, self.rate_min);
    }

    /// So much was written, or the client is waited for to take more.
    pub(crate) fn writing(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.taking.waits(timer::now_ms()),
            Poll::Ready(Ok(bytes)) => self.taking.moved(timer::now_ms(), *bytes, self.rate_min),
            Poll::Ready(Err(_)) => {}
        }
    }

    fn wrote(&self, bytes: u64, waits: bool) {
        if bytes > 0 {
            self.taking.moved(timer::now_ms(), usize::try_from(bytes).unwrap_or(usize::MAX), self.rate_min);
        }
        if waits {
            self.taking.waits(timer::now_ms());
        }
    }

    pub(crate) fn linger(&self) {
        self.linger_since_ms.store(timer::now_ms(), Relaxed);
    }
}

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stay,
    /// End after the exchanges in flight.
    Finish,
    /// End now.
    Drop,
}

/// One client's connection, as its worker sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The client, or the proxy before us.
    pub(crate) peer: SocketAddr,
    /// Where it has come to, if that was wanted when it came.
    pub(crate) local: Option<SocketAddr>,
    /// Its address, as a header has it.
    pub(crate) peer_value: HeaderValue,
    /// Whether what it says of others is believed.
    pub(crate) trusted: bool,
    /// Whether it comes over TLS.
    pub(crate) secure: bool,
    pub(crate) watch: Arc<Watch>,
    pub(crate) host: LastHost,
    /// What the client proved in its handshake, over TLS.
    proved: OnceCell<Box<Proved>>,
    /// Its requests in flight, where it speaks HTTP/2.
    pub(crate) streams: Streams,
    /// What targets have said before their answers, to a client of HTTP/1.1.
    pub(crate) interims: Interims,
    used: Cell<bool>,
    idle_since_ms: Cell<u64>,
    /// Since when it is to end; 0 if it is not.
    finish_since_ms: Cell<u64>,
    wish: Cell<Wish>,
    waker: RefCell<Option<Waker>>,
}

impl Connection {
    /// Of this peer, which is believed or not, should send and take so many bytes a second, and comes over TLS if `secure`.
    pub(crate) fn new(peer: SocketAddr, trusted: bool, rate_min: u64, secure: bool) -> Self {
        let address = peer.ip().to_canonical().to_string();
        Self {
            peer,
            local: None,
            peer_value: HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("unknown")),
            trusted,
            secure,
            watch: Arc::new(Watch::new(rate_min)),
            host: LastHost::default(),
            proved: OnceCell::new(),
            streams: Streams::default(),
            interims: Interims::default(),
            used: Cell::new(false),
            idle_since_ms: Cell::new(timer::now_ms()),
            finish_since_ms: Cell::new(0),
            wish: Cell::new(Wish::Stay),
            waker: RefCell::new(None),
        }
    }

    /// The client has proved this in its handshake.
    pub(crate) fn proved(&self, proved: Proved) {
        // There is one handshake.
        let _ = self.proved.set(Box::new(proved));
    }

    /// The client's certificate, if it has shown one.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.proved.get()?.client.as_deref()
    }

    /// Whether a request for this host may come on it.
    pub(crate) fn may_ask(&self, host: &str, certificates: &Certificates) -> bool {
        self.proved.get().is_none_or(|proved| certificates.may_serve(host, proved.context))
    }

    /// The scheme of what it asks for.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// An exchange begins.
    pub(crate) fn begin(&self) {
        self.watch.begin();
        self.used.set(true);
    }

    /// Whether it has come just now and no request of it has been read.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.used.get() && timer::now_ms().saturating_sub(self.idle_since_ms.get()) < FRESH_MS
    }

    /// Something goes on besides its exchanges, for as long as this is kept.
    pub(crate) fn busy(self: &Rc<Self>) -> Busy {
        self.begin();
        Busy(self.clone())
    }

    /// An exchange has ended: its response is handed on whole, or given up.
    pub(crate) fn end(&self) {
        self.watch.end();
        self.idle_since_ms.set(timer::now_ms());
    }

    /// Asks for its end after the exchange in flight.
    pub(crate) fn finish(&self) {
        self.wish(Wish::Finish);
    }

    /// Ends it now, whatever is in flight; false if that was wished before.
    pub(crate) fn end_now(&self) -> bool {
        self.wish(Wish::Drop)
    }

    /// The future's output; none if the connection is to end before it is there.
    pub(crate) async fn unless_ended<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if self.wish.get() != Wish::Stay {
                return Poll::Ready(None);
            }
            let polled = future.as_mut().poll(cx).map(Some);
            if polled.is_pending() {
                self.wake_by(cx.waker());
            }
            polled
        })
        .await
    }

    /// Ends it, or one of its streams, if it has waited for its client for too long; gives the limit that the client has
    /// just run into.
    pub(crate) fn sweep(&self, limits: &Limits) -> Option<Limit> {
        let now = timer::now_ms();
        let over = |since: u64, limit_ms: u64| since != 0 && now.saturating_sub(since) > limit_ms;
        let watch = &self.watch;
        if watch.is_tunnel() {
            return None;
        }
        if over(watch.linger_since_ms.load(Relaxed), LINGER_MS) {
            self.wish(Wish::Drop);
            return None;
        }
        let stall_ms = timer::millis(limits.stall_timeout);
        for pace in [&watch.sending, &watch.taking] {
            let (waiting, behind) = pace.behind_ms(now);
            if behind > stall_ms {
                let limit = if waiting > stall_ms { Limit::StallTimeout } else { Limit::ClientRate };
                return self.wish(Wish::Drop).then_some(limit);
            }
        }
        let streams = self.streams.sweep(now, stall_ms);
        if watch.in_exchange() {
            return streams;
        }
        if over(self.finish_since_ms.get(), stall_ms) {
            return self.wish(Wish::Drop).then_some(Limit::StallTimeout);
        }
        let head_since = watch.head_since_ms.load(Relaxed);
        if over(head_since, timer::millis(limits.header_timeout)) {
            return self.wish(Wish::Drop).then_some(Limit::HeaderTimeout);
        }
        let idle = head_since == 0 && over(self.idle_since_ms.get(), timer::millis(limits.idle_timeout));
        (idle && self.wish(Wish::Finish)).then_some(Limit::IdleTimeout)
    }

    /// So many bytes were written, and the client is waited for to take more or not. Over TLS the socket below tells it.
    pub(crate) fn wrote(&self, bytes: u64, waits: bool) {
        if !self.secure {
            self.watch.wrote(bytes, waits);
        }
    }

    /// Whether it must end now.
    pub(crate) fn must_end(&self) -> bool {
        self.wish.get() == Wish::Drop
    }

    /// Whether it is to end after the exchange in flight.
    pub(crate) fn is_finishing(&self) -> bool {
        self.wish.get() != Wish::Stay
    }

    /// Has a wish for its end wake who is told of it.
    pub(crate) fn wake_by(&self, new: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(new),
            none => *none = Some(new.clone()),
        }
    }

    /// Counts a head that is no request, and says what its client is told.
    pub(crate) fn refuse_head(&self, worker: &Worker, fault: h1::Fault) -> Bytes {
        let fault = Fault::of_head(fault);
        worker.metrics.refused_head(fault.status);
        worker.metrics.refused(fault.code);
        let id = worker.ids.make();
        if let Some(access) = &worker.access {
            let entry = Entry::refused(self.peer.ip().to_canonical(), id.clone());
            access.write(&entry, fault.status, 0, Duration::ZERO);
        }
        fault.message(&id)
    }

    /// Counts an answer that the client must not get, and says what it is told in its place. The exchange of this id is counted at its end.
    pub(crate) fn refuse_answer(worker: &Worker, fault: h1::Fault, id: &HeaderValue) -> Bytes {
        let fault = Fault::of_head(fault);
        worker.metrics.refused(fault.code);
        fault.message(id)
    }

    /// Has it end so; false if that was wished before.
    fn wish(&self, wish: Wish) -> bool {
        if self.wish.get() == Wish::Drop || self.wish.replace(wish) == wish {
            return false;
        }
        self.finish_since_ms.set(timer::now_ms());
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        true
    }
}

/// Something that goes on on a connection besides its exchanges.
pub(crate) struct Busy(Rc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves the connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, connection: Rc<Connection>) {
    if worker.settings.http2_plain {
        let begun = Box::pin(connection.unless_ended(http2::begins(&stream)));
        match worker.deadlines.within(worker.settings.limits.header_timeout, begun).await {
            Some(Some(Ok(false))) => {}
            Some(Some(Ok(true))) => {
                let stream = Watched::new(stream, connection.watch.clone());
                return Box::pin(http2::serve(&worker, stream, &connection)).await;
            }
            Some(Some(Err(_)) | None) => return,
            None => return worker.metrics.limited(Limit::HeaderTimeout),
        }
    }
    h1::server::serve(&worker, h1::io::Io::Tcp(stream), &connection).await;
}

/// Serves the connection to its end, over TLS.
pub(crate) async fn serve_tls(worker: Rc<Worker>, stream: TcpStream, connection: Rc<Connection>) {
    let begun = Begun::Not(Watched::new(stream, connection.watch.clone()));
    let limit = worker.settings.limits.handshake_timeout;
    serve_begun(worker, begun, limit, connection).await;
}

/// The same, with a handshake that may have begun and has so much time left.
pub(crate) async fn serve_begun(
    worker: Rc<Worker>,
    begun: Begun,
    left: Duration,
    connection: Rc<Connection>,
) {
    // What a handshake needs is given back after it.
    let accepted = Box::pin(tls::accept(&worker, begun, left, &connection)).await;
    match accepted {
        Some(accepted) if accepted.http2 => {
            Box::pin(http2::serve(&worker, accepted.stream, &connection)).await;
        }
        Some(accepted) => {
            h1::server::serve(&worker, h1::io::Io::Layered(Box::new(accepted.stream)), &connection).await;
        }
        None => {}
    }
}
