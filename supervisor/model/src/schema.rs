//! Schemas of kinds as OpenAPI 3.0 has them, made from their types: what they say to people are the types' comments.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::kinds::Registration;
use crate::patch::Merge;

/// The schemas of some kinds and of their lists, and all that they refer to, by name.
pub fn schemas(kinds: &[&'static Registration]) -> Map<String, Value> {
    let settings = SchemaSettings::openapi3().with_transform(RecursiveTransform(plain as fn(&mut Schema)));
    let mut generator = settings.into_generator();
    for kind in kinds {
        kind.register_schema(&mut generator);
    }
    register::<ListMeta>(&mut generator);
    register::<DeleteOptions>(&mut generator);
    register::<Status>(&mut generator);
    let mut schemas = generator.take_definitions(true);
    for kind in kinds {
        let name = kind.schema_name();
        let meant = json!([group_version_kind(kind, kind.kind)]);
        if let Some(schema) = schemas.get_mut(name.as_ref()).and_then(Value::as_object_mut) {
            schema.insert("x-kubernetes-group-version-kind".into(), meant);
        }
        schemas.insert(format!("{name}List"), list(kind, &name));
        for (path, merge) in kind.lists().rows() {
            tell_merge(&mut schemas, &name, path, *merge);
        }
    }
    schemas
}

/// Says of a list how it is merged.
fn tell_merge(schemas: &mut Map<String, Value>, kind: &str, path: &str, merge: Merge) {
    let (holder, field) = path.rsplit_once('.').unwrap_or(("", path));
    let mut holders = holder.split('.').filter(|part| !part.is_empty());
    let step = |name: String, field| referred(schemas.get(&name)?.pointer(&property(field))?);
    let name = holders.try_fold(kind.to_owned(), step);
    let schema = name.and_then(|name| schemas.get_mut(&name)?.pointer_mut(&property(field))?.as_object_mut());
    let Some(schema) = schema else { return };
    let (word, keys) = match merge {
        Merge::By(key) => ("map", Some(json!([key]))),
        Merge::Set => ("set", None),
        Merge::Whole => ("atomic", None),
    };
    schema.insert("x-kubernetes-list-type".into(), word.into());
    schema.extend(keys.map(|keys| ("x-kubernetes-list-map-keys".to_owned(), keys)));
}

fn property(name: &str) -> String {
    format!("/properties/{name}")
}

/// The name of the schema that a field's refers to, by itself or beside what else it says.
fn referred(schema: &Value) -> Option<String> {
    let to = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"))?.as_str()?;
    to.rsplit('/').next().map(str::to_owned)
}

/// The name of the schema of what tells of a failure.
pub fn status_name() -> Cow<'static, str> {
    Status::schema_name()
}

/// The name of the schema of what a deletion may say.
pub fn delete_options_name() -> Cow<'static, str> {
    DeleteOptions::schema_name()
}

/// A kind of a registration's group, as `x-kubernetes-group-version-kind` has it.
pub fn group_version_kind(of: &Registration, kind: &str) -> Value {
    json!({ "group": of.group, "version": of.version, "kind": kind })
}

/// Makes a type's schema one of those that others refer to.
pub(crate) fn register<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn list(kind: &Registration, name: &str) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    json!({
        "description": format!("A list of {}.", kind.kind),
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": reference(&ListMeta::schema_name()),
            "items": { "type": "array", "items": reference(name) },
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [group_version_kind(kind, &kind.list_kind())],
    })
}

/// Makes a schema as plain as those of Kubernetes: words are one enumeration, and null is not told of, as it is the same
/// as nothing everywhere.
fn plain(schema: &mut Schema) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("nullable");
    if let Some(Value::String(says)) = schema.get_mut("description") {
        *says = in_prose(says);
    }
    let Some(words) = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).and_then(words) else { return };
    let said = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let says: Vec<String> = words.iter().map(|(word, says)| format!("`{word}`: {says}")).collect();
    let says = format!("{said} {}", says.join(" ")).trim().to_owned();
    schema.remove("oneOf");
    schema.insert("type".into(), "string".into());
    schema.insert("description".into(), says.into());
    schema.insert("enum".into(), words.into_iter().map(|(word, _)| word).collect());
}

/// The words of an enumeration, each with what it stands for; `None` if it is something else.
fn words(of: &[Value]) -> Option<Vec<(String, String)>> {
    let word = |one: &Value| {
        let only = one.get("enum").and_then(Value::as_array).filter(|words| words.len() == 1);
        let word = only.and_then(|words| words.first()).or_else(|| one.get("const"))?.as_str()?;
        Some((word.to_owned(), in_prose(one.get("description").and_then(Value::as_str).unwrap_or_default())))
    };
    of.iter().map(word).collect()
}

/// A comment as one line. Berth's own are broken at the width of the source.
fn in_prose(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}
