//! The thread that looks names up, each again when its answer gets old.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Answer, Followed, Names, resolver::Resolver};
use crate::{chance, error::Error};

/// How long an answer is good at the least and at the most, whatever its TTL.
const TTL_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Between a failure and the next look: at first, then doubled up to the most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Questions that are asked at the same time.
const ASKED_MAX: usize = 64;

/// What is counted.
#[derive(Clone)]
pub(crate) struct Figures {
    lookups: IntCounter,
    failures: IntCounter,
    failing: IntGauge,
}

impl Figures {
    pub(crate) fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let (lookups, failures, failing) = (
            ("phalanx_dns_lookups_total", "Names of targets that were looked up."),
            ("phalanx_dns_failures_total", "Names of targets that were looked up in vain."),
            ("phalanx_dns_failing", "Names of targets of which the last look-up was in vain."),
        );
        let figures = Self {
            lookups: IntCounter::new(lookups.0, lookups.1)?,
            failures: IntCounter::new(failures.0, failures.1)?,
            failing: IntGauge::new(failing.0, failing.1)?,
        };
        registry.register(Box::new(figures.lookups.clone()))?;
        registry.register(Box::new(figures.failures.clone()))?;
        registry.register(Box::new(figures.failing.clone()))?;
        Ok(figures)
    }
}

/// Starts the thread. It asks these servers, or those of the system if there are none, and ends when the sender of `ended` is gone.
pub(crate) fn start(
    names: Arc<Names>,
    asked: mpsc::UnboundedReceiver<Weak<Followed>>,
    servers: Vec<SocketAddr>,
    figures: Figures,
    mut ended: watch::Receiver<()>,
) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Worker)?;
    let thread = std::thread::Builder::new().name("gateway-names".into());
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                () = work(names, asked, servers, figures) => {}
                _ = ended.changed() => {}
            }
        });
    };
    thread.spawn(work).map_err(Error::Worker)?;
    Ok(())
}

/// What all questions share.
struct Desk {
    names: Arc<Names>,
    resolver: RefCell<Resolver>,
    seats: Semaphore,
    figures: Figures,
}

async fn work(
    names: Arc<Names>,
    mut asked: mpsc::UnboundedReceiver<Weak<Followed>>,
    servers: Vec<SocketAddr>,
    figures: Figures,
) {
    let resolver = match Resolver::new(servers) {
        Ok(resolver) => RefCell::new(resolver),
        Err(error) => {
            tracing::error!(%error, "no name of a target can be looked up");
            return;
        }
    };
    let desk = Rc::new(Desk { names, resolver, seats: Semaphore::new(ASKED_MAX), figures });
    let mut followed = FuturesUnordered::new();
    loop {
        tokio::select! {
            new = asked.recv() => match new {
                Some(new) => followed.push(follow(desk.clone(), new)),
                None => return,
            },
            Some(()) = followed.next() => {}
        }
    }
}

/// Looks the name up, and again, until nobody follows it.
async fn follow(desk: Rc<Desk>, followed: Weak<Followed>) {
    let mut failures: u32 = 0;
    while let Some(name) = followed.upgrade() {
        let pause = look_up(&desk, &name, &mut failures).await;
        // While it waits it must not be what keeps the name.
        drop(name);
        tokio::time::sleep(pause).await;
    }
    desk.names.forget();
    if failures > 0 {
        desk.figures.failing.dec();
    }
}

/// Looks the name up once; gives how long to wait before the next time.
async fn look_up(desk: &Desk, followed: &Followed, failures: &mut u32) -> Duration {
    let Ok(_seat) = desk.seats.acquire().await else { return PAUSE.1 };
    desk.resolver.borrow_mut().refresh();
    let handle = desk.resolver.borrow().handle();
    let (before, _) = followed.answer();
    let name = followed.question.name();
    desk.figures.lookups.inc();
    match handle.look_up(&followed.question, &before).await {
        Ok(found) => {
            if *failures > 0 {
                desk.figures.failing.dec();
                tracing::info!(%name, "a target's name can be looked up again");
            }
            *failures = 0;
            desk.names.answer(followed, Answer::Places(found.places));
            // Later by chance, so that nodes that began together don't ask together.
            spread(found.ttl.clamp(TTL_RANGE.0, TTL_RANGE.1))
        }
        Err(error) => {
            desk.figures.failures.inc();
            if *failures == 0 {
                desk.figures.failing.inc();
                let stays = matches!(before, Answer::Places(_));
                tracing::warn!(%name, %error, stays, "a target's name can't be looked up; what it stood for before stays");
            }
            desk.names.answer(followed, Answer::Failed);
            let pause = PAUSE.0.saturating_mul(1 << (*failures).min(5)).min(PAUSE.1);
            *failures = failures.saturating_add(1);
            spread(pause)
        }
    }
}

/// The duration, or up to a tenth more.
fn spread(duration: Duration) -> Duration {
    let tenth_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) / 10;
    duration + Duration::from_millis(chance::below(tenth_ms + 1))
}
