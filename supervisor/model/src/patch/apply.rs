//! Server-side apply: makes an object agree with a configuration that says all its manager wants, and nothing else.
//!
//! What the configuration holds is merged into the object; what it held the last time and holds no more goes, unless
//! somebody else owns it. Who owns what is [`crate::managed`]'s to say.

use serde_json::{Map, Value};

use super::lists::{Lists, Merge, below};
use crate::field::FieldError;
use crate::managed::Fields;

/// Applies a configuration to an object.
///
/// `last` is what the same manager applied before, `others` what everybody else owns.
///
/// # Errors
/// If two items of a list are one, or an item does not say which it is.
pub fn apply(
    object: &Value,
    configuration: &Value,
    last: &Fields,
    others: &Fields,
    lists: Lists,
) -> Result<Value, FieldError> {
    let mut applied = object.clone();
    if let (Some(into), Some(wanted)) = (applied.as_object_mut(), configuration.as_object()) {
        merge_map(into, wanted, "", lists)?;
    }
    let now = Fields::of(configuration, lists);
    let kept = now.and(others);
    for gone in last.without(&now) {
        prune(&mut applied, gone, &kept);
    }
    Ok(applied)
}

fn merge_map(
    into: &mut Map<String, Value>,
    wanted: &Map<String, Value>,
    path: &str,
    lists: Lists,
) -> Result<(), FieldError> {
    for (name, value) in wanted {
        let path = below(path, name);
        let there = into.entry(name).or_insert(Value::Null);
        merge_value(there, value, &path, lists)?;
    }
    Ok(())
}

fn merge_value(there: &mut Value, wanted: &Value, path: &str, lists: Lists) -> Result<(), FieldError> {
    match (there, wanted, lists.at(path)) {
        (there, Value::Object(wanted), _) => {
            if !there.is_object() {
                *there = Value::Object(Map::new());
            }
            there.as_object_mut().map_or(Ok(()), |there| merge_map(there, wanted, path, lists))
        }
        (there, Value::Array(wanted), merge @ (Merge::By(_) | Merge::Set)) => {
            let old = there.as_array_mut().map(std::mem::take).unwrap_or_default();
            *there = Value::Array(merged_list(old, wanted, path, merge, lists)?);
            Ok(())
        }
        (there, wanted, _) => {
            *there = wanted.clone();
            Ok(())
        }
    }
}

/// What is wanted in the order in which it is wanted, in the places of those of its items that are there already; what
/// is not spoken of stays where it is.
fn merged_list(
    old: Vec<Value>,
    wanted: &[Value],
    path: &str,
    merge: Merge,
    lists: Lists,
) -> Result<Vec<Value>, FieldError> {
    let unclear = || FieldError::invalid(path, "each item must say which it is, and no two may be the same");
    merge.steps(wanted).ok_or_else(unclear)?;
    let is_wanted = |item: &Value| wanted.iter().any(|wanted| merge.key(wanted) == merge.key(item));
    let (mut met, mut rest) = (Vec::new(), wanted.iter());
    let mut list = Vec::new();
    for item in old {
        if is_wanted(&item) {
            list.extend(rest.next().cloned());
            met.push(item);
        } else {
            list.push(item);
        }
    }
    list.extend(rest.cloned());
    for item in &mut list {
        if let Some(found) = met.iter().find(|met| merge.key(met) == merge.key(item)) {
            let wanted = std::mem::replace(item, found.clone());
            merge_value(item, &wanted, path, lists)?;
        }
    }
    Ok(list)
}

/// Takes a field away that nobody wants any more, and what holds it if nothing is left in that. A part of the object
/// itself, as its spec, stays: then the complaint is about what it lacks.
fn prune(object: &mut Value, path: &[String], kept: &Fields) {
    let Some((step, parents)) = path.split_last().filter(|_| !kept.has_at_or_below(path)) else { return };
    let Some(holder) = find(object, parents) else { return };
    let empty = match holder {
        // What tells an item from others stays as long as the item does.
        Value::Object(_) if tells_apart(parents, step) => false,
        Value::Object(map) => {
            map.shift_remove(step.trim_start_matches("f:"));
            map.is_empty()
        }
        Value::Array(items) => {
            items.retain(|item| !is_item(item, step));
            items.is_empty()
        }
        _ => false,
    };
    let is_field = parents.last().is_some_and(|step| step.starts_with("f:"));
    if empty && is_field && parents.len() > 1 {
        prune(object, parents, kept);
    }
}

fn find<'a>(object: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |node, step| match node {
        Value::Object(map) => map.get_mut(step.strip_prefix("f:")?),
        Value::Array(items) => items.iter_mut().find(|item| is_item(item, step)),
        _ => None,
    })
}

fn is_item(item: &Value, step: &str) -> bool {
    match step.split_once(':') {
        Some(("k", _)) => keys(step).iter().all(|(name, value)| item.get(name) == Some(value)),
        Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok_and(|value| *item == value),
        _ => false,
    }
}

fn tells_apart(parents: &[String], step: &str) -> bool {
    let item = parents.last().filter(|parent| parent.starts_with("k:"));
    item.is_some_and(|item| keys(item).contains_key(step.trim_start_matches("f:")))
}

fn keys(step: &str) -> Map<String, Value> {
    step.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
