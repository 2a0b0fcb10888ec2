//! An installation: the version that runs, copied onto another disk of this machine, with data of its own.
//!
//! ```text
//! check ─> system ─> data ─> start ─> report
//! ```
//!
//! Nothing is written before all of [`check`] has passed. Each phase can be begun again from the start: what is cut off
//! leaves a disk that is known as ours and unfinished, and which is then written anew without anybody's leave.

mod check;
mod data;
mod start;
mod system;

use berth_host::cmd::CmdError;
use berth_host::fs::FsError;

use crate::config::Config;
use crate::disks::{self, DiskError};
use crate::http::HttpError;
use crate::mode::Origin;
use crate::seam::{Outcome, Phase, Progress};
use crate::seed::Laid;
use crate::volume::VolumeError;
use crate::words;

pub use check::{Plan, check, id};

/// What is installed, and how it came here.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is wanted.
    pub config: Config,
    /// The same, as it was written: it goes with the machine, and tells one installation from another.
    pub text: String,
    /// Files that it names, with what is in them.
    pub files: Vec<Laid>,
    /// Where it came from; none if somebody typed it.
    pub origin: Option<Origin>,
}

/// Why an installation ended before its end.
#[derive(Debug)]
pub struct Failed {
    /// Where.
    pub phase: Phase,
    /// Why.
    pub why: Why,
}

impl Failed {
    fn at<E: Into<Why>>(phase: Phase) -> impl Fn(E) -> Self {
        move |error| Self { phase, why: error.into() }
    }

    /// Why, with all that led to it.
    pub fn what(&self) -> String {
        words::chain(&self.why)
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match (&self.why, self.phase) {
            (Why::Refused { remedy, .. }, _) => remedy.clone(),
            (_, Phase::Check) => "nothing was written; mend this and start again".to_owned(),
            _ => "start again: what was begun is done anew. The journal (journalctl) says more".to_owned(),
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The configuration does not go with this machine.
    #[error("{what}")]
    Refused {
        /// What was found.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Disks.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A program.
    #[error("running a program")]
    Program(#[from] CmdError),
    /// Files.
    #[error(transparent)]
    Files(#[from] FsError),
    /// The network.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl Why {
    /// What was found, and what to do.
    pub fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), remedy: remedy.into() }
    }
}

/// Told how far it is.
pub type Tell<'a> = &'a (dyn Fn(&Progress) + Sync);

/// Carries an order out.
///
/// # Errors
/// [`Failed`], which has been told as well.
pub async fn install(order: &Order, tell: Tell<'_>) -> Result<Outcome, Failed> {
    let done = phases(order, tell).await;
    match &done {
        Ok(outcome) => tell(&Progress::Finished(outcome.clone())),
        Err(failed) => {
            tell(&Progress::Failed { phase: failed.phase, what: failed.what(), remedy: failed.remedy() });
        }
    }
    done
}

/// Has the firmware start the disk whose data partition has that id.
///
/// # Errors
/// [`Failed`] in the phase [`Phase::Start`]: there is none.
pub async fn start_installed(id: &str) -> Result<(), Failed> {
    let failed = |why| Failed { phase: Phase::Start, why };
    let disks = disks::list().await.map_err(|error| failed(error.into()))?;
    let disk = disks.into_iter().find(|disk| disk.installed.as_deref() == Some(id));
    let Some(disk) = disk else {
        let what = "something was installed from this medium, on a disk that is not there now";
        return Err(failed(Why::refused(what, "remove the medium, or put a berth.toml on it to install again")));
    };
    start::next(&disk).await.map_err(failed)
}

async fn phases(order: &Order, tell: Tell<'_>) -> Result<Outcome, Failed> {
    let begin = |phase| tell(&Progress::Began(phase));
    let end = |phase| tell(&Progress::Ended(phase));
    begin(Phase::Check);
    let plan = check(order).await.map_err(Failed::at(Phase::Check))?;
    end(Phase::Check);
    let mut recovery_code = String::new();
    if !plan.again {
        begin(Phase::System);
        system::write(&plan, tell).await.map_err(Failed::at(Phase::System))?;
        end(Phase::System);
        begin(Phase::Data);
        recovery_code = data::make(&plan, order).await.map_err(Failed::at(Phase::Data))?;
        end(Phase::Data);
    }
    begin(Phase::Start);
    system::entries(&plan.disk).await.map_err(Failed::at(Phase::Start))?;
    start::next(&plan.disk).await.map_err(Failed::at(Phase::Start))?;
    end(Phase::Start);
    let hostname = order.config.hostname.as_ref().map_or("berth", |name| name.as_str());
    Ok(Outcome { recovery_code, url: format!("https://{hostname}.local:6443"), claim: None })
}
