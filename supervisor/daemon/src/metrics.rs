//! What the daemon counts, as OpenMetrics. Domains get the [`Metrics`] handle and say what
//! happened; `/metrics` encodes it. Numbers that somebody else keeps are asked for at each scrape.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The handle; clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Request, Counter>,
    latency: Durations<Route>,
    reconciles: Family<Reconcile, Counter>,
    reconcile_latency: Durations<Domain>,
    watches: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    code: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    domain: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Domain {
    domain: String,
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileResult {
    /// All is as it should be.
    Done,
    /// It is waiting for something.
    Waiting,
    /// It failed and will be tried again.
    Failed,
}

impl ReconcileResult {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Begins at zero. `queue_depth` is asked at each scrape for the writes that wait for the store.
    pub fn new(queue_depth: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        let mut registry = Registry::with_prefix("berth");
        let (requests, reconciles) = (Family::default(), Family::default());
        let latency: Durations<Route> = Family::new_with_constructor(histogram);
        let reconcile_latency: Durations<Domain> = Family::new_with_constructor(histogram);
        let watches = Gauge::default();
        registry.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("api_requests", "Answered requests", requests.clone());
        let (name, help) = ("api_request_duration", "Time until the head of an answer");
        registry.register_with_unit(name, help, Unit::Seconds, latency.clone());
        registry.register("api_watches", "Watches open now", watches.clone());
        registry.register("reconciles", "Finished reconciles", reconciles.clone());
        let (name, help) = ("reconcile_duration", "Time of one reconcile");
        registry.register_with_unit(name, help, Unit::Seconds, reconcile_latency.clone());
        registry.register_collector(Box::new(QueueDepth(Box::new(queue_depth))));
        let registry = Arc::new(registry);
        Self { registry, requests, latency, reconciles, reconcile_latency, watches }
    }

    /// One request was answered. `route` is the template, not the path, so that names of objects
    /// do not become labels.
    pub fn request(&self, method: &str, route: &str, code: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.latency.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&Request { method, route, code: code.into() }).inc();
    }

    /// One reconcile of a domain has ended.
    pub fn reconcile(&self, domain: &str, result: ReconcileResult, took: Duration) {
        let domain = domain.to_owned();
        self.reconcile_latency.get_or_create(&Domain { domain: domain.clone() }).observe(took.as_secs_f64());
        self.reconciles.get_or_create(&Reconcile { domain, result: result.name().to_owned() }).inc();
    }

    /// Counts a watch for as long as the value lives.
    pub fn watch_opened(&self) -> OpenWatch {
        self.watches.inc();
        OpenWatch(self.watches.clone())
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    /// A collector could not write its numbers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// A watch that is counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenWatch(Gauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

struct QueueDepth(Box<dyn Fn() -> usize + Send + Sync>);

impl std::fmt::Debug for QueueDepth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueueDepth")
    }
}

impl Collector for QueueDepth {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let depth = ConstGauge::new(i64::try_from((self.0)()).unwrap_or(i64::MAX));
        let (name, help) = ("berth_store_queue_depth", "Writes that wait for the store");
        let kind = prometheus_client::metrics::MetricType::Gauge;
        depth.encode(encoder.encode_descriptor(name, help, None, kind)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_in_the_text_under_its_name() {
        let metrics = Metrics::new(|| 3);
        metrics.request("GET", "/api/v1/configmaps", 200, Duration::from_millis(20));
        metrics.reconcile("bundle", ReconcileResult::Failed, Duration::from_secs(2));
        let open = metrics.watch_opened();
        let text = metrics.encode().unwrap();
        for line in [
            "berth_api_requests_total{method=\"GET\",route=\"/api/v1/configmaps\",code=\"200\"} 1",
            "berth_api_request_duration_seconds_bucket{le=\"0.05\",route=\"/api/v1/configmaps\"} 1",
            "berth_reconciles_total{domain=\"bundle\",result=\"failed\"} 1",
            "berth_api_watches 1",
            "berth_store_queue_depth 3",
            concat!("berth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.contains(line), "no line {line} in\n{text}");
        }
        drop(open);
        assert!(metrics.encode().unwrap().contains("berth_api_watches 0\n"));
    }
}
