//! Patches of every media type, of objects of every kind: each is refused, or does what its kind of patch promises.
#![no_main]

use arbitrary::{Result, Unstructured};
use berth_model::kinds::{Registration, Request};
use berth_model::managed::Fields;
use berth_model::patch;
use berth_model_fuzz::{anything, kind, object};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

// Bytes that run out end an attempt early, and nothing else.
fuzz_target!(|bytes: &[u8]| all(&mut Unstructured::new(bytes)).unwrap_or_default());

fn all(from: &mut Unstructured<'_>) -> Result<()> {
    let kind = kind(from)?;
    let (there, other) = (object(kind, from)?, object(kind, from)?);
    let changes = if from.ratio(1_u8, 4)? { anything(from, 4)? } else { other };
    for media in [patch::MERGE, patch::STRATEGIC] {
        let Some(patcher) = patch::by_media_type(media) else { continue };
        if let Ok(patched) = patcher(&there, &changes, kind.lists()) {
            drop(kind.admit(patched, &Request::Patch(&there)));
        }
    }
    merged_once_is_merged_twice(&there, &changes);
    let operations = operations(&there, from)?;
    if let Ok(patched) = patch::json(&there, &operations) {
        drop(kind.admit(patched, &Request::Patch(&there)));
    }
    applied_is_there(kind, &there, &changes);
    Ok(())
}

fn merged_once_is_merged_twice(there: &Value, changes: &Value) {
    if let Ok(once) = patch::merge(there, changes) {
        assert_eq!(patch::merge(&once, changes), Ok(once));
    }
}

/// A configuration that is applied again changes nothing, and one that then wants nothing takes all of its own away.
fn applied_is_there(kind: &Registration, there: &Value, configuration: &Value) {
    if !configuration.is_object() {
        return;
    }
    let (mut configuration, lists, nobody) = (configuration.clone(), kind.lists(), Fields::default());
    kind.configure(&mut configuration);
    let owned = Fields::of(&configuration, lists);
    let Ok(applied) = patch::apply(there, &configuration, &nobody, &nobody, lists) else { return };
    assert_eq!(patch::apply(&applied, &configuration, &owned, &nobody, lists).as_ref(), Ok(&applied));
    drop(patch::apply(&applied, &json!({}), &owned, &nobody, lists));
}

/// A JSON patch at places that the object has, and at some that it has not.
fn operations(there: &Value, from: &mut Unstructured<'_>) -> Result<Value> {
    let mut operations = Vec::new();
    for _ in 0..from.int_in_range(0..=3)? {
        let word = *from.choose(&["add", "remove", "replace", "move", "copy", "test", "dance"])?;
        let (path, source) = (place(there, from)?, place(there, from)?);
        operations.push(json!({ "op": word, "path": path, "from": source, "value": anything(from, 2)? }));
    }
    Ok(operations.into())
}

fn place(there: &Value, from: &mut Unstructured<'_>) -> Result<String> {
    let (mut at, mut path) = (there, String::new());
    for _ in 0..from.int_in_range(0..=4)? {
        let name = match at {
            Value::Object(map) if !map.is_empty() => {
                map.keys().nth(from.choose_index(map.len())?).cloned().unwrap_or_default()
            }
            Value::Array(items) => from.int_in_range(0..=items.len())?.to_string(),
            _ => (*from.choose(&["-", "0", "", "~2", "web", "18446744073709551615"])?).to_owned(),
        };
        at = match at {
            Value::Array(items) => name.parse::<usize>().ok().and_then(|at| items.get(at)).unwrap_or(&Value::Null),
            map => &map[&name],
        };
        path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
    }
    Ok(path)
}
