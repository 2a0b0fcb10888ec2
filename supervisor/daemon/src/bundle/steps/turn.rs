//! Before a unit starts: what it depends on comes first, if it is on its way ([`crate::bundle::turn`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_model::resource::operation::OperationKind;
use berth_model::resource::{Bundle, Settings, settings};
use tokio::time::{sleep, timeout};

use super::{Steps, store_failed};
use crate::bundle::turn::awaited;
use crate::operation::{StepError, Task};
use crate::store::{EventType, StoreError, Tx};

/// How long a bundle waits for others at most: as long as systemd gives a unit to start.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often it looks at most, however much happens meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Who waits at present.
#[derive(Debug)]
pub struct Turns {
    patience: Duration,
    waiting: AtomicUsize,
}

/// One that waits, until it is dropped.
struct Waits<'a>(&'a Turns);

impl Turns {
    /// Nobody waits longer than that.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, waiting: AtomicUsize::new(0) }
    }

    /// One more, if that many may wait.
    fn join(&self, most: usize) -> Option<Waits<'_>> {
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok().map(|_| Waits(self))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Steps {
    /// Waits for its turn, and starts anyway when that takes too long. An update does not wait: it replaces what
    /// serves.
    pub(super) async fn await_turn(&self, task: &Task) -> Result<(), StepError> {
        if !matches!(task.spec.kind, OperationKind::Install | OperationKind::Start) {
            return Ok(());
        }
        match timeout(self.turns.patience, self.until_turn(task)).await {
            Ok(done) => done,
            Err(_) => self.lose_patience(task).await,
        }
    }

    async fn until_turn(&self, task: &Task) -> Result<(), StepError> {
        let (mut newest, mut told, mut waits) = (self.store.revision(), BTreeSet::new(), None);
        loop {
            newest.mark_unchanged();
            let awaited = self.awaited(task).await?;
            if awaited.is_empty() {
                return Ok(());
            }
            if waits.is_none() {
                // Whoever waits holds a place among the operations, of which those that it waits for need one.
                waits = self.turns.join(self.places().await? / 2);
            }
            if waits.is_none() {
                return Ok(());
            }
            if awaited != told {
                task.progress.report(0, format!("waits until {} ready", shown(&awaited)));
                told = awaited;
            }
            sleep(LOOK_EVERY).await;
            if newest.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn awaited(&self, task: &Task) -> Result<BTreeSet<String>, StepError> {
        let target = task.spec.target.clone();
        let found = self.store.read(move |tx| awaited(tx, &target.namespace, &target.name)).await;
        found.map_err(|error| store_failed(error, "looking at what the bundle depends on"))
    }

    /// How many operations may be at work at once.
    async fn places(&self) -> Result<usize, StepError> {
        let found = self.store.read(|tx| tx.get::<Settings>("", settings::NAME)).await;
        let found = found.map_err(|error| store_failed(error, "looking up how many operations may be at work"))?;
        Ok(found.map(|found| found.spec.operations).unwrap_or_default().parallel.into())
    }

    async fn lose_patience(&self, task: &Task) -> Result<(), StepError> {
        let awaited = self.awaited(task).await?;
        if awaited.is_empty() {
            return Ok(());
        }
        let waited = self.turns.patience.as_secs();
        let message = format!("it starts after {waited} s though {} not ready, on which it depends", shown(&awaited));
        let target = task.spec.target.clone();
        let tell = move |tx: &mut Tx<'_>| match tx.get::<Bundle>(&target.namespace, &target.name)? {
            Some(bundle) => tx.emit_event(&bundle, EventType::Warning, "DependencyNotReady", &message),
            None => Ok::<_, StoreError>(()),
        };
        self.record(tell).await.map_err(|error| store_failed(error, "telling what it did not wait for"))
    }
}

/// `db is`, `cache and db are`.
fn shown(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match names.as_slice() {
        [one] => format!("bundle {one} is"),
        many => format!("bundles {} are", many.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_may_wait_than_leave_a_place_to_those_they_wait_for() {
        let turns = Turns::new(PATIENCE);
        assert!(turns.join(0).is_none(), "the only place");
        let first = turns.join(1);
        assert!(first.is_some() && turns.join(1).is_none());
        drop(first);
        assert!(turns.join(1).is_some());
    }
}
