//! Figures of what nodes tell each other of rate limits.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

pub(super) struct Metrics {
    pub(super) sent: IntCounter,
    pub(super) sent_bytes: IntCounter,
    pub(super) received: IntCounter,
    admitted: IntCounter,
    over: IntCounter,
    nodes: IntGauge,
    part: Gauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let metrics = Self {
            sent: counter(
                "phalanx_rate_limit_records_sent_total",
                "Records of counters sent, one for each receiver.",
            )?,
            sent_bytes: counter("phalanx_rate_limit_sent_bytes_total", "Their bytes, as IP packets.")?,
            received: counter("phalanx_rate_limit_records_received_total", "Records of counters taken.")?,
            admitted: counter(
                "phalanx_rate_limit_admitted_total",
                "What all nodes admitted in windows that are over, of keys they tell each other of, as this node has heard.",
            )?,
            over: counter("phalanx_rate_limit_over_total", "How much of that was over the limit.")?,
            nodes: IntGauge::new(
                "phalanx_rate_limit_nodes",
                "Nodes that share limits with this one, itself among them.",
            )?,
            part: Gauge::new(
                "phalanx_rate_limit_part",
                "Which part of the limits these nodes have: less than 1 if cut off.",
            )?,
        };
        registry.register(Box::new(metrics.nodes.clone()))?;
        registry.register(Box::new(metrics.part.clone()))?;
        Ok(metrics)
    }

    /// So much was admitted in all, and so much of it was too much.
    pub(super) fn judge(&self, admitted: u64, over: u64) {
        self.admitted.inc_by(admitted.saturating_sub(self.admitted.get()));
        self.over.inc_by(over.saturating_sub(self.over.get()));
    }

    pub(super) fn look(&self, nodes: u32, part: f32) {
        self.nodes.set(nodes.into());
        self.part.set(part.into());
    }
}
