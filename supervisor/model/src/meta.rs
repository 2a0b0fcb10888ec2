//! Metadata of objects of any kind: reading it from a JSON object, and the rules it must keep.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::field::{FieldError, Rule};
use crate::id;
use crate::kinds::Registration;

/// Labels and annotations together may take this many bytes.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Text at `metadata.<field>`; empty if there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or("")
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`; empty for kinds without.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion` as the number it is.
pub fn resource_version(object: &Value) -> Option<u64> {
    text(object, "resourceVersion").parse().ok()
}

/// `metadata.generation`; 0 if there is none.
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}

/// Whether its removal has been asked for.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Uids of `metadata.ownerReferences`.
pub fn owners(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owners = list.into_iter().flatten();
    owners.filter_map(|owner| owner.get("uid").and_then(Value::as_str)).collect()
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.pointer("/metadata/labels").and_then(Value::as_object)
}

/// `metadata`, made if there is none; `None` if the object is no JSON object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata");
    metadata.or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// Sets `metadata.<field>`, or removes it.
pub fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(metadata) = metadata_mut(object) else { return };
    match value {
        Some(value) => drop(metadata.insert(field.into(), value)),
        None => drop(metadata.shift_remove(field)),
    }
}

/// Checks the metadata of a new object, or of a changed one against the old.
pub fn validate(kind: &Registration, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(check_name(kind, new));
    errors.extend(check_namespace(kind, new));
    errors.extend(check_map(new, "labels", label_value));
    errors.extend(check_map(new, "annotations", |_| Ok(())));
    errors.extend(check_annotation_size(new));
    errors.extend(check_finalizers(new, old));
    errors.extend(check_owners(new));
    errors.extend(old.into_iter().flat_map(|old| check_same(new, old)));
    errors
}

fn check_name(kind: &Registration, object: &Value) -> Option<FieldError> {
    let (name, prefix) = (name(object), text(object, "generateName"));
    if name.is_empty() && prefix.is_empty() {
        return Some(FieldError::required("metadata.name", "give the object a name"));
    }
    let rule = if kind.label_name { id::dns_label } else { id::dns_subdomain };
    let (field, checked) = match name {
        "" => ("metadata.generateName", format!("{prefix}x")),
        name => ("metadata.name", name.to_owned()),
    };
    rule(&checked).err().map(|error| FieldError::invalid(field, error.to_string()))
}

fn check_namespace(kind: &Registration, object: &Value) -> Option<FieldError> {
    let namespace = namespace(object);
    let field = "metadata.namespace";
    if !kind.namespaced {
        let message = format!("a {} lives in no namespace; leave it out", kind.kind);
        return (!namespace.is_empty()).then(|| FieldError::forbidden(field, message));
    }
    let checked = id::dns_label(namespace);
    checked.err().map(|error| FieldError::invalid(field, error.to_string()))
}

fn check_map(object: &Value, field: &str, value_rule: fn(&str) -> Result<(), String>) -> Vec<FieldError> {
    let map = object.get("metadata").and_then(|meta| meta.get(field)).and_then(Value::as_object);
    let check = |(key, value): (&String, &Value)| {
        let result = qualified(key).and_then(|()| value_rule(value.as_str().unwrap_or("")));
        result.err().map(|message| FieldError::invalid(format!("metadata.{field}[{key}]"), message))
    };
    map.into_iter().flatten().filter_map(check).collect()
}

fn check_annotation_size(object: &Value) -> Option<FieldError> {
    let map = object.pointer("/metadata/annotations").and_then(Value::as_object)?;
    let size: usize = map.iter().map(|(k, v)| k.len() + v.as_str().unwrap_or("").len()).sum();
    (size > ANNOTATION_BYTES).then(|| {
        let message = format!("annotations take {size} bytes; at most {ANNOTATION_BYTES} fit");
        FieldError::new(Rule::TooLong, "metadata.annotations", message)
    })
}

fn check_finalizers(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let before: BTreeSet<&str> = old.map(finalizers).unwrap_or_default().into_iter().collect();
    let closed = old.is_some_and(is_deleting);
    let check = |(index, finalizer): (usize, &str)| {
        let field = format!("metadata.finalizers[{index}]");
        if closed && !before.contains(finalizer) {
            return Some(FieldError::forbidden(field, "the object is being deleted; none can be added"));
        }
        qualified(finalizer).err().map(|message| FieldError::invalid(field, message))
    };
    finalizers(new).into_iter().enumerate().filter_map(check).collect()
}

fn check_owners(object: &Value) -> Vec<FieldError> {
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let check = |(index, owner): (usize, &Value)| {
        let absent = |field: &&&str| owner.get(**field).and_then(Value::as_str).unwrap_or("").is_empty();
        let field = ["apiVersion", "kind", "name", "uid"].iter().find(absent)?;
        let path = format!("metadata.ownerReferences[{index}].{field}");
        Some(FieldError::required(path, "must be given"))
    };
    list.into_iter().flatten().enumerate().filter_map(check).collect()
}

/// What must not change from old to new.
fn check_same(new: &Value, old: &Value) -> Vec<FieldError> {
    let check = |field: &&str| {
        let (new, old) = (text(new, field), text(old, field));
        let changed = !new.is_empty() && new != old;
        changed.then(|| {
            let message = format!("never changes: it is `{old}`");
            FieldError::forbidden(format!("metadata.{field}"), message)
        })
    };
    ["name", "namespace"].iter().filter_map(check).collect()
}

/// Checks a label key, annotation key or finalizer: `[prefix.example/]name`.
pub fn qualified(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        let lower = prefix.to_ascii_lowercase();
        id::dns_subdomain(&lower).map_err(|error| format!("prefix of `{key}`: {error}"))?;
    }
    if is_word(name) && !name.is_empty() {
        return Ok(());
    }
    Err(format!(
        "`{key}` is not a valid key: after an optional `prefix/` use 1 to 63 letters, digits, `-`, \
         `_` and `.`, with a letter or digit at both ends"
    ))
}

/// Checks the value of a label.
pub fn label_value(value: &str) -> Result<(), String> {
    if is_word(value) {
        return Ok(());
    }
    Err(format!(
        "`{value}` is not a valid label value: use at most 63 letters, digits, `-`, `_` and `.`, \
         with a letter or digit at both ends"
    ))
}

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}
