//! How a bundle fares, told from a [`View`]: conditions, phase and what can be asked for. Pure.

use berth_model::condition::{self, ConditionType, Reason};
use berth_model::plan::Ending;
use berth_model::projection::Missing;
use berth_model::quantity::show_bytes;
use berth_model::readiness::Standing;
use berth_model::resource::Volume;
use berth_model::resource::bundle::{Bundle, BundleStatus, Phase, RestartPolicy, Termination, VolumeSummary};
use berth_model::resource::operation::{Operation, OperationKind, REJECTED, StepName, StepState};
use berth_model::resource::revision::{Allocation, Revision, goal};
use jiff::Timestamp;

use super::decide::{Down, Wish, is_down};
use super::seams::{Observed, UnitState};
use super::steps::sentence;
use super::view::{View, container_id, container_of, unit_name};

/// Restarts by systemd after which a service that is not up is said to be in a crash loop.
const CRASH_LOOP: u64 = 3;

/// The status that fits what was seen; times of unchanged conditions are kept from the present one.
pub fn status(view: &View, wish: &Wish) -> BundleStatus {
    let mut status = view.bundle.status.clone().unwrap_or_default();
    let active = view.active();
    let seen = active.and_then(|revision| view.observed.get(&revision.spec.number));
    let (reason, message) = stands(view, active, seen);
    status.phase = phase(view, active, seen, reason);
    status.conditions = condition::at(reason, &message, view.generation(), view.now, &status.conditions);
    status.observed_generation = view.generation();
    status.revision = active.map(|revision| revision.spec.number);
    status.unit = active.map(|revision| unit_name(&container_id(revision)));
    status.address = active.map(|revision| address(&revision.spec.allocation).to_owned());
    status.image = active.map(|revision| revision.spec.image.reference.clone());
    status.restarts = seen.map(|seen| seen.restarts).unwrap_or_default();
    status.last_termination =
        seen.and_then(|seen| seen.ending.as_ref()).and_then(termination).or(status.last_termination);
    status.volumes = view.volumes.iter().map(summary).collect();
    status.available_actions = actions(view, status.phase);
    status.next_try = match wish {
        Wish::At(_, when) => Some(when.to_string()),
        _ => None,
    };
    status
}

/// The container that serves a bundle which the records call ready.
pub fn claimed(bundle: &Bundle) -> Option<String> {
    let status = bundle.status.as_ref()?;
    container_of(status.unit.as_deref().filter(|_| status.is_ready())?).map(str::to_owned)
}

/// Notes that its unit was not running when the supervisor started.
pub fn not_running(bundle: &mut Bundle, now: Timestamp) {
    let generation = bundle.metadata.generation.unwrap_or_default();
    let status = bundle.status.get_or_insert_default();
    let message = "The supervisor has just started, and the service is not running yet.";
    status.phase = Phase::Progressing;
    status.conditions = condition::at(Reason::StartPending, message, generation, now, &status.conditions);
}

fn summary(volume: &Volume) -> VolumeSummary {
    let status = volume.status.clone().unwrap_or_default();
    let name = volume.metadata.name.clone().unwrap_or_default();
    VolumeSummary { name, state: status.state, size: show_bytes(status.size) }
}

/// The bundle's own address, or that of the revision in records from before there was one.
fn address(held: &Allocation) -> &str {
    if held.service.is_empty() { &held.address } else { &held.service }
}

/// Where the bundle stands, in the closed vocabulary, and what there is to say about it.
fn stands(view: &View, active: Option<&Revision>, seen: Option<&Observed>) -> (Reason, String) {
    if view.bundle.metadata.deletion_timestamp.is_some() {
        return (Reason::StartSkipped, "The bundle is being removed.".into());
    }
    let failed = view.unfinished().is_none().then(|| view.last_failure()).flatten().filter(|op| !came_to_nothing(op));
    match (active, seen, failed) {
        (Some(revision), Some(seen), Some(failed)) if seen.state == UnitState::Active => {
            let text = absence(view).unwrap_or_else(|| failure_message(failed));
            (Reason::Degraded, format!("Revision {} still serves. {text}", revision.spec.number))
        }
        (Some(_), Some(seen), failed) if view.survey.is_err() && view.unfinished().is_none() => {
            lacking(view, seen).unwrap_or_else(|| serving(view, seen, failed))
        }
        (Some(_), Some(seen), failed) => serving(view, seen, failed),
        (_, _, Some(failed)) => match absence(view).filter(|_| view.waits_for_values()) {
            Some(text) => (Reason::SecretsPending, text),
            None => (failure_reason(failed), failure_message(failed)),
        },
        _ => under_way(view),
    }
}

/// Somebody asked for it, and it was rejected before anything of it was noted: the bundle is what it is meant to be.
fn came_to_nothing(operation: &Operation) -> bool {
    let error = operation.status.as_ref().and_then(|status| status.error.as_ref());
    error.is_some_and(|error| error.code == REJECTED) && operation.spec.actor.source != "reconciler"
}

/// Where a bundle with a revision in service stands when something it takes from ConfigMaps and
/// Secrets is missing by now; `None` where that is of no matter yet.
fn lacking(view: &View, seen: &Observed) -> Option<(Reason, String)> {
    let text = absence(view)?;
    match (seen.state, is_down(seen)) {
        (UnitState::Active, _) => Some((Reason::Degraded, format!("It serves, but could not start again: {text}"))),
        (_, Some(Down::NeverUp | Down::Crashed)) if view.bundle.spec.start => Some((Reason::SecretsPending, text)),
        _ => None,
    }
}

/// What is missing now, and what to do.
fn absence(view: &View) -> Option<String> {
    let missing = view.survey.as_ref().err()?;
    let advice: Vec<String> = missing.iter().map(Missing::advice).collect();
    Some(format!("{}; {}", sentence(missing), advice.join("; ")))
}

/// Where a bundle without a serving revision stands while something is done about it.
fn under_way(view: &View) -> (Reason, String) {
    if let Some(waiting) = view.waiting() {
        return (Reason::ProfilePending, waiting);
    }
    let steps = view.unfinished().and_then(|op| op.status.as_ref()).map(|status| status.steps.as_slice());
    let at = steps.unwrap_or_default().iter().find(|step| step.state == StepState::Running);
    let reason = match at.map(|step| class(step.name)) {
        Some(Class::Workload) => Reason::WorkloadPending,
        Some(Class::Start) => Reason::StartPending,
        Some(Class::Secrets) => Reason::SecretsPending,
        Some(Class::Profile) | None => Reason::ProfilePending,
    };
    (reason, progress(view, "The image is about to be fetched."))
}

/// Where a bundle with a revision in service stands, by what is seen of its unit.
fn serving(view: &View, seen: &Observed, failed: Option<&Operation>) -> (Reason, String) {
    let how = seen.ending.as_ref().map(describe).unwrap_or_default();
    match (seen.state, is_down(seen)) {
        (UnitState::Active, _) if busy_starting(view) => {
            (Reason::StartPending, progress(view, "Waits for the service to answer."))
        }
        (UnitState::Active, _) => answering(view, seen.health.as_ref()),
        (UnitState::Activating, _) if seen.restarts >= CRASH_LOOP => {
            (Reason::CrashLooping, format!("Started again {} times. {how} {LOOK}", seen.restarts))
        }
        (UnitState::Activating, _) => (Reason::StartPending, format!("The service is starting. {how}")),
        _ if failed.is_some() => {
            failed.map_or((Reason::StartFailed, how), |op| (failure_reason(op), failure_message(op)))
        }
        (_, Some(Down::Crashed)) if view.bundle.spec.restart == RestartPolicy::Never => {
            (Reason::Degraded, format!("{how} It stays down, as spec.restart is never. {LOOK}"))
        }
        (_, Some(Down::Crashed)) => (Reason::CrashLooping, format!("{how} {LOOK}")),
        _ if !view.bundle.spec.start => (Reason::StartSkipped, "Stopped as asked; `berth start` starts it.".into()),
        // Whoever starts it again has stopped it first.
        (_, Some(Down::ByOperator)) if busy_starting(view) => {
            (Reason::StartPending, progress(view, "Waits to be started."))
        }
        (_, Some(Down::ByOperator)) => {
            (Reason::StoppedByOperator, "Stopped by systemctl; `berth start` starts it.".into())
        }
        (_, Some(Down::Completed)) => {
            let text = "The service ended by itself with exit code 0; `berth start` runs it again.";
            (Reason::Degraded, text.into())
        }
        _ => (Reason::StartPending, progress(view, "Waits to be started.")),
    }
}

/// Where a service stands that is up, by how its health is seen. Before anybody has looked it stands
/// where it stood: a start of the supervisor is no news about a service.
fn answering(view: &View, health: Option<&Standing>) -> (Reason, String) {
    match health {
        Some(Standing::Unhealthy(word)) => {
            (Reason::Degraded, format!("The health check fails: {word}. `berth logs` shows what the service says."))
        }
        Some(Standing::Starting) => (Reason::StartPending, "Waits for the first good health check.".into()),
        Some(Standing::Unknown) => stood(view).unwrap_or_else(up),
        Some(Standing::Healthy) | None => up(),
    }
}

fn up() -> (Reason, String) {
    (Reason::StartCompleted, "The service is up.".into())
}

/// What its health had come to when it was last told.
fn stood(view: &View) -> Option<(Reason, String)> {
    let conditions = &view.bundle.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|one| one.type_ == ConditionType::Ready.name())?;
    let degraded = ready.reason == Reason::Degraded.name() && ready.message.starts_with("The health check fails");
    degraded.then(|| (Reason::Degraded, ready.message.clone()))
}

/// What to look at when a service does not stay up.
const LOOK: &str = "`berth logs --previous` shows what it said.";

fn busy_starting(view: &View) -> bool {
    use OperationKind as K;
    view.unfinished().is_some_and(|op| matches!(op.spec.kind, K::Start | K::Restart))
}

fn progress(view: &View, otherwise: &str) -> String {
    let Some(operation) = view.unfinished() else { return otherwise.to_owned() };
    let steps = operation.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    let at = steps.iter().find(|step| step.state == StepState::Running);
    match at {
        Some(step) if step.message.is_empty() => format!("{:?}: {:?}.", operation.spec.kind, step.name),
        Some(step) => format!("{:?}: {:?}: {}", operation.spec.kind, step.name, step.message),
        None => format!("{:?} is about to begin.", operation.spec.kind),
    }
}

fn phase(view: &View, active: Option<&Revision>, seen: Option<&Observed>, reason: Reason) -> Phase {
    let up = seen.is_some_and(|seen| seen.state == UnitState::Active);
    let crashed = seen.and_then(is_down) == Some(Down::Crashed);
    match reason {
        _ if view.bundle.metadata.deletion_timestamp.is_some() => Phase::Terminating,
        Reason::StartCompleted => Phase::Running,
        Reason::Degraded if up => Phase::Running,
        _ if view.unfinished().is_some() => Phase::Progressing,
        Reason::Degraded if crashed => Phase::Failed,
        Reason::ProfileFailed | Reason::SecretsFailed | Reason::WorkloadFailed => Phase::Failed,
        Reason::StartFailed | Reason::CrashLooping => Phase::Failed,
        Reason::SecretsPending => Phase::Pending,
        Reason::StartSkipped | Reason::StoppedByOperator | Reason::Degraded => Phase::Stopped,
        _ if active.is_some() => Phase::Progressing,
        _ => Phase::Pending,
    }
}

fn actions(view: &View, phase: Phase) -> Vec<String> {
    let running = matches!(phase, Phase::Running);
    let has_revision = view.active().is_some();
    let offered: &[(&str, bool)] = &[
        ("start", has_revision && !running),
        ("stop", running || phase == Phase::Progressing),
        ("restart", has_revision),
        ("update", has_revision),
        ("rollback", goal(&view.revisions, &view.bundle.spec, None).is_ok()),
        ("uninstall", true),
    ];
    if phase == Phase::Terminating {
        return Vec::new();
    }
    offered.iter().filter(|(_, can)| *can).map(|(name, _)| (*name).to_owned()).collect()
}

/// Which condition a step works for.
enum Class {
    Profile,
    Secrets,
    Workload,
    Start,
}

fn class(step: StepName) -> Class {
    match step {
        StepName::ResolveImage | StepName::PullImage | StepName::PrepareRevision => Class::Profile,
        StepName::ProvisionSecrets => Class::Secrets,
        StepName::AllocateVolumes
        | StepName::FormatVolumes
        | StepName::OpenVolumes
        | StepName::GrowImages
        | StepName::GrowFilesystems
        | StepName::ConfigureNetwork
        | StepName::StartUnit => Class::Workload,
        _ => Class::Start,
    }
}

fn failure_reason(operation: &Operation) -> Reason {
    let steps = operation.status.as_ref().map(|status| status.steps.as_slice()).unwrap_or_default();
    let code = operation.status.as_ref().and_then(|status| status.error.as_ref()).map(|error| error.code.as_str());
    match steps.iter().find(|step| step.state == StepState::Failed).map(|step| class(step.name)) {
        _ if code == Some(Reason::SecretsPending.name()) => Reason::SecretsPending,
        _ if code == Some(Reason::SecretsFailed.name()) => Reason::SecretsFailed,
        Some(Class::Profile) => Reason::ProfileFailed,
        Some(Class::Secrets) => Reason::SecretsFailed,
        Some(Class::Workload) => Reason::WorkloadFailed,
        Some(Class::Start) | None => Reason::StartFailed,
    }
}

/// What happened and what to do, in one line.
fn failure_message(operation: &Operation) -> String {
    let Some(error) = operation.status.as_ref().and_then(|status| status.error.as_ref()) else {
        return String::new();
    };
    let mut text = error.message.clone();
    if !error.detail.is_empty() {
        text = format!("{text}: {}", error.detail);
    }
    for suggestion in &error.suggestions {
        text = format!("{text}; {suggestion}");
    }
    text
}

/// How a run ended, as the status shows it; `None` while it has not.
pub fn termination(ending: &Ending) -> Option<Termination> {
    let result = ending.result.as_deref()?;
    let killed = ending.exit_code.as_deref() != Some("exited");
    let status = ending.exit_status.as_deref();
    Some(Termination {
        reason: reason_of(ending, result).to_owned(),
        exit_code: status.filter(|_| !killed).and_then(|code| code.parse().ok()),
        signal: status.filter(|_| killed).map(ToOwned::to_owned),
        invocation: ending.invocation.clone(),
    })
}

fn reason_of(ending: &Ending, result: &str) -> &'static str {
    match result {
        "oom-kill" => "OOMKilled",
        _ if ending.stop_asked => "StoppedByOperator",
        "success" => "Completed",
        _ => "Error",
    }
}

/// One sentence about an ending.
pub fn describe(ending: &Ending) -> String {
    let Some(end) = termination(ending) else { return String::new() };
    match (end.reason.as_str(), end.exit_code, end.signal) {
        ("OOMKilled", _, _) => "OOMKilled: it used more memory than its limit; raise spec.resources.memory.".into(),
        (_, Some(code), _) => match signal_in(code) {
            Some(signal) => format!("It ended with exit code {code}, as a program does that {signal} killed."),
            None => format!("It ended with exit code {code}."),
        },
        (_, None, Some(signal)) => format!("It was killed by SIG{signal}."),
        _ => format!("It ended: {}.", ending.result.as_deref().unwrap_or("unknown")),
    }
}

/// A container's first process reports a program that a signal killed as shells do: 128 and its number.
fn signal_in(code: i32) -> Option<&'static str> {
    let signal = nix::sys::signal::Signal::try_from(code.checked_sub(128)?).ok()?;
    Some(signal.as_str())
}
