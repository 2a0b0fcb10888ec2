//! Patches: changes to parts of an object.

use serde_json::Value;

use crate::field::FieldError;

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
}
