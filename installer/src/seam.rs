//! What the installer's interface asks of the machine, and hears from it. Those who show and those who write meet here.

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use serde::Serialize;

use crate::config::{Action, Bus, Config, Keymap};
use crate::findings::Finding;

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its device, e.g. `/dev/vda`.
    pub path: PathBuf,
    /// Names that it keeps from start to start, e.g. `/dev/disk/by-id/virtio-1`.
    pub ids: Vec<PathBuf>,
    /// As its maker wrote it.
    pub serial: Option<String>,
    /// As its maker calls it.
    pub model: Option<String>,
    /// How it is connected; none if it is by something else than one may ask for.
    pub bus: Option<Bus>,
    /// How much it holds.
    pub bytes: u64,
    /// Whether it is made to be pulled out.
    pub removable: bool,
    /// Whether the running system came from it, so that it cannot be written.
    pub boots_this: bool,
    /// What is on it, e.g. `ext4, 3 partitions`; none, if it is blank.
    pub content: Option<String>,
    /// An installation of Berth began on it and did not come to its end: nothing of anybody's is there.
    pub unfinished: bool,
    /// Id of the data partition that a finished installation made on it.
    pub installed: Option<String>,
}

impl Disk {
    /// The last part of its device: `vda`.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// A part of an installation. Each can be begun again, and the first writes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The configuration and the machine go together.
    Check,
    /// The disk is divided, and the system that runs is copied.
    System,
    /// The place for data is made and encrypted.
    Data,
    /// The machine is made to start from it.
    Start,
    /// Whoever wants to know is told.
    Report,
}

impl Phase {
    /// All, in their order.
    pub const ALL: [Phase; 5] = [Self::Check, Self::System, Self::Data, Self::Start, Self::Report];

    /// What the installer ends with when this phase fails.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Check => 10,
            Self::System => 20,
            Self::Data => 30,
            Self::Start => 40,
            Self::Report => 50,
        }
    }

    /// What is done in it, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Check => "Check that all fits together",
            Self::System => "Copy the system",
            Self::Data => "Encrypt the place for data",
            Self::Start => "Make the machine start from it",
            Self::Report => "Report",
        }
    }
}

/// How far an installation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A phase began.
    Began(Phase),
    /// So much of a phase is done, in any unit.
    Part {
        /// Which.
        phase: Phase,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// A phase ended well.
    Ended(Phase),
    /// A phase failed, and with it all; nothing more is said.
    Failed {
        /// Which.
        phase: Phase,
        /// What went wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// All is done; nothing more is said.
    Finished(Outcome),
}

/// What an installed machine's owner has to know. It is not kept anywhere, and `Debug` does not show what is secret of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What opens the data when the TPM does not: groups with `-` between them.
    pub recovery_code: String,
    /// Where the panel will be.
    pub url: String,
    /// What makes somebody the owner; none, if there is one already.
    pub claim: Option<String>,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The machine that is installed.
pub trait Machine: Sync {
    /// The disks that it has now.
    fn disks(&self) -> Vec<Disk>;
    /// Whether it can hold Berth.
    fn findings(&self) -> Vec<Finding>;
    /// Uses a keymap on the console from now on. A machine without one, as on a serial line, leaves it.
    fn use_keyboard(&self, keymap: &Keymap);
    /// Installs. It returns when it has said [`Progress::Failed`] or [`Progress::Finished`]; it may be called again then.
    fn install(&self, config: Config, progress: Sender<Progress>);
    /// Restarts or switches off.
    fn finish(&self, action: Action);
}
