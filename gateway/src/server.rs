//! The data plane as a whole: its listeners, its workers, and the thread that installs configs.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    thread::JoinHandle,
    time::Duration,
};

use model::Name;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::sync::watch;

use crate::{
    access,
    addresses::Addresses,
    error::Error,
    metrics::Metrics,
    settings::Settings,
    worker::{self, Listeners, Phase, Shared},
};

/// Connections that the kernel takes for a worker before it looks.
const BACKLOG: i32 = 4096;
/// A peer that has vanished without a word is noticed after some two minutes of silence.
pub(crate) const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);
/// How long threads are waited for once they were told to stop.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// The workers' threads.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    address_tls: Option<SocketAddr>,
    addresses_tcp: Vec<(Name, SocketAddr)>,
    threads: Vec<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    /// Closed when the last worker has ended, and the access log is written.
    ended: watch::Receiver<()>,
}

impl Server {
    /// Binds every listener, then starts the workers, each with figures of its own; `others` are those of
    /// other threads.
    pub(crate) fn start(
        settings: Arc<Settings>,
        plan: Arc<arc_swap::ArcSwap<crate::plan::Plan>>,
        metrics: &[Arc<Metrics>],
        others: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let (address, plain) = listeners(settings.listen, metrics.len())?;
        let (address_tls, tls) = match settings.listen_tls {
            Some(address) => listeners(address, metrics.len()).map(|(address, tls)| (Some(address), tls))?,
            None => (None, Vec::new()),
        };
        let mut tls = tls.into_iter();
        let listeners = plain.into_iter().map(|plain| Listeners { plain, tls: tls.next(), tcp: Vec::new() });
        let mut listeners: Vec<_> = listeners.collect();
        let mut addresses_tcp = Vec::with_capacity(settings.listen_tcp.len());
        for (name, address) in &settings.listen_tcp {
            let (address, tcp) = self::listeners(*address, metrics.len())?;
            listeners.iter_mut().zip(tcp).for_each(|(all, one)| all.tcp.push((name.clone(), one)));
            addresses_tcp.push((name.clone(), address));
        }
        let (phase, phases) = watch::channel(Phase::Serve);
        let (alive, ended) = watch::channel(());
        let alive = Arc::new(alive);
        let access = match &settings.access_log {
            Some(log) => Some(access::start(log, others, alive.clone())?),
            None => None,
        };
        let connections = Arc::new(AtomicUsize::new(0));
        let by_address_max = settings.limits.connections_by_address_max;
        let addresses = (by_address_max > 0).then(|| Arc::new(Addresses::new(by_address_max)));
        let shared = Shared { settings, plan, connections, addresses, access, phase: phases };
        let mut threads = Vec::with_capacity(listeners.len());
        for (number, (listeners, metrics)) in listeners.into_iter().zip(metrics.iter().cloned()).enumerate() {
            let (shared, alive) = (shared.clone(), alive.clone());
            let thread = std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
                let _alive = alive;
                if let Err(error) = worker::run(number, shared, metrics, listeners) {
                    tracing::error!(%error, number, "a worker of the data plane has ended");
                }
            });
            threads.push(thread.map_err(Error::Worker)?);
        }
        Ok(Self { address, address_tls, addresses_tcp, threads, phase, ended })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn address_tls(&self) -> Option<SocketAddr> {
        self.address_tls
    }

    pub(crate) fn addresses_tcp(&self) -> &[(Name, SocketAddr)] {
        &self.addresses_tcp
    }

    /// Closes the listeners, lets exchanges finish for as long as `grace`, then ends the threads.
    pub(crate) async fn drain(mut self, grace: Duration) {
        self.phase.send_replace(Phase::Drain);
        // An error says that every sender is gone, and so every worker.
        let ended = tokio::time::timeout(grace, async { while self.ended.changed().await.is_ok() {} });
        if ended.await.is_err() {
            self.phase.send_replace(Phase::Stop);
            let _ =
                tokio::time::timeout(STOP_WAIT, async { while self.ended.changed().await.is_ok() {} }).await;
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("a worker of the data plane has panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stop);
    }
}

/// Whether the address is free: listeners that share would share it with another gateway too, and nobody
/// would know.
fn probe(address: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// So many listeners that share an address, and which that is.
fn listeners(wanted: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<std::net::TcpListener>), Error> {
    let wrong = |error| Error::Listen { address: wanted, error };
    probe(wanted).map_err(wrong)?;
    let first = listener(wanted).map_err(wrong)?;
    let address = first.local_addr().map_err(wrong)?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(listener(address).map_err(wrong)?);
    }
    Ok((address, all))
}

/// A listener that shares its address with others: the kernel spreads connections over them.
fn listener(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // What is accepted inherits these (Linux). A tunnel or a slow answer has no other end if its client is gone.
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // Without it answers wait for acknowledgements.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_wait_for_no_acknowledgement_and_notice_peers_that_vanish() {
        let listener = listener(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
    }
}
