//! Objects of every kind from the bytes of a fuzzer: mostly as their schemas have them, so that they get as far as the
//! rules, and sometimes not.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use berth_model::kinds::{KINDS, Registration};
use berth_model::schema;
use serde_json::{Map, Value, json};

/// How deep an object goes before it is left as it is.
const DEPTH: usize = 8;

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "",
    "a",
    "web",
    "default",
    "kube-system",
    "berth.dev/data",
    "registry.example/web:1",
    "/data",
    "64Mi",
    "1.5",
    "100m",
    "8080",
    "http",
    "0 3 * * *",
    "@daily",
    "Europe/Berlin",
    "10m",
    "1h",
    "${{db.HOST}}",
    "$$",
    "10.0.0.0/8",
    "fd00::/8",
    "2026-03-01T12:00:00Z",
    "c2VzYW1l",
    "..",
    "/",
    "a/../b",
    "\u{0}",
    "Ω",
    "-1",
    "true",
    "null",
];

static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| schema::schemas(KINDS));

/// A kind of the registry.
pub fn kind(from: &mut Unstructured<'_>) -> Result<&'static Registration> {
    from.choose(KINDS).copied()
}

/// Something like an object of a kind.
pub fn object(kind: &Registration, from: &mut Unstructured<'_>) -> Result<Value> {
    let mut object = match SCHEMAS.get(kind.schema_name().as_ref()) {
        Some(schema) => of_schema(schema, from, DEPTH)?,
        None => anything(from, DEPTH)?,
    };
    // Without these, hardly one would get any further.
    if let Some(whole) = object.as_object_mut() {
        whole.remove("kind");
        whole.remove("apiVersion");
        let metadata = whole.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("name".into(), "web".into());
            metadata.remove("namespace");
            if kind.namespaced {
                metadata.insert("namespace".into(), "default".into());
            }
        }
    }
    Ok(object)
}

/// A value that a schema describes; one time in thirty-two another.
fn of_schema(schema: &Value, from: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    if depth == 0 || from.ratio(1_u8, 32)? {
        return anything(from, depth.min(2));
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return SCHEMAS.get(name).map_or(Ok(Value::Null), |schema| of_schema(schema, from, depth));
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(schemas) = schema[choice].as_array().filter(|schemas| !schemas.is_empty()) {
            return of_schema(from.choose(schemas)?, from, depth);
        }
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.is_empty()) {
        return Ok(from.choose(words)?.clone());
    }
    match schema["type"].as_str() {
        Some("object") => map(schema, from, depth - 1),
        Some("array") => (0..from.int_in_range(0..=3)?).map(|_| of_schema(&schema["items"], from, depth - 1)).collect(),
        Some("integer") => number(from),
        Some("number") => Ok(json!(from.arbitrary::<f64>()?)),
        Some("boolean") => Ok(Value::Bool(from.arbitrary()?)),
        Some("string") => text(from).map(Value::String),
        _ => anything(from, depth - 1),
    }
}

fn map(schema: &Value, from: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let mut object = Map::new();
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let wanted = if required.contains(&json!(name)) { !from.ratio(1_u8, 64)? } else { from.ratio(1_u8, 3)? };
        if wanted {
            object.insert(name.clone(), of_schema(property, from, depth)?);
        }
    }
    if schema["additionalProperties"].is_object() || from.ratio(1_u8, 32)? {
        for _ in 0..from.int_in_range(0..=2)? {
            object.insert(text(from)?, of_schema(&schema["additionalProperties"], from, depth)?);
        }
    }
    Ok(object.into())
}

/// Any value.
pub fn anything(from: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let simple = depth == 0;
    Ok(match from.int_in_range(0..=if simple { 3 } else { 5 })? {
        0 => Value::Null,
        1 => Value::Bool(from.arbitrary()?),
        2 => number(from)?,
        3 => text(from)?.into(),
        4 => (0..from.int_in_range(0..=3)?).map(|_| anything(from, depth - 1)).collect::<Result<_>>()?,
        _ => {
            let mut object = Map::new();
            for _ in 0..from.int_in_range(0..=3)? {
                object.insert(text(from)?, anything(from, depth - 1)?);
            }
            object.into()
        }
    })
}

fn number(from: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match from.int_in_range(0..=3)? {
        0 => json!(from.int_in_range(0..=100)?),
        1 => json!(from.arbitrary::<u16>()?),
        2 => json!(from.arbitrary::<i64>()?),
        _ => json!(from.arbitrary::<u64>()?),
    })
}

fn text(from: &mut Unstructured<'_>) -> Result<String> {
    if from.ratio(3_u8, 4)? { Ok((*from.choose(WORDS)?).to_owned()) } else { from.arbitrary() }
}
