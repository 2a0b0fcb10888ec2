//! Patches: changes to parts of an object.

use serde_json::Value;

use crate::field::FieldError;

mod apply;
mod lists;
mod strategic;
pub use apply::apply;
pub use lists::{Lists, Merge, Row};
pub use strategic::strategic;

/// The media type of a JSON merge patch (RFC 7396).
pub const MERGE: &str = "application/merge-patch+json";
/// The media type of a JSON patch (RFC 6902).
pub const JSON: &str = "application/json-patch+json";
/// The media type of a strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// The media type of a configuration that is applied ([`apply`]), as YAML or JSON.
pub const APPLY: &str = "application/apply-patch+yaml";

/// What applies a patch to an object, given how its lists are merged.
pub type Patcher = fn(&Value, &Value, Lists) -> Result<Value, FieldError>;

/// What applies patches of a media type.
pub fn by_media_type(media_type: &str) -> Option<Patcher> {
    match media_type {
        MERGE => Some(|object, patch, _| merge(object, patch)),
        JSON => Some(|object, patch, _| json(object, patch)),
        STRATEGIC => Some(strategic),
        _ => None,
    }
}

/// Applies a JSON merge patch (RFC 7396) to an object.
///
/// # Errors
/// If the patch is not a JSON object: it would replace the whole object by a value.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, FieldError> {
    if !patch.is_object() {
        return Err(FieldError::invalid("", "a merge patch must be a JSON object"));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// Applies a JSON patch (RFC 6902) to an object: all of its operations, or none.
///
/// # Errors
/// If it is not a list of operations, or one of them does not fit the object; says which.
pub fn json(object: &Value, patch: &Value) -> Result<Value, FieldError> {
    let operations: json_patch::Patch = serde::Deserialize::deserialize(patch)
        .map_err(|error: serde_json::Error| FieldError::invalid("", format!("not a JSON patch: {error}")))?;
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &operations)
        .map_err(|error| FieldError::invalid("", format!("the JSON patch does not fit the object: {error}")))?;
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_sets_replaces_and_removes() {
        let object = json!({"a": 1, "b": {"c": 2, "d": [1, 2]}});
        let patched = merge(&object, &json!({"a": null, "b": {"d": [3], "e": 4}})).unwrap();
        assert_eq!(patched, json!({"b": {"c": 2, "d": [3], "e": 4}}));
    }

    #[test]
    fn a_patch_that_is_no_object_is_refused() {
        assert!(merge(&json!({"a": 1}), &json!([1])).is_err());
    }

    #[test]
    fn a_json_patch_is_applied_whole_or_not_at_all() {
        let object = json!({"a": 1, "b": [1]});
        let good = json!([{"op": "test", "path": "/a", "value": 1}, {"op": "add", "path": "/b/-", "value": 2}]);
        assert_eq!(json(&object, &good).unwrap(), json!({"a": 1, "b": [1, 2]}));
        let stale = json(&object, &json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err();
        assert!(stale.message.starts_with("the JSON patch does not fit the object: operation '/0'"), "{stale}");
        let wrong = json(&object, &json!({"a": 2})).unwrap_err();
        assert!(wrong.message.starts_with("not a JSON patch"), "{wrong}");
    }
}
