//! From a request's body to an object that may be stored, or to a list of what is wrong with it.

use serde_json::{Map, Value};

use super::{Kind, Registration};
use crate::field::{FieldError, Rule};
use crate::meta;

/// What a body is meant to do.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A new object.
    Create,
    /// In place of this object (PUT).
    Replace(&'a Value),
    /// This object with a patch already applied.
    Patch(&'a Value),
}

impl<'a> Request<'a> {
    /// The object there is.
    pub fn old(&self) -> Option<&'a Value> {
        match self {
            Self::Create => None,
            Self::Replace(old) | Self::Patch(old) => Some(old),
        }
    }
}

/// A body by its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Encoded again, without unknown fields.
    pub object: Value,
    /// Paths of unknown fields.
    pub unknown: Vec<String>,
}

/// An object that may be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Complete, with defaults.
    pub object: Value,
    /// Paths of fields that are not known and have been dropped: an error under
    /// `fieldValidation=Strict`, a warning under `Warn`.
    pub unknown: Vec<String>,
}

impl Registration {
    /// Makes of a body what may be stored.
    ///
    /// `body` is the whole object, patch already applied; sealed values of the old object and of
    /// the body are in the clear. Status is never taken from a client: it is the old one, or none.
    ///
    /// # Errors
    /// Every rule it breaks, by field; only the first if its very shape is wrong.
    pub fn admit(&self, mut body: Value, request: &Request<'_>) -> Result<Admitted, Vec<FieldError>> {
        if !body.is_object() {
            return Err(vec![FieldError::invalid("", "the body must be a JSON object")]);
        }
        (self.complete)(&mut body, request);
        if self.status {
            keep_status(&mut body, request.old());
        }
        let Decoded { mut object, unknown } = (self.shape.decode)(&body).map_err(|error| vec![error])?;
        (self.default)(&mut object);
        let mut errors = meta::validate(self, &object, request.old());
        errors.extend(self.frozen_spec(&object, request.old()));
        errors.extend((self.validate)(&object, request.old()));
        if errors.is_empty() { Ok(Admitted { object, unknown }) } else { Err(errors) }
    }

    /// Reads a body by its type, and no more: for what is never stored.
    ///
    /// # Errors
    /// Its shape is wrong.
    pub fn read(&self, body: &Value) -> Result<Decoded, FieldError> {
        (self.shape.decode)(body)
    }

    /// Makes of an applied configuration what its manager wants of the object: in the form in which objects are kept,
    /// and without what is nobody's to want.
    pub fn configure(&self, configuration: &mut Value) {
        drop_null(configuration);
        (self.complete)(configuration, &Request::Create);
        if self.status {
            keep_status(configuration, None);
        }
    }

    /// The complaint that a spec was changed which never changes. Both are compared as the type
    /// reads them, so that an object from before a field was added is not taken for another.
    pub fn frozen_spec(&self, new: &Value, old: Option<&Value>) -> Option<FieldError> {
        let old = old.filter(|_| self.immutable_spec)?;
        let spec = |object: &Value| (self.shape.decode)(object).ok()?.object.get("spec").cloned();
        let changed = old.get("spec") != new.get("spec") && spec(old) != spec(new);
        changed.then(|| {
            let message = format!("never changes once the {} exists", self.kind);
            FieldError::forbidden("spec", message)
        })
    }
}

fn keep_status(body: &mut Value, old: Option<&Value>) {
    let Some(body) = body.as_object_mut() else { return };
    match old.and_then(|old| old.get("status")) {
        Some(status) => drop(body.insert("status".into(), status.clone())),
        None => drop(body.shift_remove("status")),
    }
}

/// Null is the same as nothing.
fn drop_null(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_null);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

/// Decodes by a type, noting unknown fields, and encodes again.
pub(super) fn decode<K: Kind>(body: &Value) -> Result<Decoded, FieldError> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(render(&path));
    let deserializer = serde_ignored::Deserializer::new(body, &mut note);
    let typed: K = serde_path_to_error::deserialize(deserializer).map_err(|error| wrong(&error))?;
    match serde_json::to_value(&typed) {
        Ok(object) => Ok(Decoded { object, unknown }),
        Err(error) => Err(FieldError::invalid("", error.to_string())),
    }
}

/// `spec.ports[0].name`, as Kubernetes writes paths.
fn render(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", render(parent)),
        Path::Map { parent, key } => match render(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => render(parent),
    }
}

fn wrong(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let message = error.inner().to_string();
    let parent = match error.path().to_string() {
        path if path == "." => String::new(),
        path => path,
    };
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match missing {
        None => FieldError::invalid(parent, message),
        Some(field) => {
            let path = if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
            FieldError::new(Rule::Required, path, "must be given")
        }
    }
}

/// The map at a top-level field, made if there is none.
pub(super) fn map_mut<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = object.as_object_mut()?.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}
