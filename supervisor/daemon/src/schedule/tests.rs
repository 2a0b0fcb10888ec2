//! Schedules over a real store, with a clock that is set by hand and rings alarms like the machine's.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use berth_model::resource::Bundle;
use berth_model::resource::operation::{OperationKind, OperationStatus, Priority, StepName};
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::operation::{AbortPoints, Executor, Runner, StepDone, StepError, Task};
use crate::store::{Deletion, Refusal};

/// The clock that people see. Like the kernel's timer, the alarm also tells of a clock that was set since the wait before.
#[derive(Clone)]
struct Hand {
    time: watch::Sender<Timestamp>,
    told: Arc<Mutex<watch::Receiver<Timestamp>>>,
}

impl Hand {
    fn new(time: &str) -> Self {
        let (time, told) = watch::channel(time.parse().unwrap());
        Self { time, told: Arc::new(Mutex::new(told)) }
    }

    fn set(&self, time: &str) {
        self.time.send_replace(time.parse().unwrap());
    }
}

impl Alarm for Hand {
    fn until(&self, time: Option<Timestamp>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut told = self.told.lock().await;
            if time.is_none_or(|time| *told.borrow() < time) {
                told.changed().await.unwrap();
            }
            Ok(())
        })
    }
}

/// A daemon that knows nothing but schedules.
struct World {
    store: Store,
    metrics: Metrics,
    at_work: JoinHandle<()>,
}

impl World {
    async fn start(dir: &Path, hand: &Hand) -> Self {
        let read = hand.clone();
        let clock: Clock = Arc::new(move || *read.time.borrow());
        let (store, metrics) = (Store::open(&dir.join("berth.db"), clock.clone()).unwrap(), Metrics::new());
        let scheduler = Scheduler::new(store.clone(), clock, Arc::new(hand.clone()), metrics.clone());
        scheduler.prepare().await.unwrap();
        Self { store, metrics, at_work: tokio::spawn(scheduler.run()) }
    }

    async fn end(self) {
        self.at_work.abort();
        self.at_work.await.unwrap_err();
        self.store.close().await;
    }

    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.write(&house_keeping(), f).await.unwrap()
    }

    /// The schedule as soon as it is so.
    async fn until(&self, name: &'static str, is_so: impl Fn(&ScheduleStatus) -> bool) -> ScheduleStatus {
        let mut newest = self.store.revision();
        loop {
            newest.mark_unchanged();
            let found = self.store.read(move |tx| tx.get::<Schedule>("default", name)).await.unwrap().unwrap();
            if let Some(status) = found.status.filter(&is_so) {
                return status;
            }
            newest.changed().await.unwrap();
        }
    }

    async fn announced(&self, name: &'static str, next: &str) -> ScheduleStatus {
        self.until(name, |status| status.next_run.as_deref() == Some(next)).await
    }

    async fn schedule(&self, name: &str, spec: Value) {
        let schedule = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let schedule: Schedule = serde_json::from_value(schedule).unwrap();
        self.write(move |tx| tx.create(&schedule)).await;
    }

    async fn change(&self, name: &'static str, change: impl FnOnce(&mut Schedule) + Send + 'static) {
        let write = move |tx: &mut Tx<'_>| {
            let mut schedule = tx.get::<Schedule>("default", name)?.unwrap();
            change(&mut schedule);
            tx.update(&schedule).map(drop)
        };
        self.write(write).await;
    }

    async fn bundle(&self, start: bool) -> Bundle {
        let spec = json!({"image": "localhost/web", "start": start});
        let bundle = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        let bundle: Bundle = serde_json::from_value(bundle).unwrap();
        self.write(move |tx| tx.create(&bundle)).await
    }

    async fn operations(&self) -> Vec<Operation> {
        self.store.read(|tx| tx.list::<Operation>(None)).await.unwrap()
    }

    /// Ends what is not done, as the runner does.
    async fn finish(&self, state: OperationState) {
        for mut operation in self.operations().await {
            if !operation.status.as_ref().unwrap().state.finished() {
                operation.status = Some(OperationStatus { state, ..OperationStatus::default() });
                self.write(move |tx| tx.update_status(&operation).map(drop)).await;
            }
        }
    }

    /// Ends what is not done in a failure, now.
    async fn fail(&self, retryable: bool) {
        let error = json!({
            "code": "ImagesBusy", "message": "cleaning up failed", "detail": "an image is on its way", "suggestions": [],
            "retryable": retryable,
        });
        for mut operation in self.operations().await {
            if !operation.status.as_ref().unwrap().state.finished() {
                let write = move |tx: &mut Tx<'_>| {
                    let status = json!({"state": "Failed", "finishedAt": tx.now().to_string(), "error": error});
                    operation.status = Some(serde_json::from_value(status).unwrap());
                    tx.update_status(&operation).map(drop)
                };
                return self.write(write).await;
            }
        }
    }

    /// What was told of schedules.
    async fn told(&self) -> Vec<String> {
        let events: Vec<Event> = self.store.read(|tx| tx.list(None)).await.unwrap();
        let told = |event: Event| format!("{}: {}", event.reason.unwrap(), event.message.unwrap());
        events.into_iter().map(told).collect()
    }
}

fn nightly(missed_runs: &str) -> Value {
    json!({"cron": "0 3 * * *", "missedRuns": missed_runs, "action": {"kind": "restart", "bundle": "web"}})
}

#[tokio::test]
async fn at_its_time_a_schedule_begins_an_operation_and_tells_how_it_went() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let world = World::start(dir.path(), &hand).await;
    let web = world.bundle(true).await;
    world.schedule("nightly", nightly("runOnce")).await;
    let status = world.announced("nightly", "2026-05-02T03:00:00Z").await;
    assert_eq!((status.last_run, status.last_operation, status.last_result), (None, None, None));
    hand.set("2026-05-02T03:00:00.2Z");
    let status = world.announced("nightly", "2026-05-03T03:00:00Z").await;
    assert_eq!(status.last_run.as_deref(), Some("2026-05-02T03:00:00.2Z"));
    assert_eq!(status.last_result.as_deref(), Some("Pending"));
    let [operation] = world.operations().await.try_into().unwrap();
    assert_eq!(operation.metadata.name, status.last_operation);
    assert_eq!((operation.spec.kind, operation.spec.priority), (OperationKind::Restart, Priority::Scheduled));
    assert_eq!((operation.spec.target.kind.as_str(), Some(operation.spec.target.uid)), ("Bundle", web.metadata.uid));
    assert_eq!(operation.spec.actor.source, "schedule");
    assert_eq!(operation.spec.actor.identity, "schedule/nightly");
    world.finish(OperationState::Failed).await;
    world.until("nightly", |status| status.last_result.as_deref() == Some("Failed")).await;
    assert_eq!(world.told().await, Vec::<String>::new());
    let metrics = world.metrics.encode().unwrap();
    assert!(metrics.contains("berth_schedule_turns_total{action=\"restart\",result=\"begun\"} 1"), "{metrics}");
    world.end().await;
}

#[tokio::test]
async fn what_was_missed_while_nobody_looked_is_made_up_for_once_or_passed_over_as_the_schedule_says() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let first = World::start(dir.path(), &hand).await;
    first.bundle(true).await;
    first.schedule("nightly", nightly("runOnce")).await;
    first.schedule("punctual", nightly("skip")).await;
    for name in ["nightly", "punctual"] {
        first.announced(name, "2026-05-02T03:00:00Z").await;
    }
    first.change("cleanup", |cleanup| cleanup.spec.suspend = true).await;
    first.until("cleanup", |status| status.next_run.is_none()).await;
    first.end().await;
    hand.set("2026-05-04T12:00:00Z");
    let second = World::start(dir.path(), &hand).await;
    let made_up = second.announced("nightly", "2026-05-05T03:00:00Z").await;
    assert_eq!(made_up.last_run.as_deref(), Some("2026-05-04T12:00:00Z"));
    let passed = second.announced("punctual", "2026-05-05T03:00:00Z").await;
    assert_eq!((passed.last_run, passed.last_result.as_deref()), (None, Some("Skipped")));
    assert_eq!(second.operations().await.len(), 1);
    let mut told = second.told().await;
    told.sort();
    let missed = "MissedRun: 3 runs were missed since 2026-05-02T03:00:00Z; ";
    assert_eq!(
        told,
        [format!("{missed}by missedRuns: skip it is passed over"), format!("{missed}one run makes up for it")]
    );
    second.end().await;
}

#[tokio::test]
async fn a_cleanup_that_failed_for_a_reason_that_may_pass_is_tried_again_soon_also_by_a_later_life() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let first = World::start(dir.path(), &hand).await;
    first.change("cleanup", |cleanup| cleanup.spec.jitter = None).await;
    first.announced("cleanup", "2026-05-02T03:20:00Z").await;
    hand.set("2026-05-02T03:20:00Z");
    first.announced("cleanup", "2026-05-03T03:20:00Z").await;
    first.fail(true).await;
    let soon = first.announced("cleanup", "2026-05-02T03:21:00Z").await;
    assert_eq!((soon.last_result.as_deref(), soon.retries), (Some("Failed"), 0));
    assert_eq!(soon.message, "it is tried again: cleaning up failed: an image is on its way");
    first.end().await;
    hand.set("2026-05-02T03:20:59Z");
    let second = World::start(dir.path(), &hand).await;
    second.announced("cleanup", "2026-05-02T03:21:00Z").await;
    assert_eq!(second.operations().await.len(), 1);
    hand.set("2026-05-02T03:21:00Z");
    let again = second.announced("cleanup", "2026-05-03T03:20:00Z").await;
    assert_eq!((again.last_result.as_deref(), again.retries, again.message.as_str()), (Some("Pending"), 1, ""));
    second.fail(true).await;
    second.announced("cleanup", "2026-05-02T03:23:00Z").await;
    hand.set("2026-05-02T03:23:00Z");
    second.announced("cleanup", "2026-05-03T03:20:00Z").await;
    second.finish(OperationState::Succeeded).await;
    second.until("cleanup", |status| status.last_result.as_deref() == Some("Succeeded")).await;
    hand.set("2026-05-03T03:20:00Z");
    second.announced("cleanup", "2026-05-04T03:20:00Z").await;
    second.fail(false).await;
    let failed = second.until("cleanup", |status| status.last_result.as_deref() == Some("Failed")).await;
    assert_eq!((failed.next_run.as_deref(), failed.retries), (Some("2026-05-04T03:20:00Z"), 0), "it would fail again");
    assert_eq!((second.operations().await.len(), second.told().await), (4, Vec::<String>::new()));
    second.end().await;
}

#[tokio::test]
async fn a_restart_on_time_repeats_nothing() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let mut world = World::start(dir.path(), &hand).await;
    world.bundle(true).await;
    world.schedule("nightly", nightly("runOnce")).await;
    world.announced("nightly", "2026-05-02T03:00:00Z").await;
    hand.set("2026-05-02T03:00:00Z");
    world.announced("nightly", "2026-05-03T03:00:00Z").await;
    world.finish(OperationState::Succeeded).await;
    world.until("nightly", |status| status.last_result.as_deref() == Some("Succeeded")).await;
    for _ in 0..3 {
        world.end().await;
        world = World::start(dir.path(), &hand).await;
        world.announced("nightly", "2026-05-03T03:00:00Z").await;
    }
    assert_eq!(world.operations().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_clock_that_is_set_is_noticed_at_once() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let world = World::start(dir.path(), &hand).await;
    world.bundle(true).await;
    world.change("cleanup", |cleanup| cleanup.spec.suspend = true).await;
    world.schedule("nightly", nightly("runOnce")).await;
    world.announced("nightly", "2026-05-02T03:00:00Z").await;
    hand.set("2026-04-20T12:00:00Z");
    world.announced("nightly", "2026-04-21T03:00:00Z").await;
    assert_eq!(world.operations().await.len(), 0);
    hand.set("2026-04-21T12:00:00Z");
    let status = world.announced("nightly", "2026-04-22T03:00:00Z").await;
    assert_eq!(status.last_run.as_deref(), Some("2026-04-21T12:00:00Z"));
    assert_eq!(world.operations().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn nothing_begins_while_the_last_run_is_at_work_or_the_service_is_stopped_or_gone() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let world = World::start(dir.path(), &hand).await;
    world.bundle(true).await;
    world.change("cleanup", |cleanup| cleanup.spec.suspend = true).await;
    world.schedule("nightly", nightly("runOnce")).await;
    world.announced("nightly", "2026-05-02T03:00:00Z").await;
    hand.set("2026-05-02T03:00:00Z");
    world.announced("nightly", "2026-05-03T03:00:00Z").await;
    hand.set("2026-05-03T03:00:00Z");
    let busy = world.announced("nightly", "2026-05-04T03:00:00Z").await;
    assert_eq!(busy.last_run.as_deref(), Some("2026-05-02T03:00:00Z"));
    world.finish(OperationState::Succeeded).await;
    world.until("nightly", |status| status.last_result.as_deref() == Some("Succeeded")).await;
    let stop = |tx: &mut Tx<'_>| {
        let mut web = tx.get::<Bundle>("default", "web")?.unwrap();
        web.spec.start = false;
        tx.update(&web).map(drop)
    };
    world.write(stop).await;
    hand.set("2026-05-04T03:00:00Z");
    let stopped = world.announced("nightly", "2026-05-05T03:00:00Z").await;
    assert_eq!(stopped.last_result.as_deref(), Some("Skipped"));
    let why = "bundle web is stopped, and a schedule starts nothing that is";
    assert_eq!(stopped.message, why);
    assert_eq!(world.operations().await.len(), 1);
    let mut told = world.told().await;
    told.sort();
    let busy = "RunSkipped: what it began the last time is not done: this run is left out".to_owned();
    assert_eq!(told, [format!("RunSkipped: {why}"), busy]);
    world.end().await;
}

#[tokio::test]
async fn the_cleanup_is_always_there_and_can_be_changed_and_suspended_but_not_deleted() {
    let (dir, hand) = (tempfile::tempdir().unwrap(), Hand::new("2026-05-01T12:00:00Z"));
    let world = World::start(dir.path(), &hand).await;
    let status = world.until("cleanup", |status| status.next_run.is_some()).await;
    assert!(status.next_run.unwrap().starts_with("2026-05-02T03:"));
    world.change("cleanup", |cleanup| cleanup.spec.jitter = None).await;
    world.announced("cleanup", "2026-05-02T03:20:00Z").await;
    let delete = |tx: &mut Tx<'_>| tx.delete::<Schedule>("default", "cleanup", &Deletion::default());
    let refused = world.store.write(&house_keeping(), delete).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Refused(Refusal::Protected { .. })), "{refused}");
    assert_eq!(refused.to_string(), "schedule \"cleanup\" cannot be deleted; suspend it instead: spec.suspend: true");
    world.change("cleanup", |cleanup| cleanup.spec.suspend = true).await;
    world.until("cleanup", |status| status.next_run.is_none()).await;
    world.end().await;
    hand.set("2026-05-09T12:00:00Z");
    let world = World::start(dir.path(), &hand).await;
    world.change("cleanup", |cleanup| cleanup.spec.suspend = false).await;
    world.announced("cleanup", "2026-05-10T03:20:00Z").await;
    let (operations, told) = (world.operations().await.len(), world.told().await);
    assert_eq!((operations, told), (0, Vec::new()), "what is suspended misses nothing");
    for day in 10..30 {
        hand.set(&format!("2026-05-{day}T03:20:00Z"));
        world.announced("cleanup", &format!("2026-05-{}T03:20:00Z", day + 1)).await;
        world.finish(OperationState::Succeeded).await;
        world.until("cleanup", |status| status.last_result.as_deref() == Some("Succeeded")).await;
    }
    assert_eq!(world.operations().await.len(), 10, "old ones make room");
    world.end().await;
}

/// Counts what it is asked to do.
#[derive(Default)]
struct Sweeps(AtomicU32);

impl Executor for Sweeps {
    fn apply<'a>(&'a self, _: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>> {
        assert_eq!(step, StepName::RemoveUnneeded);
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(StepDone::said("swept")) })
    }
    fn compensate<'a>(&'a self, _: &'a Task, _: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
}

fn runner(world: &World, sweeps: &Arc<Sweeps>, abort: AbortPoints, stop: &CancellationToken) -> JoinHandle<()> {
    let runner = Runner::new(world.store.clone(), sweeps.clone(), abort, Metrics::new());
    tokio::spawn(runner.run(stop.clone()))
}

#[tokio::test]
async fn a_daemon_killed_at_any_point_of_a_scheduled_operation_ends_it_once() {
    for moment in ["begun", "applied", "recorded"] {
        let (dir, hand) = (tempfile::tempdir_in("/dev/shm").unwrap(), Hand::new("2026-05-01T12:00:00Z"));
        let sweeps = Arc::new(Sweeps::default());
        let (first, stop) = (World::start(dir.path(), &hand).await, CancellationToken::new());
        let killed = stop.clone();
        let abort = AbortPoints::calling(move |point| {
            if point == format!("Cleanup/RemoveUnneeded/{moment}") {
                killed.cancel();
                panic!("killed at {point}");
            }
        });
        let at_work = runner(&first, &sweeps, abort, &stop);
        first.change("cleanup", |cleanup| cleanup.spec.jitter = None).await;
        first.announced("cleanup", "2026-05-02T03:20:00Z").await;
        hand.set("2026-05-02T03:20:00Z");
        at_work.await.unwrap();
        first.end().await;
        let (second, stop) = (World::start(dir.path(), &hand).await, CancellationToken::new());
        let at_work = runner(&second, &sweeps, AbortPoints::default(), &stop);
        second.until("cleanup", |status| status.last_result.as_deref() == Some("Succeeded")).await;
        assert_eq!(second.operations().await.len(), 1, "killed at {moment}");
        assert_eq!(sweeps.0.load(Ordering::SeqCst), if moment == "applied" { 2 } else { 1 }, "killed at {moment}");
        stop.cancel();
        at_work.await.unwrap();
        second.end().await;
    }
}
