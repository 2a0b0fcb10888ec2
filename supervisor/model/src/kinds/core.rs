//! The kinds of the core group that Berth serves, with the types of k8s-openapi.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use serde_json::{Value, json};

use super::admit::{Request, map_mut};
use super::table::{Column, count, number, since, text};
use super::{Kind, Permanent, Registration, Shape};
use crate::field::{FieldError, Rule};
use crate::meta;
use crate::patch::Merge;
use crate::policy::Verb;
use crate::resource::{self, Namespace};

/// What clients may do with most kinds.
pub(super) const ALL_VERBS: &[Verb] = &[
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
];

/// Namespace that is there from the start and cannot be deleted.
pub const DEFAULT_NAMESPACE: &str = "default";

/// How long an Event is kept after it was last seen.
pub const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Annotation in which client-side apply keeps the whole body; never stored for a Secret.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Everything in a ConfigMap or Secret together may take this many bytes.
const DATA_BYTES: usize = 1024 * 1024;

/// A registration of the core group with nothing special; each kind overrides what it needs.
pub(super) const PLAIN: Registration = Registration {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    label_name: false,
    verbs: ALL_VERBS,
    instead: "",
    columns: &[],
    cells: |_, _| Vec::new(),
    selectable: &[],
    status: false,
    immutable_spec: false,
    record: false,
    life: |_| None,
    finalizers: &[],
    sealed: &[],
    permanent: &[],
    view: None,
    reading: None,
    chained: false,
    review: false,
    complete: |_, _| (),
    lists: &[],
    shape: Shape::of::<ConfigMap>(),
    default: |_| (),
    validate: |_, _| Vec::new(),
};

/// Namespaces: bundles in one of them share a network and a slice.
pub static NAMESPACE: Registration = Registration {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    label_name: true,
    columns: &[
        Column::NAME,
        Column::text("Status", "Active or Terminating."),
        Column::AGE,
        Column::text("Quota", "What its bundles use together, and what they may.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/status/phase"),
            since(object, "/metadata/creationTimestamp", now),
            quota(object),
        ]
    },
    lists: &[("spec.env", Merge::By("name"))],
    selectable: &["status.phase"],
    status: true,
    permanent: &[Permanent { namespace: "", name: DEFAULT_NAMESPACE, instead: "delete what is in it instead" }],
    shape: Shape::of::<Namespace>(),
    default: |object| {
        if object.pointer("/status/phase").is_none() {
            object["status"] = json!({ "phase": "Active" });
        }
    },
    validate: resource::namespace::validate,
    ..PLAIN
};

/// `cpu: 500m/2, bundles: 1/3`.
fn quota(object: &Value) -> Value {
    let amount = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let hard = object.pointer("/spec/quota").and_then(Value::as_object);
    let of = |(name, most): (&String, &Value)| {
        let used = object.pointer(&format!("/status/used/{name}")).map_or_else(|| "?".to_owned(), amount);
        format!("{name}: {used}/{}", amount(most))
    };
    Value::from(hard.into_iter().flatten().map(of).collect::<Vec<_>>().join(", "))
}

/// Configuration as text or bytes.
pub static CONFIG_MAP: Registration = Registration {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    columns: &[Column::NAME, Column::number("Data", "Number of entries."), Column::AGE],
    cells: |object, now| {
        let entries = count(object, "/data") + count(object, "/binaryData");
        vec![text(object, "/metadata/name"), Value::from(entries), since(object, "/metadata/creationTimestamp", now)]
    },
    shape: Shape::of::<ConfigMap>(),
    validate: |new, old| {
        let mut errors = data_rules(new, &["data", "binaryData"]);
        errors.extend(immutable_data(new, old, &["data", "binaryData"]));
        errors
    },
    ..PLAIN
};

/// Secrets; their values are sealed before they reach the store.
pub static SECRET: Registration = Registration {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    columns: &[
        Column::NAME,
        Column::text("Type", "What the entries are for."),
        Column::number("Data", "Number of entries."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/type"),
            Value::from(count(object, "/data")),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    selectable: &["type"],
    sealed: &["data"],
    complete: complete_secret,
    shape: Shape::of::<Secret>(),
    default: |object| {
        if object.get("type").is_none_or(|kind| kind == "") {
            object["type"] = "Opaque".into();
        }
    },
    validate: |new, old| {
        let mut errors = data_rules(new, &["data"]);
        errors.extend(immutable_data(new, old, &["data"]));
        errors.extend(old.and_then(|old| same_type(new, old)));
        errors
    },
    ..PLAIN
};

/// What happened to an object; kept for [`EVENT_LIFE`].
pub static EVENT: Registration = Registration {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    columns: &[
        Column::text("Last Seen", "Time since it last happened."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "One word."),
        Column::text("Object", "What it happened to."),
        Column::text("Message", "One sentence."),
        Column::number("Count", "How often it happened.").wide(),
        Column::text("Name", "Name of the record.").wide(),
    ],
    cells: event_cells,
    selectable: &[
        "involvedObject.apiVersion",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "source",
        "type",
    ],
    record: true,
    life: |_| Some(EVENT_LIFE),
    shape: Shape::of::<Event>(),
    validate: |new, _| event_rules(new),
    ..PLAIN
};

impl Kind for Namespace {
    fn registration() -> &'static Registration {
        &NAMESPACE
    }
}

impl Kind for ConfigMap {
    fn registration() -> &'static Registration {
        &CONFIG_MAP
    }
}

impl Kind for Secret {
    fn registration() -> &'static Registration {
        &SECRET
    }
}

impl Kind for Event {
    fn registration() -> &'static Registration {
        &EVENT
    }
}

fn event_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let part = |pointer| text(object, pointer).as_str().unwrap_or("").to_lowercase();
    let about = format!("{}/{}", part("/involvedObject/kind"), part("/involvedObject/name"));
    let seen = match object.get("lastTimestamp") {
        Some(Value::String(_)) => "/lastTimestamp",
        _ => "/metadata/creationTimestamp",
    };
    vec![
        since(object, seen, now),
        text(object, "/type"),
        text(object, "/reason"),
        Value::from(about),
        text(object, "/message"),
        number(object, "/count"),
        text(object, "/metadata/name"),
    ]
}

fn event_rules(object: &Value) -> Vec<FieldError> {
    let about = text(object, "/involvedObject/namespace");
    let mut errors = Vec::new();
    if about != "" && about != meta::namespace(object) {
        let message = "must be the namespace of the event itself";
        errors.push(FieldError::invalid("involvedObject.namespace", message));
    }
    let kind = text(object, "/type");
    if kind != "" && kind != "Normal" && kind != "Warning" {
        let message = "must be `Normal` or `Warning`";
        errors.push(FieldError::new(Rule::Unsupported, "type", message));
    }
    errors
}

/// Keys that an update leaves out are kept, a null removes one, text becomes bytes, and the
/// annotation that would hold everything in the clear is dropped.
///
/// A patch has already been applied to the old object, so what it lacks was removed on purpose.
fn complete_secret(body: &mut Value, request: &Request<'_>) {
    let given_text = body.get("stringData").cloned();
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(LAST_APPLIED);
    }
    let Some(data) = map_mut(body, "data") else { return };
    for (key, value) in given_text.iter().filter_map(Value::as_object).flatten() {
        let bytes = value.as_str().map(|text| encode_base64(text.as_bytes()));
        data.insert(key.clone(), bytes.map_or(Value::Null, Value::from));
    }
    if let Request::Replace(old) = request {
        for (key, value) in old.get("data").and_then(Value::as_object).into_iter().flatten() {
            data.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    data.retain(|_, value| !value.is_null());
    let empty = data.is_empty();
    if let Some(body) = body.as_object_mut() {
        body.shift_remove("stringData");
        if empty {
            body.shift_remove("data");
        }
    }
}

fn encode_base64(bytes: &[u8]) -> String {
    let bytes = k8s_openapi::ByteString(bytes.to_vec());
    match serde_json::to_value(bytes) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

fn data_rules(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    let mut seen = std::collections::BTreeSet::new();
    for field in fields {
        for (key, value) in object.get(*field).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().unwrap_or("").len();
            let path = format!("{field}[{key}]");
            if !is_key(key) {
                let message = "use 1 to 253 letters, digits, `-`, `_` and `.` in a key";
                errors.push(FieldError::invalid(path, message));
            } else if !seen.insert(key) {
                errors.push(FieldError::duplicate(path, "the key is used in `data` already"));
            }
        }
    }
    if size > DATA_BYTES {
        let message = format!("the entries take {size} bytes; at most {DATA_BYTES} fit");
        errors.push(FieldError::new(Rule::TooLong, fields.first().copied().unwrap_or(""), message));
    }
    errors
}

fn is_key(key: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&key.len()) && key.bytes().all(inner) && key != "." && !key.starts_with("..")
}

fn immutable_data(new: &Value, old: Option<&Value>, fields: &[&str]) -> Vec<FieldError> {
    let Some(old) = old.filter(|old| old.get("immutable") == Some(&Value::Bool(true))) else {
        return Vec::new();
    };
    let check = |field: &&str| {
        let changed = new.get(*field) != old.get(*field);
        changed.then(|| FieldError::forbidden(*field, "cannot change while `immutable` is set"))
    };
    ["immutable"].iter().chain(fields).filter_map(check).collect()
}

fn same_type(new: &Value, old: &Value) -> Option<FieldError> {
    let message = "never changes; delete the secret and create it again";
    (new.get("type") != old.get("type")).then(|| FieldError::forbidden("type", message))
}
