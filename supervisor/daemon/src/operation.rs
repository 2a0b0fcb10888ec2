//! Operations: durable work, done step by step.
//!
//! An [`Operation`] is a record in the store; this module is the one place that carries them out.
//! It is woken by the store, takes the oldest unfinished operation of every target that has none at
//! work, and runs its steps in their order. Each step's end, with the next one's beginning, is a transaction, so after
//! `kill -9` the first step that is not `Succeeded` is simply run again: steps are written to be
//! repeatable, and what they found out lies in `status.result`.
//!
//! ```text
//!            +-------------- overtaken by a later wish ------------------+
//!            |                                                            v
//!  Pending --+--> Running -- last step done --------------> Succeeded   Cancelled
//!                    |                                                    ^
//!                    +-- a step failed, or overtaken:                     |
//!                        finished steps are compensated in reverse --> Failed / Cancelled
//! ```
//!
//! What the steps do is the business of the [`Executor`], one per domain.

mod abort;
mod record;
mod step;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use berth_model::condition::Reason;
use berth_model::resource::operation::{Operation, OperationKind, OperationState, StepName, Target};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use abort::{ABORT_FILE_VARIABLE, AbortPoints};
pub use step::{Progress, StepDone, StepError, Task};

use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use record::{Ended, Recorder};

/// Does what steps say. `apply` may be called again for a step that was already applied: the
/// process may have died between the effect and its record.
pub trait Executor: Send + Sync + 'static {
    /// Brings the step's effect about, or finds that it already is.
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>>;
    /// Undoes what a finished or half-finished step of a failed operation did.
    fn compensate<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<(), StepError>>;
}

/// How often the store is read without having said that it changed.
const RESYNC: Duration = Duration::from_secs(30);

/// Carries operations out until it is told to stop.
pub struct Runner {
    store: Store,
    executor: Arc<dyn Executor>,
    abort: AbortPoints,
    metrics: Metrics,
    running: HashMap<Target, Running>,
    tasks: JoinSet<()>,
}

/// What is known of the operation that is at work on a target.
struct Running {
    task: Id,
    kind: OperationKind,
    overtaken: CancellationToken,
}

impl Runner {
    /// A runner that is not yet running.
    pub fn new(store: Store, executor: Arc<dyn Executor>, abort: AbortPoints, metrics: Metrics) -> Self {
        Self { store, executor, abort, metrics, running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Runs until `stop` is cancelled. Work in progress is then dropped where it stands: its record
    /// says how far it was, and the next start goes on from there.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut newest = self.store.revision();
        let mut resync = tokio::time::interval(RESYNC);
        loop {
            newest.mark_unchanged();
            if let Err(error) = self.dispatch().await {
                error!("reading the operations failed: {}", crate::log::chain(&error));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = resync.tick() => {}
                Some(done) = self.tasks.join_next_with_id() => self.finished(done),
                changed = newest.changed() => if changed.is_err() { return },
            }
        }
    }

    fn finished(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        if let Err(error) = done {
            error!("an operation's task ended in a defect: {}", crate::log::chain(&error));
        }
        self.running.retain(|_, running| running.task != id);
    }

    async fn dispatch(&mut self) -> Result<(), StoreError> {
        for (target, queue) in unfinished(&self.store).await? {
            let Some(first) = queue.first() else { continue };
            match self.running.get(&target) {
                None => self.start(target, first.clone()),
                Some(running)
                    if is_cancelled(first) || queue.iter().any(|op| overtakes(op.spec.kind, running.kind)) =>
                {
                    running.overtaken.cancel();
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, target: Target, operation: Operation) {
        let overtaken = CancellationToken::new();
        if is_cancelled(&operation) {
            overtaken.cancel();
        }
        let kind = operation.spec.kind;
        let recorder = Recorder::new(self.store.clone(), &operation);
        let work = carry_out(recorder, Arc::clone(&self.executor), self.abort.clone(), operation, overtaken.clone());
        let metrics = self.metrics.clone();
        let task = self.tasks.spawn(work.map(move |outcome| match outcome {
            Ok(ended) => {
                metrics.operation(kind, ended.state, ended.took);
                info!("operation {}", ended.told);
            }
            Err(error) => error!("recording an operation failed: {}", crate::log::chain(&error)),
        }));
        self.running.insert(target, Running { task: task.id(), kind, overtaken });
    }
}

/// Somebody wants it to end before it is done.
fn is_cancelled(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(|status| status.cancelled_by.is_some())
}

/// A wish to stop or remove does not wait for a wish to start, nor does a wish to go back for one to go on.
fn overtakes(later: OperationKind, running: OperationKind) -> bool {
    use OperationKind as K;
    match later {
        K::Stop | K::Uninstall => !matches!(running, K::Stop | K::Uninstall),
        K::Rollback => running == K::Update,
        _ => false,
    }
}

/// Sorts operations by age. Times cannot tell: they count seconds, and the clock may be set back.
pub fn order(operation: &Operation) -> (u64, Option<String>) {
    (operation.spec.sequence, operation.metadata.name.clone())
}

/// Unfinished operations by target, the oldest first.
async fn unfinished(store: &Store) -> Result<HashMap<Target, Vec<Operation>>, StoreError> {
    let mut all: Vec<Operation> = store.read(|tx| tx.list_lasting::<Operation>()).await?;
    all.retain(|op| !op.status.as_ref().is_some_and(|status| status.state.finished()));
    all.sort_by_key(order);
    let mut queues: HashMap<Target, Vec<Operation>> = HashMap::new();
    for operation in all {
        queues.entry(operation.spec.target.clone()).or_default().push(operation);
    }
    Ok(queues)
}

/// Runs one operation from its first unfinished step to its end.
async fn carry_out(
    mut recorder: Recorder,
    executor: Arc<dyn Executor>,
    abort: AbortPoints,
    operation: Operation,
    overtaken: CancellationToken,
) -> Result<Ended, StoreError> {
    let steps = recorder.remaining();
    recorder.begin(steps.first().copied()).await?;
    for (at, &step) in steps.iter().enumerate() {
        abort.reached(operation.spec.kind, step, "begun");
        let task = recorder.task();
        let outcome = tokio::select! {
            biased;
            () = overtaken.cancelled() => None,
            outcome = recorder.with_progress(contained(executor.apply(&task, step))) => Some(outcome),
        };
        match outcome {
            Some(Ok(done)) => {
                abort.reached(operation.spec.kind, step, "applied");
                recorder.step_done(step, done, steps.get(at + 1).copied()).await?;
                abort.reached(operation.spec.kind, step, "recorded");
            }
            Some(Err(error)) => return give_up(recorder, &*executor, step, Some(error)).await,
            None => return give_up(recorder, &*executor, step, None).await,
        }
    }
    recorder.finish(OperationState::Succeeded, None).await
}

/// A panic in one step is that operation's failure and nobody else's.
async fn contained(work: BoxFuture<'_, Result<StepDone, StepError>>) -> Result<StepDone, StepError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        Err(StepError::new(Reason::WorkloadFailed, "the step ended in a defect of the supervisor")
            .suggest("run `journalctl -u berthd` and report what it says there"))
    })
}

/// Undoes the failed step and those before it, last first, then closes the record.
async fn give_up(
    mut recorder: Recorder,
    executor: &dyn Executor,
    failed: StepName,
    error: Option<StepError>,
) -> Result<Ended, StoreError> {
    let (state, error) = match error {
        Some(error) => {
            recorder.step_failed(failed, &error).await?;
            (OperationState::Failed, Some(error))
        }
        None => (OperationState::Cancelled, recorder.cancellation().await?),
    };
    for step in recorder.to_compensate(failed) {
        let task = Task { failure: error.as_ref().map(StepError::recorded), ..recorder.task() };
        match executor.compensate(&task, step).await {
            Ok(()) => recorder.step_compensated(step).await?,
            Err(undo) => warn!(?step, "undoing {step:?} failed: {}", crate::log::chain(&undo)),
        }
    }
    recorder.finish(state, error).await
}
