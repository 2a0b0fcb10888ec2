//! What a bundle takes from ConfigMaps and Secrets: found before anything is changed, read again
//! when the unit is started, and never kept in a record.

use berth_model::condition::Reason;
use berth_model::projection::Missing;
use berth_model::provided::Provided;
use berth_model::resource::bundle::BundleSpec;
use serde_json::Value;

use super::{Done, Steps};
use crate::bundle::seams::{Cause, Unprovided};
use crate::operation::{StepDone, StepError, Task};

/// Under which the step keeps what tells the values it found from later ones.
const RESULT: &str = "provided";

impl Steps {
    /// Makes sure that all is there and can be read.
    pub(super) async fn provision_secrets(&self, task: &Task) -> Done {
        let spec = match task.spec.kind {
            kind if kind.makes_revision() => self.bundle(task).await?.spec,
            _ => self.subject(task).await?.spec.bundle_spec,
        };
        // In this order: values written in between are taken up by an update, not overlooked.
        let survey = self.provider.survey(&task.spec.target.namespace, &spec).await.map_err(unreadable)?;
        let present = survey.map_err(|missing| absent(&missing))?;
        self.provide(task, &spec).await?;
        let done =
            StepDone::said(if present.is_empty() { "nothing is asked for" } else { "all that is asked for is there" });
        Ok(done.keeping(RESULT, Value::String(present)))
    }

    /// The values as they are now.
    pub(super) async fn provide(&self, task: &Task, spec: &BundleSpec) -> Result<Provided, StepError> {
        let provided = self.provider.provide(&task.spec.target.namespace, spec).await;
        provided.map_err(|error| match error {
            Unprovided::Missing(missing) => absent(&missing),
            Unprovided::Failed(cause) => unreadable(cause),
        })
    }
}

/// What the step has found, empty in records from before there was one.
pub(super) fn found(task: &Task) -> String {
    task.results.get(RESULT).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn absent(missing: &[Missing]) -> StepError {
    let reason = if missing.iter().all(Missing::may_come) { Reason::SecretsPending } else { Reason::SecretsFailed };
    let error = StepError::new(reason, sentence(missing));
    let error = missing.iter().map(Missing::advice).fold(error, StepError::suggest);
    match reason {
        Reason::SecretsPending => error.suggest("the service goes on by itself as soon as that is done"),
        _ => error,
    }
}

/// All that is missing, in one line.
pub fn sentence(missing: &[Missing]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and ")
}

fn unreadable(cause: Cause) -> StepError {
    StepError::new(Reason::SecretsFailed, "what the service takes from ConfigMaps and Secrets cannot be read")
        .suggest("look at `journalctl -u berthd`")
        .caused_by(cause)
}
