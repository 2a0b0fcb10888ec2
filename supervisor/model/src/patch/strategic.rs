//! Strategic merge patches, as Kubernetes has them for its own kinds: a merge patch in which some lists are merged too,
//! and keys that begin with `$` say how.
//!
//! Which lists these are says the kind ([`Lists`]). All others are replaced whole, as their types in Kubernetes say.

use serde_json::{Map, Value};

use super::lists::{Lists, Merge, below};
use crate::field::FieldError;

/// In a map, or as an item of a list: `merge`, `replace` or `delete`.
const DIRECTIVE: &str = "$patch";
/// The only keys that a map keeps.
const RETAIN: &str = "$retainKeys";
/// Items that a set loses; the set's name follows.
const REMOVE: &str = "$deleteFromPrimitiveList/";
/// The order of a merged list, whose name follows.
const ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object.
///
/// # Errors
/// If the patch is not a JSON object, or says something that cannot be followed.
pub fn strategic(object: &Value, patch: &Value, lists: Lists) -> Result<Value, FieldError> {
    let patch = patch.as_object();
    let patch = patch.ok_or_else(|| FieldError::invalid("", "a strategic merge patch must be a JSON object"))?;
    let mut patched = object.as_object().cloned().unwrap_or_default();
    merge_map(&mut patched, patch, "", lists)?;
    Ok(Value::Object(patched))
}

fn merge_map(
    into: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
    lists: Lists,
) -> Result<(), FieldError> {
    if directive(patch, path)? == Some("replace") {
        into.clear();
    }
    if let Some(kept) = patch.get(RETAIN).and_then(Value::as_array) {
        into.retain(|key, _| kept.iter().any(|kept| kept == key));
    }
    for (key, gone) in patch.iter().filter_map(|(key, gone)| Some((key.strip_prefix(REMOVE)?, gone.as_array()?))) {
        if let Some(Value::Array(items)) = into.get_mut(key) {
            items.retain(|item| !gone.contains(item));
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        merge_field(into, key, value, &below(path, key), lists)?;
    }
    for (key, order) in patch.iter().filter_map(|(key, order)| Some((key.strip_prefix(ORDER)?, order.as_array()?))) {
        if let Some(Value::Array(items)) = into.get_mut(key) {
            sort(items, order, lists.at(&below(path, key)));
        }
    }
    Ok(())
}

fn merge_field(
    into: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    path: &str,
    lists: Lists,
) -> Result<(), FieldError> {
    match value {
        Value::Null => drop(into.shift_remove(key)),
        Value::Object(patch) if directive(patch, path)? == Some("delete") => drop(into.shift_remove(key)),
        Value::Object(patch) => {
            let mut map = match into.get_mut(key).map(Value::take) {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            merge_map(&mut map, patch, path, lists)?;
            into.insert(key.to_owned(), Value::Object(map));
        }
        Value::Array(patch) => {
            let old = into.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            into.insert(key.to_owned(), Value::Array(merged_list(old, patch, path, lists)?));
        }
        plain => drop(into.insert(key.to_owned(), plain.clone())),
    }
    Ok(())
}

fn merged_list(mut old: Vec<Value>, patch: &[Value], path: &str, lists: Lists) -> Result<Vec<Value>, FieldError> {
    let merge = lists.at(path);
    let alone = |item: &&Value| item.get(DIRECTIVE) == Some(&"replace".into());
    if merge == Merge::Whole || patch.iter().any(|item| alone(&item)) {
        return Ok(patch.iter().filter(|item| !alone(item)).cloned().collect());
    }
    for (at, item) in patch.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let key = merge.key(item).ok_or_else(|| FieldError::invalid(&path, "does not say which item it is about"))?;
        let found = old.iter().position(|old| merge.key(old) == Some(key));
        let Some(changes) = item.as_object() else {
            old.extend(found.is_none().then(|| item.clone()));
            continue;
        };
        let mut fields = match found.map(|found| old.remove(found)) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        if directive(changes, &path)? != Some("delete") {
            merge_map(&mut fields, changes, &path, lists)?;
            old.insert(found.unwrap_or(old.len()), Value::Object(fields));
        }
    }
    Ok(old)
}

/// What a map says of itself.
fn directive<'a>(patch: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, FieldError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None => Ok(None),
        Some(Some(known @ ("merge" | "replace" | "delete"))) => Ok(Some(known)),
        Some(_) => Err(FieldError::invalid(below(path, DIRECTIVE), "use merge, replace or delete")),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(REMOVE) || key.starts_with(ORDER)
}

/// Puts items in the order in which they are named; those that are not named follow as they were.
fn sort(items: &mut [Value], order: &[Value], merge: Merge) {
    let place = |item: &Value| order.iter().position(|named| merge.key(named) == merge.key(item)).unwrap_or(usize::MAX);
    items.sort_by_key(place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(object: Value, patch: Value) -> Value {
        strategic(&object, &patch, Lists::default()).unwrap()
    }

    #[test]
    fn maps_are_merged_and_null_removes() {
        let object = json!({"data": {"a": "1", "b": "2"}, "immutable": true});
        let patch = json!({"data": {"a": null, "c": "3", "d": null}, "immutable": null});
        assert_eq!(patched(object, patch), json!({"data": {"b": "2", "c": "3"}}));
    }

    #[test]
    fn a_map_is_replaced_removed_or_reduced_as_it_says() {
        let object = json!({"data": {"a": "1", "b": "2"}});
        let with = |data: Value| patched(object.clone(), json!({ "data": data }));
        assert_eq!(with(json!({"$patch": "replace", "c": "3"})), json!({"data": {"c": "3"}}));
        assert_eq!(with(json!({"$patch": "delete"})), json!({}));
        assert_eq!(with(json!({"$patch": "merge", "c": "3"}))["data"], json!({"a": "1", "b": "2", "c": "3"}));
        assert_eq!(with(json!({"$retainKeys": ["b", "c"], "c": "3"}))["data"], json!({"b": "2", "c": "3"}));
    }

    #[test]
    fn owners_are_merged_by_their_uid() {
        let object = json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}, {"uid": "2", "name": "b"}]}});
        let patch = json!({"metadata": {
            "$setElementOrder/ownerReferences": [{"uid": "3"}, {"uid": "1"}],
            "ownerReferences": [{"uid": "1", "controller": true}, {"uid": "2", "$patch": "delete"}, {"uid": "3"}],
        }});
        let owners = json!([{"uid": "3"}, {"uid": "1", "name": "a", "controller": true}]);
        assert_eq!(patched(object.clone(), patch)["metadata"]["ownerReferences"], owners);
        let patch = json!({"metadata": {"ownerReferences": [{"$patch": "replace"}, {"uid": "4"}]}});
        assert_eq!(patched(object, patch)["metadata"]["ownerReferences"], json!([{"uid": "4"}]));
    }

    #[test]
    fn finalizers_are_a_set() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["b", "c"]}});
        assert_eq!(patched(object, patch)["metadata"]["finalizers"], json!(["b", "c"]));
    }

    #[test]
    fn every_other_list_is_replaced_whole() {
        let object = json!({"spec": {"policyTypes": ["Ingress", "Egress"]}});
        let patch = json!({"spec": {"$setElementOrder/policyTypes": ["Egress"], "policyTypes": ["Egress"]}});
        assert_eq!(patched(object, patch), json!({"spec": {"policyTypes": ["Egress"]}}));
    }

    #[test]
    fn what_cannot_be_followed_is_told_by_its_place() {
        let wrong = |patch: Value| strategic(&json!({}), &patch, Lists::default()).unwrap_err().field;
        assert_eq!(wrong(json!({"data": {"$patch": "dance"}})), "data.$patch");
        assert_eq!(wrong(json!({"metadata": {"ownerReferences": [{}]}})), "metadata.ownerReferences[0]");
        assert_eq!(wrong(json!([])), "");
    }
}
