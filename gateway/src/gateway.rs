//! The data plane: started with settings and a stream of configs, drained at the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use model::{
    Config, Name, Revision,
    api::{ExplainRequest, Explanation, TargetsHealth, TcpExplainRequest, TcpExplanation},
    tcp_route::PROXY_TLS,
};
use prometheus::{
    IntCounter,
    core::{AtomicU64, GenericGauge},
};
use tokio::sync::watch;

use crate::{
    error::Error,
    metrics::{CertificateEnds, Collected, Metrics, PolicyFigures, TcpRouteFigures, UpstreamFigures},
    names::{self, Names},
    plan::{Plan, Surroundings},
    server::Server,
    settings::Settings,
    tls::tickets::Tickets,
    upstream::health::view,
};

/// What the data plane obeys now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The revision that every request since is served by.
    pub revision: Revision,
    /// Why a newer one could not be installed; requests are served by the old one until one can.
    pub error: Option<String>,
}

/// A running data plane. Dropped, it ends at once; see [`Gateway::drain`].
#[derive(Debug)]
pub struct Gateway {
    server: Server,
    plan: Arc<ArcSwap<Plan>>,
    installed: watch::Receiver<Installed>,
    /// Its end tells the threads of the installer and of names to end.
    _installer: watch::Sender<()>,
}

impl Gateway {
    /// Binds every listener, installs the present config, and starts the workers: when it returns, it serves.
    pub fn start(
        settings: Settings,
        mut config: watch::Receiver<Arc<Config>>,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        let mut metrics: Vec<Arc<Metrics>> = (0..settings.worker_count()).map(|_| Arc::default()).collect();
        let others = Arc::<Metrics>::default();
        let (names, asked) = Names::new();
        let changes = names.changes();
        let mut around = Surroundings::new(names.clone(), settings.zone.clone());
        let tls = settings.listen_tls.map(|_| PROXY_TLS.to_owned());
        let listeners = settings.listen_tcp.iter().map(|(name, _)| name.to_string()).chain(tls);
        around.listeners = Some(Arc::new(listeners.collect()));
        let beginning = Plan::beginning(Tickets::new(settings.tls_tickets), around);
        let (publish, installed) = watch::channel(Installed { revision: beginning.revision(), error: None });
        let plan = Arc::new(ArcSwap::from_pointee(beginning));
        let first = config.borrow_and_update().clone();
        let failures = Failures::new(registry)?;
        let (installer, ended) = watch::channel(());
        let figures = names::Figures::new(registry)?;
        names::start(names, asked, settings.dns_servers.clone(), figures, ended.clone())?;
        install(&plan, &first, &publish, &failures);
        let server = Server::start(Arc::new(settings), plan.clone(), &metrics, others.clone())?;
        metrics.push(others);
        registry.register(Box::new(Collected::new(metrics)?))?;
        registry.register(Box::new(PolicyFigures::new(plan.clone())?))?;
        registry.register(Box::new(UpstreamFigures::new(plan.clone())?))?;
        registry.register(Box::new(CertificateEnds::new(plan.clone())?))?;
        registry.register(Box::new(TcpRouteFigures::new(plan.clone())?))?;
        spawn_installer(plan.clone(), config, changes, publish, failures, ended)?;
        Ok(Self { server, plan, installed, _installer: installer })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where it listens for TLS, if it does.
    pub fn address_tls(&self) -> Option<SocketAddr> {
        self.server.address_tls()
    }

    /// Where it listens for TCP routes alone, by name.
    pub fn addresses_tcp(&self) -> &[(Name, SocketAddr)] {
        self.server.addresses_tcp()
    }

    /// What it obeys, as that changes.
    pub fn installed(&self) -> watch::Receiver<Installed> {
        self.installed.clone()
    }

    /// Which route would take a request, and why not the others.
    pub fn explain(&self, request: &ExplainRequest) -> Explanation {
        self.plan.load().explain(request)
    }

    /// Which TCP route would take a connection, and why not the others.
    pub fn explain_tcp(&self, request: &TcpExplainRequest) -> TcpExplanation {
        self.plan.load().explain_tcp(request)
    }

    /// Which targets get traffic, of this upstream or of all, and why the others don't.
    pub fn targets(&self, upstream: Option<&Name>) -> TargetsHealth {
        view::of(&self.plan.load(), upstream)
    }

    /// Closes the listeners, lets exchanges finish for as long as `grace`, cuts what is left, and ends the threads.
    pub async fn drain(self, grace: Duration) {
        self.server.drain(grace).await;
    }
}

/// Configs that would not compile here: their number, and the revision of the last one while it is the newest.
struct Failures {
    total: IntCounter,
    revision: GenericGauge<AtomicU64>,
}

impl Failures {
    fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let (total, revision) = (
            ("phalanx_config_failures_total", "Configs that could not be installed on this node."),
            ("phalanx_config_failed_revision", "The revision that could not be installed; 0 if none."),
        );
        let failures = Self {
            total: IntCounter::new(total.0, total.1)?,
            revision: GenericGauge::new(revision.0, revision.1)?,
        };
        registry.register(Box::new(failures.total.clone()))?;
        registry.register(Box::new(failures.revision.clone()))?;
        Ok(failures)
    }
}

/// Installs configs as they come, and what names of targets stand for, on a thread of its own so that compiling much delays no request.
fn spawn_installer(
    plan: Arc<ArcSwap<Plan>>,
    mut config: watch::Receiver<Arc<Config>>,
    mut names: watch::Receiver<()>,
    publish: watch::Sender<Installed>,
    failures: Failures,
    mut ended: watch::Receiver<()>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Error::Worker)?;
    let installing = async move {
        let mut may_change = true;
        loop {
            tokio::select! {
                // Once no more configs come the last one is served on.
                changed = config.changed(), if may_change => match changed {
                    Ok(()) => {
                        let newest = config.borrow_and_update().clone();
                        install(&plan, &newest, &publish, &failures);
                    }
                    Err(_) => may_change = false,
                },
                Ok(()) = names.changed() => refresh(&plan),
                _ = ended.changed() => return,
            }
        }
    };
    let thread = std::thread::Builder::new().name("gateway-install".into());
    thread.spawn(move || runtime.block_on(installing)).map_err(Error::Worker)?;
    Ok(())
}

/// Takes what names of targets stand for now into the Plan, and tells who waits for that.
fn refresh(plan: &ArcSwap<Plan>) {
    let old = plan.load_full();
    let Some(new) = old.refreshed() else { return };
    plan.store(Arc::new(new));
    for upstream in old.upstreams.values().filter(|upstream| upstream.is_awaited) {
        upstream.state.resolved.notify_waiters();
    }
}

fn install(plan: &ArcSwap<Plan>, config: &Config, publish: &watch::Sender<Installed>, failures: &Failures) {
    let old = plan.load_full();
    match old.install(config) {
        Ok(new) => {
            let revision = new.revision();
            plan.store(Arc::new(new));
            failures.revision.set(0);
            publish.send_replace(Installed { revision, error: None });
        }
        Err(error) => {
            let error = error.to_string();
            failures.total.inc();
            failures.revision.set(config.revision.0);
            tracing::error!(revision = %config.revision, %error, "a config can't be installed; the last one stays");
            publish.send_replace(Installed { revision: old.revision(), error: Some(error) });
        }
    }
}
