//! A schedule's turn: one transaction.

use berth_model::kinds::Kind;
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationStatus, Priority, Relations, Target,
};
use berth_model::resource::schedule::{ActionKind, Schedule};
use berth_model::resource::{Bundle, schedule};
use berth_model::schedule::{Due, MOST_MISSED, Missed};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{SOURCE, Step, key, last};
use crate::operation::{beginning, order};
use crate::store::{Deletion, EventType, StoreError, Tx};

/// Finished operations that are kept of a schedule which is about the machine.
const KEPT_OPERATIONS: usize = 10;

/// Looks once more, as others may have written since, and does what is due. One word for what came of it; `None` if
/// nothing was due.
pub(super) fn take(
    tx: &mut Tx<'_>,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<&'static str>, StoreError> {
    let Some(mut schedule) = tx.get::<Schedule>(namespace, name)? else { return Ok(None) };
    let step = Step::of(&schedule, last(tx, &schedule)?.as_ref(), now);
    let retries = if step.again { step.status.retries + 1 } else { 0 };
    let before = schedule.status.replace(step.status);
    let result = match step.due {
        Due::NotYet => None,
        Due::Now => Some(begin(tx, &mut schedule, retries, now)?.unwrap_or("begun")),
        Due::Late(missed) => {
            tell(tx, &schedule, "MissedRun", format!("{}; one run makes up for it", told(missed)))?;
            Some(begin(tx, &mut schedule, retries, now)?.unwrap_or("late"))
        }
        Due::PassedOver(missed) => {
            skipped(&mut schedule, told(missed));
            tell(tx, &schedule, "MissedRun", format!("{}; by missedRuns: skip it is passed over", told(missed)))?;
            Some("missed")
        }
        Due::Busy => {
            let why = "what it began the last time is not done".to_owned();
            tell(tx, &schedule, "RunSkipped", format!("{why}: this run is left out"))?;
            Some("skipped")
        }
    };
    if before != schedule.status {
        tx.update_status(&schedule)?;
    }
    Ok(result)
}

fn told(Missed { count, first }: Missed) -> String {
    match count {
        0 | 1 => format!("the run of {first} was missed"),
        MOST_MISSED.. => format!("{MOST_MISSED} runs or more were missed since {first}"),
        many => format!("{many} runs were missed since {first}"),
    }
}

fn tell(tx: &mut Tx<'_>, schedule: &Schedule, reason: &str, message: String) -> Result<(), StoreError> {
    tx.emit_event(schedule, EventType::Warning, reason, &message)
}

fn skipped(schedule: &mut Schedule, why: String) {
    let status = schedule.status.get_or_insert_default();
    (status.last_result, status.message) = (Some("Skipped".to_owned()), why);
    status.last_operation = None;
}

/// Begins the operation, or says why not.
fn begin(
    tx: &mut Tx<'_>,
    schedule: &mut Schedule,
    retries: u32,
    now: Timestamp,
) -> Result<Option<&'static str>, StoreError> {
    let (kind, target, generation) = match wanted(tx, schedule)? {
        Ok(wanted) => wanted,
        Err(why) => {
            tell(tx, schedule, "RunSkipped", why.clone())?;
            skipped(schedule, why);
            return Ok(Some("skipped"));
        }
    };
    make_room(tx, schedule)?;
    let mut operation = operation(schedule, kind, target, generation, tx.version()?);
    operation.status = Some(beginning(tx, kind)?);
    let made = tx.create(&operation)?;
    let status = schedule.status.get_or_insert_default();
    status.last_run = Some(now.to_string());
    status.last_operation = made.metadata.name;
    status.last_result = made.status.map(|begun| format!("{:?}", begun.state));
    status.message = String::new();
    status.retries = retries;
    Ok(None)
}

type Wanted = Result<(OperationKind, Target, i64), String>;

fn wanted(tx: &Tx<'_>, schedule: &Schedule) -> Result<Wanted, StoreError> {
    let kind = match schedule.spec.action.kind {
        ActionKind::Cleanup => return Ok(Ok((OperationKind::Cleanup, target(schedule), generation(schedule)))),
        ActionKind::UpdateSystem => {
            return Ok(Ok((OperationKind::UpdateSystem, target(schedule), generation(schedule))));
        }
        ActionKind::Restart => OperationKind::Restart,
        ActionKind::Update => OperationKind::Update,
    };
    let (namespace, _) = key(schedule);
    let name = schedule.spec.action.bundle.clone().unwrap_or_default();
    let Some(bundle) = tx.get::<Bundle>(&namespace, &name)? else {
        return Ok(Err(format!("there is no bundle {name} in namespace {namespace}")));
    };
    if bundle.metadata.deletion_timestamp.is_some() {
        return Ok(Err(format!("bundle {name} is being removed")));
    }
    if !bundle.spec.start {
        return Ok(Err(format!("bundle {name} is stopped, and a schedule starts nothing that is")));
    }
    let uid = bundle.metadata.uid.unwrap_or_default();
    let target = Target { kind: Bundle::registration().kind.into(), namespace, name, uid };
    Ok(Ok((kind, target, bundle.metadata.generation.unwrap_or_default())))
}

/// The schedule itself: what it begins is about the machine.
fn target(schedule: &Schedule) -> Target {
    let (namespace, name) = key(schedule);
    let uid = schedule.metadata.uid.clone().unwrap_or_default();
    Target { kind: Schedule::registration().kind.into(), namespace, name, uid }
}

fn generation(schedule: &schedule::Schedule) -> i64 {
    schedule.metadata.generation.unwrap_or_default()
}

/// Old finished operations on the schedule go.
fn make_room(tx: &mut Tx<'_>, schedule: &Schedule) -> Result<(), StoreError> {
    let target = target(schedule);
    let mut all: Vec<Operation> = tx.list_about(&target.namespace, &target.name)?;
    all.retain(|one| one.spec.target == target && one.status.as_ref().is_some_and(|status| status.state.finished()));
    all.sort_by_key(order);
    for old in all.iter().rev().skip(KEPT_OPERATIONS - 1) {
        let name = old.metadata.name.as_deref().unwrap_or_default();
        tx.delete::<Operation>(&target.namespace, name, &Deletion::default())?;
    }
    Ok(())
}

fn operation(schedule: &Schedule, kind: OperationKind, target: Target, generation: i64, sequence: u64) -> Operation {
    let (namespace, name) = key(schedule);
    Operation {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-{}-", schedule.spec.action.kind.name())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            kind,
            target,
            actor: Actor { identity: format!("schedule/{name}"), source: SOURCE.into() },
            generation,
            sequence,
            reason: format!("schedule {name}"),
            idempotency_key: None,
            priority: Priority::Scheduled,
            relations: Relations::default(),
            rollback_of: None,
            rollback_to: None,
            system: None,
            room: None,
        },
        status: Some(OperationStatus::default()),
    }
}
