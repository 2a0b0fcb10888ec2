//! The step of a cleanup that a schedule has begun.

use berth_model::condition::Reason;
use berth_model::quantity::about_bytes;
use berth_model::resource::operation::StepName;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::{Cleaner, CleanupError};
use crate::operation::{Executor, StepDone, StepError, Task};

impl Executor for Cleaner {
    fn apply<'a>(&'a self, _: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>> {
        Box::pin(async move {
            match step {
                StepName::RemoveUnneeded => self.remove_unneeded().await,
                _ => {
                    Err(StepError::new(Reason::WorkloadFailed, format!("{step:?} is no step of a cleanup")).permanent())
                }
            }
        })
    }

    /// Nothing that was removed comes back, nor was it needed.
    fn compensate<'a>(&'a self, _: &'a Task, _: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Cleaner {
    pub(super) async fn remove_unneeded(&self) -> Result<StepDone, StepError> {
        let report = self.run(false).await.map_err(failed)?;
        let freed = report.freed.unwrap_or_default();
        let message = format!("removed {}; the data disk has {} more room", report.plan.counts(), about_bytes(freed));
        Ok(StepDone::said(message).keeping("removed", json!(report.plan.items.len())).keeping("freed", json!(freed)))
    }
}

fn failed(error: CleanupError) -> StepError {
    let busy = error.is_busy();
    let failed = StepError::new(Reason::WorkloadFailed, "cleaning up failed").caused_by(error);
    match busy {
        true => failed
            .coded("ImagesBusy")
            .suggest("nothing to do: its schedule tries again soon, when no image is being pulled any more"),
        false => failed.coded("CleanupFailed").suggest("see `journalctl -u berthd`"),
    }
}
