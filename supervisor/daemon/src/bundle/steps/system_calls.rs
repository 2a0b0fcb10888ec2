//! Which system calls a service may make: looked at before anything is changed, and read when the unit is started.

use berth_model::condition::Reason;
use berth_model::plan::SystemCalls;
use berth_model::resource::bundle::{BundleSpec, SeccompProfile, SeccompProfileType};

use super::Steps;
use crate::bundle::seams::ProfileFailure;
use crate::operation::StepError;

impl Steps {
    /// What the plan says of it.
    pub(super) async fn system_calls(&self, wish: &BundleSpec, reason: Reason) -> Result<SystemCalls, StepError> {
        let Some(SeccompProfile { kind, localhost_profile }) = &wish.security.seccomp_profile else {
            return Ok(SystemCalls::default());
        };
        match kind {
            SeccompProfileType::RuntimeDefault => Ok(SystemCalls::RuntimeDefault),
            SeccompProfileType::Baseline => Ok(SystemCalls::Baseline),
            SeccompProfileType::Localhost => {
                let found = self.machine.profile(localhost_profile.as_deref().unwrap_or_default()).await;
                found.map(SystemCalls::Narrowed).map_err(|failure| unusable(reason, failure))
            }
        }
    }
}

fn unusable(reason: Reason, failure: ProfileFailure) -> StepError {
    let error = StepError::new(reason, failure.to_string());
    let error = match failure {
        ProfileFailure::Absent(_) => error.coded("SeccompProfileNotFound").suggest(
            "write the profile there, in OCI's form (`defaultAction`, `syscalls`); it is looked for again by itself",
        ),
        ProfileFailure::Unusable { source, .. } => error
            .coded("SeccompProfileInvalid")
            .suggest("correct the file as the error says; it is read again by itself")
            .caused_by(source),
    };
    error.suggest("or choose another one in spec.security.seccompProfile")
}
