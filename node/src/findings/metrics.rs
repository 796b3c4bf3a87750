//! Figures of what nodes tell each other of checks.

use prometheus::{IntCounter, IntGauge, Registry};

pub(super) struct Metrics {
    pub(super) sent: IntCounter,
    pub(super) received: IntCounter,
    pub(super) nodes: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            sent: IntCounter::new(
                "phalanx_check_findings_sent_total",
                "What checks of targets have found, as told to other nodes, once for each receiver.",
            )?,
            received: IntCounter::new(
                "phalanx_check_findings_received_total",
                "What other nodes told of their checks.",
            )?,
            nodes: IntGauge::new(
                "phalanx_check_nodes",
                "Nodes that share checks of targets with this one, itself among them.",
            )?,
        };
        registry.register(Box::new(metrics.sent.clone()))?;
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.nodes.clone()))?;
        metrics.nodes.set(1);
        Ok(metrics)
    }
}
