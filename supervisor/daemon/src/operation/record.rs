//! The record of one operation while it is carried out: every change is a transaction.

use std::future::Future;
use std::time::Duration;

use berth_model::condition::Reason;
use berth_model::resource::operation::{
    Actor, LONGEST_PAUSE, Operation, OperationState, OperationStatus, Step, StepName, StepState,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::Want;
use super::step::{Progress, StepDone, StepError, Task};
use crate::store::{Store, StoreError, Tx};

/// How often a running step's progress is written.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps one operation's status.
pub(super) struct Recorder {
    store: Store,
    namespace: String,
    operation: Operation,
    status: OperationStatus,
    progress: watch::Sender<(u8, String)>,
}

/// An operation that is over.
pub(super) struct Ended {
    pub(super) state: OperationState,
    /// From its first step on; zero if it never began.
    pub(super) took: Duration,
    /// How, in one line.
    pub(super) told: String,
}

/// Why an operation did not begin.
pub(super) enum Unbegun {
    /// It may at another time.
    Fault(Fault),
    /// What it wants cannot be wanted any more.
    Refused(StepError),
}

/// An operation could not be recorded, which says nothing about the operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("writing its record failed")]
    Record(#[from] StoreError),
    #[error("noting what it wants failed")]
    Wish(#[source] StepError),
}

impl From<StoreError> for Unbegun {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.into())
    }
}

impl From<StepError> for Unbegun {
    fn from(error: StepError) -> Self {
        match error.retryable {
            true => Self::Fault(Fault::Wish(error)),
            false => Self::Refused(error),
        }
    }
}

impl Recorder {
    pub(super) fn new(store: Store, operation: &Operation) -> Self {
        let mut status = operation.status.clone().unwrap_or_default();
        if status.steps.is_empty() {
            status.steps = operation.spec.kind.steps().iter().map(|name| pending(*name)).collect();
        }
        Self {
            store,
            namespace: operation.metadata.namespace.clone().unwrap_or_default(),
            operation: operation.clone(),
            status,
            progress: watch::Sender::new((0, String::new())),
        }
    }

    pub(super) fn task(&self) -> Task {
        Task {
            name: self.operation.metadata.name.clone().unwrap_or_default(),
            spec: self.operation.spec.clone(),
            results: self.status.result.as_object().cloned().unwrap_or_default(),
            failure: None,
            progress: Progress(self.progress.clone()),
        }
    }

    pub(super) fn remaining(&self) -> Vec<StepName> {
        self.status.steps.iter().filter(|step| step.state != StepState::Succeeded).map(|step| step.name).collect()
    }

    /// The failed step, as it may have done half of its work, and the finished ones, last first.
    pub(super) fn to_compensate(&self, failed: StepName) -> Vec<StepName> {
        let touched = |step: &&Step| step.state == StepState::Succeeded || step.name == failed;
        self.status.steps.iter().filter(touched).map(|step| step.name).rev().collect()
    }

    /// What is told of it if somebody cancelled it.
    pub(super) async fn cancellation(&mut self) -> Result<Option<StepError>, StoreError> {
        self.save(|_, _| {}).await?;
        let name = self.operation.metadata.name.as_deref().unwrap_or_default();
        Ok(self.status.cancelled_by.as_ref().map(|by| cancelled(name, by)))
    }

    /// The operation begins, or goes on, with its first step that is not done. If that one is between two tries, the
    /// answer is how long it is to the next.
    pub(super) async fn begin(&mut self, first: Option<StepName>, want: Want) -> Result<Option<Duration>, Unbegun> {
        let operation = self.operation.clone();
        let is_new = self.status.state == OperationState::Pending && operation.spec.wants_later();
        let note = move |tx: &mut Tx<'_>| match is_new {
            true => tx.on_behalf_of(operation.spec.actor.clone(), |tx| want(tx, &operation)).map_err(Unbegun::from),
            false => Ok(()),
        };
        self.save_with(note, move |status, now| {
            status.state = OperationState::Running;
            status.waiting.clear();
            status.started_at.get_or_insert_with(|| now.to_string());
            let pause = first.and_then(|first| pause(status, first, now));
            if pause.is_none() {
                step_begins(status, first, now);
            }
            pause
        })
        .await
    }

    /// A step failed, and is to be tried again after a pause.
    pub(super) async fn step_pauses(
        &mut self,
        name: StepName,
        error: &StepError,
        pause: Duration,
    ) -> Result<(), StoreError> {
        self.progress.send_replace((0, String::new()));
        let message = crate::log::chain(error).to_string();
        self.change_step(name, move |step, now| {
            step.message = message;
            step.failures += 1;
            step.next_try = now.checked_add(pause).ok().map(|time| time.to_string());
        })
        .await
    }

    /// A step is tried again.
    pub(super) async fn step_again(&mut self, name: StepName) -> Result<(), StoreError> {
        self.save(move |status, now| step_begins(status, Some(name), now)).await
    }

    /// A step failed, and the operation goes on with the next one all the same.
    pub(super) async fn step_passed(
        &mut self,
        name: StepName,
        error: &StepError,
        next: Option<StepName>,
    ) -> Result<(), StoreError> {
        let message = crate::log::chain(error).to_string();
        self.save(move |status, now| {
            change_step(status, name, |step| {
                step.state = StepState::Failed;
                step.message = message;
                step.finished_at = Some(now.to_string());
            });
            step_begins(status, next, now);
        })
        .await
    }

    /// How often a step failed and was to be tried again.
    pub(super) fn failures(&self, name: StepName) -> u32 {
        self.status.steps.iter().find(|step| step.name == name).map_or(0, |step| step.failures)
    }

    /// A step is done, and the next one begins: one transaction, as nothing is between them.
    pub(super) async fn step_done(
        &mut self,
        name: StepName,
        done: StepDone,
        next: Option<StepName>,
    ) -> Result<(), StoreError> {
        self.progress.send_replace((0, String::new()));
        if !self.status.result.is_object() {
            self.status.result = Value::Object(serde_json::Map::new());
        }
        if let Some(results) = self.status.result.as_object_mut() {
            results.extend(done.results);
        }
        self.save(move |status, now| {
            change_step(status, name, |step| {
                step.state = StepState::Succeeded;
                step.progress = 100;
                step.message = done.message;
                step.finished_at = Some(now.to_string());
            });
            step_begins(status, next, now);
        })
        .await
    }

    pub(super) async fn step_failed(&mut self, name: StepName, error: &StepError) -> Result<(), StoreError> {
        let message = error.to_string();
        self.change_step(name, |step, now| {
            step.state = StepState::Failed;
            step.message = message;
            step.next_try = None;
            step.finished_at = Some(now.to_string());
        })
        .await
    }

    pub(super) async fn step_compensated(&mut self, name: StepName) -> Result<(), StoreError> {
        self.change_step(name, |step, _| {
            // A step that was interrupted is at work no more, either.
            if matches!(step.state, StepState::Succeeded | StepState::Running) {
                step.state = StepState::Compensated;
                step.next_try = None;
            }
        })
        .await
    }

    /// Closes the record.
    pub(super) async fn finish(
        &mut self,
        state: OperationState,
        error: Option<StepError>,
    ) -> Result<Ended, StoreError> {
        let why = error.as_ref().map(|error| format!(": {}", crate::log::chain(error))).unwrap_or_default();
        let told = format!("{} {state:?}{why}", self.operation.metadata.name.as_deref().unwrap_or_default());
        self.save(move |status, now| {
            status.state = state;
            status.finished_at = Some(now.to_string());
            status.error = error.as_ref().map(StepError::recorded);
        })
        .await?;
        Ok(Ended { state, took: took(&self.status), told })
    }

    /// Awaits `work`, writing what it reports meanwhile.
    pub(super) async fn with_progress<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut reported = self.progress.subscribe();
        reported.mark_unchanged();
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = ticks.tick() => if reported.has_changed().unwrap_or(false) {
                    let (percent, message) = reported.borrow_and_update().clone();
                    self.show(percent, message).await;
                },
            }
        }
    }

    async fn show(&mut self, percent: u8, message: String) {
        let Some(name) = self.status.steps.iter().find(|s| s.state == StepState::Running).map(|s| s.name) else {
            return;
        };
        let shown = self
            .change_step(name, move |step, _| {
                step.progress = step.progress.max(percent);
                step.message = message;
            })
            .await;
        if let Err(error) = shown {
            tracing::warn!("recording progress failed: {}", crate::log::chain(&error));
        }
    }

    async fn change_step(
        &mut self,
        name: StepName,
        change: impl FnOnce(&mut Step, Timestamp) + Send + 'static,
    ) -> Result<(), StoreError> {
        self.save(move |status, now| change_step(status, name, |step| change(step, now))).await
    }

    async fn save<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut OperationStatus, Timestamp) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.save_with(|_| Ok(()), change).await
    }

    /// Both in one transaction.
    async fn save_with<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &mut self,
        before: impl FnOnce(&mut Tx<'_>) -> Result<(), E> + Send + 'static,
        change: impl FnOnce(&mut OperationStatus, Timestamp) -> T + Send + 'static,
    ) -> Result<T, E> {
        let mut status = self.status.clone();
        let (namespace, name) = (self.namespace.clone(), self.operation.metadata.name.clone().unwrap_or_default());
        let (status, came_to) = self
            .store
            .write(&runner(), move |tx| {
                before(tx)?;
                let came_to = change(&mut status, tx.now());
                if let Some(mut operation) = tx.get::<Operation>(&namespace, &name)? {
                    // The one part of the status that others write.
                    status.cancelled_by = operation.status.and_then(|stored| stored.cancelled_by);
                    operation.status = Some(status.clone());
                    tx.write_status(&operation)?;
                }
                Ok::<_, E>((status, came_to))
            })
            .await?;
        self.status = status;
        Ok(came_to)
    }
}

/// What is told of one that somebody cancelled. It is tried again when somebody asks for that, or wants something else.
pub(super) fn cancelled(name: &str, by: &Actor) -> StepError {
    let told = StepError::new(Reason::StartFailed, format!("{} ({}) asked for its end", by.identity, by.source));
    told.coded("Cancelled").suggest(format!("`berth operation retry {name}` tries it again")).permanent()
}

fn change_step(status: &mut OperationStatus, name: StepName, change: impl FnOnce(&mut Step)) {
    if let Some(step) = status.steps.iter_mut().find(|step| step.name == name) {
        change(step);
    }
}

fn step_begins(status: &mut OperationStatus, name: Option<StepName>, now: Timestamp) {
    let Some(name) = name else { return };
    change_step(status, name, |step| {
        step.state = StepState::Running;
        step.attempt += 1;
        step.next_try = None;
        step.started_at = Some(now.to_string());
    });
}

/// How long it is to the next try of a step; never longer than a pause is, as the clock may have been set back.
fn pause(status: &OperationStatus, name: StepName, now: Timestamp) -> Option<Duration> {
    let step = status.steps.iter().find(|step| step.name == name)?;
    let next: Timestamp = step.next_try.as_ref()?.parse().ok()?;
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default().min(LONGEST_PAUSE))
}

fn took(status: &OperationStatus) -> Duration {
    let at = |time: &Option<String>| time.as_ref()?.parse::<Timestamp>().ok();
    let span = at(&status.started_at).zip(at(&status.finished_at)).map(|(from, until)| until.duration_since(from));
    span.and_then(|span| span.try_into().ok()).unwrap_or_default()
}

fn pending(name: StepName) -> Step {
    Step {
        name,
        state: StepState::Pending,
        progress: 0,
        message: String::new(),
        attempt: 0,
        started_at: None,
        finished_at: None,
        failures: 0,
        next_try: None,
    }
}

pub(super) fn runner() -> Actor {
    Actor { identity: "berthd".into(), source: "reconciler".into() }
}
