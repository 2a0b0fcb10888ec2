//! Operations: durable work, done step by step.
//!
//! An [`Operation`] is a record in the store; this module is the one place that carries them out.
//! It is woken by the store when operations come, end or are cancelled, lets [`berth_model::admission`] say which of them
//! begin, and runs the steps of each in their order. Each step's end, with the next one's beginning, is a transaction, so after
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
//! A step that fails ends its operation, lets it go on, or is tried again, as [`StepName::on_error`] says.
//!
//! What the steps do is the business of the [`Executor`], one per domain.

mod abort;
mod queue;
mod record;
mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use berth_model::admission::{Key, admit};
use berth_model::condition::Reason;
use berth_model::resource::operation::{
    OnError, Operation, OperationKind, OperationState, StepName, Target, pause_after,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use abort::{ABORT_FILE_VARIABLE, AbortPoints};
pub use queue::beginning;
pub use step::{Progress, StepDone, StepError, Task};

use crate::metrics::Metrics;
use crate::store::{Store, StoreError, Tx};
use record::{Ended, Fault, Recorder, Unbegun};

/// Does what steps say. `apply` may be called again for a step that was already applied: the
/// process may have died between the effect and its record.
pub trait Executor: Send + Sync + 'static {
    /// Brings the step's effect about, or finds that it already is.
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>>;
    /// Undoes what a finished or half-finished step of a failed operation did.
    fn compensate<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<(), StepError>>;
}

/// Notes what an operation wants, if that was left until it begins (`OperationSpec::wants_later`). This and its beginning
/// are one transaction. A permanent error ends the operation; after another it is tried again.
pub type Want = fn(&mut Tx<'_>, &Operation) -> Result<(), StepError>;

/// How often the store is read without having said that it changed.
const RESYNC: Duration = Duration::from_secs(30);

/// How long a step that failed waits for its second try.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Carries operations out until it is told to stop.
pub struct Runner {
    store: Store,
    executor: Arc<dyn Executor>,
    abort: AbortPoints,
    metrics: Metrics,
    running: BTreeMap<Target, Running>,
    /// By how many later ones each that waits was passed over.
    passed: BTreeMap<Key, u32>,
    first_pause: Duration,
    want: Want,
    tasks: JoinSet<()>,
}

/// What is known of the operation that is at work on a target.
struct Running {
    task: Id,
    key: Key,
    overtaken: CancellationToken,
}

impl Runner {
    /// A runner that is not yet running.
    pub fn new(store: Store, executor: Arc<dyn Executor>, abort: AbortPoints, metrics: Metrics) -> Self {
        let (running, passed, want) = (BTreeMap::new(), BTreeMap::new(), |_: &mut Tx<'_>, _: &Operation| Ok(()));
        Self { store, executor, abort, metrics, running, passed, first_pause: FIRST_PAUSE, want, tasks: JoinSet::new() }
    }

    /// With a way to note what operations want that begin after others.
    pub fn noting(self, want: Want) -> Self {
        Self { want, ..self }
    }

    /// With another pause before the second try of a step.
    #[cfg(test)]
    pub(crate) fn pausing(self, first_pause: Duration) -> Self {
        Self { first_pause, ..self }
    }

    /// Runs until `stop` is cancelled. Work in progress is then dropped where it stands: its record
    /// says how far it was, and the next start goes on from there.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut newest = self.store.revision();
        let mut resync = tokio::time::interval(RESYNC);
        let (mut seen, mut due, mut failed) = (0, true, false);
        loop {
            if due {
                seen = *newest.borrow_and_update();
                let done = self.dispatch().await;
                failed = done.is_err();
                if let Err(error) = done {
                    error!("reading the operations failed: {}", crate::log::chain(&error));
                }
            }
            due = tokio::select! {
                () = stop.cancelled() => return,
                _ = resync.tick() => true,
                Some(done) = self.tasks.join_next_with_id() => {
                    self.finished(done);
                    true
                }
                changed = newest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    failed || queue::has_news(&self.store, &mut seen).await
                }
            };
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
        let waiting = queue::read(&self.store).await?;
        let at_work = self.running.iter().map(|(target, one)| (target.clone(), one.key.clone())).collect();
        let mut admission = admit(waiting.queue(&at_work, &self.passed));
        self.passed = std::mem::take(&mut admission.passed);
        for key in &admission.begin {
            if let Some(operation) = waiting.get(key) {
                self.start(key.clone(), operation.clone());
            }
        }
        for running in self.running.values().filter(|one| admission.interrupt.contains(&one.key)) {
            running.overtaken.cancel();
        }
        for (kind, ended) in queue::note(&self.store, &waiting, admission).await? {
            self.metrics.operation(kind, ended.state, ended.took);
            info!("operation {}", ended.told);
        }
        Ok(())
    }

    fn start(&mut self, key: Key, operation: Operation) {
        let (kind, target, overtaken) = (operation.spec.kind, operation.spec.target.clone(), CancellationToken::new());
        let work = Work {
            recorder: Recorder::new(self.store.clone(), &operation),
            executor: Arc::clone(&self.executor),
            abort: self.abort.clone(),
            kind,
            overtaken: overtaken.clone(),
            first_pause: self.first_pause,
            want: self.want,
        };
        let (metrics, pause) = (self.metrics.clone(), self.first_pause);
        let task = self.tasks.spawn(async move {
            match work.carry_out().await {
                Ok(ended) => {
                    metrics.operation(kind, ended.state, ended.took);
                    info!("operation {}", ended.told);
                }
                Err(fault) => {
                    error!("an operation stands still: {}", crate::log::chain(&fault));
                    // It goes on as soon as this ends. A full disk is not better at once.
                    tokio::time::sleep(pause).await;
                }
            }
        });
        self.running.insert(target, Running { task: task.id(), key, overtaken });
    }
}

/// Sorts operations by age. Times cannot tell: they count seconds, and the clock may be set back.
pub fn order(operation: &Operation) -> (u64, Option<String>) {
    let released = operation.status.as_ref().and_then(|status| status.sequence);
    (released.unwrap_or(operation.spec.sequence), operation.metadata.name.clone())
}

/// Carries out one operation.
struct Work {
    recorder: Recorder,
    executor: Arc<dyn Executor>,
    abort: AbortPoints,
    kind: OperationKind,
    overtaken: CancellationToken,
    /// Before the second try of a step.
    first_pause: Duration,
    want: Want,
}

impl Work {
    /// From its first unfinished step to its end.
    async fn carry_out(mut self) -> Result<Ended, Fault> {
        let steps = self.recorder.remaining();
        match self.recorder.begin(steps.first().copied(), self.want).await {
            Ok(pause) => Ok(self.go_on(&steps, pause).await?),
            Err(Unbegun::Refused(error)) => Ok(self.recorder.finish(OperationState::Failed, Some(error)).await?),
            Err(Unbegun::Fault(fault)) => Err(fault),
        }
    }

    async fn go_on(mut self, steps: &[StepName], mut pause: Option<Duration>) -> Result<Ended, StoreError> {
        for (at, &step) in steps.iter().enumerate() {
            match self.insist(step, pause.take()).await? {
                Some(Ok(done)) => {
                    self.abort.reached(self.kind, step, "applied");
                    self.recorder.step_done(step, done, steps.get(at + 1).copied()).await?;
                    self.abort.reached(self.kind, step, "recorded");
                }
                Some(Err(error)) if step.on_error() == OnError::Continue => {
                    warn!(?step, "{step:?} failed, and its operation goes on: {}", crate::log::chain(&error));
                    self.recorder.step_passed(step, &error, steps.get(at + 1).copied()).await?;
                }
                Some(Err(error)) => return give_up(self.recorder, &*self.executor, step, Some(error)).await,
                None => return give_up(self.recorder, &*self.executor, step, None).await,
            }
        }
        self.recorder.finish(OperationState::Succeeded, None).await
    }

    /// Applies a step, again and again if that is its way; nothing if the operation was overtaken meanwhile.
    async fn insist(
        &mut self,
        step: StepName,
        mut pause: Option<Duration>,
    ) -> Result<Option<Result<StepDone, StepError>>, StoreError> {
        loop {
            if let Some(pause) = pause {
                if self.overtaken.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return Ok(None);
                }
                self.recorder.step_again(step).await?;
            }
            self.abort.reached(self.kind, step, "begun");
            let outcome = self.apply(step).await;
            let failures = self.recorder.failures(step);
            match (&outcome, step.on_error()) {
                (Some(Err(error)), OnError::Retry { tries }) if error.retryable && failures + 1 < tries => {
                    let wait = pause_after(failures, self.first_pause);
                    self.recorder.step_pauses(step, error, wait).await?;
                    self.abort.reached(self.kind, step, "paused");
                    pause = Some(wait);
                }
                _ => return Ok(outcome),
            }
        }
    }

    async fn apply(&mut self, step: StepName) -> Option<Result<StepDone, StepError>> {
        let task = self.recorder.task();
        tokio::select! {
            biased;
            () = self.overtaken.cancelled() => None,
            outcome = self.recorder.with_progress(contained(self.executor.apply(&task, step))) => Some(outcome),
        }
    }
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
