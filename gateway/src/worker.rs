//! A worker: one thread with a runtime, a listener and connections of its own, which shares next to nothing.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use model::{Name, tcp_route::PROXY_TLS};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::LocalOptions,
    sync::{Notify, watch},
};

use crate::{
    access,
    addresses::{Addresses, Place},
    connection::{self, Connection},
    forwarded::RequestIds,
    metrics::Metrics,
    plan::Plan,
    policy::compress::Memory,
    proxy_protocol,
    settings::{Limit, Settings},
    tcp,
    timer::{self, Deadlines},
    upstream::{health, mirror, pool::Pools, replay::KeptBytes},
};

/// Ticks between two looks at connections that wait.
const TICKS_PER_SWEEP: u32 = 10;
/// Tasks between two looks for IO: tokio's default, as the proof was measured with.
const EVENT_INTERVAL: u32 = 61;
/// How long to let go of accepting when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all workers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) plan: Arc<ArcSwap<Plan>>,
    /// Connections of clients on all workers.
    pub(crate) connections: Arc<AtomicUsize>,
    /// How many of them each address has, if that is limited.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// Who writes the access log, if there is one.
    pub(crate) access: Option<SyncSender<access::Lines>>,
    /// What is wanted of the workers.
    pub(crate) phase: watch::Receiver<Phase>,
}

/// What is wanted of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serve.
    Serve,
    /// Take no connection, finish what is in flight.
    Drain,
    /// End, whatever is in flight.
    Stop,
}

/// Where one worker takes connections.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) plain: std::net::TcpListener,
    pub(crate) tls: Option<std::net::TcpListener>,
    /// Those for TCP routes alone, by name.
    pub(crate) tcp: Vec<(Name, std::net::TcpListener)>,
}

/// By which of them a connection has come.
#[derive(Debug, Clone)]
enum Entrance {
    Plain,
    Tls,
    Tcp(Name),
}

/// One worker's own.
pub(crate) struct Worker {
    /// Which of the workers it is, from 0.
    pub(crate) number: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) deadlines: Deadlines,
    pub(crate) pools: Pools,
    pub(crate) kept_bytes: KeptBytes,
    pub(crate) mirrors: mirror::InFlight,
    pub(crate) ids: RequestIds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: Option<access::Log>,
    /// What encoders of responses may take.
    pub(crate) encoders: Rc<Memory>,
    plan: RefCell<Newest>,
    connections: RefCell<HashMap<u64, Rc<Connection>, ahash::RandomState>>,
    turn: Cell<u64>,
    /// How many connections have been taken.
    taken: Cell<u64>,
    changed: Notify,
    shared: Shared,
}

/// The Plan in use, and a pin on it that requests share.
struct Newest {
    cache: Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>,
    pinned: Rc<Pinned>,
}

/// A Plan that a worker's requests keep to. Counted on this thread alone, unlike the Plan, whose count all cores write.
pub(crate) struct Pinned(Arc<Plan>);

impl std::ops::Deref for Pinned {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

impl Worker {
    fn new(number: usize, shared: Shared, metrics: Arc<Metrics>) -> Self {
        let limits = &shared.settings.limits;
        let mut cache = Cache::new(shared.plan.clone());
        let pinned = Rc::new(Pinned(cache.load().clone()));
        let json = shared.settings.access_log.as_ref().is_some_and(|log| log.json);
        let access = shared.access.clone().map(|writer| access::Log::new(json, writer, metrics.clone()));
        Self {
            number,
            settings: shared.settings.clone(),
            deadlines: Deadlines::default(),
            pools: Pools::new(limits),
            kept_bytes: KeptBytes::default(),
            mirrors: mirror::InFlight::default(),
            ids: RequestIds::new(),
            metrics,
            access,
            encoders: Memory::new(limits.compression_bytes_max / shared.settings.worker_count()),
            plan: RefCell::new(Newest { cache, pinned }),
            connections: RefCell::default(),
            turn: Cell::new(0),
            taken: Cell::new(0),
            changed: Notify::new(),
            shared,
        }
    }

    /// The Plan in use, for one request to keep to. Workers don't write to memory they share to get it.
    pub(crate) fn plan(&self) -> Rc<Pinned> {
        let Newest { cache, pinned } = &mut *self.plan.borrow_mut();
        let newest = cache.load();
        if !Arc::ptr_eq(newest, &pinned.0) {
            *pinned = Rc::new(Pinned(newest.clone()));
        }
        pinned.clone()
    }

    /// A number that goes up by one, for what takes turns.
    pub(crate) fn turn(&self) -> u64 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Serves a client's connection, unless there are too many.
    fn take(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, entrance: &Entrance) {
        self.metrics.connections_total.add(1);
        if self.shared.connections.fetch_add(1, Relaxed) >= self.settings.limits.connections_max {
            self.shared.connections.fetch_sub(1, Relaxed);
            self.metrics.connections_refused.add(1);
            self.metrics.limited(Limit::Connections);
            return;
        }
        let number = self.taken.get();
        self.taken.set(number + 1);
        let held = Held { worker: self.clone(), number, place: None };
        self.metrics.connections.add(1);
        timer::refresh();
        match self.settings.proxy_protocol.filter(|_| self.trusts(peer.ip())) {
            None => self.serve(held, stream, peer, entrance),
            Some(taken) => {
                let (worker, entrance) = (self.clone(), entrance.clone());
                tokio::task::spawn_local(async move {
                    worker.serve_for(taken, held, stream, peer, &entrance).await
                });
            }
        }
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.settings.trusted_proxies.iter().any(|range| range.contains(peer))
    }

    /// Serves a connection for whom its proxy says that it is.
    async fn serve_for(
        self: Rc<Self>,
        taken: proxy_protocol::ProxyProtocol,
        held: Held,
        mut stream: TcpStream,
        proxy: SocketAddr,
        entrance: &Entrance,
    ) {
        let reading = Box::pin(proxy_protocol::read(&mut stream, taken));
        match self.deadlines.within(self.settings.limits.header_timeout, reading).await {
            Some(Ok(source)) => self.serve(held, stream, source.unwrap_or(proxy), entrance),
            Some(Err(error)) => {
                self.metrics.proxy_header_failures.add(1);
                tracing::debug!(%proxy, %error, "a proxy does not say from whom a connection is");
            }
            None => {
                self.metrics.proxy_header_failures.add(1);
                self.metrics.limited(Limit::HeaderTimeout);
            }
        }
    }

    /// Serves a connection of this client, unless it has too many.
    fn serve(self: &Rc<Self>, mut held: Held, stream: TcpStream, peer: SocketAddr, entrance: &Entrance) {
        let trusted = self.trusts(peer.ip());
        if let Some(addresses) = self.shared.addresses.as_ref().filter(|_| !trusted) {
            let Some(place) = addresses.enter(peer.ip()) else {
                self.metrics.connections_refused.add(1);
                self.metrics.limited(Limit::ConnectionsByAddress);
                return;
            };
            held.place = Some(place);
        }
        let rate_min = self.settings.limits.client_rate_min;
        let secure = matches!(entrance, Entrance::Tls);
        let mut connection = Connection::new(peer, trusted, rate_min, secure);
        let plan = self.plan();
        if plan.announcing > 0 {
            connection.local = stream.local_addr().ok();
        }
        let connection = Rc::new(connection);
        if self.connections.borrow_mut().insert(held.number, connection.clone()).is_none() {
            self.changed.notify_waiters();
        }
        let worker = self.clone();
        // A task each, so that none takes the room of another's state.
        match entrance {
            Entrance::Plain => spawn(held, connection::serve(worker, stream, connection)),
            Entrance::Tls if plan.tcp.on(PROXY_TLS).is_some() => {
                spawn(held, tcp::serve_tls(worker, stream, connection));
            }
            Entrance::Tls => spawn(held, connection::serve_tls(worker, stream, connection)),
            Entrance::Tcp(name) => spawn(held, tcp::serve(worker, stream, connection, name.clone())),
        }
    }

    /// Keeps time: deadlines at every tick, now and then connections that wait and pools. Rests while nobody is there.
    async fn keep_time(&self) {
        let mut ticks: u32 = 0;
        loop {
            if self.is_empty() && self.deadlines.is_empty() {
                // Woken by the next connection; or after a while, for the pools.
                let rest = TICKS_PER_SWEEP * 2 * timer::TICK;
                let _ = tokio::time::timeout(rest, self.changed.notified()).await;
                ticks = 0;
            } else {
                tokio::time::sleep(timer::TICK).await;
            }
            timer::refresh();
            self.deadlines.tick();
            if let Some(access) = &self.access {
                access.hand_on();
            }
            if ticks.is_multiple_of(TICKS_PER_SWEEP) {
                for connection in self.connections.borrow().values() {
                    if let Some(limit) = connection.sweep(&self.settings.limits) {
                        self.metrics.limited(limit);
                    }
                }
                self.pools.sweep();
                // Where no requests come, the one of the last would stay for good.
                drop(self.plan());
            }
            ticks = ticks.wrapping_add(1);
        }
    }

    /// Takes connections until that is no longer wanted.
    async fn accept(
        self: Rc<Self>,
        listener: TcpListener,
        entrance: Entrance,
        mut phase: watch::Receiver<Phase>,
    ) {
        let mut ending = std::pin::pin!(phase.wait_for(|phase| *phase != Phase::Serve));
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                _ = &mut ending => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, &entrance),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be taken; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // What the kernel has taken for us would be reset with the listener. Asked directly: tokio may not know of it yet.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.take(stream, peer, &entrance);
            }
        }
    }

    /// Ends connections as they fall idle, until there is none or nobody waits any longer.
    async fn finish(&self, phase: &mut watch::Receiver<Phase>) {
        loop {
            for connection in self.connections.borrow().values() {
                // One that has just come may have sent a request that nobody has read.
                if !connection.is_fresh() {
                    connection.finish();
                }
            }
            if self.is_empty() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(timer::TICK) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stop) => {
                    let connections = self.connections.borrow().len();
                    tracing::warn!(connections, "the grace is over: what is left is cut");
                    return;
                }
            }
        }
    }
}

/// A connection's place among those that are counted.
struct Held {
    worker: Rc<Worker>,
    number: u64,
    /// Among those of its address, if these are limited.
    place: Option<Place>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.number);
        self.worker.shared.connections.fetch_sub(1, Relaxed);
        self.worker.metrics.connections.sub(1);
        self.worker.changed.notify_waiters();
    }
}

/// Serves a connection in a task of its own, to its end.
fn spawn(held: Held, serving: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(async move {
        let _held = held;
        serving.await;
    });
}

/// Whether the error is that of the connection that was to be taken, and says nothing of the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Runs a worker on this thread, to its end.
pub(crate) fn run(
    number: usize,
    shared: Shared,
    metrics: Arc<Metrics>,
    listeners: Listeners,
) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        timer::refresh();
        let mut phase = shared.phase.clone();
        let worker = Rc::new(Worker::new(number, shared, metrics));
        let plain = [(listeners.plain, Entrance::Plain)];
        let tls = listeners.tls.map(|tls| (tls, Entrance::Tls));
        let tcp = listeners.tcp.into_iter().map(|(name, tcp)| (tcp, Entrance::Tcp(name)));
        // A task each, so that what comes at one wakes nobody else.
        let accepting = plain.into_iter().chain(tls).chain(tcp).map(|(listener, entrance)| {
            let accepting = worker.clone().accept(TcpListener::from_std(listener)?, entrance, phase.clone());
            Ok(tokio::task::spawn_local(accepting))
        });
        let accepting: Vec<_> = accepting.collect::<io::Result<_>>()?;
        let serving = async {
            for accepting in accepting {
                accepting.await?;
            }
            worker.finish(&mut phase).await;
            Ok(())
        };
        tokio::select! {
            served = serving => served,
            () = worker.keep_time() => Ok(()),
            () = health::active::run(worker.clone()), if number == 0 => Ok(()),
        }
    })
}
