//! Kinds whose objects are views: what Kubernetes' clients look for, of bundles and volumes.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::core::PLAIN;
use super::table::{Column, number, since, text};
use super::{BUNDLE, Registration, Shape, VOLUME};
use crate::field::{FieldError, Rule};
use crate::policy::Verb;
use crate::views;

/// What the objects of a kind are views of.
#[derive(Clone, Copy)]
pub struct View {
    /// The kind that is stored.
    pub of: &'static Registration,
    /// The view of one of its objects, which has the same namespace and name; nothing, if there is none of it.
    pub show: fn(Value) -> Option<Value>,
}

const READS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];

/// A running bundle.
pub static POD: Registration = Registration {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    label_name: true,
    verbs: READS,
    instead: "a Pod is what a running Bundle looks like to Kubernetes' clients: change, stop or restart the bundle of its name",
    columns: &[
        Column::NAME,
        Column::text("Ready", "Whether it serves."),
        Column::text("Status", "Running, or why it does not."),
        Column::number("Restarts", "Restarts by systemd of the running unit."),
        Column::AGE,
        Column::text("IP", "Address on this machine.").wide(),
        Column::text("Node", "This machine.").wide(),
        Column::text("Image", "What it runs.").wide(),
    ],
    cells: |object, now| {
        let container = |field: &str| format!("/status/containerStatuses/0/{field}");
        let ready = object.pointer(&container("ready")) == Some(&Value::Bool(true));
        let waits = text(object, &container("state/waiting/reason"));
        vec![
            text(object, "/metadata/name"),
            Value::from(if ready { "1/1" } else { "0/1" }),
            if waits == "" { text(object, "/status/phase") } else { waits },
            number(object, &container("restartCount")),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/status/podIP"),
            text(object, "/spec/nodeName"),
            text(object, "/spec/containers/0/image"),
        ]
    },
    selectable: &["status.phase", "spec.restartPolicy", "spec.nodeName"],
    status: true,
    view: Some(View { of: &BUNDLE, show: views::pod }),
    shape: shape(
        || Cow::Borrowed("io.k8s.api.core.v1.Pod"),
        |generator| {
            let says = "A running Bundle, as Kubernetes' clients expect it: one container, named like the bundle.";
            register(generator, "io.k8s.api.core.v1.Pod", says);
        },
    ),
    ..PLAIN
};

/// Ports of a bundle.
pub static SERVICE: Registration = Registration {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    label_name: true,
    verbs: READS,
    instead: "a Service is what the ports of a Bundle look like to Kubernetes' clients: change spec.ports of the bundle of its name",
    columns: &[
        Column::NAME,
        Column::text("Type", "NodePort if a port is published on the machine."),
        Column::text("Cluster-IP", "Address of the bundle on this machine."),
        Column::text("Port(s)", "Port, the machine's port that leads to it, and protocol."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/spec/type"),
            text(object, "/spec/clusterIP"),
            Value::from(views::ports_in_words(object)),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    view: Some(View { of: &BUNDLE, show: views::service }),
    shape: shape(
        || Cow::Borrowed("io.k8s.api.core.v1.Service"),
        |generator| {
            let says = "The ports of a Bundle and its address, as Kubernetes' clients expect them.";
            register(generator, "io.k8s.api.core.v1.Service", says);
        },
    ),
    ..PLAIN
};

/// A volume.
pub static PERSISTENT_VOLUME_CLAIM: Registration = Registration {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    verbs: READS,
    instead: "a PersistentVolumeClaim is what a Volume looks like to Kubernetes' clients: ask for one in spec.volumes of a \
              bundle, and see `berth volume` for the rest",
    columns: &[
        Column::NAME,
        Column::text("Status", "Bound, Pending or Lost."),
        Column::text("Volume", "The volume's uid."),
        Column::text("Capacity", "The room it has."),
        Column::text("Access Modes", "RWO: one bundle mounts it."),
        Column::AGE,
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            text(object, "/status/phase"),
            text(object, "/spec/volumeName"),
            text(object, "/status/capacity/storage"),
            Value::from("RWO"),
            since(object, "/metadata/creationTimestamp", now),
        ]
    },
    selectable: &["status.phase"],
    status: true,
    view: Some(View { of: &VOLUME, show: views::persistent_volume_claim }),
    shape: shape(
        || Cow::Borrowed("io.k8s.api.core.v1.PersistentVolumeClaim"),
        |generator| {
            let says = "A Volume, as Kubernetes' clients expect it.";
            register(generator, "io.k8s.api.core.v1.PersistentVolumeClaim", says);
        },
    ),
    ..PLAIN
};

/// A bundle.
pub static STATEFUL_SET: Registration = Registration {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    label_name: true,
    verbs: READS,
    instead: "a StatefulSet is what a Bundle looks like to Kubernetes' clients: change the bundle of its name",
    columns: &[
        Column::NAME,
        Column::text("Ready", "Whether it serves, of whether it should run."),
        Column::AGE,
        Column::text("Containers", "Its only container.").wide(),
        Column::text("Images", "What it runs.").wide(),
    ],
    cells: |object, now| {
        let count = |pointer| number(object, pointer).as_u64().unwrap_or_default();
        vec![
            text(object, "/metadata/name"),
            Value::from(format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"))),
            since(object, "/metadata/creationTimestamp", now),
            text(object, "/spec/template/spec/containers/0/name"),
            text(object, "/spec/template/spec/containers/0/image"),
        ]
    },
    status: true,
    view: Some(View { of: &BUNDLE, show: views::stateful_set }),
    shape: shape(
        || Cow::Borrowed("io.k8s.api.apps.v1.StatefulSet"),
        |generator| {
            let says =
                "A Bundle, as Kubernetes' clients expect it: one replica if it is to run, and none if it is stopped.";
            register(generator, "io.k8s.api.apps.v1.StatefulSet", says);
        },
    ),
    ..PLAIN
};

pub(super) const fn shape(schema_name: fn() -> Cow<'static, str>, register_schema: fn(&mut SchemaGenerator)) -> Shape {
    Shape { decode: |_| Err(read_only()), schema_name, register_schema }
}

fn read_only() -> FieldError {
    FieldError::new(Rule::Unsupported, "kind", "objects of this kind are views of others and cannot be written")
}

/// Without Kubernetes' hundreds of types: who only reads needs no more than the name.
pub(super) fn register(generator: &mut SchemaGenerator, name: &str, says: &str) {
    let metadata = generator.subschema_for::<ObjectMeta>();
    let part =
        |says: &str| json!({ "description": says, "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!({
        "description": says,
        "type": "object",
        "properties": {
            "apiVersion": { "description": "Group and version.", "type": "string" },
            "kind": { "description": "This kind.", "type": "string" },
            "metadata": metadata,
            "spec": part("What is wanted."),
            "status": part("How it fares."),
        },
    });
    generator.definitions_mut().insert(name.to_owned(), schema);
}
