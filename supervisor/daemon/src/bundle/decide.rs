//! What to do next about a bundle: a pure function of a [`View`].
//!
//! Anything that takes more than one effect is an Operation, so the answer is at most one of those,
//! with the time to look again when it has to wait. Which revision serves and whether it runs is read
//! from the machine, never remembered:
//!
//! ```text
//!  being deleted ................................. Uninstall
//!  no revision serves ............................ Install (once the bundle it was under its old name is gone)
//!  (what it takes from ConfigMaps and Secrets is missing: tried once, then waited for)
//!  the serving one was made from another wish .... Update (or an older one is not yet gone), or Rollback
//!                                                  again, if that wish is of one that did not succeed
//!  ... from other values ......................... Update, unless somebody stopped it
//!  start: true,  unit down, nobody asked for it .. Start
//!  start: false, unit up ......................... Stop
//!  a volume is to have more room ................. Grow
//!  otherwise ..................................... nothing
//! ```

use std::time::Duration;

use berth_model::resource::bundle::RestartPolicy;
use berth_model::resource::operation::{Operation, OperationKind, Step, StepName, StepState};
use jiff::{SignedDuration, Timestamp};

use super::seams::{Observed, UnitState};
use super::view::View;
use crate::reconcile::backoff;

/// Starts after which a service is given time before the next one are counted over this long.
const START_WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// All is as it should be, or somebody is at it, or only a change can help.
    Nothing,
    /// Do this now.
    Now(OperationKind),
    /// Do this then.
    At(OperationKind, Timestamp),
}

/// How a stopped unit came to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Nothing says that it was up since the machine booted.
    NeverUp,
    /// Somebody stopped it with systemd.
    ByOperator,
    /// Its process ended by itself without a failure.
    Completed,
    /// It failed.
    Crashed,
}

/// The next thing to do.
pub fn decide(view: &View) -> Wish {
    if view.unfinished().is_some() {
        return Wish::Nothing;
    }
    // What somebody asked for to be done later is not done now.
    match wanted(view).filter(|kind| !view.rests(|resting| resting == *kind)) {
        Some(OperationKind::Install) if view.old_name_leaves => Wish::Nothing,
        Some(kind) => schedule(view, kind),
        None => Wish::Nothing,
    }
}

fn wanted(view: &View) -> Option<OperationKind> {
    use OperationKind as K;
    if view.bundle.metadata.deletion_timestamp.is_some() {
        return Some(K::Uninstall);
    }
    let Some(active) = view.active() else { return Some(K::Install) };
    // A revision that is still retiring is left of an update that failed at its very end.
    let later = view.rests(OperationKind::makes_revision);
    if !later && (view.outdated(active) || view.retiring().is_some()) {
        return Some(view.open_rollback().map_or(K::Update, |rollback| rollback.spec.kind));
    }
    let seen = view.observed.get(&active.spec.number)?;
    // Whoever wrote a value has not asked for a service that is meant to be down.
    let rests = is_down(seen).is_some_and(|down| start_again(down, view.bundle.spec.restart).is_none());
    if !later && view.has_new_values(active) && !rests {
        return Some(K::Update);
    }
    // A growth that fails waits longer and longer, and keeps nothing else from being done.
    let run = match (view.bundle.spec.start, seen.state) {
        (false, UnitState::Active | UnitState::Activating) => Some(K::Stop),
        (true, _) => is_down(seen).and_then(|down| start_again(down, view.bundle.spec.restart)),
        (false, _) => None,
    };
    run.or_else(|| view.wants_room().then_some(K::Grow))
}

/// A stop by hand is respected until the next start or reboot; a clean end and a crash are the
/// restart policy's to judge.
fn start_again(down: Down, policy: RestartPolicy) -> Option<OperationKind> {
    let again = match down {
        Down::NeverUp => true,
        Down::ByOperator => false,
        Down::Completed => policy == RestartPolicy::Always,
        Down::Crashed => policy != RestartPolicy::Never,
    };
    again.then_some(OperationKind::Start)
}

/// How it went down, if it is down for good.
pub fn is_down(seen: &Observed) -> Option<Down> {
    let ending = seen.ending.as_ref();
    let result = ending.and_then(|ending| ending.result.as_deref());
    match seen.state {
        UnitState::Activating | UnitState::Active | UnitState::Deactivating => None,
        // A program that ignored SIGTERM was killed in the end: a failure to systemd, a stop to people.
        UnitState::Failed if ending.is_some_and(|ending| ending.stop_asked) => Some(Down::ByOperator),
        UnitState::Failed => Some(Down::Crashed),
        UnitState::Absent | UnitState::Inactive => Some(match (ending, result) {
            (Some(ending), _) if ending.stop_asked => Down::ByOperator,
            (Some(_), Some("success")) => Down::Completed,
            // A stop during the wait before a restart runs no stop hook: a unit that crashed and is
            // not failed but gone was stopped then.
            (Some(_), Some(_)) if seen.state == UnitState::Inactive => Down::ByOperator,
            (Some(_), _) => Down::Crashed,
            (None, _) => Down::NeverUp,
        }),
    }
}

fn schedule(view: &View, kind: OperationKind) -> Wish {
    let missing = view.survey.is_err();
    // Only somebody who writes what is missing can help; that wakes us, and then at once.
    if missing && (kind == OperationKind::Start || waits(view, kind)) {
        return Wish::Nothing;
    }
    if !missing && waits(view, kind) {
        return Wish::Now(kind);
    }
    let failures = view.failures_in_a_row(kind);
    if failures > 0 && (!retryable(view) || interrupted_service(view)) {
        return Wish::Nothing;
    }
    let attempts = failures.max(recent_starts(view, kind));
    match last_tried(view, kind) {
        Some(last) if attempts > 0 => wait(view.now, kind, last, backoff(attempts - 1)),
        _ => Wish::Now(kind),
    }
}

/// When it was tried last. A try in the future was made before the clock was set back, nobody knows how long ago.
fn last_tried(view: &View, kind: OperationKind) -> Option<Timestamp> {
    let tries = view.operations.iter().filter(|op| op.spec.kind == kind).filter_map(finished_at);
    tries.filter(|at| *at <= view.now).max()
}

/// It was tried for this very wish, and something was missing.
fn waits(view: &View, kind: OperationKind) -> bool {
    view.failures_in_a_row(kind) > 0 && view.waits_for_values()
}

fn wait(now: Timestamp, kind: OperationKind, last: Timestamp, pause: Duration) -> Wish {
    let due = SignedDuration::try_from(pause).ok().and_then(|pause| last.checked_add(pause).ok()).unwrap_or(now);
    if due <= now { Wish::Now(kind) } else { Wish::At(kind, due) }
}

fn retryable(view: &View) -> bool {
    let error = view.last_failure().and_then(|op| op.status.as_ref()).and_then(|status| status.error.as_ref());
    error.is_none_or(|error| error.retryable)
}

/// The last try of an update or a rollback has stopped the revision in service, as both use the same volumes. Another
/// one would do so again: that is a person's to ask for.
fn interrupted_service(view: &View) -> bool {
    let Some(failed) = view.last_failure().filter(|_| !view.bundle.spec.volumes.is_empty()) else { return false };
    let steps = failed.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    let begun = |step: &&Step| step.name == StepName::StopOld && step.state != StepState::Pending;
    failed.spec.kind.makes_revision() && steps.iter().any(|step| begun(&step))
}

/// A service that comes up and dies again and again is given longer and longer pauses too. Not one that has not been up
/// since the machine was: a machine that loses its power every minute is no fault of its services.
fn recent_starts(view: &View, kind: OperationKind) -> u32 {
    let seen = view.active().and_then(|active| view.observed.get(&active.spec.number));
    if kind != OperationKind::Start || seen.and_then(is_down) == Some(Down::NeverUp) {
        return 0;
    }
    let recent = |op: &&Operation| {
        op.spec.kind == kind
            && op.spec.actor.source == "reconciler"
            && finished_at(op)
                .is_some_and(|at| (SignedDuration::ZERO..START_WINDOW).contains(&view.now.duration_since(at)))
    };
    u32::try_from(view.operations.iter().filter(recent).count()).unwrap_or(u32::MAX)
}

fn finished_at(operation: &Operation) -> Option<Timestamp> {
    operation.status.as_ref()?.finished_at.as_ref()?.parse().ok()
}
