//! A connection to one of an upstream's targets for bytes that go there as they come: chosen as for requests, tried on another where a
//! target takes none.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::HeaderMap;
use tokio::net::TcpStream;

use super::{
    announce,
    balance::{Affinity, Choice, Load},
    blame,
    breaker::{self, Counted},
    connect, counted_failure, figures, health, resolved,
    retry::{self, Why},
};
use crate::{
    connection::Connection,
    plan::{CompiledUpstream, endpoint::Endpoint},
    tcp::Told,
    worker::Worker,
};

/// A connection to a target.
pub(crate) struct Opened {
    pub(crate) stream: TcpStream,
    /// What is sent on it before anything else: for whom it is, where the upstream wants to be told.
    pub(crate) first: Vec<u8>,
    /// Its part of the target's load, for as long as it is there.
    pub(crate) load: Load,
    /// Its place among the upstream's connections, where they are limited.
    pub(crate) counted: Option<Rc<Counted>>,
}

/// A connection to a target of this upstream, for this client.
pub(crate) async fn open(
    worker: &Rc<Worker>,
    upstream: Arc<CompiledUpstream>,
    connection: &Connection,
    client: &TcpStream,
    told: &mut Told,
) -> Result<Opened, Why> {
    let upstream = if upstream.is_awaited { resolved(worker, upstream).await } else { upstream };
    let figures = figures(worker, &upstream);
    figures.requests.add(1);
    told.upstream = Some(upstream.name.clone());
    // Of what requests may be hashed by, a connection has an address.
    let address = || connection.peer.ip();
    let affinity = upstream.binding.as_ref().map(|binding| binding.of(&HeaderMap::new(), None, address));
    let mut choice = Choice::with(&upstream, affinity.unwrap_or_else(Affinity::default));
    let mut retries = 0;
    loop {
        let target = choice.next().ok_or(Why::Connect)?.endpoint;
        figures.attempts.add(1);
        told.attempts += 1;
        told.target = Some(target.label.clone());
        let began = Instant::now();
        let opened = attempt(worker, &upstream, target).await;
        told.took = Some(began.elapsed());
        let why = match opened {
            Ok((stream, load, counted)) => {
                health::succeeded(&target.state, &upstream.spec.health.passive);
                let first = announced(&upstream, connection, client);
                return Ok(Opened { stream, first, load, counted });
            }
            Err(Why::Overflow) => {
                figures.overflows.add(1);
                return Err(Why::Overflow);
            }
            Err(why) => why,
        };
        if upstream.failures.has_failure(why) {
            blame(worker, &upstream, target, why.in_words());
        } else {
            counted_failure(worker, &upstream);
        }
        if retries >= upstream.spec.retry.attempts || !upstream.retry.takes_failure(why) {
            return Err(why);
        }
        worker.metrics.retries.add(1);
        figures.retried(why);
        // Another target knows nothing of it. The same one is left alone for a little.
        if !choice.has_untried() {
            tokio::time::sleep(retry::wait(&upstream.spec.retry.backoff, retries)).await;
        }
        retries += 1;
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
) -> Result<(TcpStream, Load, Option<Rc<Counted>>), Why> {
    let pool = worker.pools.of(target.state.id, upstream.transport.id);
    let mut load = Load::begin(&upstream.spec.balance, target);
    let counted = breaker::place(worker, upstream, &pool, None).await?;
    match connect::plain(worker, upstream, target, &pool).await {
        Ok(stream) => {
            load.answered();
            Ok((stream, load, counted))
        }
        Err(why) => {
            load.failed();
            Err(why)
        }
    }
}

/// What a target is told of the client, where the upstream wants that.
fn announced(upstream: &CompiledUpstream, connection: &Connection, client: &TcpStream) -> Vec<u8> {
    let local = connection.local.or_else(|| client.local_addr().ok());
    let told = upstream.transport.proxy_protocol.zip(local);
    told.map(|(version, local)| announce::header(version, connection.peer, local)).unwrap_or_default()
}
