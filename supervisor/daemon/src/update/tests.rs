//! Updates over a real store, real signatures and a real web server; of the machine there is only what it is told.

use std::path::Path;
use std::sync::Mutex;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use berth_model::health::BootReport;
use berth_model::release::{Entry, comment};
use berth_model::resource::operation::{
    Actor, OperationSpec, OperationStatus, Priority, Relations, SystemWish, Target,
};
use berth_tests::spawn;
use bytes::Bytes;
use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::metrics::Metrics;
use crate::operation::{AbortPoints, Runner};
use crate::store::house_keeping;

/// A machine that runs a version and can write another beside it.
struct Fake {
    folder: PathBuf,
    told: Mutex<Told>,
    restarted: Notify,
}

struct Told {
    running: Option<Version>,
    boot: u32,
    entries: Vec<(Entry, String)>,
    report: Option<BootReport>,
}

impl Slots for Fake {
    fn running(&self) -> Result<Option<Version>, seams::Fault> {
        Ok(self.told.lock().unwrap().running.clone())
    }
    fn boot_id(&self) -> Result<String, seams::Fault> {
        Ok(format!("boot {}", self.told.lock().unwrap().boot))
    }
    fn entries(&self) -> Result<Vec<Entry>, seams::Fault> {
        Ok(self.told.lock().unwrap().entries.iter().map(|(entry, _)| entry.clone()).collect())
    }
    fn write(&self) -> BoxFuture<'_, Result<(), seams::Fault>> {
        let files: Vec<PathBuf> = std::fs::read_dir(&self.folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        let kernel = files.iter().find(|path| path.extension().unwrap() == "efi").unwrap();
        let version = kernel.file_stem().unwrap().to_str().unwrap().strip_prefix("berth_").unwrap().to_owned();
        let entry = Entry { version, tries_left: Some(3) };
        self.told.lock().unwrap().entries.push((entry, sum(kernel).unwrap()));
        Box::pin(async { Ok(()) })
    }
    fn holds(&self, version: &str, sha256: &str) -> Result<bool, seams::Fault> {
        let told = self.told.lock().unwrap();
        Ok(told.entries.iter().any(|(entry, sum)| entry.version == version && sum == sha256))
    }
    fn discard(&self, version: &str) -> Result<(), seams::Fault> {
        self.told.lock().unwrap().entries.retain(|(entry, _)| entry.version != version);
        Ok(())
    }
    fn restart(&self) -> BoxFuture<'_, Result<(), seams::Fault>> {
        self.restarted.notify_one();
        Box::pin(async { Ok(()) })
    }
    fn is_reached(&self) -> Result<bool, seams::Fault> {
        Ok(true)
    }
    fn report(&self) -> Result<Option<BootReport>, seams::Fault> {
        Ok(self.told.lock().unwrap().report.clone())
    }
}

/// A machine that runs 1.0.0, and a folder in which versions are published.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    slots: Arc<Fake>,
    runner: Option<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    fn new() -> Self {
        // Fails only if a test before has done it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let clock: crate::store::Clock = Arc::new(|| "2026-03-01T12:00:00Z".parse().unwrap());
        let store = Store::open(&dir.path().join("berth.db"), clock).unwrap();
        let entry = Entry { version: "1.0.0".to_owned(), tries_left: None };
        let told =
            Told { running: Some(Version::new(1, 0, 0)), boot: 1, entries: vec![(entry, String::new())], report: None };
        let folder = dir.path().join("update");
        let slots = Arc::new(Fake { folder, told: Mutex::new(told), restarted: Notify::new() });
        for name in ["keys", "published"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        key(&dir.path().join("keys/release"));
        let mut world = Self { dir, store, slots, runner: None };
        world.start();
        world
    }

    fn start(&mut self) {
        let updates = Updates {
            store: self.store.clone(),
            slots: self.slots.clone(),
            http: reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap(),
            folder: self.dir.path().join("update"),
            keys: self.dir.path().join("keys"),
        };
        let stop = CancellationToken::new();
        let runner = Runner::new(self.store.clone(), Arc::new(updates), AbortPoints::default(), Metrics::new());
        let runner = runner.pausing(Duration::from_millis(1));
        self.runner = Some((tokio::spawn(runner.run(stop.clone())), stop));
    }

    /// The machine starts anew, with that version.
    async fn comes_up(&mut self, version: Version, report: Option<BootReport>) {
        let (runner, stop) = self.runner.take().unwrap();
        stop.cancel();
        runner.await.unwrap();
        {
            let mut told = self.slots.told.lock().unwrap();
            (told.running, told.boot, told.report) = (Some(version), told.boot + 1, report);
        }
        self.start();
    }

    fn published(&self) -> PathBuf {
        self.dir.path().join("published")
    }

    /// Publishes a version, signed for a channel.
    fn publish(&self, version: &str, channel: &str) {
        publish(&self.published(), version, channel, &self.dir.path().join("keys/release"));
    }

    async fn ask(&self, wish: SystemWish) -> String {
        self.ask_as("cli", wish).await
    }

    async fn ask_as(&self, source: &str, wish: SystemWish) -> String {
        let target =
            Target { kind: "System".into(), namespace: "default".into(), name: "berth".into(), uid: String::new() };
        let spec = OperationSpec {
            kind: OperationKind::UpdateSystem,
            target,
            actor: Actor { identity: "owner".into(), source: source.into() },
            generation: 0,
            sequence: 0,
            reason: String::new(),
            idempotency_key: None,
            priority: Priority::Interactive,
            relations: Relations::default(),
            rollback_of: None,
            rollback_to: None,
            room: None,
            system: Some(wish),
        };
        let metadata = ObjectMeta {
            namespace: Some("default".to_owned()),
            generate_name: Some("system-update-".to_owned()),
            ..ObjectMeta::default()
        };
        let operation = Operation { metadata, spec, status: Some(OperationStatus::default()) };
        let made = self.store.write(&house_keeping(), move |tx| tx.create(&operation)).await.unwrap();
        made.metadata.name.unwrap()
    }

    async fn ask_folder(&self) -> String {
        let source = Some(self.published().to_str().unwrap().to_owned());
        self.ask(SystemWish { source, channel: None, restart: true }).await
    }

    async fn status(&self, name: &str, wanted: impl Fn(&OperationStatus) -> bool) -> OperationStatus {
        let mut news = self.store.revision();
        let looking = async {
            loop {
                let name = name.to_owned();
                let found = self.store.read(move |tx| tx.get::<Operation>("default", &name)).await.unwrap();
                let status = found.unwrap().status.unwrap();
                if wanted(&status) {
                    return status;
                }
                news.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it never comes to that")
    }

    async fn end(&self, name: &str) -> OperationStatus {
        self.status(name, |status| status.state.finished()).await
    }

    /// The code and message of an update from the folder that fails.
    async fn refusal(&self) -> (String, String) {
        let name = self.ask_folder().await;
        let error = self.end(&name).await.error.expect("it should have failed");
        assert_eq!(self.slots.entries().unwrap().len(), 1, "something was written");
        (error.code, error.message)
    }
}

/// A key pair, without a password: `<path>.pub` and `<path>.key`.
fn key(path: &Path) {
    let mut minisign = spawn::command("minisign");
    minisign.args(["-G", "-W", "-f", "-p"]).arg(path.with_extension("pub")).arg("-s").arg(path.with_extension("key"));
    spawn::output(&mut minisign).unwrap();
}

fn publish(folder: &Path, version: &str, channel: &str, key: &Path) {
    let names = [".efi", "_ab.usr.raw.xz", "_cd.verity.raw.xz"].map(|end| format!("berth_{version}{end}"));
    let mut sums = String::new();
    for name in &names {
        std::fs::write(folder.join(name), name.repeat(1000)).unwrap();
        sums += &format!("{}  {name}\n", sum(&folder.join(name)).unwrap());
    }
    let list = folder.join("SHA256SUMS");
    std::fs::write(&list, sums).unwrap();
    let mut minisign = spawn::command("minisign");
    minisign
        .args(["-S", "-W", "-t", &comment(version, channel), "-s"])
        .arg(key.with_extension("key"))
        .arg("-m")
        .arg(list);
    spawn::output(&mut minisign).unwrap();
}

fn report(version: &str, boot: u32, why: &str) -> Option<BootReport> {
    let at = "2026-03-01T12:00:00Z".to_owned();
    let why = why.to_owned();
    Some(BootReport { version: version.to_owned(), boot_id: format!("boot {boot}"), at, healthy: why.is_empty(), why })
}

#[tokio::test]
async fn a_signed_newer_version_is_written_started_and_done_once_it_was_found_good() {
    let mut world = World::new();
    world.publish("1.1.0", "stable");
    let name = world.ask_folder().await;
    world.slots.restarted.notified().await;
    let before = world.store.read(trial).await.unwrap();
    assert_eq!(before, Trial { excused: BTreeSet::new(), reached: true });
    assert!(!world.dir.path().join("update").exists(), "what was fetched is left");
    world.comes_up(Version::new(1, 1, 0), None).await;
    world.status(&name, |status| status.steps[4].attempt > 0).await;
    {
        let mut told = world.slots.told.lock().unwrap();
        told.report = report("1.1.0", 2, "");
        told.entries[1].0.tries_left = None;
    }
    let status = world.end(&name).await;
    assert_eq!((status.state, status.error), (OperationState::Succeeded, None));
    assert_eq!(status.result["version"], "1.1.0");
}

#[tokio::test]
async fn a_version_that_the_machine_went_back_from_is_removed_and_the_reason_told() {
    for (report, told) in [
        (report("1.1.0", 2, "default/web: StartFailed"), "1.0.0 runs again: default/web: StartFailed"),
        // An older start's.
        (report("1.0.0", 1, "default/db: StartFailed"), "1.0.0 runs again: it did not come as far as to say why"),
        (None, "1.0.0 runs again: it did not come as far as to say why"),
    ] {
        let mut world = World::new();
        world.publish("1.1.0", "stable");
        let name = world.ask_folder().await;
        world.slots.restarted.notified().await;
        assert_eq!(world.slots.entries().unwrap().len(), 2);
        world.comes_up(Version::new(1, 0, 0), report).await;
        let error = world.end(&name).await.error.unwrap();
        assert_eq!(error.code, "WentBack");
        assert!(error.message.contains(told), "{}", error.message);
        assert_eq!(world.slots.entries().unwrap().len(), 1, "the version would be tried again");
    }
}

#[tokio::test]
async fn without_being_asked_to_the_machine_is_not_restarted() {
    let mut world = World::new();
    world.publish("1.1.0", "stable");
    let source = Some(world.published().to_str().unwrap().to_owned());
    let name = world.ask(SystemWish { source, ..SystemWish::default() }).await;
    let waits =
        |status: &OperationStatus| status.steps.get(3).is_some_and(|step| step.message.contains("berth system reboot"));
    world.status(&name, waits).await;
    assert!(futures_util::FutureExt::now_or_never(world.slots.restarted.notified()).is_none());
    world.comes_up(Version::new(1, 0, 0), None).await;
    assert_eq!(world.end(&name).await.error.unwrap().code, "WentBack");
}

#[tokio::test]
async fn what_is_not_signed_for_this_channel_by_a_key_that_counts_is_refused_and_nothing_written() {
    let world = World::new();
    world.publish("1.1.0", "testing");
    let (code, message) = world.refusal().await;
    assert_eq!(code, "BadSignature");
    assert!(message.contains("\"berth 1.1.0 testing\" and not as \"berth 1.1.0 stable\""), "{message}");
    let stranger = world.dir.path().join("stranger");
    key(&stranger);
    publish(&world.published(), "1.1.0", "stable", &stranger);
    assert_eq!(world.refusal().await.0, "BadSignature");
    world.publish("1.1.0", "stable");
    let list = world.published().join("SHA256SUMS");
    let longer = std::fs::read_to_string(&list).unwrap() + "\n";
    std::fs::write(&list, longer).unwrap();
    assert_eq!(world.refusal().await.0, "BadSignature");
    std::fs::remove_file(world.published().join("SHA256SUMS.minisig")).unwrap();
    assert_eq!(world.refusal().await.0, "NoRelease");
}

#[tokio::test]
async fn the_same_or_an_older_version_is_refused_and_no_failure_when_a_schedule_asks() {
    let world = World::new();
    for version in ["1.0.0", "0.9.0"] {
        world.publish(version, "stable");
        assert_eq!(world.refusal().await.0, "NotNewer", "{version}");
    }
    let source = Some(world.published().to_str().unwrap().to_owned());
    let name = world.ask_as("schedule", SystemWish { source, ..SystemWish::default() }).await;
    let status = world.end(&name).await;
    assert_eq!((status.state, status.error), (OperationState::Succeeded, None));
}

#[tokio::test]
async fn a_machine_without_versions_or_a_source_says_what_to_do_instead() {
    let world = World::new();
    let name = world.ask(SystemWish::default()).await;
    let error = world.end(&name).await.error.unwrap();
    assert_eq!(error.code, "NoSource");
    assert!(error.suggestions[0].contains("spec.updates.source"), "{error:?}");
    world.slots.told.lock().unwrap().running = None;
    let error = world.end(&world.ask_folder().await).await.error.unwrap();
    assert_eq!(error.code, "NotAnAppliance");
    assert!(error.suggestions[0].contains("package manager"), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_not_what_its_sum_says_is_fetched_again_and_then_given_up() {
    let world = World::new();
    world.publish("1.1.0", "stable");
    std::fs::write(world.published().join("berth_1.1.0_ab.usr.raw.xz"), "short").unwrap();
    assert_eq!(world.refusal().await.0, "BadSum");
    assert!(!world.dir.path().join("update").exists(), "what was fetched is left");
}

/// A file, and from where on.
type Asked = (String, Option<String>);

/// A web server that breaks off the first time, in the middle of each file.
#[derive(Clone)]
struct Breaking {
    folder: PathBuf,
    /// Where what it sends arrives.
    fetched: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn serve(
    State(server): State<Breaking>,
    path: axum::extract::Path<String>,
    head: HeaderMap,
) -> impl IntoResponse {
    let range = head.get("range").map(|range| range.to_str().unwrap().to_owned());
    let name = path.0.trim_start_matches("stable/").to_owned();
    let Ok(bytes) = std::fs::read(server.folder.join(&name)) else { return StatusCode::NOT_FOUND.into_response() };
    server.asked.lock().unwrap().push((name.clone(), range.clone()));
    let whole = bytes.len();
    match range {
        None if name.starts_with("berth_") => {
            let half = Bytes::from(bytes).slice(..whole / 2);
            let partial = server.fetched.join(format!("{name}.part"));
            let breaks = async move {
                // When the first half has come.
                while std::fs::metadata(&partial).map_or(0, |found| found.len()) < whole as u64 / 2 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("the line breaks"))
            };
            let broken = futures_util::stream::iter([Ok(half)]).chain(futures_util::stream::once(breaks));
            ([("content-length", whole.to_string())], axum::body::Body::from_stream(broken)).into_response()
        }
        None => bytes.into_response(),
        Some(range) => {
            let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
            let told = format!("bytes {from}-{}/{whole}", whole - 1);
            (StatusCode::PARTIAL_CONTENT, [("content-range", told)], bytes[from..].to_vec()).into_response()
        }
    }
}

#[tokio::test]
async fn what_is_fetched_from_a_web_server_goes_on_where_the_line_broke() {
    let world = World::new();
    world.publish("1.1.0", "stable");
    let server =
        Breaking { folder: world.published(), fetched: world.dir.path().join("update"), asked: Arc::default() };
    let router = axum::Router::new().route("/{*path}", axum::routing::get(serve)).with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = Some(format!("http://{}/", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let name = world.ask(SystemWish { source, channel: None, restart: true }).await;
    tokio::select! {
        () = world.slots.restarted.notified() => {}
        ended = world.end(&name) => panic!("it is never written: {ended:?}"),
    }
    let asked = server.asked.lock().unwrap().clone();
    let ranges: Vec<bool> =
        asked.iter().filter(|(name, _)| name.starts_with("berth_")).map(|(_, range)| range.is_some()).collect();
    assert_eq!(ranges, [false, true, false, true, false, true], "{asked:?}");
}
