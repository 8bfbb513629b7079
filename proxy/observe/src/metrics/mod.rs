//! Istio's metrics (names, labels and values as its own data planes expose them, so that Kiali and
//! existing dashboards work) and Fhirward's own.
//!
//! The label values of one kind of exchange are looked up once and kept: a request costs one hash
//! of a small key, not of twenty-five strings.

mod exposition;
mod labels;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, Hash},
    sync::{Arc, RwLock},
};

use ahash::{AHashMap, RandomState};
pub use exposition::{Exposition, ExpositionError};
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::{
    ObserveSettings, Record,
    record::{Protocol, Reporter},
};

/// Envoy's default histogram buckets, which Istio uses for milliseconds and bytes alike.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Our own time until the decision, in seconds: microseconds matter there.
const DECISION_BUCKETS: [f64; 10] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1];

/// All counters of requests.
pub struct Metrics {
    registry: Registry,
    istio: Istio,
    series: RwLock<AHashMap<u64, Arc<Series>>>,
    hasher: RandomState,
    max_series: usize,
    cluster: String,
    refused: IntCounterVec,
    connections_refused: IntCounterVec,
    tokens: IntCounterVec,
    decisions: IntCounterVec,
    dry_run: IntCounterVec,
    audited: IntCounter,
    decided_after: Histogram,
    log_dropped: IntCounter,
}

struct Istio {
    tcp: Tcp,
    requests: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    request_messages: CounterVec,
    response_messages: CounterVec,
}

/// Of raw TCP connections.
struct Tcp {
    opened: IntCounterVec,
    closed: IntCounterVec,
    sent: IntCounterVec,
    received: IntCounterVec,
}

/// The handles of one set of label values.
enum Series {
    Requests(Requests),
    Tcp(Connections),
}

struct Connections {
    opened: IntCounter,
    closed: IntCounter,
    /// Bytes to the client.
    sent: IntCounter,
    /// Bytes from it.
    received: IntCounter,
}

struct Requests {
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    messages: Option<(prometheus::Counter, prometheus::Counter)>,
}

impl Metrics {
    /// Registers everything on a registry of its own.
    #[must_use]
    pub fn new(settings: &ObserveSettings) -> Self {
        let registry = Registry::new();
        let own = |name: &str, help: &str, labels: &[&str]| {
            keep(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            istio: Istio::register(&registry),
            refused: own(
                "fhirward_requests_refused_total",
                "Requests refused before any policy was asked, by limit or check.",
                &["reason"],
            ),
            connections_refused: own(
                "fhirward_connections_refused_total",
                "Connections closed without an answer, by reason.",
                &["reason"],
            ),
            tokens: own(
                "fhirward_token_checks_total",
                "Requests by what came of checking their tokens.",
                &["outcome"],
            ),
            decisions: own(
                "fhirward_decisions_total",
                "Requests decided by policy, by verdict.",
                &["verdict"],
            ),
            dry_run: own(
                "fhirward_dry_run_decisions_total",
                "What the policies annotated as dry run would have decided.",
                &["verdict"],
            ),
            audited: keep(
                &registry,
                IntCounter::new("fhirward_audited_requests_total", "Requests that an AUDIT rule matched."),
            ),
            decided_after: keep(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "fhirward_decision_seconds",
                        "From the request's head to the decision.",
                    )
                    .buckets(DECISION_BUCKETS.to_vec()),
                ),
            ),
            log_dropped: keep(
                &registry,
                IntCounter::new(
                    "fhirward_access_log_dropped_total",
                    "Log lines dropped because the writer's queue was full.",
                ),
            ),
            series: RwLock::default(),
            hasher: RandomState::new(),
            max_series: settings.max_series.max(1),
            cluster: settings.cluster.clone(),
            registry,
        }
    }

    /// Counts one request, or one connection that was refused before it could ask anything.
    pub fn observe(&self, record: &Record) {
        if let Some(reason) = record.refused
            && record.status.is_none()
            && record.method.is_empty()
        {
            self.connections_refused.with_label_values(&[reason]).inc();
            return;
        }
        for reporter in reporters(record) {
            match &*self.series(record, reporter) {
                Series::Requests(series) => series.observe(record),
                Series::Tcp(series) => series.close(record),
            }
        }
        self.observe_own(record);
    }

    /// Counts a raw TCP connection that opens; [`Metrics::observe`] counts its end.
    pub fn opened(&self, record: &Record) {
        self.of_connections(record, |series| series.opened.inc());
    }

    /// Counts bytes of a raw TCP connection that goes on: from the client, and to it.
    pub fn moved(&self, record: &Record, (from, to): (u64, u64)) {
        self.of_connections(record, |series| {
            series.received.inc_by(from);
            series.sent.inc_by(to);
        });
    }

    fn of_connections(&self, record: &Record, count: impl Fn(&Connections)) {
        for reporter in reporters(record) {
            if let Series::Tcp(series) = &*self.series(record, reporter) {
                count(series);
            }
        }
    }

    fn observe_own(&self, record: &Record) {
        if let Some(reason) = record.refused {
            self.refused.with_label_values(&[reason]).inc();
        }
        if !record.token.is_empty() && record.protocol != Protocol::Tcp {
            self.tokens.with_label_values(&[record.token]).inc();
        }
        let Some(decision) = &record.decision else { return };
        let verdict = match decision.verdict {
            policy::Verdict::Allow => "allow",
            policy::Verdict::Deny => "deny",
        };
        self.decisions.with_label_values(&[verdict]).inc();
        self.decided_after.observe(record.decided_after.as_secs_f64());
        if !decision.audited.is_empty() {
            self.audited.inc();
        }
        if let Some(dry) = &decision.dry_run {
            let denied = dry.denied_by.is_some() || matches!(dry.allow, Some(None));
            self.dry_run.with_label_values(&[if denied { "deny" } else { "allow" }]).inc();
        }
    }

    /// Counts a log line that was dropped.
    pub fn log_dropped(&self) {
        self.log_dropped.inc();
    }

    /// The registry, as text and for collectors of other rooms.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The handles for a record's labels: known ones, or new ones while there is room, or the
    /// ones of an exchange of which nothing is known.
    fn series(&self, record: &Record, reporter: Reporter) -> Arc<Series> {
        let key = self.key(record, reporter);
        let Ok(known) = self.series.read() else { return self.unknown(record, reporter) };
        if let Some(series) = known.get(&key) {
            return Arc::clone(series);
        }
        let full = known.len() >= self.max_series;
        drop(known);
        if full {
            return self.unknown(record, reporter);
        }
        let series =
            Arc::new(self.istio.series(&labels::values(record, reporter, &self.cluster), record.protocol));
        if let Ok(mut known) = self.series.write() {
            known.insert(key, Arc::clone(&series));
        }
        series
    }

    fn unknown(&self, record: &Record, reporter: Reporter) -> Arc<Series> {
        let values = labels::nameless(record, reporter, &self.cluster);
        Arc::new(self.istio.series(&values, record.protocol))
    }

    /// A 64-bit hash under a secret of this process. Two sets of labels that met in it would share
    /// a counter: at 10,000 sets the chance is about 1 in 10^11.
    fn key(&self, record: &Record, reporter: Reporter) -> u64 {
        let mut state = self.hasher.build_hasher();
        labels::hash(record, reporter, &mut state);
        std::hash::Hasher::finish(&state)
    }
}

/// Who reports: both sides, where nobody else sees the source's.
fn reporters(record: &Record) -> impl Iterator<Item = Reporter> + use<> {
    let source = record.both_sides.then_some(Reporter::Source);
    std::iter::once(record.reporter).chain(source)
}

impl Connections {
    fn close(&self, record: &Record) {
        if !record.opened {
            // It came no further than to its refusal; opened less closed is what is open.
            self.opened.inc();
        }
        self.closed.inc();
        let (from, to) = record.counted_bytes;
        self.sent.inc_by(record.response_bytes.saturating_sub(to));
        self.received.inc_by(record.request_bytes.saturating_sub(from));
    }
}

impl Requests {
    fn observe(&self, record: &Record) {
        self.requests.inc();
        self.duration.observe(record.duration.as_secs_f64() * 1_000.0);
        #[allow(clippy::cast_precision_loss)] // Histogram sums are floating point by format.
        {
            self.request_bytes.observe(record.request_bytes as f64);
            self.response_bytes.observe(record.response_bytes as f64);
            if let Some((requests, responses)) = &self.messages {
                requests.inc_by(record.messages.0 as f64);
                responses.inc_by(record.messages.1 as f64);
            }
        }
    }
}

impl Istio {
    fn register(registry: &Registry) -> Self {
        let counter =
            |name: &str, help: &str| keep(registry, CounterVec::new(Opts::new(name, help), &labels::NAMES));
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            keep(registry, HistogramVec::new(options, &labels::NAMES))
        };
        let tcp = |name: &str, help: &str| {
            keep(registry, IntCounterVec::new(Opts::new(name, help), &labels::tcp_names()))
        };
        Self {
            tcp: Tcp {
                opened: tcp("istio_tcp_connections_opened_total", "Raw TCP connections that opened."),
                closed: tcp("istio_tcp_connections_closed_total", "Raw TCP connections that ended."),
                sent: tcp("istio_tcp_sent_bytes_total", "Bytes sent to clients by raw TCP connections."),
                received: tcp(
                    "istio_tcp_received_bytes_total",
                    "Bytes received from clients by raw TCP connections.",
                ),
            },
            requests: keep(
                registry,
                IntCounterVec::new(Opts::new("istio_requests_total", "Requests."), &labels::NAMES),
            ),
            duration: histogram(
                "istio_request_duration_milliseconds",
                "From a request's head to the end of its response.",
            ),
            request_bytes: histogram("istio_request_bytes", "Size of request bodies."),
            response_bytes: histogram("istio_response_bytes", "Size of response bodies."),
            request_messages: counter("istio_request_messages_total", "gRPC messages from clients."),
            response_messages: counter("istio_response_messages_total", "gRPC messages to clients."),
        }
    }

    fn series(&self, values: &labels::Values<'_>, protocol: Protocol) -> Series {
        if protocol == Protocol::Tcp {
            let values = labels::tcp_values(values);
            let counter = |counters: &IntCounterVec| counters.with_label_values(&values);
            return Series::Tcp(Connections {
                opened: counter(&self.tcp.opened),
                closed: counter(&self.tcp.closed),
                sent: counter(&self.tcp.sent),
                received: counter(&self.tcp.received),
            });
        }
        let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
        Series::Requests(Requests {
            requests: self.requests.with_label_values(&values),
            duration: self.duration.with_label_values(&values),
            request_bytes: self.request_bytes.with_label_values(&values),
            response_bytes: self.response_bytes.with_label_values(&values),
            messages: (protocol == Protocol::Grpc).then(|| {
                (
                    self.request_messages.with_label_values(&values),
                    self.response_messages.with_label_values(&values),
                )
            }),
        })
    }
}

/// Registers a collector. Names and labels are constants of this file, so this cannot fail while
/// the tests pass (`every_metric_registers`).
#[allow(clippy::expect_used)]
fn keep<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("metric names and labels are constants");
    registry.register(Box::new(collector.clone())).expect("metric names are distinct");
    collector
}

/// Hashes a value into a state: used by `labels`.
fn feed(state: &mut impl std::hash::Hasher, value: &impl Hash) {
    value.hash(state);
}
