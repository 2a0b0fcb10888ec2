//! Points at which a test lets the daemon die.
//!
//! Off unless the environment names a file. A test writes `<kind>/<step>/<moment>` into that file;
//! the daemon that reaches the point removes the file and kills itself with SIGKILL, as a power cut
//! would. The points are made of the step names, so every step has them without further code.

use std::path::PathBuf;

use berth_model::resource::operation::{OperationKind, StepName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::error;

/// Names the file that holds the wanted point.
pub const ABORT_FILE_VARIABLE: &str = "BERTH_ABORT_FILE";

/// Where to die, if anywhere.
#[derive(Clone, Default)]
pub struct AbortPoints {
    file: Option<PathBuf>,
    #[cfg(test)]
    hook: Option<Hook>,
}

#[cfg(test)]
type Hook = std::sync::Arc<dyn Fn(&str) + Send + Sync>;

impl AbortPoints {
    /// Points are taken from this file; `None` switches them off.
    pub fn from_file(file: Option<PathBuf>) -> Self {
        Self {
            file,
            #[cfg(test)]
            hook: None,
        }
    }

    /// Calls `hook` with every point that is reached.
    #[cfg(test)]
    pub(crate) fn calling(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { hook: Some(std::sync::Arc::new(hook)), ..Self::default() }
    }

    /// Dies here if this is the wanted point.
    pub(super) fn reached(&self, kind: OperationKind, step: StepName, moment: &str) {
        let point = format!("{kind:?}/{step:?}/{moment}");
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            hook(&point);
        }
        let Some(file) = &self.file else { return };
        let Ok(wanted) = std::fs::read_to_string(file) else { return };
        if wanted.trim() != point {
            return;
        }
        if let Err(error) = std::fs::remove_file(file).and_then(|()| Ok(kill(Pid::this(), Signal::SIGKILL)?)) {
            error!(%error, "an abort point was reached, but dying failed");
        }
    }
}
