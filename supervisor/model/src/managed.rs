//! Managed fields: who wrote which field of an object last.
//!
//! Every write that changes something records its fields under its manager, operation and
//! subresource, and takes them away from everybody else. Lists are owned whole. Ownership is kept
//! as Kubernetes' `FieldsV1` sets: nested maps whose keys are `f:<name>`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::{Map, Value};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Who writes.
    pub manager: &'a str,
    /// `status`, or empty.
    pub subresource: &'a str,
    /// `group/version` of the object.
    pub api_version: &'a str,
    /// When.
    pub time: Timestamp,
}

/// A field, as the steps that lead to it.
type Path = Vec<String>;

/// The managed fields of an object after a write that made `new` of `old`.
pub fn record(
    entries: &[ManagedFieldsEntry],
    old: Option<&Value>,
    new: &Value,
    write: &Write<'_>,
) -> Vec<ManagedFieldsEntry> {
    let touched = touched(old, new);
    if touched.is_empty() {
        return entries.to_vec();
    }
    let present = leaves(new);
    let mut kept: Vec<ManagedFieldsEntry> = Vec::new();
    let mut own: BTreeSet<Path> = touched.intersection(&present.keys()).cloned().collect();
    for entry in entries {
        let fields: BTreeSet<Path> = parse(entry);
        if is_of(entry, write) {
            own.extend(fields.intersection(&present.keys()).cloned());
        } else {
            let rest: BTreeSet<Path> = fields.difference(&touched).cloned().collect();
            if !rest.is_empty() {
                kept.push(ManagedFieldsEntry { fields_v1: Some(render(&rest)), ..entry.clone() });
            }
        }
    }
    if !own.is_empty() {
        kept.push(entry(write, &own));
    }
    kept
}

fn is_of(entry: &ManagedFieldsEntry, write: &Write<'_>) -> bool {
    entry.manager.as_deref() == Some(write.manager)
        && entry.operation.as_deref() == Some("Update")
        && entry.subresource.as_deref().unwrap_or("") == write.subresource
}

fn entry(write: &Write<'_>, fields: &BTreeSet<Path>) -> ManagedFieldsEntry {
    ManagedFieldsEntry {
        api_version: Some(write.api_version.to_owned()),
        fields_type: Some("FieldsV1".into()),
        fields_v1: Some(render(fields)),
        manager: Some(write.manager.to_owned()),
        operation: Some("Update".into()),
        subresource: (!write.subresource.is_empty()).then(|| write.subresource.to_owned()),
        time: Some(Time(write.time)),
    }
}

/// The leaves of an object with their values.
struct Leaves<'a>(Vec<(Path, &'a Value)>);

impl Leaves<'_> {
    fn keys(&self) -> BTreeSet<Path> {
        self.0.iter().map(|(path, _)| path.clone()).collect()
    }
}

fn leaves(object: &Value) -> Leaves<'_> {
    let mut found = Vec::new();
    collect(object, &mut Vec::new(), &mut found);
    Leaves(found)
}

fn collect<'a>(value: &'a Value, path: &mut Path, found: &mut Vec<(Path, &'a Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() || path.is_empty() => {
            for (key, value) in map {
                if is_owned(path, key) {
                    path.push(key.clone());
                    collect(value, path, found);
                    path.pop();
                }
            }
        }
        leaf => found.push((path.clone(), leaf)),
    }
}

fn is_owned(parent: &[String], key: &str) -> bool {
    match parent {
        [] => key != "apiVersion" && key != "kind",
        [only] if only == "metadata" => !SERVER_METADATA.contains(&key),
        _ => true,
    }
}

/// Leaves that are different in, or only in, one of the two.
fn touched(old: Option<&Value>, new: &Value) -> BTreeSet<Path> {
    let before = old.map(leaves);
    let before = before.iter().flat_map(|leaves| &leaves.0);
    let mut changed: std::collections::BTreeMap<&Path, Option<&Value>> =
        before.map(|(path, value)| (path, Some(*value))).collect();
    let after = leaves(new);
    for (path, value) in &after.0 {
        match changed.get(path) {
            Some(Some(same)) if same == value => drop(changed.remove(path)),
            _ => drop(changed.insert(path, None)),
        }
    }
    changed.into_keys().cloned().collect()
}

fn render(fields: &BTreeSet<Path>) -> FieldsV1 {
    let mut root = Map::new();
    for path in fields {
        let mut node = &mut root;
        for step in path {
            let child = node.entry(format!("f:{step}")).or_insert_with(|| Map::new().into());
            match child {
                Value::Object(map) => node = map,
                _ => break,
            }
        }
    }
    FieldsV1(Value::Object(root))
}

fn parse(entry: &ManagedFieldsEntry) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    if let Some(FieldsV1(Value::Object(root))) = &entry.fields_v1 {
        walk(root, &mut Vec::new(), &mut found);
    }
    found
}

fn walk(node: &Map<String, Value>, path: &mut Path, found: &mut BTreeSet<Path>) {
    if node.is_empty() && !path.is_empty() {
        found.insert(path.clone());
    }
    for (key, child) in node {
        if let (Some(step), Value::Object(child)) = (key.strip_prefix("f:"), child) {
            path.push(step.to_owned());
            walk(child, path, found);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(manager: &str) -> Write<'_> {
        Write { manager, subresource: "", api_version: "v1", time: Timestamp::UNIX_EPOCH }
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
    fn status_and_the_rest_are_owned_apart_even_by_the_same_manager() {
        let old = json!({"spec": {"a": 1}});
        let new = json!({"spec": {"a": 1}, "status": {"phase": "Running"}});
        let first = record(&[], None, &old, &write("berthd"));
        let status = Write { subresource: "status", ..write("berthd") };
        let second = record(&first, Some(&old), &new, &status);
        assert_eq!(second.len(), 2);
        assert_eq!(second[1].subresource.as_deref(), Some("status"));
    }

    #[test]
    fn a_list_is_owned_whole() {
        let entries = record(&[], None, &json!({"spec": {"ports": [{"a": 1}]}}), &write("one"));
        assert_eq!(owned(&entries), [("one".into(), json!({"f:spec": {"f:ports": {}}}))]);
    }
}
