//! NetworkPolicy, with the type and the meaning that Kubernetes gives it.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::core::ALL_VERBS;
use super::table::{Column, since, text};
use super::{Kind, Registration, Shape};
use crate::network;

/// Who may reach the bundles it selects, and whom they may reach.
pub static NETWORK_POLICY: Registration = Registration {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    categories: &[],
    namespaced: true,
    label_name: false,
    verbs: ALL_VERBS,
    instead: "",
    columns: &[
        Column::NAME,
        Column::text("Pod-Selector", "Labels of the bundles it is for."),
        Column::AGE,
        Column::text("Types", "Ingress, Egress or both.").wide(),
    ],
    cells: |object, now| {
        vec![
            text(object, "/metadata/name"),
            selector(object),
            since(object, "/metadata/creationTimestamp", now),
            Value::from(types(object).join(",")),
        ]
    },
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
    shape: Shape::of::<NetworkPolicy>(),
    default: |object| {
        let types = types(object);
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.entry("podSelector").or_insert_with(|| json!({}));
            spec.insert("policyTypes".into(), json!(types));
        }
    },
    validate: network::validate,
};

impl Kind for NetworkPolicy {
    fn registration() -> &'static Registration {
        &NETWORK_POLICY
    }
}

/// As written, or else Ingress always and Egress if there is a list for it.
fn types(object: &Value) -> Vec<String> {
    let written = object.pointer("/spec/policyTypes").and_then(Value::as_array).filter(|types| !types.is_empty());
    match written {
        Some(written) => written.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None if object.pointer("/spec/egress").is_some() => vec!["Ingress".into(), "Egress".into()],
        None => vec!["Ingress".into()],
    }
}

fn selector(object: &Value) -> Value {
    let labels = object.pointer("/spec/podSelector/matchLabels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
    let pairs: Vec<String> = pairs.collect();
    Value::from(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") })
}
