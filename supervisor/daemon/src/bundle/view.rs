//! Everything a decision about one bundle is made from.

use std::collections::BTreeMap;

use berth_model::condition::Reason;
use berth_model::resource::Volume;
use berth_model::resource::bundle::{Bundle, rollout_part};
use berth_model::resource::operation::{Operation, OperationKind, OperationState, OperationStatus};
pub use berth_model::resource::revision::state_of;
use berth_model::resource::revision::{Revision, RevisionState, find, serving};
use berth_model::resource::volume::VolumeState;
use jiff::Timestamp;

use super::seams::{Observed, Survey};

/// A bundle with all that the store and systemd know of it.
#[derive(Clone, Debug)]
pub struct View {
    /// The bundle.
    pub bundle: Bundle,
    /// Its revisions, by number.
    pub revisions: Vec<Revision>,
    /// Volumes that were made for it.
    pub volumes: Vec<Volume>,
    /// Operations on it, the oldest first.
    pub operations: Vec<Operation>,
    /// What was seen of the units of revisions that may have one, by number.
    pub observed: BTreeMap<u64, Observed>,
    /// What was found of all that it takes from ConfigMaps and Secrets.
    pub survey: Survey,
    /// The bundle that this one was before it got another name is not gone yet.
    pub old_name_leaves: bool,
    /// Now.
    pub now: Timestamp,
}

/// Container id of a revision.
pub fn container_id(revision: &Revision) -> String {
    let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}.{}.r{}", revision.spec.bundle, revision.spec.number)
}

/// Uid of a revision; empty before it was stored.
pub fn uid_of(revision: &Revision) -> &str {
    revision.metadata.uid.as_deref().unwrap_or_default()
}

/// Unit name of a container id.
pub fn unit_name(id: &str) -> String {
    format!("berth.{id}.service")
}

/// Container id of a unit name.
pub fn container_of(unit: &str) -> Option<&str> {
    unit.strip_prefix("berth.")?.strip_suffix(".service")
}

/// State of an operation.
pub fn operation_state(operation: &Operation) -> OperationState {
    operation.status.as_ref().map(|status| status.state).unwrap_or_default()
}

/// It waits for something that may take long.
pub fn rests(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(OperationStatus::rests)
}

fn gave_up(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(OperationStatus::gave_up)
}

impl View {
    /// The revision that serves, or would if it were started.
    pub fn active(&self) -> Option<&Revision> {
        serving(&self.revisions)
    }

    /// The revision that is being stopped because a newer one serves.
    pub fn retiring(&self) -> Option<&Revision> {
        self.revisions.iter().find(|revision| state_of(revision) == RevisionState::Retiring)
    }

    /// The operation that is at work or next. One that rests may do so for days: the bundle is looked after meanwhile.
    pub fn unfinished(&self) -> Option<&Operation> {
        self.operations.iter().find(|op| !operation_state(op).finished() && !rests(op))
    }

    /// What is waited for, if nothing is at work because of that.
    pub fn waiting(&self) -> Option<String> {
        let resting = self.operations.iter().find(|op| rests(op)).filter(|_| self.unfinished().is_none())?;
        let (name, status) = (resting.metadata.name.as_deref().unwrap_or_default(), resting.status.as_ref()?);
        let advice = format!("; `berth operation release {name}` lets {name} go on");
        let advice = if status.state == OperationState::Held { advice } else { String::new() };
        Some(format!("{:?} waits: {}{advice}.", resting.spec.kind, status.waiting))
    }

    /// One of these kinds was asked for, and is not to begin before something else is done.
    pub fn rests(&self, is_meant: impl Fn(OperationKind) -> bool) -> bool {
        self.operations.iter().any(|op| rests(op) && is_meant(op.spec.kind))
    }

    /// How the last operation ended, if it did not end well. A growth that nobody wants any more does
    /// not count.
    pub fn last_failure(&self) -> Option<&Operation> {
        self.operations
            .iter()
            .rev()
            .find(|op| operation_state(op).finished() && (op.spec.kind != OperationKind::Grow || self.wants_room()))
            .filter(|op| gave_up(op))
    }

    /// Failed and cancelled operations of the kind for this generation since the last that succeeded.
    pub fn failures_in_a_row(&self, kind: OperationKind) -> u32 {
        let generation = self.generation();
        let failed = self
            .operations
            .iter()
            .rev()
            .filter(|op| operation_state(op).finished())
            .take_while(|op| gave_up(op))
            .filter(|op| op.spec.kind == kind && op.spec.generation == generation)
            .count();
        u32::try_from(failed).unwrap_or(u32::MAX)
    }

    /// The bundle's generation.
    pub fn generation(&self) -> i64 {
        self.bundle.metadata.generation.unwrap_or_default()
    }

    /// A volume is to have more room than it has, and can have it now.
    pub fn wants_room(&self) -> bool {
        self.bundle.spec.volumes.iter().any(|wish| {
            let own = self.volumes.iter().find(|volume| volume.spec.volume == wish.name);
            let status = own.and_then(|volume| volume.status.as_ref());
            status.is_some_and(|status| {
                let can = matches!(status.state, VolumeState::Ready | VolumeState::Growing);
                can && wish.bytes().is_some_and(|bytes| bytes > status.size)
            })
        })
    }

    /// The rollback that was to make of the bundle what it is still wanted to be, and did not come to its end.
    pub fn open_rollback(&self) -> Option<&Operation> {
        let last = self.operations.iter().rev().find(|op| op.spec.kind.makes_revision())?;
        let goal = last.spec.rollback_to.and_then(|number| find(&self.revisions, number))?;
        let wanted = rollout_part(&goal.spec.bundle_spec) == rollout_part(&self.bundle.spec);
        (wanted && operation_state(last) != OperationState::Succeeded).then_some(last)
    }

    /// The serving revision was made from another wish.
    pub fn outdated(&self, active: &Revision) -> bool {
        rollout_part(&active.spec.bundle_spec) != rollout_part(&self.bundle.spec)
    }

    /// The serving revision was made from other values. Values that are gone are no news: what serves
    /// has them.
    pub fn has_new_values(&self, active: &Revision) -> bool {
        self.survey.as_ref().is_ok_and(|present| *present != active.spec.provided)
    }

    /// It was tried in vain because something was missing.
    pub fn waits_for_values(&self) -> bool {
        let error = self.last_failure().and_then(|op| op.status.as_ref()).and_then(|status| status.error.as_ref());
        error.is_some_and(|error| error.code == Reason::SecretsPending.name())
    }
}
