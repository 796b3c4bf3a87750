//! Figures of connections that go through: of a worker's all together, and of each TCP route of the present Plan.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use prometheus::{
    core::{Collector, Desc},
    proto::{MetricFamily, MetricType},
};

use super::{Collected, Count, counter, family, gauge, histogram};
use crate::{
    plan::{Plan, tcp::TcpFigures},
    tcp::End,
};

/// Upper bounds of the histogram of durations, in microseconds: connections last longer than requests.
const BOUNDS_US: [u64; 10] = [
    10_000,
    100_000,
    1_000_000,
    5_000_000,
    15_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
];

/// What one worker counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections that are there.
    pub(crate) open: Count,
    ends: [Count; End::ALL.len()],
    bytes_in: Count,
    bytes_out: Count,
    buckets: [Count; BOUNDS_US.len() + 1],
    duration_us: Count,
}

impl Counts {
    /// So many bytes were moved.
    pub(crate) fn moved(&self, bytes_in: u64, bytes_out: u64) {
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }

    /// A connection ended so, after this time.
    pub(crate) fn ended(&self, end: End, took: Duration) {
        // Its place in `End::ALL` (a test).
        self.ends[end as usize].add(1);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.duration_us.add(us);
    }
}

type Of = ((&'static str, &'static str), Option<&'static str>);

const OPEN: Of = (("phalanx_tcp_connections", "Connections for TCP routes now."), None);
const ENDS: Of =
    (("phalanx_tcp_connections_total", "Connections for TCP routes that have ended, by how."), Some("end"));
const BYTES: Of = (
    ("phalanx_tcp_bytes_total", "Bytes of clients (in) and of targets (out) on connections that go through."),
    Some("direction"),
);
const DURATION: Of =
    (("phalanx_tcp_duration_seconds", "How long connections for TCP routes were there."), None);

/// Each family with its label.
pub(super) const FAMILIES: [Of; 4] = [OPEN, ENDS, BYTES, DURATION];

/// All workers' figures as one.
pub(super) fn families(all: &Collected) -> [MetricFamily; 4] {
    let open = gauge(&[], all.sum(|worker| &worker.tcp.open) as f64);
    let ends = End::ALL
        .iter()
        .map(|(end, word)| counter(&[("end", word)], all.sum(|worker| &worker.tcp.ends[*end as usize])));
    let bytes = [
        counter(&[("direction", "in")], all.sum(|worker| &worker.tcp.bytes_in)),
        counter(&[("direction", "out")], all.sum(|worker| &worker.tcp.bytes_out)),
    ];
    let duration = histogram(
        &BOUNDS_US,
        |at| all.sum(|worker| &worker.tcp.buckets[at]),
        all.sum(|worker| &worker.tcp.duration_us),
    );
    [
        family(OPEN.0, MetricType::GAUGE, vec![open]),
        family(ENDS.0, MetricType::COUNTER, ends.collect()),
        family(BYTES.0, MetricType::COUNTER, bytes.into()),
        family(DURATION.0, MetricType::HISTOGRAM, vec![duration]),
    ]
}

/// The most TCP routes that have figures of their own, the first by name.
const ROUTES_MAX: usize = 1_000;

const ROUTE_OPEN: (&str, &str) = ("phalanx_tcp_route_connections", "Connections now, by TCP route.");
const ROUTE_CONNECTIONS: (&str, &str) =
    ("phalanx_tcp_route_connections_total", "Connections taken, by TCP route.");
const ROUTE_BYTES: (&str, &str) =
    ("phalanx_tcp_route_bytes_total", "Bytes of clients (in) and of targets (out), by TCP route.");

/// What the workers have counted of each TCP route of the present Plan.
pub(crate) struct TcpRouteFigures {
    plan: Arc<ArcSwap<Plan>>,
    descs: Vec<Desc>,
}

impl TcpRouteFigures {
    pub(crate) fn new(plan: Arc<ArcSwap<Plan>>) -> Result<Self, prometheus::Error> {
        let desc = |(name, help): (&str, &str), labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.into(), help.into(), labels, HashMap::new())
        };
        let descs = vec![
            desc(ROUTE_OPEN, &["tcp_route"])?,
            desc(ROUTE_CONNECTIONS, &["tcp_route"])?,
            desc(ROUTE_BYTES, &["tcp_route", "direction"])?,
        ];
        Ok(Self { plan, descs })
    }
}

impl Collector for TcpRouteFigures {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let plan = self.plan.load();
        let used = plan.tcp.all().filter(|route| route.state.figures.is_used()).take(ROUTES_MAX);
        let (mut open, mut connections, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for route in used {
            let sum = |read: fn(&TcpFigures) -> u64| route.state.figures.sum(read);
            let name = ("tcp_route", route.name.as_str());
            open.push(gauge(&[name], sum(|figures| figures.open.get()) as f64));
            connections.push(counter(&[name], sum(|figures| figures.connections.get())));
            bytes.push(counter(&[name, ("direction", "in")], sum(|figures| figures.bytes_in.get())));
            bytes.push(counter(&[name, ("direction", "out")], sum(|figures| figures.bytes_out.get())));
        }
        vec![
            family(ROUTE_OPEN, MetricType::GAUGE, open),
            family(ROUTE_CONNECTIONS, MetricType::COUNTER, connections),
            family(ROUTE_BYTES, MetricType::COUNTER, bytes),
        ]
    }
}
