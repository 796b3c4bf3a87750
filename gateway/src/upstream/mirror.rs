//! Copies of requests for other upstreams, whose answers nobody sees.

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::{Request, header};
use http_body::Body;
use model::route::{Mirror, RouteTimeout};
use smallvec::SmallVec;

use super::{Times, caller::Caller, enter, figures, forward, replay::Replay, retry};
use crate::{
    access::Note,
    chance,
    connection::Connection,
    plan::{CompiledUpstream, Plan},
    upload::RequestBody,
    worker::Worker,
};

/// The largest body that is copied, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The most copies that a worker has in flight.
const IN_FLIGHT_MAX: usize = 256;

/// How many copies a worker has in flight.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Rc<Cell<usize>>);

struct Counted(InFlight);

impl InFlight {
    fn enter(&self) -> Option<Counted> {
        let count = self.0.get();
        (count < IN_FLIGHT_MAX).then(|| {
            self.0.set(count + 1);
            Counted(self.clone())
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.set(count.get() - 1);
    }
}

/// The copies of one request.
pub(crate) struct Copies {
    to: SmallVec<[Arc<CompiledUpstream>; 1]>,
    /// Without its body.
    request: Box<Request<RequestBody>>,
    body: Option<Rc<Replay>>,
}

impl Copies {
    /// Those that the route wants of this request, if any. A body is kept as it goes by.
    pub(crate) fn of(
        worker: &Worker,
        plan: &Plan,
        mirrors: &[Mirror],
        request: &mut Request<RequestBody>,
    ) -> Option<Box<Self>> {
        if mirrors.is_empty() {
            return None;
        }
        let is_drawn = |mirror: &&Mirror| chance::below(100) < u64::from(mirror.percent);
        let drawn = mirrors.iter().filter(is_drawn);
        let to: SmallVec<_> = drawn.filter_map(|mirror| plan.upstream(&mirror.upstream).cloned()).collect();
        if to.is_empty() || request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        let copy = retry::bare(request);
        let has_body = !matches!(request.body(), RequestBody::Empty);
        let body = has_body.then(|| {
            let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
            // What is known to be too large need not be kept to find that out.
            let too_large = body.size_hint().lower() > BODY_BYTES_MAX as u64;
            Replay::of(body, if too_large { 0 } else { BODY_BYTES_MAX }, &worker.kept_bytes)
        });
        if let Some(body) = body.clone().and_then(Replay::again) {
            *request.body_mut() = body;
        }
        Some(Box::new(Self { to, request: copy, body }))
    }

    /// Whether they need not wait for the request's body.
    pub(crate) fn is_ready(&self) -> bool {
        self.body.is_none()
    }

    /// Sends them, each to one of its upstream's targets, and waits for none. What can't be sent is left out and counted.
    pub(crate) fn send(self, worker: &Rc<Worker>, connection: &Rc<Connection>) {
        let body = self.body.as_ref().map(|body| body.copy());
        for upstream in self.to {
            let body = match &body {
                None => Some(RequestBody::Empty),
                Some(Some(bytes)) => Some(RequestBody::Full(Some(bytes.clone()))),
                Some(None) => None,
            };
            let Some((body, counted)) = body.zip(worker.mirrors.enter()) else {
                figures(worker, &upstream).mirrors_dropped.add(1);
                continue;
            };
            let mut request = retry::bare(&self.request);
            *request.body_mut() = body;
            figures(worker, &upstream).mirrors.add(1);
            let (worker, connection) = (worker.clone(), connection.clone());
            tokio::task::spawn_local(async move {
                let _counted = counted;
                let Ok(_in_flight) = enter(&worker, &upstream) else { return };
                let times = Times::of(&upstream, &RouteTimeout::default());
                let (caller, mut note) = (Caller::gateway(&connection), Note::default());
                let forwarding = Box::pin(forward(&worker, &upstream, times, &caller, request, &mut note));
                if let Ok(answer) = forwarding.await {
                    answer.throw_away();
                }
            });
        }
    }
}
