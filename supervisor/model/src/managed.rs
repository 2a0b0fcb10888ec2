//! Managed fields: who wrote which field of an object last, and who has applied it.
//!
//! A write that changes something records its fields under its manager and operation, and takes them away from everybody
//! else. An applied configuration owns all of its fields, changed or not, and may own them together with
//! others as long as all of them want the same. The status is Berth's alone to write: nobody owns a field of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use serde_json::Value;

use crate::field::FieldError;
use crate::patch::Lists;

mod fields;
pub use fields::{Fields, Path};
use fields::{leaves, shown};

/// Metadata that the server writes and nobody owns.
const SERVER_METADATA: [&str; 9] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

/// One write, as far as ownership is concerned.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// Who writes.
    pub manager: &'a str,
    /// `group/version` of the object.
    pub api_version: &'a str,
    /// How the object's lists are merged.
    pub lists: Lists,
    /// The fields of the configuration that is applied; `None` for every other write.
    pub applied: Option<&'a Fields>,
    /// When.
    pub time: Timestamp,
}

impl Write<'_> {
    fn operation(&self) -> &'static str {
        if self.applied.is_some() { APPLY } else { "Update" }
    }
}

/// The operation of who applies.
const APPLY: &str = "Apply";

/// The managed fields that an object carries; entries that name nobody, or are about a subresource, are passed over.
///
/// # Errors
/// They are not of the shape that Kubernetes gives them.
pub fn entries(object: &Value) -> Result<Vec<ManagedFieldsEntry>, serde_json::Error> {
    let found = object.pointer("/metadata/managedFields").filter(|found| !found.is_null());
    let mut entries: Vec<ManagedFieldsEntry> =
        found.map(serde::Deserialize::deserialize).transpose()?.unwrap_or_default();
    let counts = |entry: &ManagedFieldsEntry| entry.subresource.as_deref().unwrap_or_default().is_empty();
    entries.retain(|entry| entry.manager.is_some() && entry.operation.is_some() && counts(entry));
    Ok(entries)
}

/// The managed fields of an object after a write that made `new` of `old`.
pub fn record(
    entries: &[ManagedFieldsEntry],
    old: Option<&Value>,
    new: &Value,
    write: &Write<'_>,
) -> Vec<ManagedFieldsEntry> {
    let touched = touched(old, new, write.lists);
    let before = owned(entries.iter().filter(|entry| is_of(entry, write)));
    if touched.is_empty() && write.applied.is_none_or(|applied| *applied == before) {
        return entries.to_vec();
    }
    let own = match write.applied {
        Some(applied) => applied.clone(),
        None => {
            let present = Fields::of(new, write.lists);
            let still = before.0.iter().filter(|path| present.has_at_or_below(path));
            Fields(still.chain(touched.intersection(&present.0)).cloned().collect())
        }
    };
    let lost = lost(touched, old, new, write.lists);
    let others = entries.iter().filter(|entry| !is_of(entry, write)).filter_map(|entry| {
        let rest = Fields(parse(entry).0.difference(&lost).cloned().collect());
        (!rest.0.is_empty()).then(|| ManagedFieldsEntry { fields_v1: Some(rest.render()), ..entry.clone() })
    });
    others.chain((!own.0.is_empty()).then(|| entry(write, &own))).collect()
}

/// What a manager has applied so far, and what everybody else owns.
pub fn shares(entries: &[ManagedFieldsEntry], write: &Write<'_>) -> (Fields, Fields) {
    let (own, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| is_of(entry, write));
    (owned(own), owned(others))
}

/// The fields that a configuration changes although others own them, each with who does.
pub fn conflicts(entries: &[ManagedFieldsEntry], old: &Value, new: &Value, write: &Write<'_>) -> Vec<Conflict> {
    let lost = lost(touched(Some(old), new, write.lists), Some(old), new, write.lists);
    let applied = write.applied.map(|fields| &fields.0);
    let contested: BTreeSet<&Path> = applied.into_iter().flatten().filter(|path| lost.contains(*path)).collect();
    let of_entry = |entry: &ManagedFieldsEntry| {
        let owned = parse(entry).0;
        let his = contested.iter().filter(|path| owned.contains(**path));
        his.map(|path| Conflict { manager: told(entry), field: shown(path) }).collect::<Vec<_>>()
    };
    entries.iter().filter(|entry| !is_of(entry, write)).flat_map(of_entry).collect()
}

/// A field that is changed although another owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it, and how he came to.
    pub manager: String,
    /// `.spec.ports[name="web"].containerPort`.
    pub field: String,
}

impl Conflict {
    /// As a finding.
    pub fn cause(&self) -> FieldError {
        FieldError::owned(self.field.clone(), format!("conflict with {}", self.manager))
    }
}

/// Says of all conflicts what Kubernetes says, and what to do.
pub fn told_of(conflicts: &[Conflict]) -> String {
    let advice = "leave out what others own, or take it over with force=true (kubectl: --force-conflicts)";
    if let [one] = conflicts {
        let Conflict { manager, field } = one;
        return format!("Apply failed with 1 conflict: conflict with {manager}: {field}\n{advice}");
    }
    let managers: BTreeSet<&str> = conflicts.iter().map(|conflict| conflict.manager.as_str()).collect();
    let of_manager = |manager: &str| {
        let fields = conflicts.iter().filter(|conflict| conflict.manager == manager);
        let fields: String = fields.map(|conflict| format!("\n- {}", conflict.field)).collect();
        format!("conflicts with {manager}:{fields}")
    };
    let all: Vec<String> = managers.into_iter().map(of_manager).collect();
    format!("Apply failed with {} conflicts: {}\n{advice}", conflicts.len(), all.join("\n"))
}

/// A manager as Kubernetes tells of him.
fn told(entry: &ManagedFieldsEntry) -> String {
    let name = format!("{:?}", entry.manager.as_deref().unwrap_or_default());
    let version = entry.api_version.as_deref().unwrap_or_default();
    match (entry.operation.as_deref(), &entry.time) {
        (Some(APPLY), _) => name,
        (_, Some(Time(time))) => format!("{name} using {version} at {time}"),
        (_, None) => format!("{name} using {version}"),
    }
}

fn is_of(entry: &ManagedFieldsEntry, write: &Write<'_>) -> bool {
    entry.manager.as_deref() == Some(write.manager) && entry.operation.as_deref() == Some(write.operation())
}

fn entry(write: &Write<'_>, fields: &Fields) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        api_version: Some(write.api_version.to_owned()),
        fields_type: Some("FieldsV1".into()),
        fields_v1: Some(fields.render()),
        manager: Some(write.manager.to_owned()),
        operation: Some(write.operation().into()),
        subresource: None,
        time: Some(Time(write.time)),
    }
}

fn owned<'a>(entries: impl IntoIterator<Item = &'a ManagedFieldsEntry>) -> Fields {
    Fields(entries.into_iter().flat_map(|entry| parse(entry).0).collect())
}

fn parse(entry: &ManagedFieldsEntry) -> Fields {
    entry.fields_v1.as_ref().map(Fields::parse).unwrap_or_default()
}

/// Fields that are different in, or only in, one of the two.
fn touched(old: Option<&Value>, new: &Value, lists: Lists) -> BTreeSet<Path> {
    let mut changed = old.map(|old| leaves(old, lists)).unwrap_or_default();
    let mut touched = BTreeSet::new();
    for (path, value) in leaves(new, lists) {
        if changed.remove(&path) != Some(value) {
            touched.insert(path);
        }
    }
    touched.extend(changed.into_keys());
    touched
}

/// Those of them that are another's no longer. A map or list that was empty and has something in it, or the other way
/// round, is still the one that he wanted.
fn lost(touched: BTreeSet<Path>, old: Option<&Value>, new: &Value, lists: Lists) -> BTreeSet<Path> {
    let before = old.map(|old| Fields::of(old, lists)).unwrap_or_default();
    let after = Fields::of(new, lists);
    let stays = |path: &Path| {
        let there = before.has_at_or_below(path) && after.has_at_or_below(path);
        there && !(before.0.contains(path) && after.0.contains(path))
    };
    touched.into_iter().filter(|path| !stays(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(manager: &str) -> Write<'_> {
        Write { manager, api_version: "v1", lists: Lists::default(), applied: None, time: Timestamp::UNIX_EPOCH }
    }

    fn owned(entries: &[ManagedFieldsEntry]) -> Vec<(String, Value)> {
        let own = |entry: &ManagedFieldsEntry| {
            let fields = entry.fields_v1.clone().map(|fields| fields.0).unwrap_or_default();
            (entry.manager.clone().unwrap_or_default(), fields)
        };
        entries.iter().map(own).collect()
    }

    #[test]
    fn the_creator_owns_every_field_but_what_the_server_writes() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "a", "uid": "1", "labels": {"x": "1"}},
            "data": {"k": "v", "l": "w"},
        });
        let entries = record(&[], None, &object, &write("kubectl"));
        let fields = json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:data": {"f:k": {}, "f:l": {}}});
        assert_eq!(owned(&entries), [("kubectl".into(), fields)]);
    }

    #[test]
    fn who_changes_a_field_owns_it_from_then_on() {
        let old = json!({"data": {"k": "v", "l": "w"}});
        let new = json!({"data": {"k": "v", "l": "x"}});
        let first = record(&[], None, &old, &write("one"));
        let second = record(&first, Some(&old), &new, &write("two"));
        assert_eq!(
            owned(&second),
            [("one".into(), json!({"f:data": {"f:k": {}}})), ("two".into(), json!({"f:data": {"f:l": {}}})),]
        );
    }

    #[test]
    fn a_removed_field_is_owned_by_nobody_and_a_manager_without_fields_is_forgotten() {
        let old = json!({"data": {"k": "v"}});
        let new = json!({"data": {"l": "w"}});
        let first = record(&[], None, &old, &write("one"));
        let second = record(&first, Some(&old), &new, &write("two"));
        assert_eq!(owned(&second), [("two".into(), json!({"f:data": {"f:l": {}}}))]);
    }

    #[test]
    fn a_write_that_changes_nothing_leaves_the_record_as_it_is() {
        let object = json!({"data": {"k": "v"}});
        let first = record(&[], None, &object, &write("one"));
        assert_eq!(record(&first, Some(&object), &object, &write("two")), first);
    }

    #[test]
    fn nobody_owns_a_field_of_the_status_and_what_an_old_record_says_of_it_is_forgotten() {
        let new = json!({"spec": {"a": 1}, "status": {"phase": "Running"}});
        let fields = json!({"f:status": {"f:phase": {}}});
        let entry = json!({"manager": "berthd", "operation": "Update", "subresource": "status", "fieldsV1": fields});
        let old = json!({"metadata": {"managedFields": [entry]}});
        let entries = record(&entries(&old).unwrap(), None, &new, &write("one"));
        assert_eq!(owned(&entries), [("one".into(), json!({"f:spec": {"f:a": {}}}))]);
    }

    #[test]
    fn a_list_that_is_not_merged_is_owned_whole() {
        let entries = record(&[], None, &json!({"spec": {"ports": [{"a": 1}]}}), &write("one"));
        assert_eq!(owned(&entries), [("one".into(), json!({"f:spec": {"f:ports": {}}}))]);
    }
}
