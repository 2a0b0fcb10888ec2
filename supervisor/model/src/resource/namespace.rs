//! Namespace: Kubernetes' own kind, with what its bundles are given in common and what they may use together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bundle::{EnvVar, env_rules};
use crate::field::{FieldError, Rule};
use crate::quantity;
use crate::quota::Quota;

/// Group and version.
const API_VERSION: &str = "v1";
/// The least that a slice can be held to: below it no first process starts.
const MIN_MEMORY: u64 = 16 << 20;
/// A hundredth of a processor, the least that systemd tells the kernel.
const MIN_CPU: u64 = 10;

/// Bundles in one of them share a network, a slice, variables and a quota.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Wire", into = "Wire")]
#[schemars(rename = "io.k8s.api.core.v1.Namespace")]
pub struct Namespace {
    /// Name, version, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: NamespaceSpec,
    /// What is.
    pub status: Option<NamespaceStatus>,
}

/// What a namespace gives its bundles, and what it lets them use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSpec {
    /// Variables of every service in it. A bundle's own variable of the same name wins; one of the image loses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// What its bundles may use together.
    #[serde(skip_serializing_if = "Quota::is_empty")]
    pub quota: Quota,
    /// What has to be done before it is gone, as Kubernetes has it; Berth puts none there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceStatus {
    /// Active or Terminating.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What hinders its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What its bundles use together, of what the quota names.
    #[serde(skip_serializing_if = "Quota::is_empty")]
    pub used: Quota,
}

/// As it is written to the wire, and read from it: kind and version may be absent, but never wrong.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Wire {
    /// Group and version, `v1`.
    api_version: Option<String>,
    /// What it is.
    kind: Option<String>,
    /// Name, version, labels.
    #[serde(default)]
    metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    spec: NamespaceSpec,
    /// What is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<NamespaceStatus>,
}

impl TryFrom<Wire> for Namespace {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        for (what, found, expected) in
            [("apiVersion", &wire.api_version, API_VERSION), ("kind", &wire.kind, "Namespace")]
        {
            if let Some(found) = found.as_ref().filter(|found| *found != expected) {
                return Err(format!("{what} is `{found}`, expected `{expected}`"));
            }
        }
        Ok(Self { metadata: wire.metadata, spec: wire.spec, status: wire.status })
    }
}

impl From<Namespace> for Wire {
    fn from(namespace: Namespace) -> Self {
        Self {
            api_version: Some(API_VERSION.into()),
            kind: Some("Namespace".into()),
            metadata: namespace.metadata,
            spec: namespace.spec,
            status: namespace.status,
        }
    }
}

impl k8s_openapi::Resource for Namespace {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = "";
    const KIND: &'static str = "Namespace";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "namespaces";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for Namespace {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The rules of a namespace.
pub(crate) fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let Ok(namespace) = Namespace::deserialize(new) else { return Vec::new() };
    let mut errors = env_rules(&namespace.spec.env);
    errors.extend(references(&namespace.spec.env));
    errors.extend(quota(&namespace.spec.quota));
    errors
}

/// A reference declares a dependency, and a namespace has none.
fn references(env: &[EnvVar]) -> Vec<FieldError> {
    let refers = |(index, var): (usize, &EnvVar)| {
        let message = "a namespace's variables hold no references: write it into the bundles that need it, or take the \
                       value from a Secret with `valueFrom`";
        var.value.contains("${{").then(|| FieldError::invalid(format!("spec.env[{index}].value"), message))
    };
    env.iter().enumerate().filter_map(refers).collect()
}

fn quota(quota: &Quota) -> Vec<FieldError> {
    let amount = |field: &str, text: &Option<String>, read: fn(&str) -> Result<u64, _>, least: (u64, &str)| {
        let checked: Result<u64, quantity::QuantityError> = text.as_deref().map_or(Ok(least.0), read);
        let message = match checked {
            Err(error) => error.to_string(),
            Ok(found) if found < least.0 => format!("must be at least {}", least.1),
            Ok(_) => return None,
        };
        Some(FieldError::invalid(format!("spec.quota.{field}"), message))
    };
    let none = |field: &str, number: Option<u64>| {
        let message = "must be at least 1";
        (number == Some(0)).then(|| FieldError::new(Rule::Invalid, format!("spec.quota.{field}"), message))
    };
    [
        amount("cpu", &quota.cpu, quantity::cpu_millis, (MIN_CPU, "10m")),
        amount("memory", &quota.memory, quantity::bytes, (MIN_MEMORY, "16Mi")),
        amount("storage", &quota.storage, quantity::bytes, (0, "0")),
        none("pids", quota.pids),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(spec: Value) -> Vec<String> {
        let errors = validate(&json!({"metadata": {"name": "team"}, "spec": spec}), None);
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn it_reads_what_kubernetes_clients_write_and_writes_what_they_read() {
        let bare: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
        let written = serde_json::to_value(&bare).unwrap();
        assert_eq!(written, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "spec": {}}));
        let other = serde_json::from_value::<Namespace>(json!({"kind": "Bundle"})).unwrap_err();
        assert_eq!(other.to_string(), "kind is `Bundle`, expected `Namespace`");
    }

    #[test]
    fn variables_and_quotas_that_cannot_be_are_told_by_their_field() {
        let env = json!([{"name": "A", "value": "b"}, {"name": "a b"}, {"name": "URL", "value": "${{db.HOST}}"}]);
        assert_eq!(wrong(json!({"env": env})), ["spec.env[1].name", "spec.env[2].value"]);
        let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
        assert_eq!(wrong(json!({"env": twice})), ["spec.env[1].name"]);
        let quota = json!({"cpu": "lots", "memory": "1Mi", "storage": "-1", "pids": 0, "bundles": 0});
        assert_eq!(
            wrong(json!({"quota": quota})),
            ["spec.quota.cpu", "spec.quota.memory", "spec.quota.storage", "spec.quota.pids"]
        );
        let quota = json!({"cpu": "1.5", "memory": "1Gi", "storage": "20Gi", "pids": 100, "bundles": 3});
        assert_eq!(wrong(json!({"quota": quota})), [""; 0]);
    }
}
