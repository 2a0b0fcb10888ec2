//! What bundles use and how the store fares, read for each scrape of `/metrics` and each look of `berth top`.

use std::path::{Path, PathBuf};

use berth_host::disk_image;
use berth_host::usage::{self, GroupUsage, LinkUsage, Pressure};
use berth_model::pressure::Disk;
use berth_model::resource::revision::Revision;
use berth_model::resource::{Bundle, Volume};
use berth_model::usage::{BundleUsage, MachineUsage};
use futures_util::future::BoxFuture;
use tracing::warn;

use super::properties::slice;
use crate::metrics::{Kind, Probe, Sample, Series};
use crate::store::{Store, StoreError};

const GROUPS: &str = "/sys/fs/cgroup/berth.slice";

const fn counter(name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind: Kind::Counter }
}

const fn gauge(name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind: Kind::Gauge }
}

static CPU: Series = counter("bundle_cpu_seconds", "Processor time since the unit was started");
static MEMORY: Series = gauge("bundle_memory_bytes", "Memory in use, caches of files included");
static TASKS: Series = gauge("bundle_tasks", "Processes and threads");
static OOM_KILLS: Series = counter("bundle_oom_kills", "Processes killed for want of memory");
static READ: Series = counter("bundle_disk_read_bytes", "Read from disks");
static WRITTEN: Series = counter("bundle_disk_written_bytes", "Written to disks");
static WAITED: Series = counter("bundle_pressure_seconds", "Time that some or all tasks waited for a resource");
static RECEIVED: Series = counter("bundle_network_received_bytes", "Received over the bundle's link");
static SENT: Series = counter("bundle_network_sent_bytes", "Sent over the bundle's link");
static RESTARTS: Series = counter("bundle_restarts", "Restarts by systemd");
static READY: Series = gauge("bundle_ready", "1 if the bundle is ready, else 0");
static VOLUME: Series = gauge("volume_size_bytes", "Size of the volume");
static QUEUE: Series = gauge("store_queue_depth", "Writes that wait for the store");
static REVISION: Series = gauge("store_revision", "Number of the newest change in the store");

/// Reads it.
#[derive(Clone)]
pub(super) struct Usage {
    pub(super) store: Store,
    /// Where the data lie.
    pub(super) data: PathBuf,
}

/// A look at what is used did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// What there is.
    #[error("reading which bundles there are")]
    Store(#[from] StoreError),
    /// What it uses.
    #[error("reading what the machine uses")]
    Machine(#[from] usage::UsageError),
    /// Its disk.
    #[error("measuring the data disk")]
    Disk(#[from] disk_image::ImageError),
}

/// A bundle, and where the kernel counts for it.
struct Counted {
    name: [String; 2],
    labels: Vec<(&'static str, String)>,
    ready: bool,
    restarts: u64,
    group: Option<PathBuf>,
    link: Option<String>,
}

impl Usage {
    /// What everything uses now.
    pub(super) async fn look(&self) -> Result<berth_model::usage::Usage, LookError> {
        let (bundles, revisions) =
            self.store.read(|tx| Ok((tx.list::<Bundle>(None)?, tx.list::<Revision>(None)?))).await?;
        let counted: Vec<Counted> = bundles.iter().map(|bundle| located(bundle, &revisions)).collect();
        let data = self.data.clone();
        let read = tokio::task::spawn_blocking(move || {
            let bundles = counted.into_iter().map(told_of).collect();
            let (machine, uptime_us) = machine(&data)?;
            Ok(berth_model::usage::Usage::new(uptime_us, machine, bundles))
        });
        read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    async fn samples(&self) -> Result<Vec<Sample>, StoreError> {
        let (bundles, revisions, volumes) = self
            .store
            .read(|tx| Ok((tx.list::<Bundle>(None)?, tx.list::<Revision>(None)?, tx.list::<Volume>(None)?)))
            .await?;
        let counted: Vec<Counted> = bundles.iter().map(|bundle| located(bundle, &revisions)).collect();
        let read = tokio::task::spawn_blocking(move || counted.iter().flat_map(of_bundle).collect::<Vec<_>>());
        let mut samples = read.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        samples.extend(volumes.iter().map(of_volume));
        let revision = *self.store.revision().borrow();
        samples.push(Sample { series: &QUEUE, labels: Vec::new(), value: number(self.store.queue_depth() as u64) });
        samples.push(Sample { series: &REVISION, labels: Vec::new(), value: number(revision) });
        Ok(samples)
    }
}

impl Probe for Usage {
    fn read(&self) -> BoxFuture<'_, Vec<Sample>> {
        Box::pin(async move {
            self.samples().await.unwrap_or_else(|error| {
                warn!("reading what bundles use failed: {}", crate::log::chain(&error));
                Vec::new()
            })
        })
    }
}

fn located(bundle: &Bundle, revisions: &[Revision]) -> Counted {
    let namespace = bundle.metadata.namespace.clone().unwrap_or_default();
    let name = bundle.metadata.name.clone().unwrap_or_default();
    let status = bundle.status.clone().unwrap_or_default();
    let serves = revisions.iter().find(|revision| {
        revision.metadata.namespace.as_deref() == Some(&namespace)
            && revision.spec.bundle == name
            && Some(revision.spec.number) == status.revision
    });
    Counted {
        ready: status.is_ready(),
        restarts: status.restarts,
        group: status.unit.map(|unit| Path::new(GROUPS).join(slice(&namespace)).join(unit)),
        link: serves.map(|revision| revision.spec.allocation.host_link.clone()),
        name: [namespace.clone(), name.clone()],
        labels: vec![("namespace", namespace), ("bundle", name)],
    }
}

fn machine(data: &Path) -> Result<(MachineUsage, u64), LookError> {
    let now = usage::of_machine(Path::new("/proc"))?;
    let room = disk_image::room(data)?;
    let machine = MachineUsage {
        cores: now.cores,
        cpu_us: now.cpu_us,
        load_hundredths: now.load_hundredths,
        memory: now.memory,
        memory_available: now.memory_available,
        uptime: now.uptime_us / 1_000_000,
        disk: Disk { total: room.total, free: room.free },
    };
    Ok((machine, now.uptime_us))
}

fn told_of(bundle: Counted) -> BundleUsage {
    let group = bundle.group.as_deref().and_then(|group| told(usage::of_group(group))).unwrap_or_default();
    let [namespace, name] = bundle.name;
    let GroupUsage { cpu_us, memory, tasks, read, written, .. } = group;
    BundleUsage {
        namespace,
        name,
        ready: bundle.ready,
        restarts: bundle.restarts,
        cpu_us,
        memory,
        tasks,
        read,
        written,
    }
}

/// What of it can be read: a unit may end in between.
fn of_bundle(bundle: &Counted) -> Vec<Sample> {
    let one = |series: &'static Series, value: f64| Sample { series, labels: bundle.labels.clone(), value };
    let mut samples = vec![one(&READY, f64::from(u8::from(bundle.ready))), one(&RESTARTS, number(bundle.restarts))];
    let group = bundle.group.as_deref().and_then(|group| told(usage::of_group(group)));
    let link = bundle.link.as_deref().and_then(|link| told(usage::of_link(link)));
    samples.extend(group.iter().flat_map(|group| of_group(group, &bundle.labels)));
    // The machine's end of the link: what comes in there was sent by the bundle.
    samples.extend(
        link.iter()
            .flat_map(|LinkUsage { received, sent }| [one(&SENT, number(*received)), one(&RECEIVED, number(*sent))]),
    );
    samples
}

fn of_group(group: &GroupUsage, labels: &[(&'static str, String)]) -> Vec<Sample> {
    let seconds = |us: Option<u64>| us.map(|us| number(us) / 1e6);
    let plain = [
        (&CPU, seconds(group.cpu_us)),
        (&MEMORY, group.memory.map(number)),
        (&TASKS, group.tasks.map(number)),
        (&OOM_KILLS, group.oom_kills.map(number)),
        (&READ, group.read.map(number)),
        (&WRITTEN, group.written.map(number)),
    ];
    let plain =
        plain.into_iter().filter_map(|(series, value)| Some(Sample { series, labels: labels.to_vec(), value: value? }));
    let waits = [("cpu", group.cpu_pressure), ("memory", group.memory_pressure), ("io", group.io_pressure)];
    let waits = waits.into_iter().filter_map(|(resource, pressure)| Some((resource, pressure?)));
    plain.chain(waits.flat_map(|(resource, pressure)| of_pressure(resource, pressure, labels))).collect()
}

fn of_pressure(resource: &str, pressure: Pressure, labels: &[(&'static str, String)]) -> [Sample; 2] {
    [("some", pressure.some_us), ("full", pressure.full_us)].map(|(tasks, us)| {
        let more = [("resource", resource.to_owned()), ("tasks", tasks.to_owned())];
        Sample { series: &WAITED, labels: labels.iter().cloned().chain(more).collect(), value: number(us) / 1e6 }
    })
}

fn of_volume(volume: &Volume) -> Sample {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let labels = vec![("namespace", text(&volume.metadata.namespace)), ("volume", text(&volume.metadata.name))];
    Sample { series: &VOLUME, labels, value: number(volume.status.as_ref().map_or(0, |status| status.size)) }
}

fn told<T>(read: Result<Option<T>, usage::UsageError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        warn!("a number of what is used is missing: {}", crate::log::chain(&error));
        None
    })
}

/// As the format wants it; above 2^53 not to the last digit.
#[allow(clippy::cast_precision_loss, reason = "counters in this format are floating point")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn the_store_tells_its_queue_and_its_newest_change() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("berth.db"), Arc::new(|| Timestamp::UNIX_EPOCH)).unwrap();
        let newest = number(*store.revision().borrow());
        let told: Vec<_> = Usage { store, data: dir.path().to_owned() }
            .read()
            .await
            .iter()
            .map(|one| (one.series.name, one.value))
            .collect();
        assert_eq!(told, [("store_queue_depth", 0.0), ("store_revision", newest)]);
    }

    #[tokio::test]
    async fn a_look_tells_of_every_bundle_and_of_the_machine_even_where_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("berth.db"), Arc::new(|| Timestamp::UNIX_EPOCH)).unwrap();
        let bundle: Bundle = serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "default", "name": "web"}, "spec": {"image": "localhost/web:1"},
        }))
        .unwrap();
        store.write(&crate::store::house_keeping(), move |tx| tx.create(&bundle)).await.unwrap();
        let look = Usage { store, data: dir.path().to_owned() }.look().await.unwrap();
        let web = BundleUsage { namespace: "default".into(), name: "web".into(), ..BundleUsage::default() };
        assert_eq!(look.bundles, [web]);
        assert!(look.machine.cores > 0 && look.machine.memory > look.machine.memory_available, "{look:?}");
        assert!(look.taken_us > 0 && look.machine.disk.total > 0, "{look:?}");
    }

    #[test]
    fn times_are_told_in_seconds_and_what_is_not_counted_is_left_out() {
        let group = GroupUsage {
            cpu_us: Some(1_500_000),
            memory: Some(4096),
            io_pressure: Some(Pressure { some_us: 250_000, full_us: 0 }),
            ..GroupUsage::default()
        };
        let told: Vec<_> =
            of_group(&group, &[]).into_iter().map(|one| (one.series.name, one.labels, one.value)).collect();
        let io = |tasks: &str| vec![("resource", "io".to_owned()), ("tasks", tasks.to_owned())];
        let expected = [
            ("bundle_cpu_seconds", vec![], 1.5),
            ("bundle_memory_bytes", vec![], 4096.0),
            ("bundle_pressure_seconds", io("some"), 0.25),
            ("bundle_pressure_seconds", io("full"), 0.0),
        ];
        assert_eq!(told, expected);
    }
}
