//! What people are told when something about a volume fails.

use berth_model::condition::Reason;
use berth_model::quantity::{about_bytes, show_bytes};
use berth_model::resource::volume::VolumeState;

use super::admission::Shortage;
use super::seams::{DiskError, KeyFailure};
use crate::operation::StepError;
use crate::store::StoreError;

/// A failure that is also noted on the volume.
pub(super) struct Failed(pub(super) StepError);

impl Failed {
    pub(super) fn new(error: StepError) -> Self {
        Self(error)
    }

    /// What the volume's record says of it.
    pub(super) fn noted(&self) -> String {
        match &self.0.source {
            Some(source) => format!("{}: {}", self.0.message, crate::log::chain(&**source)),
            None => self.0.message.clone(),
        }
    }
}

impl KeyFailure {
    /// As a failed step: nobody's volume can be opened.
    pub(super) fn locked(self, name: &str) -> StepError {
        let message = format!("the key of volume {name} cannot be had");
        StepError::new(Reason::WorkloadFailed, message).coded("KeysLocked").caused_by(self.source)
    }
}

/// Its erasure would be that of others, too, or cannot be carried out.
pub(super) fn not_erased(name: &str, failure: KeyFailure) -> StepError {
    let error = StepError::new(Reason::WorkloadFailed, format!("volume {name} is not erased, nothing was changed"));
    error.coded("KeysDamaged").caused_by(failure.source).permanent()
}

pub(super) fn damaged_key(name: &str, failure: KeyFailure) -> Failed {
    let message = format!("volume {name} cannot be opened");
    let error = StepError::new(Reason::WorkloadFailed, message).coded("VolumeDamaged");
    Failed(error.suggest("nothing was changed on its disk").caused_by(failure.source))
}

pub(super) fn disk_failed(name: &str, doing: &str, error: DiskError) -> StepError {
    if let DiskError::DoesNotFit(shortage) = error {
        return does_not_fit(&format!("volume {name}"), &shortage);
    }
    let failed = StepError::new(Reason::WorkloadFailed, format!("volume {name}: {doing} failed"));
    match error {
        error if error.is_damage() => failed
            .coded("VolumeDamaged")
            .suggest("nothing was changed on it: put the file back that belongs there, or restore a backup")
            .suggest(format!("only if its data is worth nothing: berth volume erase {name}"))
            .caused_by(error),
        error @ DiskError::Busy(_) => {
            failed.coded("VolumeInUse").suggest("see who uses it: a service that is not yet down").caused_by(error)
        }
        error => failed.suggest("look at `journalctl -u berthd`").caused_by(error),
    }
}

/// The disk of a writable layer holds nothing that anybody could lose.
pub(super) fn scratch_failed(bundle: &str, doing: &str, error: DiskError) -> StepError {
    let what = format!("the ephemeral storage of {bundle}");
    if let DiskError::DoesNotFit(shortage) = error {
        return does_not_fit(&what, &shortage);
    }
    let failed = StepError::new(Reason::WorkloadFailed, format!("{what}: {doing} failed"));
    failed.suggest("look at `journalctl -u berthd`").caused_by(error)
}

fn does_not_fit(what: &str, shortage: &Shortage) -> StepError {
    let Shortage { wanted, free, reserve } = *shortage;
    let message = format!(
        "{what} does not fit: {} more are wanted and {} are free on the data disk, of which {} are kept back",
        about_bytes(wanted),
        about_bytes(free),
        about_bytes(reserve)
    );
    let error = StepError::new(Reason::WorkloadFailed, message).coded("VolumeDoesNotFit");
    let error = match shortage.to_ask_for() {
        Some(fits) => error.suggest(format!("ask for {} at most", show_bytes(fits))),
        None => error,
    };
    error.suggest("make room: `berth volume list`, `berth image prune`")
}

pub(super) fn too_small(name: &str, present: u64, asked: &str) -> StepError {
    let message = format!("volume {name} has {} and never shrinks; {asked} is less", show_bytes(present));
    StepError::new(Reason::WorkloadFailed, message)
        .coded("VolumeShrinks")
        .suggest(format!("ask for {} or more, or give the volume another name", show_bytes(present)))
        .permanent()
}

pub(super) fn name_taken(name: &str, bundle: &str, volume: &str) -> StepError {
    let message = format!("the name {name} is taken by volume {volume} of bundle {bundle}");
    let error = StepError::new(Reason::WorkloadFailed, message).coded("VolumeNameTaken");
    error.suggest("give bundle or volume another name").permanent()
}

/// Its state, or its absence, forbids to use it.
pub(super) fn not_usable(name: &str, state: Option<VolumeState>) -> StepError {
    let (what, instead) = match state {
        None => ("is not there", "install or update the bundle again: that makes it".to_owned()),
        Some(VolumeState::Locked) => ("is locked", format!("berth volume unlock {name}")),
        Some(VolumeState::Erasing) => {
            ("is being erased", "wait until that is done; the next start makes a new one".to_owned())
        }
        Some(_) => ("is not ready yet", format!("see how it stands: berth volume list, berth describe volume {name}")),
    };
    StepError::new(Reason::WorkloadFailed, format!("volume {name} {what}")).coded("VolumeNotReady").suggest(instead)
}

pub(super) fn store_failed(error: StoreError) -> StepError {
    StepError::new(Reason::WorkloadFailed, "reading or writing the records of a volume failed")
        .suggest("look at `journalctl -u berthd` and at the free space of /var/lib/berth")
        .caused_by(error)
}
