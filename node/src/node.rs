//! The node: opened, started, and at the end stopped, in the order of this file.

mod disk;
mod forming;

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use gateway::{Gateway, Lease};
use model::Revision;
use raft::Storage;
use tokio::{
    net::UnixListener,
    sync::{RwLock, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin, certificates,
    counters::{self, Counters},
    findings::Findings,
    gossip::Facts,
    identity::{self, NodeIdentity},
    member::{Member, PeerPort, told},
    settings::Settings,
    tokens,
};

/// Between two looks at what there is to say about this node.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(200);

/// Keys that nodes tell each other of at the same time; of more, each node has its even part of the limit.
const SHARED_KEYS_MAX: usize = 8_192;

/// How long a node that starts is not ready while no majority has told it whether its config is the newest.
const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It serves its last config, and is not in a cluster, or has not found the others yet.
    Starting,
    /// It takes part.
    Ready,
    /// It is told to stop, and finishes what it has begun.
    Draining,
}

impl Phase {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// What a member is made of.
pub(crate) struct Spare {
    pub(crate) storage: Storage,
    pub(crate) port: PeerPort,
    pub(crate) counters: Counters,
    pub(crate) findings: Findings,
}

/// The node, as its parts and the admin API see it.
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) registry: prometheus::Registry,
    /// None once it drains.
    pub(crate) gateway: Mutex<Option<Gateway>>,
    pub(crate) installed: watch::Receiver<Revision>,
    /// When what it serves was last known to be the newest.
    pub(crate) lease: Arc<Lease>,
    pub(crate) member: RwLock<Option<Member>>,
    /// What a member is made of, until there is one.
    spare: tokio::sync::Mutex<Option<Spare>>,
    /// At which address others reach this node, once it is in a cluster.
    advertised: OnceLock<String>,
    phase: AtomicU8,
    tasks: Mutex<JoinSet<()>>,
    failed: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

/// Runs a node until it is told to stop.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    // Start: what is on the disk first, then whoever asks for it.
    let _lock = lock(&settings)?;
    let identity = NodeIdentity::load(&settings.data)?;
    if identity.is_some() {
        Storage::must_be_there(&settings.data)?;
    }
    let storage = Storage::open(&settings.data)?;
    let registry = prometheus::Registry::new();
    let mut proxy = gateway::Settings::new(settings.proxy);
    proxy.listen_tls = settings.proxy_tls;
    proxy.listen_tcp.clone_from(&settings.tcp);
    proxy.http2_plain = settings.http2_plain;
    proxy.tls_tickets = settings.tls_tickets;
    proxy.workers = settings.workers;
    proxy.trusted_proxies.clone_from(&settings.trusted_proxies);
    proxy.zone.clone_from(&settings.zone);
    proxy.dns_servers.clone_from(&settings.dns_servers);
    proxy.proxy_protocol = settings.proxy_protocol;
    proxy.access_log.clone_from(&settings.access_log);
    proxy.limits.clone_from(&settings.limits);
    let lease = proxy.lease.clone();
    let (rates, pushers) = gateway::RateLimits::new(limits::Settings {
        keys: settings.rate_limit_keys,
        shared_keys: SHARED_KEYS_MAX.min(settings.rate_limit_keys),
        peers: counters::NUMBERS_MAX,
        seed: u64::from_be_bytes(tokens::random()),
    });
    let mut counters = Counters::new(rates.clone(), pushers, &registry).context("metrics of rate limits")?;
    // Before anybody is served: what was used of quotas is on the disk.
    counters.follow(storage.usage(), storage.cluster().borrow().nodes.len());
    proxy.rate_limits = rates;
    let findings = Findings::new(proxy.checks.clone(), &registry).context("metrics of checks")?;
    let gateway = Gateway::start(proxy, storage.config(), &registry)
        .with_context(|| format!("serve clients on {}", settings.proxy))?;
    if let Some(address) = gateway.address_tls() {
        tracing::info!(%address, "serving clients over TLS");
    }
    for (listener, address) in gateway.addresses_tcp() {
        tracing::info!(%listener, %address, "serving clients of TCP routes");
    }
    tracing::info!(address = %gateway.address(), revision = %storage.config().borrow().revision, "serving clients");
    let port = PeerPort::bind(&settings).await?;
    let mut newest = gateway.installed();
    let (install, installed) = watch::channel(newest.borrow().revision);
    let node = Arc::new(Node {
        settings,
        registry,
        gateway: Mutex::new(Some(gateway)),
        installed,
        lease,
        member: RwLock::new(None),
        spare: tokio::sync::Mutex::new(Some(Spare { storage, port, counters, findings })),
        advertised: OnceLock::new(),
        phase: AtomicU8::new(Phase::Starting as u8),
        tasks: Mutex::new(JoinSet::new()),
        failed: watch::Sender::new(None),
        stop: CancellationToken::new(),
    });
    node.spawn(async move {
        // Ends with the gateway.
        while newest.changed().await.is_ok() {
            install.send_replace(newest.borrow_and_update().revision);
        }
    });
    let socket = node.socket()?;
    node.spawn(admin::serve_socket(node.clone(), socket, node.stop.clone()));
    match identity {
        Some(identity) => {
            let forming = identity::read_file(&node.forming_file())?;
            let admin = node.admin_listener().await?;
            node.become_member(identity.clone(), forming, admin, None).await?;
            identity::remove_file(&node.forming_file())?;
            let founder = node.clone();
            node.spawn(async move {
                tokio::select! {
                    () = founder.resume_init(&identity) => {}
                    () = founder.stop.cancelled() => {}
                }
            });
        }
        None => node.bootstrap(),
    }
    node.spawn(announce(node.clone()));
    node.spawn(certificates::watch(node.clone()));

    // Serve, until a signal or until something fails for good.
    let mut failed = node.failed.subscribe();
    let ended = tokio::select! {
        () = signal() => Ok(()),
        why = told(&mut failed) => {
            // Where the disk is full or broken, nothing is won by a new start: the config that there is, is served.
            tracing::error!(why, "no part in the cluster any more; clients are served until the disk takes writes");
            tokio::select! {
                () = signal() => {}
                () = disk::until_it_takes_writes(node.settings.data.clone()) => {}
            }
            Err(anyhow::anyhow!("{why}"))
        }
    };

    // Stop: readiness off and gossiped, and time given to who looks at it; listeners closed, exchanges finished, leadership
    // handed over, storage let go.
    node.set_phase(Phase::Draining);
    node.say().await;
    let stopping = async {
        tokio::time::sleep(node.settings.shutdown_delay).await;
        let gateway = node.gateway.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(gateway) = gateway {
            gateway.drain(node.settings.grace).await;
        }
        node.stop.cancel();
        if let Some(member) = node.member.write().await.take() {
            member.stop().await;
        }
        let mut tasks =
            std::mem::take(&mut *node.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = stopping => tracing::info!("stopped"),
        () = signal() => tracing::warn!("stopped at once, by a second signal"),
    }
    let _ = std::fs::remove_file(node.socket_path());
    ended
}

/// Refuses a data folder that another process uses. Makes the folder, for this user alone.
pub(crate) fn lock(settings: &Settings) -> anyhow::Result<std::fs::File> {
    let data = &settings.data;
    let what = || format!("use the data folder {}", data.display());
    if !data.exists() {
        std::fs::create_dir_all(data).with_context(what)?;
        std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).with_context(what)?;
    }
    let file = std::fs::File::create(data.join("lock")).with_context(what)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => bail!("{} is in use by another gwnode", data.display()),
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(what),
    }
}

/// Returns when the process is told to stop.
pub(crate) async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn announce(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(ANNOUNCE_INTERVAL);
    let mut installed = node.installed.clone();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = ticks.tick() => {}
            changed = installed.changed() => if changed.is_err() { return },
        }
        node.say().await;
    }
}

impl Node {
    /// Where it is in its life.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// At which address others reach this node; empty where nobody has said so.
    pub(crate) fn advertised(&self) -> String {
        self.advertised.get().or(self.settings.advertise.as_ref()).cloned().unwrap_or_default()
    }

    /// Cancelled when the node's listeners are to end.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).spawn(task);
    }

    /// Where its socket is.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.settings.data.join("admin.sock")
    }

    /// What this node is to propose as the first of its cluster, until that is committed.
    fn forming_file(&self) -> PathBuf {
        self.settings.data.join("forming.json")
    }

    fn socket(&self) -> anyhow::Result<UnixListener> {
        let path = self.socket_path();
        let what = || format!("listen on {}", path.display());
        // Left behind by a process that was killed: the lock says that none is there now.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).with_context(what)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
        Ok(listener)
    }

    /// Whether a balancer may send clients here, and if not, why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        if self.phase() == Phase::Draining {
            return Err("the node is draining".to_owned());
        }
        match &*self.member.read().await {
            None => {
                Err("the node is in no cluster yet: gwctl cluster init, or gwctl cluster join".to_owned())
            }
            Some(member) if member.consensus.was_removed_itself() => {
                Err("the node was removed from its cluster".to_owned())
            }
            // Where policies close on isolation it would refuse; for long it does not wait, since it proxies on by itself.
            Some(member) if self.lease.age().is_none() && member.since.elapsed() < FIRST_WORD_TIMEOUT => {
                Err("the node has just started, and asks whether its config is the newest".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    fn facts(&self, member: Option<&Member>) -> Facts {
        Facts {
            phase: self.phase().as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: member.map(|member| member.consensus.config().borrow().revision).unwrap_or_default(),
            installed: *self.installed.borrow(),
            leader: member.and_then(|member| member.consensus.status().leader),
            certificate_expires_at_ms: member.map_or(0, |member| member.identity.certificate_expires_at_ms()),
            advertise: self.advertised(),
            admin: self.settings.admin_advertise.clone(),
        }
    }

    /// Says what is new about this node.
    async fn say(&self) {
        if let Some(member) = &*self.member.read().await {
            if self.phase() == Phase::Starting && member.consensus.status().leader.is_some() {
                self.set_phase(Phase::Ready);
            }
            member.gossip.announce(self.facts(Some(member)));
        }
    }
}
