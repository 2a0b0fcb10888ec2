//! Schedules: operations that begin by themselves.
//!
//! One task waits for the next time of all schedules, for a change of one, and for the end of what one has begun. Then
//! it looks at each: `berth_model::schedule` says what follows, and one transaction begins the operation and notes it in
//! the schedule's status, so that no kill can begin one twice or forget one. The time that is announced there
//! (`status.nextRun`) is how a later life learns what was missed.
//!
//! ```text
//!      alarm, clock set, store --> look --> turn (pure) --> begin + status (one transaction)
//!        ^                                                         |
//!        +------------------- the next time of all <---------------+
//! ```
//!
//! What was done to the machine and failed for a reason that may pass, as a cleanup does while an image is being pulled,
//! is announced once more, for a time that comes soon. The record of that operation and the schedule's status say all
//! that is needed for it, so a later life goes on from there.

mod begin;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use berth_model::kinds::{Kind, SCHEDULE};
use berth_model::resource::operation::{Operation, OperationError, OperationState};
use berth_model::resource::schedule::{self, Schedule, ScheduleStatus};
use berth_model::schedule::{Due, Present, Turn, again, turn};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::store::{Change, Clock, DEFAULT_NAMESPACE, ReadTx, Store, StoreError, Tx, house_keeping};

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Changes that are read at a time.
const BATCH: usize = 100;
/// The source of operations that a schedule began.
const SOURCE: &str = "schedule";

/// Waits for a time by the clock that people see.
pub trait Alarm: Send + Sync + 'static {
    /// Returns when it is that time, or the clock was set; without a time, when the clock was set.
    fn until(&self, time: Option<Timestamp>) -> BoxFuture<'_, io::Result<()>>;
}

/// Begins what schedules say.
pub struct Scheduler {
    store: Store,
    clock: Clock,
    alarm: Arc<dyn Alarm>,
    metrics: Metrics,
}

impl Scheduler {
    /// One that does nothing yet.
    pub fn new(store: Store, clock: Clock, alarm: Arc<dyn Alarm>, metrics: Metrics) -> Self {
        Self { store, clock, alarm, metrics }
    }

    /// Makes the schedule that is always there, if it is not.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let make = |tx: &mut Tx<'_>| match tx.get::<Schedule>(DEFAULT_NAMESPACE, schedule::CLEANUP)? {
            Some(_) => Ok(()),
            None => tx.create(&Schedule::cleanup()).map(drop),
        };
        self.store.write(&house_keeping(), make).await
    }

    /// Runs until it is dropped, or the store is closed.
    pub async fn run(self) {
        let mut newest = self.store.revision();
        loop {
            let seen = *newest.borrow_and_update();
            let due = match self.look().await {
                Ok(due) => due,
                Err(error) => {
                    error!("looking at the schedules failed: {}", crate::log::chain(&error));
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            tokio::select! {
                rung = self.alarm.until(due) => if let Err(error) = rung {
                    error!("waiting for a time failed: {}", crate::log::chain(&error));
                    tokio::time::sleep(AGAIN).await;
                },
                told = concerned(&self.store, &mut newest, seen) => if !told { return },
            }
        }
    }

    /// Looks at every schedule, and does what is due; answers when the next one is.
    async fn look(&self) -> Result<Option<Timestamp>, StoreError> {
        let now = (self.clock)();
        let mut first: Option<Timestamp> = None;
        for (schedule, last) in self.store.read(everything).await? {
            let step = Step::of(&schedule, last.as_ref(), now);
            let mut next = step.next;
            if (step.due != Due::NotYet || schedule.status.as_ref() != Some(&step.status))
                && let Err(error) = self.take(&schedule, now).await
            {
                // One that cannot be written delays no other.
                error!("a schedule's turn failed: {}", crate::log::chain(&error));
                next = now.checked_add(SignedDuration::try_from(AGAIN).unwrap_or_default()).ok();
            }
            first = first.into_iter().chain(next).min();
        }
        Ok(first)
    }

    async fn take(&self, schedule: &Schedule, now: Timestamp) -> Result<(), StoreError> {
        let (namespace, name) = key(schedule);
        let action = schedule.spec.action.kind.name();
        let told = format!("schedule {namespace}/{name}");
        let taken = self.store.write(&house_keeping(), move |tx| begin::take(tx, &namespace, &name, now)).await?;
        if let Some(result) = taken {
            self.metrics.schedule(action, result);
            info!("{told}: {action} {result}");
        }
        Ok(())
    }
}

fn key(schedule: &Schedule) -> (String, String) {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    (part(&schedule.metadata.namespace), part(&schedule.metadata.name))
}

/// Every schedule, with what it last began if there is a record of it.
fn everything(tx: &ReadTx<'_>) -> Result<Vec<(Schedule, Option<Operation>)>, StoreError> {
    let all = tx.list::<Schedule>(None)?;
    all.into_iter().map(|schedule| last(tx, &schedule).map(|last| (schedule, last))).collect()
}

fn last(tx: &ReadTx<'_>, schedule: &Schedule) -> Result<Option<Operation>, StoreError> {
    let name = schedule.status.as_ref().and_then(|status| status.last_operation.clone());
    match name {
        Some(name) => tx.get::<Operation>(&key(schedule).0, &name),
        None => Ok(None),
    }
}

/// What follows from a look at one schedule.
struct Step {
    due: Due,
    next: Option<Timestamp>,
    /// The status as it is to be, but for what begins now.
    status: ScheduleStatus,
    /// What begins now has failed before.
    again: bool,
}

impl Step {
    fn of(schedule: &Schedule, last: Option<&Operation>, now: Timestamp) -> Self {
        let mut status = schedule.status.clone().unwrap_or_default();
        let generation = schedule.metadata.generation.unwrap_or_default();
        let state = last.map(|last| last.status.as_ref().map(|status| status.state).unwrap_or_default());
        if let Some(state) = state {
            status.last_result = Some(format!("{state:?}"));
        }
        let failed = last.and_then(passing);
        let present = Present {
            // What was announced under other words does not count.
            planned: time(&status.next_run).filter(|_| status.observed_generation == generation),
            last: time(&status.last_run),
            busy: state.is_some_and(|state| !state.finished()),
            again: failed.and_then(|(at, _)| again(at, status.retries)),
            now,
        };
        let idle = schedule.spec.suspend || schedule.metadata.deletion_timestamp.is_some();
        let Turn { due, next } = match schedule.timetable() {
            Ok(table) if !idle => turn(&table, schedule.spec.missed_runs, &present),
            _ => Turn { due: Due::NotYet, next: None },
        };
        status.observed_generation = generation;
        status.next_run = next.map(|next| next.to_string());
        if let Some((_, error)) = failed.filter(|_| next.is_some()) {
            status.message = format!("it is tried again: {}: {}", error.message, error.detail);
        }
        Self { due, next, status, again: failed.is_some() }
    }
}

fn time(text: &Option<String>) -> Option<Timestamp> {
    text.as_ref().and_then(|text| text.parse().ok())
}

/// When and why an operation failed that nobody but its schedule tries again, if that may help.
fn passing(operation: &Operation) -> Option<(Timestamp, &OperationError)> {
    let status = operation.status.as_ref()?;
    let is_ours = operation.spec.target.kind == SCHEDULE.kind && status.state == OperationState::Failed;
    let error = status.error.as_ref().filter(|error| is_ours && error.retryable)?;
    Some((time(&status.finished_at)?, error))
}

/// Waits until a schedule was changed, or an operation that one began; `false` if nothing changes any more.
async fn concerned(store: &Store, newest: &mut watch::Receiver<u64>, mut seen: u64) -> bool {
    while newest.changed().await.is_ok() {
        newest.mark_unchanged();
        loop {
            // Whoever cannot tell what has changed looks.
            let Ok(changes) = store.changes(seen, BATCH).await else { return true };
            let Some(last) = changes.last() else { break };
            seen = last.resource_version;
            if changes.iter().any(|change| concerns(change)) {
                return true;
            }
        }
    }
    false
}

fn concerns(change: &Change) -> bool {
    let begun = |source: &serde_json::Value| source == SOURCE;
    *change.kind == SCHEDULE
        || (change.kind == Operation::registration()
            && change.object.pointer("/spec/actor/source").is_some_and(begun)
            && ended(change))
}

/// Only the end of an operation is of interest.
fn ended(change: &Change) -> bool {
    let state = change.object.pointer("/status/state").cloned().unwrap_or_default();
    serde_json::from_value::<OperationState>(state).is_ok_and(OperationState::finished)
}
