//! Sends a request to an upstream: chooses a target, takes a connection, and tries again where that is safe.

use std::{net::SocketAddr, rc::Rc, sync::atomic::Ordering::Relaxed, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    access::Note,
    connection::Watch,
    error::Fault,
    headers,
    plan::upstream::{CompiledTarget, CompiledUpstream, TargetHost},
    server::KEEPALIVE,
    timer,
    upload::RequestBody,
    worker::Worker,
};

pub(crate) mod balance;
pub(crate) mod health;
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod spare;
mod stream;

use pool::{Lease, Link};
use spare::Spare;
use stream::Stream;

/// What a target answered, and the connection on which the rest of it comes.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// An attempt that came to nothing.
struct Failed {
    fault: Fault,
    /// The request, if no byte of it was sent.
    unsent: Option<Request<RequestBody>>,
    /// Whether the target is at fault, and not the client.
    blame: bool,
    /// Whether it may be tried again.
    again: bool,
    /// Whether the connection had been used before: it may just have been closed for being idle.
    reused: bool,
}

impl Failed {
    fn unsent(fault: Fault, request: Request<RequestBody>) -> Self {
        Self { fault, unsent: Some(request), blame: true, again: true, reused: false }
    }
}

/// Sends the request to one of the upstream's targets, and to others if that fails and is safe: nothing was sent yet,
/// or the method is idempotent (RFC 9110, section 9.2.2) and there is no body.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    watch: &Watch,
    request: Request<RequestBody>,
    note: &mut Note,
) -> Result<Answer, Fault> {
    let repeatable = matches!(request.body(), RequestBody::Empty)
        && request.method().is_idempotent()
        && upstream.spec.retry.attempts > 0;
    let spare = repeatable.then(|| worker.spares.of(&request));
    let answer = try_targets(worker, upstream, watch, request, spare.as_ref(), note).await;
    if let Some(spare) = spare {
        worker.spares.give(spare);
    }
    answer
}

async fn try_targets(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    watch: &Watch,
    mut request: Request<RequestBody>,
    spare: Option<&Spare>,
    note: &mut Note,
) -> Result<Answer, Fault> {
    let mut attempts_left = upstream.spec.retry.attempts;
    let mut tried = 0;
    let mut stay: Option<usize> = None;
    loop {
        let (at, fresh) = match stay.take() {
            Some(at) => (at, true),
            None => {
                let at = balance::next(upstream, tried).ok_or(Fault::UNAVAILABLE)?;
                (at, tried & bit(at) != 0)
            }
        };
        let target = &upstream.targets[at];
        note.attempt(&upstream.name, &target.address);
        let attempted = attempt(worker, upstream, target, watch, request, fresh).await;
        note.attempted();
        let failed = match attempted {
            Ok(answer) => {
                match answer.response.status() {
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => {
                        blame(worker, upstream, target);
                    }
                    _ => health::succeeded(&target.state),
                }
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        tried |= bit(at);
        let safe = failed.unsent.is_some() || (failed.again && spare.is_some());
        if failed.reused && safe {
            // Not the target's fault: it may close what is idle at any time. Once more, on a new connection.
            stay = Some(at);
        } else if failed.blame {
            blame(worker, upstream, target);
        }
        if !safe || (stay.is_none() && attempts_left == 0) {
            return Err(failed.fault);
        }
        request = failed.unsent.or_else(|| spare?.request()).ok_or(failed.fault)?;
        if stay.is_none() {
            attempts_left -= 1;
        }
        worker.metrics.retries.add(1);
    }
}

fn bit(at: usize) -> u64 {
    1_u64.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0)
}

fn blame(worker: &Worker, upstream: &CompiledUpstream, target: &CompiledTarget) {
    worker.metrics.upstream_failures.add(1);
    if health::failed(&target.state, &upstream.spec.health.passive) {
        worker.metrics.ejections.add(1);
        tracing::warn!(upstream = %upstream.name, target = %target.address, "a target is ejected");
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &CompiledTarget,
    watch: &Watch,
    request: Request<RequestBody>,
    fresh: bool,
) -> Result<Answer, Failed> {
    let pool = worker.pools.of(target.state.id);
    let limit = upstream.spec.timeout.response;
    let (mut link, reused) = match if fresh { None } else { pool.take() } {
        Some(link) => (link, true),
        None => match connect(worker, target, upstream.spec.timeout.connect).await {
            Some(link) => (link, false),
            None => return Err(Failed::unsent(Fault::BAD_GATEWAY, request)),
        },
    };
    let upload = request.body().progress();
    let held_up = link.held_up.clone();
    let is_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let sending = link.sender.try_send_request(request);
    let lease = Lease::new(link, pool, upload.clone());
    let mut sending = std::pin::pin!(sending);
    let mut wait = limit;
    let sent = loop {
        if let Some(sent) = worker.deadlines.within(wait, sending.as_mut()).await {
            break sent;
        }
        // The time runs from the request's last byte, or while the target takes nothing of what there is.
        let since = match upload.as_deref() {
            None => None,
            Some(upload) => match (upload.ended_at_ms(), held_up.load(Relaxed)) {
                (Some(ended), _) => Some(ended),
                // The client's turn.
                (None, 0) => Some(timer::now_ms()),
                (None, since) => Some(since),
            },
        };
        let passed =
            since.map_or(limit, |since| Duration::from_millis(timer::now_ms().saturating_sub(since)));
        if passed >= limit {
            lease.discard();
            return Err(Failed {
                fault: Fault::TIMEOUT,
                unsent: None,
                blame: true,
                again: false,
                reused: false,
            });
        }
        wait = limit.saturating_sub(passed);
    };
    let mut error = match sent {
        Ok(response) => {
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if (switches && !is_upgrade) || headers::badly_framed(response.headers()) {
                lease.discard();
                let fault = Fault::BAD_GATEWAY;
                return Err(Failed { fault, unsent: None, blame: true, again: false, reused: false });
            }
            return Ok(Answer { response, lease });
        }
        Err(error) => error,
    };
    lease.discard();
    let unsent = error.take_message();
    let error = error.into_error();
    if unsent.is_none() && error.is_user() {
        let detail =
            if watch.refused().is_some() { "The body is framed badly" } else { "The body broke off" };
        return Err(Failed {
            fault: Fault::bad_request(detail),
            unsent: None,
            blame: false,
            again: false,
            reused: false,
        });
    }
    tracing::debug!(upstream = %upstream.name, target = %target.address, %error, reused, "an attempt failed");
    Err(Failed { fault: Fault::BAD_GATEWAY, unsent, blame: true, again: true, reused })
}

async fn connect(worker: &Rc<Worker>, target: &CompiledTarget, limit: Duration) -> Option<Link> {
    let connecting = async {
        let address: SocketAddr = match &target.host {
            TargetHost::Address(address) => *address,
            TargetHost::Dns(..) => worker.resolver.resolve(&target.address).await?,
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        Ok::<_, std::io::Error>(stream)
    };
    let stream = match worker.deadlines.within(limit, connecting).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            tracing::debug!(target = %target.address, %error, "a target can't be connected to");
            return None;
        }
        None => {
            tracing::debug!(target = %target.address, "a target takes no connection in time");
            return None;
        }
    };
    let (stream, held_up) = Stream::new(stream);
    let (sender, connection) = worker.client.handshake(TokioIo::new(stream)).await.ok()?;
    worker.metrics.upstream_connections_total.add(1);
    // Its failure is told to the exchange that uses it; idle, it is just gone from the pool.
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a connection to a target ended early");
        }
    });
    Some(Link { sender, task, held_up })
}
