//! The runner over a real store, with steps that end when a test says so.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_model::resource::operation::{OperationKind, OperationStatus};
use berth_model::resource::{Settings, settings};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::bundle::view::operation_state;
use crate::store::Clock;

/// Each step waits until its operation is let go; it remembers what began, and with what else.
#[derive(Default)]
struct Hands {
    let_go: watch::Sender<Vec<(String, bool)>>,
    busy: Mutex<Vec<String>>,
    began: Mutex<Vec<String>>,
}

impl Executor for Hands {
    fn apply<'a>(&'a self, task: &'a Task, _: StepName) -> BoxFuture<'a, Result<StepDone, StepError>> {
        Box::pin(async move {
            let name = &task.spec.target.name;
            self.busy.lock().unwrap().push(name.clone());
            self.began.lock().unwrap().push(name.clone());
            let mut told = self.let_go.subscribe();
            let told = told.wait_for(|all| all.iter().any(|(one, _)| one == name)).await.unwrap();
            let succeeds = told.iter().any(|(one, succeeds)| one == name && *succeeds);
            self.busy.lock().unwrap().retain(|one| one != name);
            match succeeds {
                true => Ok(StepDone::said("done")),
                false => Err(StepError::new(Reason::WorkloadFailed, "as the test has it")),
            }
        })
    }
    fn compensate<'a>(&'a self, _: &'a Task, _: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
}

struct World {
    store: Store,
    hands: Arc<Hands>,
    stop: CancellationToken,
    runner: JoinHandle<()>,
}

#[allow(clippy::disallowed_methods, reason = "the clock of a test")]
fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

impl World {
    fn start(dir: &Path) -> Self {
        Self::noting(dir, |_, _| Ok(()))
    }

    fn noting(dir: &Path, want: Want) -> Self {
        let store = Store::open(&dir.join("berth.db"), Arc::new(clock) as Clock).unwrap();
        let (hands, stop) = (Arc::<Hands>::default(), CancellationToken::new());
        let runner = Runner::new(store.clone(), hands.clone(), AbortPoints::default(), Metrics::new());
        let runner = runner.noting(want).pausing(Duration::from_millis(1));
        Self { store, hands, runner: tokio::spawn(runner.run(stop.clone())), stop }
    }

    async fn die(self) {
        self.stop.cancel();
        self.runner.await.unwrap();
        self.store.close().await;
    }

    async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut crate::store::Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.write(&record::runner(), f).await.unwrap()
    }

    /// Asks for work of one step on a volume of the operation's own name.
    async fn ask(&self, name: &str, relations: Value) {
        let target = json!({"kind": "Volume", "namespace": "default", "name": name});
        let actor = json!({"identity": "owner", "source": "cli"});
        let spec = json!({"kind": "Unlock", "target": target, "actor": actor, "relations": relations});
        let metadata = json!({"name": name, "namespace": "default"});
        let operation = json!({"metadata": metadata, "spec": spec, "status": {}});
        let mut operation: Operation = serde_json::from_value(operation).unwrap();
        self.write(move |tx| {
            operation.spec.sequence = tx.version()?;
            tx.create(&operation)
        })
        .await;
    }

    fn end(&self, name: &str, succeeds: bool) {
        self.hands.let_go.send_modify(|all| all.push((name.to_owned(), succeeds)));
    }

    /// Its status as soon as it is so.
    async fn until(&self, name: &str, is_so: impl Fn(&OperationStatus) -> bool) -> OperationStatus {
        let mut newest = self.store.revision();
        loop {
            newest.mark_unchanged();
            let wanted = name.to_owned();
            let found = self.store.read(move |tx| tx.get::<Operation>("default", &wanted)).await.unwrap();
            if let Some(status) = found.and_then(|found| found.status).filter(&is_so) {
                return status;
            }
            newest.changed().await.unwrap();
        }
    }

    async fn at_work(&self, name: &str) {
        self.until(name, |status| status.state == OperationState::Running).await;
    }

    async fn ended(&self, name: &str) -> OperationStatus {
        self.until(name, |status| status.state.finished()).await
    }

    async fn places(&self, parallel: u16) {
        self.write(move |tx| {
            let mut settings = tx.get::<Settings>("", settings::NAME)?.unwrap();
            settings.spec.operations.parallel = parallel;
            tx.update(&settings).map(drop)
        })
        .await;
    }

    async fn settings(&self) -> Settings {
        self.store.read(|tx| tx.get("", settings::NAME)).await.unwrap().unwrap()
    }

    async fn pending(&self) -> Vec<String> {
        let all = self.store.read(|tx| tx.list::<Operation>(None)).await.unwrap();
        let pending = all.into_iter().filter(|one| operation_state(one) == OperationState::Pending);
        pending.filter_map(|one| one.metadata.name).collect()
    }
}

#[tokio::test]
async fn what_requires_another_waits_for_its_success_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.ask("first", json!({})).await;
    world.ask("second", json!({"requires": ["first"]})).await;
    let waits = world.until("second", |status| !status.waiting.is_empty()).await;
    assert_eq!((waits.state, waits.waiting.as_str()), (OperationState::Pending, "first has to succeed first"));
    world.end("second", true);
    world.end("first", true);
    let done = world.ended("second").await;
    assert_eq!((done.state, done.waiting.as_str()), (OperationState::Succeeded, ""));
    assert_eq!(*world.hands.began.lock().unwrap(), ["first", "second"]);
    world.die().await;
}

#[tokio::test]
async fn what_requires_one_that_fails_fails_by_its_name_without_having_begun_and_so_does_what_requires_that() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.ask("first", json!({})).await;
    world.ask("second", json!({"requires": ["first"]})).await;
    world.ask("third", json!({"requires": ["second"]})).await;
    world.at_work("first").await;
    world.end("first", false);
    let failed = world.ended("third").await;
    let error = failed.error.unwrap();
    assert_eq!(
        (failed.state, error.code.as_str(), error.retryable),
        (OperationState::Failed, "RequirementFailed", false)
    );
    assert_eq!(error.message, "it requires operation second, which ended: Failed");
    assert_eq!(error.suggestions, ["`berth operation retry third` does it without waiting for second"]);
    assert_eq!((failed.started_at, failed.steps.len()), (None, 0));
    assert_eq!(*world.hands.began.lock().unwrap(), ["first"]);
    world.die().await;
}

/// Wants seven places, and cannot note that at the first try.
fn seven_places_at_the_second_try(tx: &mut crate::store::Tx<'_>, _: &Operation) -> Result<(), StepError> {
    static TRIES: AtomicUsize = AtomicUsize::new(0);
    if TRIES.fetch_add(1, Ordering::Relaxed) == 0 {
        return Err(StepError::new(Reason::ProfileFailed, "the disk is full"));
    }
    let mut settings = tx.get::<Settings>("", settings::NAME).unwrap().unwrap();
    settings.spec.operations.parallel = 7;
    tx.update(&settings).unwrap();
    Ok(())
}

#[tokio::test]
async fn a_wish_that_could_not_be_noted_for_a_fault_of_the_machine_is_noted_later_on_behalf_of_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::noting(dir.path(), seven_places_at_the_second_try);
    world.ask("first", json!({})).await;
    world.ask("second", json!({"requires": ["first"]})).await;
    world.end("first", true);
    world.end("second", true);
    assert_eq!(world.ended("second").await.state, OperationState::Succeeded);
    let settings = world.settings().await;
    assert_eq!(settings.spec.operations.parallel, 7);
    let managers = settings.metadata.managed_fields.unwrap_or_default().into_iter().filter_map(|one| one.manager);
    assert!(managers.into_iter().any(|manager| manager == "owner"), "it is who asked that has set them");
    world.die().await;
}

#[tokio::test]
async fn places_are_a_setting_that_holds_at_once_and_what_waited_survives_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.places(1).await;
    for name in ["a", "b", "c"] {
        world.ask(name, json!({})).await;
    }
    world.at_work("a").await;
    world.ask("last", json!({"requires": ["a"]})).await;
    world.until("last", |status| status.rests()).await;
    assert_eq!(world.pending().await, ["b", "c", "last"]);
    world.places(2).await;
    world.at_work("b").await;
    world.die().await;
    let world = World::start(dir.path());
    for name in ["a", "b", "c", "last"] {
        world.end(name, true);
        assert_eq!(world.ended(name).await.state, OperationState::Succeeded, "{name}");
    }
    world.die().await;
}

#[tokio::test]
async fn those_in_conflict_and_those_that_let_another_go_first_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.places(1).await;
    world.ask("gate", json!({})).await;
    world.at_work("gate").await;
    world.ask("later", json!({})).await;
    world.ask("rival", json!({"conflictsWith": ["later"]})).await;
    world.ask("sooner", json!({"prefersBefore": ["later", "rival"]})).await;
    world.places(9).await;
    world.at_work("sooner").await;
    assert_eq!(world.pending().await, ["later", "rival"]);
    world.end("sooner", true);
    world.at_work("later").await;
    assert_eq!(world.pending().await, ["rival"]);
    world.end("later", true);
    world.at_work("rival").await;
    world.end("rival", true);
    world.end("gate", true);
    world.ended("rival").await;
    world.ended("gate").await;
    assert_eq!(*world.hands.began.lock().unwrap(), ["gate", "sooner", "later", "rival"]);
    world.die().await;
}

#[tokio::test]
async fn one_that_rests_is_cancelled_without_having_begun() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.ask("first", json!({})).await;
    world.ask("second", json!({"requires": ["first"]})).await;
    world.until("second", |status| status.rests()).await;
    world
        .write(|tx| {
            let mut second = tx.get::<Operation>("default", "second")?.unwrap();
            second.status.as_mut().unwrap().cancelled_by = Some(record::runner());
            tx.update_status(&second).map(drop)
        })
        .await;
    let ended = world.ended("second").await;
    assert_eq!((ended.state, ended.started_at), (OperationState::Cancelled, None));
    assert_eq!(ended.error.unwrap().message, "berthd (reconciler) asked for its end");
    assert_eq!(OperationKind::Unlock.steps().len(), 1, "what is asked for here has one step");
    world.end("first", true);
    world.ended("first").await;
    world.die().await;
}
