//! Sends a request to an upstream: chooses a target, takes a connection, and tries again where that is safe.

use std::rc::Rc;

use http::{Request, StatusCode};

use crate::{
    access::Note,
    connection::Connection,
    error::Fault,
    plan::{CompiledUpstream, endpoint::Endpoint},
    upload::RequestBody,
    worker::Worker,
};

mod announce;
mod attempt;
pub(crate) mod balance;
pub(crate) mod connect;
pub(crate) mod health;
pub(crate) mod http2;
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod response_head;
mod shared;
pub(crate) mod spare;
mod stream;

pub(crate) use attempt::Answer;
use attempt::attempt;
use balance::{Choice, Load};
use spare::Spare;

/// Sends the request to one of the upstream's targets, and to others if that fails and is safe: nothing was sent yet,
/// or the method is idempotent (RFC 9110, section 9.2.2) and there is no body.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    connection: &Connection,
    request: Request<RequestBody>,
    note: &mut Note,
) -> Result<Answer, Fault> {
    let repeatable = matches!(request.body(), RequestBody::Empty)
        && request.method().is_idempotent()
        && upstream.spec.retry.attempts > 0;
    let spare = repeatable.then(|| worker.spares.of(&request));
    let answer = try_targets(worker, upstream, connection, request, spare.as_ref(), note).await;
    if let Some(spare) = spare {
        worker.spares.give(spare);
    }
    answer
}

async fn try_targets(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    connection: &Connection,
    mut request: Request<RequestBody>,
    spare: Option<&Spare>,
    note: &mut Note,
) -> Result<Answer, Fault> {
    let mut attempts_left = upstream.spec.retry.attempts;
    let mut choice = Choice::new(upstream);
    let mut stay: Option<&Endpoint> = None;
    loop {
        let (target, fresh) = match stay.take() {
            Some(target) => (target, true),
            None => {
                let picked = choice.next().ok_or(Fault::UNAVAILABLE)?;
                (picked.endpoint, picked.again)
            }
        };
        note.attempt(&upstream.name, &target.label);
        let mut load = Load::begin(&upstream.spec.balance, target);
        let attempted = attempt(worker, upstream, target, connection, request, fresh).await;
        note.attempted();
        let failed = match attempted {
            Ok(mut answer) => {
                match answer.response.status() {
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => {
                        load.failed();
                        blame(worker, upstream, target);
                    }
                    _ => {
                        load.answered();
                        health::succeeded(&target.state);
                    }
                }
                answer.lease.load = load;
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        let safe = failed.unsent.is_some() || (failed.again && spare.is_some());
        if failed.reused && safe {
            // Not the target's fault: it may close what is idle at any time. Once more, on a new connection.
            stay = Some(target);
        } else if failed.blame {
            load.failed();
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

fn blame(worker: &Worker, upstream: &CompiledUpstream, target: &Endpoint) {
    worker.metrics.upstream_failures.add(1);
    if health::failed(&target.state, &upstream.spec.health.passive) {
        worker.metrics.ejections.add(1);
        tracing::warn!(upstream = %upstream.name, target = %target.label, "a target is ejected");
    }
}
