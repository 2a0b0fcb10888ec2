//! All edits of a change set, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::changes::plan::{ChangePlan, FieldChange, PlannedChange};
use berth_model::changes::{Change, Key, Staged, differences, followed};
use berth_model::field::FieldError;
use berth_model::kinds::{BUNDLE, CONFIG_MAP, Registration, Request, SECRET};
use berth_model::meta;
use berth_model::projection::{SourceKind, wanted};
use berth_model::reference::Reference;
use berth_model::resource::bundle::{BundleSpec, RENAMED_FROM, rollout_part};
use berth_model::resource::change_set::{ChangeSetState, EntryVerb};
use berth_model::resource::operation::{
    Operation, OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Relations, Step, StepName,
    StepState, Target,
};
use berth_model::resource::revision::Resolved;
use berth_model::resource::{Bundle, ChangeSet};
use berth_model::status::{Failure, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::super::references::told;
use super::super::reply::Error;
use super::super::write::{in_the_clear, seal};
use super::{Place, content, drafts, encoded, open, permitted, snapshot, volumes};
use crate::bundle::references::{astray, of_namespace, resolved};
use crate::secret::Drafts;
use crate::store::{Deletion, ReadTx, Tx};

/// A change, and whether nobody edited the object: it follows a new name.
struct Net {
    change: Change,
    follows: bool,
}

/// Applies a set, and records that as an operation; the one that did so, if the same key asked before.
pub(super) fn apply(tx: &mut Tx<'_>, place: &Place, key: Option<String>) -> Result<Operation, Error> {
    let mut target = Target {
        kind: "ChangeSet".into(),
        namespace: place.namespace.clone(),
        name: place.name.clone(),
        uid: String::new(),
    };
    if let Some(before) = key.as_ref().map(|key| tx.operation_for(key, &target)).transpose()?.flatten() {
        return Ok(before);
    }
    let (mut set, mut status, _) = open(tx, place)?;
    let plan = perform(tx, place)?;
    target.uid = set.metadata.uid.clone().unwrap_or_default();
    let operation = tx.create(&record(tx, place, &set, target.clone(), key.clone(), &plan)?)?;
    if let Some(key) = &key {
        tx.remember_key(key, &target, &operation)?;
    }
    status.state = ChangeSetState::Applied;
    status.sealed.clear();
    status.operation.clone_from(&operation.metadata.name);
    set.status = Some(status);
    tx.update_status(&set)?;
    Ok(operation)
}

/// An operation that is done: one step for each object.
fn record(
    tx: &Tx<'_>,
    place: &Place,
    set: &ChangeSet,
    target: Target,
    idempotency_key: Option<String>,
    plan: &ChangePlan,
) -> Result<Operation, Error> {
    let now = Some(tx.now().to_string());
    let step = |change: &PlannedChange| Step {
        name: StepName::ApplyChange,
        state: StepState::Succeeded,
        progress: 100,
        message: change.sentence(),
        attempt: 1,
        started_at: now.clone(),
        finished_at: now.clone(),
        failures: 0,
        next_try: None,
    };
    let status = OperationStatus {
        state: OperationState::Succeeded,
        steps: plan.changes.iter().map(step).collect(),
        started_at: now.clone(),
        finished_at: now.clone(),
        result: encoded(plan)?,
        ..OperationStatus::default()
    };
    Ok(Operation {
        metadata: ObjectMeta {
            namespace: Some(place.namespace.clone()),
            generate_name: Some(format!("{}-apply-", place.name)),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            kind: OperationKind::ApplyChanges,
            target,
            actor: place.actor.clone(),
            generation: 0,
            sequence: tx.version()?,
            reason: set.spec.description.clone(),
            idempotency_key,
            priority: Priority::Interactive,
            relations: Relations::default(),
            rollback_of: None,
            rollback_to: None,
            system: None,
            room: None,
        },
        status: Some(status),
    })
}

/// Makes every change of a set; what that came to.
pub(super) fn perform(tx: &mut Tx<'_>, place: &Place) -> Result<ChangePlan, Error> {
    let (set, mut status, staged) = open(tx, place)?;
    let mut all: Vec<Net> = staged.changes().into_iter().map(|change| Net { change, follows: false }).collect();
    refuse_moved(tx, place, &all)?;
    all.extend(followers(tx, place, &staged)?);
    let (before, lost) = (influences(tx, place)?, lost(tx, place)?);
    write_all(tx, place, &staged, &drafts(&set, &mut status), &all)?;
    refuse_lost(tx, place, &lost)?;
    let after = influences(tx, place)?;
    let mut changes = shown(&staged, &all);
    changes.extend(volumes::hand_over(tx, place, &staged, &changes)?);
    let renamed: BTreeSet<&str> =
        changes.iter().filter(|change| is_renamed(change)).map(|change| change.name.as_str()).collect();
    let restarts = after.iter().filter(|(name, now)| {
        let other = before.get(*name).is_some_and(|before| *before != **now);
        now.start && (other || renamed.contains(name.as_str()))
    });
    Ok(ChangePlan { restarts: restarts.map(|(name, _)| name.clone()).collect(), changes })
}

/// A bundle that is installed under another name.
pub(super) fn is_renamed(change: &PlannedChange) -> bool {
    change.kind == BUNDLE.kind && change.renamed_from.is_some()
}

/// Refuses to write over what somebody else has done meanwhile.
fn refuse_moved(tx: &ReadTx<'_>, place: &Place, all: &[Net]) -> Result<(), Error> {
    let mut causes = Vec::new();
    for Net { change, .. } in all {
        let Some(kind) = change.key.registration() else { continue };
        let stored = tx.get_value(kind, &place.namespace, &change.key.name)?;
        causes.extend(moved(kind, change, stored.as_ref()));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = causes.iter().map(|cause| format!("{} {}", cause.field, cause.message)).collect();
    let message = format!(
        "what changeset {name} is based on has moved: {}; `berth changeset rebase {name}` takes that in",
        told.join(", "),
        name = place.name
    );
    Err(Failure { causes, ..Failure::new(Reason::Conflict, message) }.into())
}

fn moved(kind: &Registration, change: &Change, stored: Option<&Value>) -> Vec<FieldError> {
    let shown = change.key.shown();
    match (&change.before, stored) {
        (_, Some(stored)) if meta::is_deleting(stored) => vec![FieldError::invalid(shown, "is being removed")],
        (None, Some(_)) => vec![FieldError::invalid(shown, "was made meanwhile")],
        (Some(_), None) => vec![FieldError::invalid(shown, "was removed meanwhile")],
        (None, None) => Vec::new(),
        (Some(before), Some(stored)) => {
            let different = differences(Some(&before.content), Some(&content(kind, stored)));
            let told = |field: String| FieldError::invalid(format!("{shown} {field}"), "was changed meanwhile");
            different.into_iter().map(|(field, ..)| told(field)).collect()
        }
    }
}

/// Bundles that nobody edited and that refer to one that gets another name.
fn followers(tx: &ReadTx<'_>, place: &Place, staged: &Staged) -> Result<Vec<Net>, Error> {
    if staged.renames.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for stored in tx.list_values(&BUNDLE, Some(&place.namespace))? {
        let key = Key::new(&BUNDLE, meta::name(&stored));
        let before = snapshot(&BUNDLE, &stored);
        let after = followed(&before.content, &staged.renames);
        if !staged.slots.contains_key(&key) && !meta::is_deleting(&stored) && after != before.content {
            found.push(Net { change: Change { key, before: Some(before), after: Some(after) }, follows: true });
        }
    }
    Ok(found)
}

/// Every rule of every kind first, then every write.
fn write_all(tx: &mut Tx<'_>, place: &Place, staged: &Staged, drafts: &Drafts, all: &[Net]) -> Result<(), Error> {
    let (mut causes, mut ready) = (Vec::new(), Vec::new());
    for Net { change, .. } in all {
        let Key { name, .. } = &change.key;
        let Some(kind) = change.key.registration() else { continue };
        permitted(place, kind, change.verb(), name)?;
        let stored = tx.get_value(kind, &place.namespace, name)?;
        let Some(after) = &change.after else {
            ready.push((kind, name, None));
            continue;
        };
        let mut body = body(staged, &change.key, after, stored.as_ref());
        place.sealer.open_drafts(kind.sealed, &mut body, drafts)?;
        place.sealer.resolve_digests(kind.sealed, &mut body, stored.as_ref())?;
        let clear = stored.as_ref().map(|stored| in_the_clear(&place.sealer, kind, stored)).transpose()?;
        let request = clear.as_deref().map_or(Request::Create, Request::Patch);
        match kind.admit(body, &request) {
            Ok(admitted) => ready.push((kind, name, Some((admitted.object, stored)))),
            Err(errors) => {
                let shown = change.key.shown();
                let told = |error: FieldError| FieldError { field: format!("{shown} {}", error.field), ..error };
                causes.extend(errors.into_iter().map(told));
            }
        }
    }
    refuse(place, causes)?;
    for (kind, name, object) in ready {
        match object {
            None => drop(tx.delete_value(kind, &place.namespace, name, &Deletion::default())?),
            Some((mut object, Some(stored))) => {
                seal(&place.sealer, kind, &mut object, Some(&stored))?;
                tx.update_value(kind, object)?;
            }
            Some((object, None)) => {
                tx.create_finished(kind, object, |object| seal(&place.sealer, kind, object, None))?;
            }
        }
    }
    Ok(())
}

/// What is written: what a person can say is the set's, the rest is the store's.
fn body(staged: &Staged, key: &Key, after: &Value, stored: Option<&Value>) -> Value {
    let Some(stored) = stored else {
        let mut body = after.clone();
        if let Some(old) = staged.old_name(&key.name).filter(|_| key.registration() == Some(&BUNDLE)) {
            let annotations = body.pointer("/metadata/annotations").cloned();
            let mut annotations = annotations.filter(Value::is_object).unwrap_or_else(|| json!({}));
            annotations[RENAMED_FROM] = old.into();
            meta::set(&mut body, "annotations", Some(annotations));
        }
        return body;
    };
    let mut body = stored.clone();
    for field in ["labels", "annotations"] {
        meta::set(&mut body, field, after.get("metadata").and_then(|metadata| metadata.get(field)).cloned());
    }
    if let (Some(fields), Some(after)) = (body.as_object_mut(), after.as_object()) {
        fields.retain(|field, _| ["metadata", "status"].contains(&field.as_str()) || after.contains_key(field));
        let own = after.iter().filter(|(field, _)| *field != "metadata");
        fields.extend(own.map(|(field, value)| (field.clone(), value.clone())));
    }
    body
}

fn refuse(place: &Place, causes: Vec<FieldError>) -> Result<(), Error> {
    if causes.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = causes.iter().map(ToString::to_string).collect();
    let message = format!("changeset {} cannot be applied: {}", place.name, told.join(", "));
    Err(Failure { causes, ..Failure::new(Reason::Invalid, message) }.into())
}

fn bundles(tx: &ReadTx<'_>, place: &Place) -> Result<Vec<(String, Bundle)>, Error> {
    let mut all: Vec<Bundle> = tx.list(Some(&place.namespace))?;
    all.retain(|bundle| bundle.metadata.deletion_timestamp.is_none());
    Ok(all.into_iter().map(|bundle| (bundle.metadata.name.clone().unwrap_or_default(), bundle)).collect())
}

/// References of all bundles that lead nowhere.
fn lost(tx: &ReadTx<'_>, place: &Place) -> Result<BTreeSet<(String, Reference)>, Error> {
    let mut lost = BTreeSet::new();
    for (name, bundle) in bundles(tx, place)? {
        let found = astray(tx, &place.namespace, &bundle.spec)?;
        lost.extend(found.into_iter().map(|one| (name.clone(), one.reference)));
    }
    Ok(lost)
}

/// No reference may lead nowhere now that led somewhere before, whoever has it.
fn refuse_lost(tx: &ReadTx<'_>, place: &Place, known: &BTreeSet<(String, Reference)>) -> Result<(), Error> {
    let mut causes = Vec::new();
    for (name, bundle) in bundles(tx, place)? {
        for found in astray(tx, &place.namespace, &bundle.spec)? {
            if !known.contains(&(name.clone(), found.reference.clone())) {
                let error = told(tx, &place.namespace, &found)?;
                causes.push(FieldError { field: format!("bundle/{name} {}", error.field), ..error });
            }
        }
    }
    refuse(place, causes)
}

/// Everything of a bundle that makes a revision when it changes.
#[derive(PartialEq)]
struct Influence {
    start: bool,
    spec: BundleSpec,
    references: Vec<Resolved>,
    sources: Vec<Option<Value>>,
}

fn influences(tx: &ReadTx<'_>, place: &Place) -> Result<BTreeMap<String, Influence>, Error> {
    let mut all = BTreeMap::new();
    for (name, bundle) in bundles(tx, place)? {
        let mut sources = Vec::new();
        for (kind, source) in wanted(&bundle.spec, &of_namespace(tx, &place.namespace, &bundle.spec)?) {
            let kind = match kind {
                SourceKind::ConfigMap => &CONFIG_MAP,
                SourceKind::Secret => &SECRET,
                SourceKind::Bundle => continue,
            };
            let found = tx.get_value(kind, &place.namespace, &source)?;
            sources.push(found.map(|found| json!([found.get("data"), found.get("binaryData")])));
        }
        let references = resolved(tx, &place.namespace, &bundle.spec)?;
        let influence = Influence { start: bundle.spec.start, spec: rollout_part(&bundle.spec), references, sources };
        all.insert(name, influence);
    }
    Ok(all)
}

/// Of values that nobody is shown, only that they are there, or others.
fn told_of(key: &Key, change: FieldChange) -> FieldChange {
    let is_in = |map: &&str| change.field.strip_prefix(*map).is_some_and(|rest| rest.starts_with('.'));
    if !key.registration().is_some_and(|kind| kind.sealed.iter().any(is_in)) {
        return change;
    }
    let after = if change.before.is_some() { "(changed)" } else { "(set)" };
    let FieldChange { field, before, after: new } = change;
    FieldChange { field, before: before.map(|_| "(set)".into()), after: new.map(|_| after.into()) }
}

/// One line per object; the end and the beginning of a bundle that gets another name are one.
fn shown(staged: &Staged, all: &[Net]) -> Vec<PlannedChange> {
    let find = |name: &str, verb: EntryVerb| {
        all.iter().find(|net| net.change.key == Key::new(&BUNDLE, name) && net.change.verb() == verb && !net.follows)
    };
    let old_of = |net: &Net| {
        let key = &net.change.key;
        let is_new = key.registration() == Some(&BUNDLE) && net.change.verb() == EntryVerb::Create;
        let old = staged.old_name(&key.name).filter(|_| is_new)?;
        find(old, EntryVerb::Delete)
    };
    let ended: Vec<&Key> = all.iter().filter_map(old_of).map(|net| &net.change.key).collect();
    let line = |net: &Net| {
        let Change { key, before, after } = &net.change;
        let old = old_of(net);
        let before = old.map_or(before, |old| &old.change.before).as_ref().map(|before| &before.content);
        let field = |(field, before, after)| told_of(key, FieldChange { field, before, after });
        PlannedChange {
            verb: if old.is_some() { EntryVerb::Rename } else { net.change.verb() }.name().to_owned(),
            kind: key.kind.clone(),
            name: key.name.clone(),
            renamed_from: old.map(|old| old.change.key.name.clone()),
            follows: net.follows,
            fields: differences(before, after.as_ref()).into_iter().map(field).collect(),
        }
    };
    let one = |net: &&Net| net.change.after.is_some() || !ended.contains(&&net.change.key);
    all.iter().filter(one).map(line).collect()
}
