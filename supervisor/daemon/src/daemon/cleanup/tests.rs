//! Cleanup and pressure over a real store and real image records, with a clock that is set by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use berth_host::registry::Patience;
use berth_model::pressure::Thresholds;
use berth_model::resource::operation::{OperationState, OperationStatus};
use berth_model::resource::{Bundle, Revision};
use k8s_openapi::api::core::v1::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::daemon::pressure;
use crate::image::{ImageStore, Options};
use crate::metrics::Metrics;
use crate::store::Store;

const DAY: i64 = 86_400;

struct World {
    dir: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
    cleaner: Cleaner,
}

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(0));
        let read = Arc::clone(&seconds);
        let clock: Clock = Arc::new(move || Timestamp::from_second(read.load(Ordering::SeqCst)).unwrap());
        let store = Store::open(&dir.path().join("berth.db"), Arc::clone(&clock)).unwrap();
        let patience = Patience { tries: 1, ..Patience::default() };
        let options = Options { settings: dir.path().join("settings"), patience, ..Options::default() };
        let images = ImageStore::open(&dir.path().join("images"), options).unwrap();
        let cleaner = Cleaner::new(LocalImages { images, store, metrics: Metrics::new() }, dir.path(), clock);
        Self { dir, seconds, cleaner }
    }

    fn day(&self, day: i64) {
        self.seconds.store(day * DAY, Ordering::SeqCst);
    }

    /// An image as its record shows it.
    fn image(&self, digit: char) -> String {
        let hex = digit.to_string().repeat(64);
        let record = json!({
            "digest": format!("sha256:{hex}"), "config": format!("sha256:{hex}"),
            "repositories": [format!("localhost/{digit}")], "layers": [], "size": 1000,
        });
        let path = self.dir.path().join(format!("images/images/sha256-{hex}.json"));
        std::fs::write(path, record.to_string()).unwrap();
        format!("sha256:{hex}")
    }

    fn images(&self) -> Vec<String> {
        let images = self.cleaner.local.images.list(&HashSet::new()).unwrap();
        images.into_iter().map(|image| image.references[0].split('@').next().unwrap().to_owned()).collect()
    }

    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.cleaner.local.store.write(&house_keeping(), f).await.unwrap()
    }

    async fn bundle(&self, name: &str) -> Bundle {
        let bundle: Bundle = typed(json!({
            "metadata": { "name": name, "namespace": "default" }, "spec": { "image": "localhost/web" },
        }));
        self.write(move |tx| tx.create(&bundle)).await
    }

    async fn revision(&self, number: u64, state: &str, digest: &str) {
        let image = json!({
            "reference": "", "digest": digest, "layers": [], "entrypoint": [], "cmd": [], "env": [], "user": "",
            "workingDir": "", "stopSignal": "",
        });
        let spec = json!({
            "bundle": "web", "number": number, "generation": 1, "operation": "", "bundleSpec": { "image": "" },
            "image": image, "allocation": { "address": "", "idBase": 0, "hostLink": "" },
        });
        let metadata = json!({ "name": format!("web-r{number}"), "namespace": "default" });
        let revision: Revision = typed(json!({ "metadata": metadata, "spec": spec, "status": { "state": state } }));
        self.write(move |tx| {
            tx.create(&revision)?;
            tx.update_status(&revision).map(drop)
        })
        .await;
    }

    /// An operation on something of that uid which finishes now.
    async fn operation(&self, name: &str, uid: &str) {
        let target = json!({ "kind": "Bundle", "namespace": "default", "name": "web", "uid": uid });
        let actor = json!({ "identity": "root", "source": "api" });
        let metadata = json!({ "name": name, "namespace": "default" });
        let spec = json!({ "kind": "Restart", "target": target, "actor": actor });
        let mut operation: Operation = typed(json!({ "metadata": metadata, "spec": spec }));
        self.write(move |tx| {
            tx.create(&operation)?;
            operation.status = Some(OperationStatus { state: OperationState::Succeeded, ..OperationStatus::default() });
            tx.update_status(&operation).map(drop)
        })
        .await;
    }

    async fn event(&self, about: &Bundle, reason: &'static str) {
        let about = about.clone();
        self.write(move |tx| tx.emit_event(&about, EventType::Normal, reason, "so it is")).await;
    }

    async fn settings(&self, cleanup: CleanupSettings) {
        let change = move |tx: &mut Tx<'_>| {
            let mut settings = tx.get::<Settings>("", settings::NAME)?.unwrap();
            settings.spec.cleanup = cleanup;
            tx.update(&settings).map(drop)
        };
        self.write(change).await;
    }

    async fn thresholds(&self, warn_percent: u8, clean_percent: u8, pause_percent: u8) {
        let disk = Thresholds { warn_percent, clean_percent, pause_percent };
        self.settings(CleanupSettings { disk, ..CleanupSettings::default() }).await;
    }

    /// Reasons of the events about the machine, the first first.
    async fn told(&self) -> Vec<String> {
        let events: Vec<Event> = self.cleaner.local.store.read(|tx| tx.list(None)).await.unwrap();
        let mut events: Vec<Event> =
            events.into_iter().filter(|event| event.involved_object.kind.as_deref() == Some("Settings")).collect();
        events.sort_by_key(|event| event.metadata.resource_version.clone().unwrap().parse::<u64>().unwrap());
        events.into_iter().filter_map(|event| event.reason).collect()
    }

    async fn names<K: berth_model::kinds::Kind + Send + 'static>(&self) -> Vec<String> {
        let all = self.cleaner.local.store.read(|tx| tx.list_values(K::registration(), None)).await.unwrap();
        all.iter().map(|object| meta::name(object).to_owned()).collect()
    }
}

fn shown(report: &Report) -> Vec<String> {
    report.plan.items.iter().map(|item| format!("{} {}: {}", item.kind.word(), item.name, item.why)).collect()
}

#[tokio::test]
async fn a_real_run_removes_what_a_dry_run_tells_and_nothing_that_runs_or_ran_before() {
    let world = World::new();
    let (active, before, older) = (world.image('a'), world.image('b'), world.image('c'));
    world.image('d');
    let web = world.bundle("web").await;
    for (number, state, image) in
        [(1, "Superseded", &older), (2, "Superseded", &before), (3, "Failed", &older), (4, "Active", &active)]
    {
        world.revision(number, state, image).await;
    }
    let uid = web.metadata.uid.clone().unwrap();
    world.operation("first", &uid).await;
    world.operation("other", "gone").await;
    world.event(&web, "Old").await;
    world.cleaner.look().await.unwrap();
    world.day(20);
    world.operation("last", &uid).await;
    world.day(90);
    world.operation("lately", "gone").await;
    world.event(&web, "New").await;
    let events = world.names::<Event>().await;

    let told = world.cleaner.run(true).await.unwrap();
    let old = events.iter().find(|name| shown(&told)[2].contains(*name)).unwrap().clone();
    assert_eq!(
        shown(&told),
        [
            "operation first: finished 90 d ago".to_owned(),
            "operation other: finished 90 d ago".to_owned(),
            format!("event {old}: last seen 90 d ago"),
            format!("image localhost/c@{older}: unused for 90 d"),
            format!("image localhost/d@sha256:{}: unused for 90 d", "d".repeat(64)),
        ]
    );
    assert_eq!((told.dry_run, told.freed, world.images().len()), (true, None, 4));
    assert_eq!((world.names::<Event>().await, world.told().await.len()), (events, 0), "a dry run did something");

    let real = world.cleaner.run(false).await.unwrap();
    assert_eq!((&real.plan, real.dry_run, real.freed.is_some()), (&told.plan, false, true));
    assert_eq!(world.images(), ["localhost/a", "localhost/b"]);
    assert_eq!(world.names::<Operation>().await, ["last", "lately"], "the last word on what is there stays");
    assert!(!world.names::<Event>().await.contains(&old));
    assert_eq!(world.told().await, ["CleanedUp"]);
    let counted = world.cleaner.local.metrics.scrape().await.unwrap();
    assert!(counted.contains("berth_cleanup_removed_total{kind=\"image\"} 2"), "{counted}");
    assert_eq!(world.cleaner.run(false).await.unwrap().plan, Plan::default());
    assert_eq!(world.told().await, ["CleanedUp"], "nothing was removed, and that was told");
}

#[tokio::test]
async fn a_cleanup_that_meets_an_image_on_its_way_removes_nothing_and_may_be_tried_again() {
    let world = World::new();
    world.image('a');
    world.cleaner.look().await.unwrap();
    world.day(90);
    let arriving = world.cleaner.local.images.still().unwrap();
    let error = world.cleaner.remove_unneeded().await.unwrap_err();
    assert_eq!((error.code, error.retryable, world.images().len()), (Some("ImagesBusy"), true, 1));
    drop(arriving);
    world.cleaner.remove_unneeded().await.unwrap();
    assert_eq!(world.images().len(), 0);
}

#[tokio::test]
async fn an_image_is_kept_for_a_week_after_it_was_last_needed() {
    let world = World::new();
    let digest = world.image('a');
    world.bundle("web").await;
    let count = async || world.cleaner.run(true).await.unwrap().plan.items.len();
    world.cleaner.look().await.unwrap();
    world.day(5);
    // Fetched again on the fifth day: it is there, so that is all.
    world.cleaner.local.images.ensure(&format!("localhost/a@{digest}"), Arc::new(|_| {})).await.unwrap_err();
    world.cleaner.look().await.unwrap();
    world.day(11);
    assert_eq!(count().await, 0);
    world.day(12);
    assert_eq!(count().await, 1);
    world.revision(1, "Active", &digest).await;
    world.cleaner.look().await.unwrap();
    assert_eq!(count().await, 0);
    world.write(|tx| tx.delete::<Revision>("default", "web-r1", &crate::store::Deletion::default())).await;
    world.day(30);
    assert_eq!(count().await, 0, "nobody has seen it unused yet");
    world.cleaner.look().await.unwrap();
    world.day(37);
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn ages_are_those_of_the_settings_longer_or_shorter_than_the_usual_ones() {
    let world = World::new();
    let web = world.bundle("web").await;
    world.operation("op", "gone").await;
    world.event(&web, "Old").await;
    world.day(40);
    let set = |finished_operation_days, event_days| {
        world.settings(CleanupSettings { finished_operation_days, event_days, ..CleanupSettings::default() })
    };
    let counts = async || world.cleaner.run(true).await.unwrap().plan.counts();
    set(41, 41).await;
    assert_eq!(counts().await, "nothing");
    set(41, 40).await;
    assert_eq!(counts().await, "1 event");
    set(0, 3650).await;
    assert_eq!(counts().await, "1 operation");
}

#[tokio::test]
async fn for_want_of_room_unused_images_go_at_once_the_oldest_first() {
    let world = World::new();
    world.bundle("web").await;
    let needed = world.image('a');
    world.revision(1, "Active", &needed).await;
    world.image('c');
    world.cleaner.look().await.unwrap();
    world.day(1);
    world.image('b');
    world.cleaner.look().await.unwrap();
    let none = world.cleaner.relieve(100).await.unwrap();
    assert_eq!((none.plan.items.len(), world.images().len()), (0, 3), "there was room, and something was removed");
    let report = world.cleaner.relieve(0).await.unwrap();
    let names: Vec<&str> = report.plan.items.iter().map(|item| item.name.split('@').next().unwrap()).collect();
    assert_eq!((names, world.images()), (vec!["localhost/c", "localhost/b"], vec!["localhost/a".to_owned()]));
    assert_eq!(world.told().await, ["DiskRelieved"]);
}

#[tokio::test]
async fn a_disk_past_its_thresholds_is_told_cleaned_and_closed_to_images_until_it_has_room_again() {
    let world = World::new();
    let (mut cleaned, digest) = (None, "e".repeat(64));
    let pull = async || {
        let reference = format!("127.0.0.1:1/nowhere@sha256:{digest}");
        world.cleaner.local.images.ensure(&reference, Arc::new(|_| {})).await.unwrap_err().code()
    };
    world.image('a');
    world.thresholds(0, 100, 100).await;
    pressure::look(&world.cleaner, &mut cleaned).await.unwrap();
    assert_eq!((world.cleaner.level(), world.images().len()), (Level::Warning, 1));
    world.thresholds(0, 0, 100).await;
    pressure::look(&world.cleaner, &mut cleaned).await.unwrap();
    assert_eq!((world.cleaner.level(), world.images().len()), (Level::Cleaning, 0));
    assert_eq!(pull().await, "RegistryUnreachable");
    world.thresholds(0, 0, 0).await;
    pressure::look(&world.cleaner, &mut cleaned).await.unwrap();
    assert_eq!((world.cleaner.level(), pull().await), (Level::Paused, "DiskPressure"));
    pressure::look(&world.cleaner, &mut cleaned).await.unwrap();
    let counted = world.cleaner.local.metrics.scrape().await.unwrap();
    assert!(counted.contains("berth_data_disk_level 3"), "{counted}");
    world.thresholds(100, 100, 100).await;
    pressure::look(&world.cleaner, &mut cleaned).await.unwrap();
    assert_eq!((world.cleaner.level(), pull().await), (Level::Fine, "RegistryUnreachable"));
    let told = ["DiskFilling", "DiskFilling", "DiskRelieved", "PullsPaused", "PullsResumed"];
    assert_eq!(world.told().await, told, "each change is told once");
}
