//! What the bundle domain asks of the rest: one small trait per neighbour, implemented for real in
//! `daemon.rs` and by scripted fakes in the tests.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::path::PathBuf;

use berth_model::allocation::Pool;
use berth_model::plan::{Ending, Plan};
use berth_model::projection::Missing;
use berth_model::provided::Provided;
use berth_model::readiness::Standing;
use berth_model::resource::bundle::health::Look;
use berth_model::resource::bundle::{BundleSpec, VolumeWish};
use berth_model::resource::revision::ResolvedImage;
use futures_util::future::BoxFuture;

use super::BundleKey;
use super::unit::UnitRequest;
use crate::operation::{Progress, StepError};

/// Whatever went wrong beneath.
pub type Cause = Box<dyn Error + Send + Sync>;

/// What systemd says of a unit, and how its last run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Where it is.
    pub state: UnitState,
    /// Host pid of the container's init, 0 for none.
    pub main_pid: u32,
    /// Restarts by systemd since it was started.
    pub restarts: u64,
    /// systemd's invocation id, empty for none.
    pub invocation: String,
    /// The newest ending on record.
    pub ending: Option<Ending>,
    /// It was started since the machine was: its plan is there.
    pub planned: bool,
    /// How its health stands, if it is looked at; systemd knows nothing of it.
    pub health: Option<Standing>,
}

impl Observed {
    /// Something of a start since the machine's own is left.
    pub fn was_started(&self) -> bool {
        self.state != UnitState::Absent || self.planned || self.ending.is_some()
    }
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitState {
    /// systemd does not know it.
    #[default]
    Absent,
    /// Start-up, or waiting to be started again after a crash.
    Activating,
    /// Up.
    Active,
    /// Going down.
    Deactivating,
    /// Down without a failure.
    Inactive,
    /// Down after a failure, and systemd has given up on it.
    Failed,
}

/// What came of starting a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The start job succeeded.
    Done,
    /// It ran already.
    AlreadyRunning,
    /// The start job failed; [`Machine::observe`] and the journal say how.
    Failed,
}

/// The machine's units and what belongs to them.
pub trait Machine: Send + Sync + 'static {
    /// Writes the plan and what goes with it and starts the unit; whatever an earlier run left under
    /// the name is cleared.
    fn start(&self, unit: UnitRequest, plan: Plan, provided: Provided) -> BoxFuture<'_, Result<Started, Cause>>;
    /// Stops the unit if it is there and lets systemd forget it.
    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>>;
    /// How it fares; keeps a hold on it, so that its end stays readable.
    fn observe<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Observed, Cause>>;
    /// Removes the plan with what goes with it and the records of its endings.
    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>>;
    /// Somebody accepts TCP connections there.
    fn accepts<'a>(&'a self, address: &'a str, port: u16) -> BoxFuture<'a, bool>;
    /// Looks at a running container in the way its bundle says; what is wrong, in one line.
    fn look_into<'a>(&'a self, id: &'a str, address: &'a str, look: Look<'a>) -> BoxFuture<'a, Result<(), String>>;
    /// The system call filter of a profile of this machine's administrator.
    fn profile<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<u64>, ProfileFailure>>;
    /// The newest lines of its output, oldest first.
    fn last_lines<'a>(&'a self, id: &'a str, count: u32) -> BoxFuture<'a, Result<Vec<String>, Cause>>;
}

/// The images.
pub trait Images: Send + Sync + 'static {
    /// What the reference means now: `registry/repository@sha256:...`.
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<String, ImageFailure>>;
    /// Pulls and unpacks what is missing.
    fn ensure<'a>(&'a self, pinned: &'a str, progress: Progress) -> BoxFuture<'a, Result<ResolvedImage, ImageFailure>>;
    /// The program that would be run is there and executable.
    fn check_program<'a>(
        &'a self,
        image: &'a ResolvedImage,
        spec: &'a BundleSpec,
    ) -> BoxFuture<'a, Result<(), ImageFailure>>;
}

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageFailure {
    /// One word for programs.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub suggestion: String,
    /// Trying again without a change may help.
    pub retryable: bool,
    /// Why.
    #[source]
    pub source: Option<Cause>,
}

/// A system call profile cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileFailure {
    /// There is no such file.
    #[error("this machine has no system call profile {}", .0.display())]
    Absent(PathBuf),
    /// It is there, and is none or cannot be read.
    #[error("the system call profile {} cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
}

/// The disks of bundles. A failure says what to do about which volume.
pub trait Volumes: Send + Sync + 'static {
    /// Makes records, keys and files of those that are not there yet; how many.
    fn allocate<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> BoxFuture<'a, Result<u32, StepError>>;
    /// Formats what was allocated; how many.
    fn format<'a>(&'a self, of: &'a BundleKey) -> BoxFuture<'a, Result<u32, StepError>>;
    /// Removes what was allocated and never formatted.
    fn discard_unfinished<'a>(&'a self, of: &'a BundleKey) -> BoxFuture<'a, Result<(), StepError>>;
    /// Makes their devices.
    fn open<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> BoxFuture<'a, Result<(), StepError>>;
    /// Removes the devices of all volumes that were made for the bundle, but for these.
    fn close<'a>(&'a self, of: &'a BundleKey, but: &'a [VolumeWish]) -> BoxFuture<'a, Result<(), StepError>>;
    /// Makes the files and devices longer of those that are to have more room; how many.
    fn grow_images<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> BoxFuture<'a, Result<u32, StepError>>;
    /// Lets their filesystems take it.
    fn grow_filesystems<'a>(&'a self, of: &'a BundleKey) -> BoxFuture<'a, Result<(), StepError>>;
    /// Makes the encrypted disk of so many bytes for the writable layer of the revision with that uid.
    fn make_scratch<'a>(
        &'a self,
        of: &'a BundleKey,
        revision: &'a str,
        size: u64,
    ) -> BoxFuture<'a, Result<(), StepError>>;
    /// Removes it; fine when there is none.
    fn remove_scratch<'a>(&'a self, of: &'a BundleKey, revision: &'a str) -> BoxFuture<'a, Result<(), StepError>>;
    /// Gives a growth up.
    fn stop_growing<'a>(&'a self, of: &'a BundleKey) -> BoxFuture<'a, Result<(), StepError>>;
}

/// The machine's network.
pub trait Net: Send + Sync + 'static {
    /// Brings bridges and rules to what the store says.
    fn configure(&self) -> BoxFuture<'_, Result<(), Cause>>;
    /// A program outside the containers listens on the machine's port.
    fn occupied(&self, port: u16, udp: bool) -> BoxFuture<'_, Result<bool, Cause>>;
    /// Connections to these addresses that are not at their end.
    fn connected<'a>(&'a self, to: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<usize, Cause>>;
    /// Forgets the connections of addresses that nobody answers at any more: what still comes is looked at anew.
    fn forget<'a>(&'a self, gone: &'a BTreeSet<IpAddr>) -> BoxFuture<'a, Result<(), Cause>>;
    /// Where these pools overlap networks of the machine's other links, a sentence each.
    fn overlaps(&self, pools: Vec<Pool>) -> BoxFuture<'_, Result<Vec<String>, Cause>>;
}

/// What bundles take from ConfigMaps and Secrets.
pub trait Provider: Send + Sync + 'static {
    /// Looks without opening anything: what tells the present values from others, empty if the
    /// bundle asks for nothing; or what is missing.
    fn survey<'a>(&'a self, namespace: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Survey, Cause>>;
    /// The values.
    fn provide<'a>(&'a self, namespace: &'a str, spec: &'a BundleSpec) -> BoxFuture<'a, Result<Provided, Unprovided>>;
}

/// What was found of all that a bundle asks for.
pub type Survey = Result<String, Vec<Missing>>;

/// A bundle cannot be given what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Unprovided {
    /// Somebody has to write it first.
    #[error("something is missing")]
    Missing(Vec<Missing>),
    /// It is there and cannot be read.
    #[error("reading what the bundle takes from ConfigMaps and Secrets")]
    Failed(#[source] Cause),
}
