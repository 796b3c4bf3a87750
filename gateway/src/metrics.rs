//! Figures of the data plane: each worker counts for itself, and they are summed when somebody reads.

mod tcp;
mod upstreams;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter as ProtoCounter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    plan::Plan,
    policy::compress::{ENCODINGS, Encoding},
    settings::Limit,
    upstream::connect::Unconnected,
};

pub(crate) use tcp::TcpRouteFigures;
pub(crate) use upstreams::UpstreamFigures;

/// Upper bounds of the duration histogram, in microseconds.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const CODES: [model::Code; 8] = [
    model::Code::Invalid,
    model::Code::Unauthenticated,
    model::Code::Denied,
    model::Code::NotFound,
    model::Code::Conflict,
    model::Code::Exhausted,
    model::Code::Unavailable,
    model::Code::Timeout,
];

/// A number that one thread alone changes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds, without the price of an atomic addition: there is one writer.
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's figures. On lines of memory that no other core writes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Metrics {
    requests: [Count; 5],
    buckets: [Count; BOUNDS_US.len() + 1],
    duration_us: Count,
    refusals: [Count; CODES.len()],
    limits: [Count; Limit::ALL.len()],
    pub(crate) framing_refusals: Count,
    pub(crate) connections: Count,
    pub(crate) connections_total: Count,
    pub(crate) connections_refused: Count,
    pub(crate) upstream_failures: Count,
    pub(crate) upstream_connections_total: Count,
    unconnected: [Count; Unconnected::REASONS.len()],
    pub(crate) retries: Count,
    pub(crate) interims: Count,
    pub(crate) ejections: Count,
    pub(crate) tunnels: Count,
    pub(crate) access_log_dropped: Count,
    pub(crate) proxy_header_failures: Count,
    pub(crate) tls_handshakes: Count,
    pub(crate) tls_resumptions: Count,
    pub(crate) tls_handshake_failures: Count,
    pub(crate) tls_no_certificate: Count,
    pub(crate) http2_connections_total: Count,
    pub(crate) http2_floods: Count,
    /// Bytes of bodies before they were encoded, and after, by [`Encoding`](crate::policy::compress::Encoding).
    pub(crate) compressed_in: [Count; ENCODINGS.len()],
    pub(crate) compressed_out: [Count; ENCODINGS.len()],
    pub(crate) compress_skipped: Count,
    /// Requests that a policy has held up.
    pub(crate) delays: Count,
    /// Of connections that go through.
    pub(crate) tcp: tcp::Counts,
}

impl Metrics {
    /// A request was answered with this status after this time.
    pub(crate) fn answered(&self, status: http::StatusCode, duration: Duration) {
        self.requests[class(status)].add(1);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.duration_us.add(us);
    }

    /// A head was answered with this status that never became a request, so that there is no time to count.
    pub(crate) fn refused_head(&self, status: http::StatusCode) {
        self.requests[class(status)].add(1);
    }

    /// There is no connection to a target, for this reason.
    pub(crate) fn unconnected(&self, why: &Unconnected) {
        self.unconnected[why.reason()].add(1);
    }

    /// A request was refused by the gateway itself.
    pub(crate) fn refused(&self, code: model::Code) {
        if let Some(at) = CODES.iter().position(|known| *known == code) {
            self.refusals[at].add(1);
        }
    }

    /// A client ran into this limit.
    pub(crate) fn limited(&self, limit: Limit) {
        // Its place in `Limit::ALL` (a test).
        self.limits[limit as usize].add(1);
    }
}

/// The place in [`CLASSES`].
fn class(status: http::StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

/// What the policies of the present Plan have done.
pub(crate) struct PolicyFigures {
    plan: Arc<ArcSwap<Plan>>,
    desc: Desc,
}

const POLICY: (&str, &str) = (
    "phalanx_policy_requests_total",
    "Requests that a policy which counts them let through, refused, or would refuse if it did not only watch.",
);
const OUTCOMES: [&str; 3] = ["admitted", "refused", "would_refuse"];

impl PolicyFigures {
    pub(crate) fn new(plan: Arc<ArcSwap<Plan>>) -> Result<Self, prometheus::Error> {
        let labels = ["policy", "outcome"].map(String::from).to_vec();
        let desc = Desc::new(POLICY.0.into(), POLICY.1.into(), labels, HashMap::new())?;
        Ok(Self { plan, desc })
    }
}

impl Collector for PolicyFigures {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let plan = self.plan.load();
        let mut counters = Vec::new();
        for (name, figures) in plan.figures() {
            for (outcome, value) in OUTCOMES.into_iter().zip(figures.sums()) {
                counters.push(counter(&[("policy", name.as_str()), ("outcome", outcome)], value));
            }
        }
        vec![family(POLICY, MetricType::COUNTER, counters)]
    }
}

/// Until when the certificates of the present Plan are good.
pub(crate) struct CertificateEnds {
    plan: Arc<ArcSwap<Plan>>,
    desc: Desc,
}

const CERTIFICATE: (&str, &str) = (
    "phalanx_certificate_expiry_seconds",
    "Until when a certificate is good, in seconds since the Unix epoch; of the 1,000 that end first.",
);
const CERTIFICATES_MAX: usize = 1_000;

impl CertificateEnds {
    pub(crate) fn new(plan: Arc<ArcSwap<Plan>>) -> Result<Self, prometheus::Error> {
        let labels = vec!["certificate".to_owned()];
        let desc = Desc::new(CERTIFICATE.0.into(), CERTIFICATE.1.into(), labels, HashMap::new())?;
        Ok(Self { plan, desc })
    }
}

impl Collector for CertificateEnds {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let plan = self.plan.load();
        let mut ends: Vec<_> = plan.certificates.ends().map(|(name, end)| (end, name)).collect();
        ends.sort_unstable();
        ends.truncate(CERTIFICATES_MAX);
        let gauges = ends.into_iter().map(|(end, name)| {
            let mut metric = Metric::from_label(labels(&[("certificate", name.as_str())]));
            let mut gauge = Gauge::default();
            gauge.set_value(end as f64);
            metric.set_gauge(gauge);
            metric
        });
        vec![family(CERTIFICATE, MetricType::GAUGE, gauges.collect())]
    }
}

/// All workers' figures as one.
pub(crate) struct Collected {
    workers: Vec<Arc<Metrics>>,
    descs: Vec<Desc>,
}

type Read = fn(&Metrics) -> &Count;

const COUNTERS: [(&str, &str, Read); 19] = [
    ("phalanx_fault_delays_total", "Requests that a policy of type fault has held up.", |m| &m.delays),
    ("phalanx_compress_skipped_total", "Responses not compressed for want of memory for encoders.", |m| {
        &m.compress_skipped
    }),
    ("phalanx_framing_refusals_total", "Connections ended for bad framing.", |m| &m.framing_refusals),
    ("phalanx_connections_total", "Connections of clients.", |m| &m.connections_total),
    ("phalanx_connections_refused_total", "Connections closed at once, above the cap.", |m| {
        &m.connections_refused
    }),
    ("phalanx_upstream_failures_total", "Attempts at a target that failed.", |m| &m.upstream_failures),
    ("phalanx_upstream_connections_total", "Connections made to targets.", |m| &m.upstream_connections_total),
    ("phalanx_interim_responses_total", "Interim responses of targets that were passed on.", |m| &m.interims),
    ("phalanx_retries_total", "Attempts after a request's first.", |m| &m.retries),
    ("phalanx_ejections_total", "Targets taken out of use by this node.", |m| &m.ejections),
    ("phalanx_tunnels_total", "Upgraded connections.", |m| &m.tunnels),
    ("phalanx_access_log_dropped_total", "Lines of the access log that were not written.", |m| {
        &m.access_log_dropped
    }),
    (
        "phalanx_proxy_header_failures_total",
        "Connections of proxies that did not say from whom they are.",
        |m| &m.proxy_header_failures,
    ),
    ("phalanx_tls_handshakes_total", "Handshakes of TLS with clients that succeeded.", |m| &m.tls_handshakes),
    ("phalanx_tls_resumptions_total", "Those of them that took up a session again.", |m| &m.tls_resumptions),
    ("phalanx_tls_handshake_failures_total", "Handshakes that failed.", |m| &m.tls_handshake_failures),
    ("phalanx_tls_no_certificate_total", "Handshakes for a host that no certificate is for.", |m| {
        &m.tls_no_certificate
    }),
    ("phalanx_http2_connections_total", "Connections of clients that spoke HTTP/2.", |m| {
        &m.http2_connections_total
    }),
    ("phalanx_http2_floods_total", "Connections of HTTP/2 ended for asking too much.", |m| &m.http2_floods),
];
const CONNECTIONS: (&str, &str) = ("phalanx_connections", "Connections of clients now.");
const REQUESTS: (&str, &str) = ("phalanx_requests_total", "Requests answered, by class of status.");
const REFUSALS: (&str, &str) = ("phalanx_refusals_total", "Requests the gateway itself refused, by code.");
const UNCONNECTED: (&str, &str) =
    ("phalanx_upstream_connect_failures_total", "Connections to targets that did not come to be, by reason.");
const CLIENT_LIMITS: (&str, &str) = (
    "phalanx_client_limits_total",
    "Clients that ran into a limit of this node, by the name of its setting.",
);
const COMPRESSED_IN: (&str, &str) =
    ("phalanx_compress_in_bytes_total", "Bytes of bodies before they were compressed, by encoding.");
const COMPRESSED_OUT: (&str, &str) =
    ("phalanx_compress_out_bytes_total", "Bytes of bodies after they were compressed, by encoding.");
const DURATION: (&str, &str) =
    ("phalanx_request_duration_seconds", "From a request's head to the end of its response's body.");

impl Collected {
    pub(crate) fn new(workers: Vec<Arc<Metrics>>) -> Result<Self, prometheus::Error> {
        let desc = |(name, help): (&str, &str), label: Option<&str>| {
            Desc::new(name.into(), help.into(), label.map(String::from).into_iter().collect(), HashMap::new())
        };
        let mut descs = vec![
            desc(CONNECTIONS, None)?,
            desc(REQUESTS, Some("class"))?,
            desc(REFUSALS, Some("code"))?,
            desc(UNCONNECTED, Some("reason"))?,
            desc(CLIENT_LIMITS, Some("limit"))?,
            desc(COMPRESSED_IN, Some("encoding"))?,
            desc(COMPRESSED_OUT, Some("encoding"))?,
            desc(DURATION, None)?,
        ];
        for (name, help, _) in COUNTERS {
            descs.push(desc((name, help), None)?);
        }
        for (of, label) in tcp::FAMILIES {
            descs.push(desc(of, label)?);
        }
        Ok(Self { workers, descs })
    }

    fn sum(&self, read: impl Fn(&Metrics) -> &Count) -> u64 {
        self.workers.iter().fold(0, |sum, worker| sum.wrapping_add(read(worker).get()))
    }

    fn duration(&self) -> Metric {
        let counts = |at: usize| self.sum(|worker| &worker.buckets[at]);
        histogram(&BOUNDS_US, counts, self.sum(|worker| &worker.duration_us))
    }
}

/// Of counts between these bounds, in microseconds, and above the last of them; and of what they come to together.
fn histogram(bounds_us: &[u64], counts: impl Fn(usize) -> u64, sum_us: u64) -> Metric {
    let mut histogram = Histogram::default();
    let mut count = 0;
    let buckets = bounds_us.iter().enumerate().map(|(at, bound)| {
        count += counts(at);
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(count);
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(count + counts(bounds_us.len()));
    histogram.set_sample_sum(sum_us as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let classes = CLASSES
            .iter()
            .enumerate()
            .map(|(at, class)| counter(&[("class", class)], self.sum(|worker| &worker.requests[at])));
        let codes = CODES
            .iter()
            .enumerate()
            .map(|(at, code)| counter(&[("code", code.as_str())], self.sum(|worker| &worker.refusals[at])));
        let unconnected = Unconnected::REASONS
            .iter()
            .enumerate()
            .map(|(at, reason)| counter(&[("reason", reason)], self.sum(|worker| &worker.unconnected[at])));
        let limits = Limit::ALL.iter().map(|(limit, name)| {
            counter(&[("limit", name)], self.sum(|worker| &worker.limits[*limit as usize]))
        });
        let encoded = |read: fn(&Metrics) -> &[Count; ENCODINGS.len()]| {
            let one = |encoding: Encoding| {
                let value = self.sum(|worker| &read(worker)[encoding as usize]);
                counter(&[("encoding", encoding.word())], value)
            };
            ENCODINGS.into_iter().map(one).collect()
        };
        let mut connections = Metric::default();
        let mut gauge = Gauge::default();
        gauge.set_value(self.sum(|worker| &worker.connections) as f64);
        connections.set_gauge(gauge);
        let mut families = vec![
            family(CONNECTIONS, MetricType::GAUGE, vec![connections]),
            family(REQUESTS, MetricType::COUNTER, classes.collect()),
            family(REFUSALS, MetricType::COUNTER, codes.collect()),
            family(UNCONNECTED, MetricType::COUNTER, unconnected.collect()),
            family(CLIENT_LIMITS, MetricType::COUNTER, limits.collect()),
            family(COMPRESSED_IN, MetricType::COUNTER, encoded(|worker| &worker.compressed_in)),
            family(COMPRESSED_OUT, MetricType::COUNTER, encoded(|worker| &worker.compressed_out)),
            family(DURATION, MetricType::HISTOGRAM, vec![self.duration()]),
        ];
        for (name, help, read) in COUNTERS {
            families.push(family((name, help), MetricType::COUNTER, vec![counter(&[], self.sum(read))]));
        }
        families.extend(tcp::families(self));
        families
    }
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labels(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    labels.iter().map(pair).collect()
}

fn counter(of: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = Metric::from_label(labels(of));
    let mut counter = ProtoCounter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn gauge(of: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(labels(of));
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_counted_in_its_place() {
        for (at, (limit, _)) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, at, "{limit:?}");
        }
    }

    #[test]
    fn workers_are_summed() {
        let workers = [Arc::new(Metrics::default()), Arc::new(Metrics::default())];
        for worker in &workers {
            worker.answered(http::StatusCode::OK, Duration::from_millis(2));
            worker.refused(model::Code::NotFound);
            worker.limited(Limit::StallTimeout);
        }
        let registry = prometheus::Registry::new();
        registry.register(Box::new(Collected::new(workers.to_vec()).unwrap())).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "phalanx_requests_total{class=\"2xx\"} 2",
            "phalanx_refusals_total{code=\"not_found\"} 2",
            "phalanx_client_limits_total{limit=\"stall_timeout\"} 2",
            "phalanx_client_limits_total{limit=\"header_timeout\"} 0",
            "phalanx_request_duration_seconds_bucket{le=\"0.001\"} 0",
            "phalanx_request_duration_seconds_bucket{le=\"0.0025\"} 2",
            "phalanx_request_duration_seconds_count 2",
            "phalanx_connections 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
