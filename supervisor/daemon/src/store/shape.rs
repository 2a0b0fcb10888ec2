//! What an object becomes when it is made or changed: plain functions on JSON, no database.

use std::sync::Arc;

use berth_model::field::FieldError;
use berth_model::kinds::{Kind, Registration};
use berth_model::meta;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::error::{Fault, Refusal, StoreError};

/// Metadata that an update takes from the new object; the rest is the store's.
const CLIENT_METADATA: [&str; 4] = ["labels", "annotations", "ownerReferences", "finalizers"];

/// An object as it begins its life.
pub(super) fn newborn(kind: &Registration, object: Value, uid: &str, now: Timestamp) -> Value {
    let mut new = framed(kind, object);
    let given = ["name", "namespace", "generateName"].into_iter().chain(CLIENT_METADATA);
    keep_metadata(&mut new, given);
    set_finalizers(&mut new, |list| {
        for own in kind.finalizers {
            if !list.iter().any(|known| known == own) {
                list.push((*own).to_owned());
            }
        }
    });
    meta::set(&mut new, "uid", Some(uid.into()));
    meta::set(&mut new, "creationTimestamp", Some(time(now)));
    meta::set(&mut new, "generation", kind.status.then(|| 1.into()));
    new
}

/// Where objects of a kind name what they are about: found by an index, see [`super::ReadTx::list_about`].
pub(super) fn subject_field(kind: &Registration) -> Option<&'static str> {
    match kind.key().as_str() {
        "operations.berth.dev" => Some("/spec/target/name"),
        "revisions.berth.dev" | "volumes.berth.dev" => Some("/spec/bundle"),
        "events" => Some("/involvedObject/name"),
        _ => None,
    }
}

/// What an object is about.
pub(super) fn subject<'o>(kind: &Registration, object: &'o Value) -> Option<&'o str> {
    object.pointer(subject_field(kind)?)?.as_str()
}

/// A moment as objects carry it: whole seconds.
pub(super) fn time(moment: Timestamp) -> Value {
    json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(moment))
}

pub(super) fn encode<K: Kind>(object: &K) -> Result<Value, StoreError> {
    let encoded = serde_json::to_value(object);
    encoded.map_err(|source| Fault::Encode { kind: K::KIND, source: Arc::new(source) }.into())
}

pub(super) fn invalid(kind: &Registration, object: &Value, error: FieldError) -> StoreError {
    let name = match meta::name(object) {
        "" => meta::text(object, "generateName"),
        name => name,
    };
    Refusal::Invalid { kind: kind.key(), name: name.to_owned(), error }.into()
}

/// Changes the list of finalizers; an empty one is left out.
pub(super) fn set_finalizers(object: &mut Value, change: impl FnOnce(&mut Vec<String>)) {
    let mut list: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    change(&mut list);
    meta::set(object, "finalizers", (!list.is_empty()).then(|| json!(list)));
}

/// Checks what a writer says he has read.
pub(super) fn same_version(kind: &Registration, object: &Value, old: &Value) -> Result<(), StoreError> {
    for field in ["uid", "resourceVersion"] {
        let (given, found) = (meta::text(object, field), meta::text(old, field));
        if !given.is_empty() && given != found {
            return Err(Refusal::Conflict {
                kind: kind.key(),
                namespace: meta::namespace(old).to_owned(),
                name: meta::name(old).to_owned(),
                why: format!("{field} is {found}, not {given}"),
            }
            .into());
        }
    }
    Ok(())
}

/// The object with apiVersion, kind and metadata first.
fn framed(kind: &Registration, object: Value) -> Value {
    let mut framed = Map::new();
    framed.insert("apiVersion".into(), kind.api_version().into());
    framed.insert("kind".into(), kind.kind.into());
    framed.insert("metadata".into(), Value::Object(Map::new()));
    if let Value::Object(object) = object {
        framed.extend(object.into_iter().filter(|(key, _)| key != "apiVersion" && key != "kind"));
    }
    Value::Object(framed)
}

/// Drops all metadata but these fields, and empty ones among them.
fn keep_metadata(object: &mut Value, fields: impl IntoIterator<Item = &'static str>) {
    let fields: Vec<&str> = fields.into_iter().collect();
    if let Some(metadata) = meta::metadata_mut(object) {
        metadata.retain(|field, value| fields.contains(&field.as_str()) && is_some(value));
    }
}

/// Whether there is anything in it.
fn is_some(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

/// What an update makes of the old object. The record of owned fields is the old one, unless the new object may bring one
/// and does.
pub(super) fn updated(kind: &Registration, object: Value, old: &Value, with_record: bool) -> Value {
    let mut new = framed(kind, object);
    let record = new.pointer("/metadata/managedFields").filter(|record| with_record && is_some(record)).cloned();
    keep_metadata(&mut new, CLIENT_METADATA);
    let stored = old.get("metadata").and_then(Value::as_object);
    for (field, value) in stored.into_iter().flatten() {
        if !CLIENT_METADATA.contains(&field.as_str()) {
            meta::set(&mut new, field, Some(value.clone()));
        }
    }
    if record.is_some() {
        meta::set(&mut new, "managedFields", record);
    }
    let Some(fields) = new.as_object_mut().filter(|_| kind.status) else { return new };
    match old.get("status") {
        Some(status) => drop(fields.insert("status".into(), status.clone())),
        None => drop(fields.shift_remove("status")),
    }
    new
}

/// An object without what every write sets anew.
pub(super) fn content(object: &Value) -> Value {
    let mut content = object.clone();
    for field in ["resourceVersion", "managedFields", "generation"] {
        meta::set(&mut content, field, None);
    }
    content
}

/// What a generation counts the changes of.
pub(super) fn without_status(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    let mut fields: Vec<_> =
        fields.filter(|(key, _)| !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str())).collect();
    fields.sort_by_key(|(key, _)| *key);
    fields
}
