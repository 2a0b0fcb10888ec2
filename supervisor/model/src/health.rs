//! Whether the machine came up well: what a version that is tried for the first time is judged by.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::resource::Bundle;

/// How the machine fares as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineHealth {
    /// Nothing is waited for.
    pub healthy: bool,
    /// What is, and why.
    pub waiting_for: Vec<Waiting>,
    /// How long a start of the machine may take until it is healthy, in seconds from when the supervisor is asked first.
    pub timeout_seconds: u32,
}

/// Something that should serve and does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Waiting {
    /// `namespace/name` of a bundle, or a part of the supervisor.
    pub what: String,
    /// Where it hangs, for people.
    pub why: String,
}

/// What a start of the machine came to, as it is kept on the disk: whoever starts afterwards, perhaps from the version
/// before, reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BootReport {
    /// The version that was started, as `IMAGE_VERSION` of os-release has it.
    pub version: String,
    /// The kernel's id of that start.
    pub boot_id: String,
    /// When this was written, RFC 3339.
    pub at: String,
    /// All served that should.
    pub healthy: bool,
    /// What did not, for people.
    pub why: String,
}

impl MachineHealth {
    /// From all that is waited for.
    pub fn of(waiting_for: Vec<Waiting>, timeout_seconds: u32) -> Self {
        Self { healthy: waiting_for.is_empty(), waiting_for, timeout_seconds }
    }

    /// In one line.
    pub fn told(&self) -> String {
        let each: Vec<String> = self.waiting_for.iter().map(Waiting::told).collect();
        if each.is_empty() { "everything that should serve does".to_owned() } else { each.join("; ") }
    }
}

impl Waiting {
    fn told(&self) -> String {
        format!("{}: {}", self.what, self.why)
    }
}

/// The bundles that should serve and do not, but for those that are excused, by `namespace/name`.
pub fn waited_for(bundles: &[Bundle], excused: &BTreeSet<String>) -> Vec<Waiting> {
    let should = bundles.iter().filter(|bundle| bundle.spec.start && bundle.metadata.deletion_timestamp.is_none());
    let not = should.filter(|bundle| bundle.status.as_ref().is_none_or(|status| !status.is_ready()));
    not.map(waiting).filter(|one| !excused.contains(&one.what)).collect()
}

/// `namespace/name`.
pub fn path(bundle: &Bundle) -> String {
    let metadata = &bundle.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn waiting(bundle: &Bundle) -> Waiting {
    let status = bundle.status.as_ref();
    let stuck = status.into_iter().flat_map(|status| &status.conditions).find(|one| one.status != "True");
    let why = match stuck {
        None => "nothing is known of it yet".to_owned(),
        Some(one) if one.message.is_empty() => one.reason.clone(),
        Some(one) => format!("{}: {}", one.reason, one.message),
    };
    Waiting { what: path(bundle), why }
}

/// Those that serve.
pub fn serving(bundles: &[Bundle]) -> BTreeSet<String> {
    let ready = bundles
        .iter()
        .filter(|bundle| bundle.status.as_ref().is_some_and(super::resource::bundle::BundleStatus::is_ready));
    ready.map(path).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::condition::ConditionType;

    fn bundle(name: &str, start: bool, conditions: serde_json::Value) -> Bundle {
        let metadata = json!({"name": name, "namespace": "default"});
        let spec = json!({"image": "localhost/a:1", "start": start});
        let object = json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": metadata, "spec": spec,
            "status": {"conditions": conditions}});
        serde_json::from_value(object).unwrap()
    }

    fn condition(kind: ConditionType, status: &str, message: &str) -> serde_json::Value {
        json!([{"type": kind.name(), "status": status, "reason": "Because", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    #[test]
    fn whatever_should_serve_and_does_not_is_waited_for_and_says_where_it_hangs() {
        let bundles = [
            bundle("serves", true, condition(ConditionType::Ready, "True", "")),
            bundle("stopped", false, condition(ConditionType::Ready, "False", "")),
            bundle("hangs", true, condition(ConditionType::Bound, "False", "no such image")),
            bundle("fresh", true, json!([])),
            bundle("hung-before", true, json!([])),
        ];
        let waiting = waited_for(&bundles, &BTreeSet::from(["default/hung-before".to_owned()]));
        let health = MachineHealth::of(waiting, 120);
        let told = "default/hangs: Because: no such image; default/fresh: nothing is known of it yet";
        assert_eq!((health.healthy, health.told().as_str()), (false, told));
        assert!(MachineHealth::of(waited_for(&bundles[..2], &BTreeSet::new()), 120).healthy);
        assert_eq!(serving(&bundles), BTreeSet::from(["default/serves".to_owned()]));
    }
}
