//! How much an upstream is asked for at once: requests in flight, connections, and requests that wait for one.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    connect::{Offer, connect},
    pool::{Pool, Whose, Wire},
    retry::Why,
};
use crate::{
    h1::client::Link,
    plan::{CompiledUpstream, endpoint::Endpoint},
    timer,
    worker::Worker,
};

/// The connections to an upstream that limits them.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: u32,
    free: Arc<Semaphore>,
    /// Requests that wait for one, on all workers.
    waiting: AtomicU32,
}

/// One of the connections that an upstream may have, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    of: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// Those under this limit; the ones there were, unless it has changed.
    pub(crate) fn under(limit: u32, old: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        if limit == 0 {
            return None;
        }
        if let Some(old) = old.filter(|old| old.limit == limit) {
            return Some(old.clone());
        }
        let free = Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS)));
        Some(Arc::new(Self { limit, free, waiting: AtomicU32::new(0) }))
    }

    /// Whether requests wait for one.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    fn counted(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Rc<Counted> {
        Rc::new(Counted { of: self.clone(), _permit: permit })
    }
}

impl Counted {
    /// Whether somebody waits for a connection beside these.
    pub(crate) fn is_wanted(&self, waiting_here: u32) -> bool {
        self.of.waiting.load(Relaxed) > waiting_here
    }
}

/// A request that waits for a connection.
struct Waiting<'a> {
    connections: &'a Connections,
    /// Counts those who would take an idle connection.
    here: Option<&'a Cell<u32>>,
}

impl<'a> Waiting<'a> {
    /// None if as many wait as may.
    fn begin(connections: &'a Connections, here: Option<&'a Cell<u32>>, pending_max: u32) -> Option<Self> {
        let more = |waiting| (waiting < pending_max).then_some(waiting + 1);
        connections.waiting.fetch_update(Relaxed, Relaxed, more).ok()?;
        here.into_iter().for_each(|here| here.set(here.get() + 1));
        Some(Self { connections, here })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connections.waiting.fetch_sub(1, Relaxed);
        self.here.into_iter().for_each(|here| here.set(here.get() - 1));
    }
}

/// A connection of HTTP/1.1 to this target, where none is idle, for these alone if they are given, and whether it was used before: a new
/// one, or, where there are as many as there may be, whichever comes first until `end_ms`, that or an idle one unless it is to be `fresh`.
pub(super) async fn obtain(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    target: &Endpoint,
    pool: &Pool,
    (whose, fresh): (Option<Box<Whose>>, bool),
    end_ms: Option<u64>,
) -> Result<(Wire, bool), Why> {
    let counted = match &upstream.connections {
        None => None,
        Some(connections) => {
            let idle = if fresh { None } else { Some(whose.as_deref()) };
            match Box::pin(connections.take(worker, upstream, pool, idle, end_ms)).await? {
                Had::Idle(link) => return Ok((Wire::Own(link), true)),
                Had::Place(counted) => Some(counted),
            }
        }
    };
    let wire = connect(worker, upstream, target, pool, whose, counted, Offer::Http1).await?;
    Ok((wire, false))
}

/// A place for a new connection, where these are limited; it is waited for until `end_ms`.
pub(super) async fn place(
    worker: &Rc<Worker>,
    upstream: &CompiledUpstream,
    pool: &Pool,
    end_ms: Option<u64>,
) -> Result<Option<Rc<Counted>>, Why> {
    let Some(connections) = &upstream.connections else { return Ok(None) };
    match connections.take(worker, upstream, pool, None, end_ms).await? {
        Had::Place(counted) => Ok(Some(counted)),
        Had::Idle(_) => Err(Why::Overflow),
    }
}

enum Had {
    Idle(Link),
    Place(Rc<Counted>),
}

impl Connections {
    /// A place, at once if there is one, or as soon as there is, or an idle connection of these if that will do. Whatever time ends
    /// the wait, no target has had a part in it.
    async fn take(
        self: &Arc<Self>,
        worker: &Rc<Worker>,
        upstream: &CompiledUpstream,
        pool: &Pool,
        idle: Option<Option<&Whose>>,
        end_ms: Option<u64>,
    ) -> Result<Had, Why> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(Had::Place(self.counted(permit)));
        }
        let pending_max = upstream.spec.limits.pending;
        let _waiting = Waiting::begin(self, idle.map(|_| &pool.waiting), pending_max).ok_or(Why::Overflow)?;
        // One that idles here for another target, or for others, makes room.
        let all = upstream.endpoints.all().iter();
        let pools = all.map(|one| worker.pools.of(one.state.id, upstream.transport.id));
        drop(pools.filter_map(|pool| pool.take(None)).next());
        let waiting = self.wait(pool, idle);
        let limit_ms = timer::now_ms().saturating_add(timer::millis(upstream.spec.timeout.connect));
        let until_ms = end_ms.map_or(limit_ms, |end_ms| end_ms.min(limit_ms));
        let had = worker.deadlines.until(Some(until_ms), pin!(waiting)).await;
        had.flatten().ok_or(Why::Overflow)
    }

    async fn wait(self: &Arc<Self>, pool: &Pool, idle: Option<Option<&Whose>>) -> Option<Had> {
        let mut place = pin!(self.free.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                permit = place.as_mut() => return Some(Had::Place(self.counted(permit.ok()?))),
                () = pool.returned.notified(), if idle.is_some() => {
                    if let Some(link) = pool.take(idle.flatten()) {
                        return Some(Had::Idle(link));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Name;

    use super::*;
    use crate::{names::Names, plan::Surroundings};

    fn upstream(text: &str, old: Option<&CompiledUpstream>) -> CompiledUpstream {
        let spec = Arc::new(serde_json::from_str(text).unwrap());
        let around = Surroundings::new(Names::new().0, None);
        CompiledUpstream::compile(&Name::new("u").unwrap(), &spec, old, &around, |_| None).unwrap()
    }

    #[test]
    fn connections_are_counted_across_plans_while_their_limit_stays() {
        let text = r#"{"targets":[{"address":"a:1"}],"limits":{"connections":1}}"#;
        let old = upstream(text, None);
        let of = old.connections.clone().unwrap();
        let permit = of.free.clone().try_acquire_owned().unwrap();
        let counted = of.counted(permit);
        let same = upstream(&text.replace("a:1", "b:1"), Some(&old)).connections.unwrap();
        assert!(same.free.clone().try_acquire_owned().is_err());
        let more = upstream(&text.replace("\"connections\":1", "\"connections\":2"), Some(&old));
        assert!(more.connections.unwrap().free.clone().try_acquire_owned().is_ok());
        assert!(!counted.is_wanted(0));
        let here = Cell::new(0);
        let waiting = Waiting::begin(&of, Some(&here), 1).unwrap();
        assert!(counted.is_wanted(0) && !counted.is_wanted(1) && here.get() == 1 && of.is_waited_for());
        assert!(Waiting::begin(&of, Some(&here), 1).is_none());
        drop(waiting);
        assert!(!counted.is_wanted(0) && !of.is_waited_for());
        drop(counted);
        assert!(same.free.clone().try_acquire_owned().is_ok());
    }
}
