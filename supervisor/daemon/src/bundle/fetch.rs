//! Reading what a decision is made from, and writing what it came to.

use std::collections::BTreeMap;

use berth_model::kinds::TEARDOWN_FINALIZER;
use berth_model::resource::Volume;
use berth_model::resource::bundle::{Bundle, BundleStatus, RENAMED_FROM};
use berth_model::resource::operation::{
    Actor, Operation, OperationKind, OperationSpec, OperationStatus, Priority, Relations, Target,
};
use berth_model::resource::revision::{KEPT_REVISIONS, Revision, find, surplus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use jiff::Timestamp;

use super::seams::{Machine, Observed, Provider};
use super::view::{View, container_id, operation_state, rests, state_of};
use super::{BundleError, BundleKey, operations_of};
use crate::operation::beginning;
use crate::store::{Deletion, EventType, ReadTx, Store, StoreError, Tx};

/// Finished operations kept per bundle.
const KEPT_OPERATIONS: usize = 20;

/// Everything about one bundle; `None` if there is no such bundle.
pub(super) async fn view(
    store: &Store,
    machine: &dyn Machine,
    provider: &dyn Provider,
    key: &BundleKey,
    now: Timestamp,
) -> Result<Option<View>, BundleError> {
    let wanted = key.clone();
    let stored = store
        .read(move |tx| {
            let Some(bundle) = tx.get::<Bundle>(&wanted.namespace, &wanted.name)? else { return Ok(None) };
            let (namespace, name) = (&wanted.namespace, &wanted.name);
            let revisions = revisions_of(tx, namespace, name)?;
            let operations = operations_of(tx, &bundle)?;
            let volumes: Vec<Volume> = tx.list_about(namespace, name)?;
            let old_name_leaves = leaves(tx, &bundle)?;
            Ok(Some((bundle, revisions, operations, volumes, old_name_leaves)))
        })
        .await?;
    let Some((bundle, revisions, operations, volumes, old_name_leaves)) = stored else { return Ok(None) };
    let observed = observe(machine, &revisions).await?;
    let survey = provider.survey(&key.namespace, &bundle.spec).await.map_err(BundleError::Survey)?;
    Ok(Some(View { bundle, revisions, volumes, operations, observed, survey, old_name_leaves, now }))
}

/// Whether the bundle that this one was is still there.
fn leaves(tx: &ReadTx<'_>, bundle: &Bundle) -> Result<bool, StoreError> {
    let old = bundle.metadata.annotations.as_ref().and_then(|all| all.get(RENAMED_FROM));
    let Some(old) = old else { return Ok(false) };
    let old = tx.get::<Bundle>(bundle.metadata.namespace.as_deref().unwrap_or_default(), old)?;
    Ok(old.is_some_and(|old| old.metadata.deletion_timestamp.is_some()))
}

/// The revisions of a bundle, by number.
pub(super) fn revisions_of(tx: &ReadTx<'_>, namespace: &str, bundle: &str) -> Result<Vec<Revision>, StoreError> {
    let mut all: Vec<Revision> = tx.list_about(namespace, bundle)?;
    all.sort_by_key(|revision| revision.spec.number);
    Ok(all)
}

async fn observe(machine: &dyn Machine, revisions: &[Revision]) -> Result<BTreeMap<u64, Observed>, BundleError> {
    let mut seen = BTreeMap::new();
    for revision in revisions.iter().filter(|revision| state_of(revision).holds_allocation()) {
        let id = container_id(revision);
        let observed = machine.observe(&id).await.map_err(|source| BundleError::Observe { id: id.clone(), source })?;
        seen.insert(revision.spec.number, observed);
    }
    Ok(seen)
}

/// Events about what is new in a status.
pub(super) fn tell(tx: &mut Tx<'_>, bundle: &Bundle, new: &BundleStatus) -> Result<(), StoreError> {
    let old = bundle.status.clone().unwrap_or_default();
    if let Some(now) = standing(&new.conditions)
        && standing(&old.conditions).is_none_or(|before| before.reason != now.reason)
    {
        let alarm = now.reason.ends_with("Failed") || is_alarm(&now.reason);
        let kind = if alarm { EventType::Warning } else { EventType::Normal };
        tx.emit_event(bundle, kind, &now.reason, &now.message)?;
    }
    if let Some(end) = new.last_termination.as_ref().filter(|end| old.last_termination.as_ref() != Some(end))
        && end.reason == "OOMKilled"
    {
        let message = "The service used more memory than its limit and was killed.";
        tx.emit_event(bundle, EventType::Warning, "OOMKilled", message)?;
    }
    Ok(())
}

/// The condition a bundle stands at: the first that does not hold, or the last.
fn standing(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|one| one.status != "True").or(conditions.last())
}

fn is_alarm(reason: &str) -> bool {
    matches!(reason, "CrashLooping" | "Degraded")
}

/// Begins an operation, unless one is already under way; old finished ones make room.
pub(super) fn begin(tx: &mut Tx<'_>, bundle: &Bundle, kind: OperationKind) -> Result<(), StoreError> {
    let namespace = bundle.metadata.namespace.clone().unwrap_or_default();
    let name = bundle.metadata.name.clone().unwrap_or_default();
    let present = operations_of(tx, bundle)?;
    if present.iter().any(|op| !operation_state(op).finished() && (op.spec.kind == kind || !rests(op))) {
        return Ok(());
    }
    for old in present.iter().rev().skip(KEPT_OPERATIONS) {
        tx.delete::<Operation>(&namespace, old.metadata.name.as_deref().unwrap_or_default(), &Deletion::default())?;
    }
    let target =
        Target { kind: "Bundle".into(), namespace, name, uid: bundle.metadata.uid.clone().unwrap_or_default() };
    let again = present.iter().rev().find(|op| op.spec.kind == kind);
    let mut operation = operation(&target, bundle.metadata.generation.unwrap_or_default(), kind, again);
    operation.spec.sequence = tx.version()?;
    // A start brings back what is meant to run, and nothing new.
    if kind != OperationKind::Start {
        operation.status = Some(beginning(tx, kind)?);
    }
    tx.create(&operation)?;
    Ok(())
}

/// `again` is the last one of its kind: a rollback leads where it led before.
fn operation(target: &Target, generation: i64, kind: OperationKind, again: Option<&Operation>) -> Operation {
    let again = again.map(|before| before.spec.clone());
    Operation {
        metadata: ObjectMeta {
            namespace: Some(target.namespace.clone()),
            generate_name: Some(format!("{}-{}-", target.name, format!("{kind:?}").to_lowercase())),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            kind,
            target: target.clone(),
            actor: Actor { identity: "berthd".into(), source: "reconciler".into() },
            generation,
            sequence: 0,
            reason: String::new(),
            idempotency_key: None,
            priority: Priority::Housekeeping,
            relations: Relations::default(),
            rollback_of: again.as_ref().and_then(|before| before.rollback_of.clone()),
            rollback_to: again.and_then(|before| before.rollback_to),
            system: None,
            room: None,
        },
        status: Some(OperationStatus::default()),
    }
}

/// Removes the oldest revisions of a bundle beyond those that are kept, but none that an operation after
/// this one will go back to.
pub(super) fn remove_surplus(tx: &mut Tx<'_>, namespace: &str, name: &str, operation: &str) -> Result<(), StoreError> {
    let revisions = revisions_of(tx, namespace, name)?;
    let mut open: Vec<Operation> = tx.list_about(namespace, name)?;
    open.retain(|op| !operation_state(op).finished());
    open.retain(|op| op.metadata.name.as_deref() != Some(operation));
    let needed: Vec<u64> = open.iter().filter_map(|op| op.spec.rollback_to).collect();
    for number in surplus(&revisions, KEPT_REVISIONS, &needed) {
        let name = find(&revisions, number).and_then(|one| one.metadata.name.as_deref()).unwrap_or_default();
        tx.delete::<Revision>(namespace, name, &Deletion::default())?;
    }
    Ok(())
}

/// Lets a bundle go: its own last act.
pub(super) fn release(tx: &mut Tx<'_>, namespace: &str, name: &str) -> Result<(), StoreError> {
    for revision in revisions_of(tx, namespace, name)? {
        tx.delete::<Revision>(namespace, revision.metadata.name.as_deref().unwrap_or_default(), &Deletion::default())?;
    }
    if tx.get::<Bundle>(namespace, name)?.is_some() {
        tx.remove_finalizer::<Bundle>(namespace, name, TEARDOWN_FINALIZER)?;
    }
    Ok(())
}
