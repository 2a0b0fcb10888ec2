//! What the daemon counts, as OpenMetrics. Domains get the [`Metrics`] handle and say what
//! happened; `/metrics` encodes it. Numbers that somebody else keeps are asked for at each scrape
//! ([`Probe`]).

mod probe;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use berth_model::resource::operation::{OperationKind, OperationState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use probe::{Kind, Probe, Sample, Series};
use probe::{Latest, Probed};

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The same for what may take minutes.
const LONG_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

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
    sessions: Gauge,
    operations: Family<Operation, Counter>,
    operation_time: Durations<OperationType>,
    effects: [Family<Outcome, Counter>; Effect::ALL.len()],
    disk: DataDisk,
    removed: Family<Removed, Counter>,
    schedules: Family<ScheduleTurn, Counter>,
    latest: Latest,
    probe: Arc<OnceLock<Arc<dyn Probe>>>,
}

/// The data disk as it was last looked at.
#[derive(Clone, Default)]
struct DataDisk {
    size: Gauge,
    free: Gauge,
    level: Gauge,
}

impl DataDisk {
    fn registered(registry: &mut Registry) -> Self {
        let disk = Self::default();
        registry.register_with_unit("data_disk_size", "All room of the data disk", Unit::Bytes, disk.size.clone());
        registry.register_with_unit("data_disk_free", "Room left on the data disk", Unit::Bytes, disk.free.clone());
        let help = "0 fine, 1 warning, 2 unused images are removed, 3 no image is taken in";
        registry.register("data_disk_level", help, disk.level.clone());
        disk
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScheduleTurn {
    action: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Removed {
    kind: String,
}

/// Something that changes the machine. A reconcile that finds all as it should be counts none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Layers were fetched from a registry.
    ImagePull,
    /// Links and rules were written.
    NetworkApply,
    /// A unit was started.
    UnitStart,
    /// A unit was stopped.
    UnitStop,
}

impl Effect {
    const ALL: [(Effect, &'static str, &'static str); 4] = [
        (Effect::ImagePull, "image_pulls", "Pulls that fetched something"),
        (Effect::NetworkApply, "network_applies", "Times that links and rules were written"),
        (Effect::UnitStart, "unit_starts", "Units started"),
        (Effect::UnitStop, "unit_stops", "Units stopped"),
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    kind: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationType {
    kind: String,
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
    /// Begins at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("berth");
        let (requests, reconciles, operations) = (Family::default(), Family::default(), Family::default());
        let latency: Durations<Route> = Family::new_with_constructor(histogram);
        let reconcile_latency: Durations<Domain> = Family::new_with_constructor(histogram);
        let operation_time: Durations<OperationType> = Family::new_with_constructor(long_histogram);
        let (watches, sessions) = (Gauge::default(), Gauge::default());
        registry.register("build", "What runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("api_requests", "Answered requests", requests.clone());
        let (name, help) = ("api_request_duration", "Time until the head of an answer");
        registry.register_with_unit(name, help, Unit::Seconds, latency.clone());
        registry.register("api_watches", "Watches open now", watches.clone());
        registry.register("exec_sessions", "Commands that run in services now", sessions.clone());
        registry.register("reconciles", "Finished reconciles", reconciles.clone());
        let (name, help) = ("reconcile_duration", "Time of one reconcile");
        registry.register_with_unit(name, help, Unit::Seconds, reconcile_latency.clone());
        registry.register("operations", "Finished operations", operations.clone());
        let (name, help) = ("operation_duration", "Time from an operation's first step to its end");
        registry.register_with_unit(name, help, Unit::Seconds, operation_time.clone());
        let effects = Effect::ALL.map(|(_, name, help)| {
            let family: Family<Outcome, Counter> = Family::default();
            registry.register(name, help, family.clone());
            family
        });
        let disk = DataDisk::registered(&mut registry);
        let removed: Family<Removed, Counter> = Family::default();
        registry.register("cleanup_removed", "Things that cleanups have removed", removed.clone());
        let schedules: Family<ScheduleTurn, Counter> = Family::default();
        registry.register("schedule_turns", "Times of schedules that came, and what began", schedules.clone());
        let latest = Latest::default();
        registry.register_collector(Box::new(Probed(latest.clone())));
        Self {
            registry: Arc::new(registry),
            requests,
            latency,
            reconciles,
            reconcile_latency,
            watches,
            sessions,
            operations,
            operation_time,
            effects,
            disk,
            removed,
            schedules,
            latest,
            probe: Arc::default(),
        }
    }

    /// What is asked at each scrape from now on; the first one stays.
    pub fn ask(&self, probe: Arc<dyn Probe>) {
        self.probe.get_or_init(|| probe);
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

    /// The data disk as it is now, in bytes, and the number of its level.
    pub fn data_disk(&self, total: u64, free: u64, level: i64) {
        self.disk.size.set(i64::try_from(total).unwrap_or(i64::MAX));
        self.disk.free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.disk.level.set(level);
    }

    /// A cleanup has removed so many things of a kind.
    pub fn removed(&self, kind: &str, count: usize) {
        self.removed.get_or_create(&Removed { kind: kind.to_owned() }).inc_by(count as u64);
    }

    /// A schedule's time came: `begun`, `late`, `missed` or `skipped`.
    pub fn schedule(&self, action: &'static str, result: &'static str) {
        self.schedules.get_or_create(&ScheduleTurn { action, result }).inc();
    }

    /// Counts a watch for as long as the value lives.
    pub fn watch_opened(&self) -> OpenWatch {
        self.watches.inc();
        OpenWatch(self.watches.clone())
    }

    /// Counts a command in a service for as long as the value lives.
    pub fn session_opened(&self) -> OpenWatch {
        self.sessions.inc();
        OpenWatch(self.sessions.clone())
    }

    /// An operation has ended.
    pub fn operation(&self, kind: OperationKind, state: OperationState, took: Duration) {
        let (kind, state) = (format!("{kind:?}"), format!("{state:?}"));
        self.operation_time.get_or_create(&OperationType { kind: kind.clone() }).observe(took.as_secs_f64());
        self.operations.get_or_create(&Operation { kind, state }).inc();
    }

    /// The machine was changed, or could not be.
    pub fn effect(&self, effect: Effect, done: bool) {
        let result = if done { "done" } else { "failed" };
        let families = Effect::ALL.iter().zip(&self.effects);
        for (_, family) in families.filter(|((one, ..), _)| *one == effect) {
            family.get_or_create(&Outcome { result }).inc();
        }
    }

    /// All of it as OpenMetrics text, with what the probe says now.
    ///
    /// # Errors
    /// A collector could not write its numbers.
    pub async fn scrape(&self) -> Result<String, std::fmt::Error> {
        if let Some(probe) = self.probe.get() {
            self.latest.set(probe.read().await);
        }
        self.encode()
    }

    /// All of it as OpenMetrics text, with what the probe said last.
    ///
    /// # Errors
    /// A collector could not write its numbers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// A watch or a session that is counted as open until this is dropped.
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

fn long_histogram() -> Histogram {
    Histogram::new(LONG_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Probe for Fixed {
        fn read(&self) -> futures_util::future::BoxFuture<'_, Vec<Sample>> {
            const TIME: Series = Series { name: "bundle_cpu_seconds", help: "Time", kind: Kind::Counter };
            const DEPTH: Series = Series { name: "store_queue_depth", help: "Depth", kind: Kind::Gauge };
            let labels = |name: &str| vec![("namespace", "default".to_owned()), ("bundle", name.to_owned())];
            Box::pin(std::future::ready(vec![
                Sample { series: &TIME, labels: labels("a"), value: 1.5 },
                Sample { series: &DEPTH, labels: Vec::new(), value: 3.0 },
                Sample { series: &TIME, labels: labels("b"), value: 0.0 },
            ]))
        }
    }

    #[tokio::test]
    async fn what_happened_is_in_the_text_under_its_name() {
        let metrics = Metrics::new();
        metrics.request("GET", "/api/v1/configmaps", 200, Duration::from_millis(20));
        metrics.reconcile("bundle", ReconcileResult::Failed, Duration::from_secs(2));
        metrics.operation(OperationKind::Install, OperationState::Failed, Duration::from_secs(2));
        metrics.effect(Effect::UnitStart, true);
        metrics.data_disk(1000, 50, 3);
        metrics.removed("image", 2);
        metrics.schedule("cleanup", "late");
        metrics.ask(Arc::new(Fixed));
        let open = (metrics.watch_opened(), metrics.session_opened());
        let text = metrics.scrape().await.unwrap();
        for line in [
            "berth_api_requests_total{method=\"GET\",route=\"/api/v1/configmaps\",code=\"200\"} 1",
            "berth_api_request_duration_seconds_bucket{le=\"0.05\",route=\"/api/v1/configmaps\"} 1",
            "berth_reconciles_total{domain=\"bundle\",result=\"failed\"} 1",
            "berth_operations_total{kind=\"Install\",state=\"Failed\"} 1",
            "berth_operation_duration_seconds_bucket{le=\"5.0\",kind=\"Install\"} 1",
            "berth_unit_starts_total{result=\"done\"} 1",
            "berth_api_watches 1",
            "berth_data_disk_size_bytes 1000",
            "berth_data_disk_free_bytes 50",
            "berth_data_disk_level 3",
            "berth_cleanup_removed_total{kind=\"image\"} 2",
            "berth_schedule_turns_total{action=\"cleanup\",result=\"late\"} 1",
            "berth_exec_sessions 1",
            "# TYPE berth_bundle_cpu_seconds counter\n\
             berth_bundle_cpu_seconds_total{namespace=\"default\",bundle=\"a\"} 1.5\n\
             berth_bundle_cpu_seconds_total{namespace=\"default\",bundle=\"b\"} 0.0\n",
            "\nberth_store_queue_depth 3.0\n",
            concat!("berth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.contains(line), "no line {line} in\n{text}");
        }
        drop(open);
        assert!(metrics.encode().unwrap().contains("berth_api_watches 0\n"));
    }
}
