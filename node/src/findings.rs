//! What nodes tell each other of the checks of targets: who checks, and what each has found.
//!
//! Findings are told when they are made, and no more: whoever misses one goes by that of another node, or checks for itself. A node that
//! checks and has nothing to tell says that it is there; one that is not heard any more has its targets checked by the others.

mod metrics;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gateway::Finding;
use model::NodeId;

use self::metrics::Metrics;

/// A node that was not heard for so long checks nothing that others could count on.
const HEARD_FOR: Duration = Duration::from_secs(3);
/// After so long without anything to tell, a node says that it is there.
const HELLO_INTERVAL: Duration = Duration::from_millis(500);
/// Between two times that findings are told which say what those before them did.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// Datagrams of findings in such a time; what there is more of waits.
const DATAGRAMS_MAX: usize = 32;

/// Tells other nodes what checks made here have found, and hears theirs. Whoever reads the gossip socket has it.
pub(crate) struct Findings {
    checks: Arc<gateway::Checks>,
    heard: BTreeMap<NodeId, Instant>,
    /// Those that the data plane knows of.
    shared: Vec<u64>,
    metrics: Metrics,
    tell_at: Instant,
    hello_at: Instant,
}

/// A datagram that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Findings {
    /// Of these checks.
    ///
    /// # Errors
    /// The metrics' names are taken.
    pub(crate) fn new(
        checks: Arc<gateway::Checks>,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let now = Instant::now();
        Ok(Self {
            checks,
            heard: BTreeMap::new(),
            shared: Vec::new(),
            metrics: Metrics::new(registry)?,
            tell_at: now,
            hello_at: now,
        })
    }

    /// The checks themselves.
    pub(crate) fn checks(&self) -> &Arc<gateway::Checks> {
        &self.checks
    }

    /// Something is to be told before the time that was given.
    pub(crate) fn have_come_due(&mut self) {
        self.tell_at = Instant::now();
    }

    /// Hears what a member says.
    ///
    /// # Errors
    /// The body is none of its kind; nothing of it was taken.
    pub(crate) fn hear(&mut self, from: NodeId, body: &[u8], now: Instant) -> Result<(), Malformed> {
        let findings = wire::decode(body).ok_or(Malformed)?;
        self.heard.insert(from, now);
        self.metrics.received.inc_by(findings.len() as u64);
        findings.into_iter().for_each(|finding| self.checks.hear(from.0, finding));
        Ok(())
    }

    /// Hands over the bodies that are to be sent now, and to whom, as this node. Gives when to be called again, if nothing comes due
    /// before.
    pub(crate) fn tell(
        &mut self,
        me: NodeId,
        members: &BTreeMap<NodeId, Option<SocketAddr>>,
        now: Instant,
        mut send: impl FnMut(&[u8], &[NodeId]),
    ) -> Instant {
        let is_heard = |at: &Instant| now.saturating_duration_since(*at) < HEARD_FOR;
        self.heard.retain(|node, at| members.contains_key(node) && is_heard(at));
        let others: Vec<NodeId> = self.heard.keys().copied().filter(|node| *node != me).collect();
        if self.shared.len() != others.len() + 1
            || !others.iter().zip(&self.shared[1..]).all(|(node, known)| node.0 == *known)
        {
            self.shared = [me].iter().chain(&others).map(|node| node.0).collect();
            self.checks.share(me.0, &self.shared[1..]);
            self.metrics.nodes.set(i64::try_from(self.shared.len()).unwrap_or(i64::MAX));
        }
        if now >= self.tell_at {
            self.tell_at = now + TELL_INTERVAL;
            self.findings(&others, &mut send);
        }
        if now >= self.hello_at {
            self.hello_at = now + HELLO_INTERVAL;
            let all: Vec<NodeId> = members.keys().copied().filter(|node| *node != me).collect();
            if self.checks.is_running() && !all.is_empty() {
                send(&wire::encode(&[]), &all);
            }
        }
        self.tell_at.min(self.hello_at)
    }

    fn findings(&mut self, others: &[NodeId], send: &mut impl FnMut(&[u8], &[NodeId])) {
        for _ in 0..DATAGRAMS_MAX {
            let next = std::iter::from_fn(|| self.checks.next());
            let findings: Vec<Finding> = next.take(wire::FINDINGS_MAX).collect();
            if findings.is_empty() {
                break;
            }
            if !others.is_empty() {
                self.metrics.sent.inc_by((others.len() * findings.len()) as u64);
                send(&wire::encode(&findings), others);
            }
        }
    }
}

#[cfg(test)]
mod tests;
