//! Operations and bundles as a command needs to see them: loosely, so that a server of a later
//! version, with step names and phases unknown here, is still understood.

use berth_model::resource::bundle::{Port, Termination};
use berth_model::resource::operation::{Actor, OperationError, Target};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::Deserialize;
use serde_json::Value;

/// An Operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct OperationView {
    pub metadata: ObjectMeta,
    pub spec: OperationWish,
    pub status: OperationState,
}

/// What it was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OperationWish {
    pub kind: String,
    pub target: Target,
    pub actor: Actor,
    pub generation: i64,
    pub sequence: u64,
    pub reason: String,
    pub priority: String,
    pub relations: RelationsView,
}

/// How it stands to others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RelationsView {
    pub requires: Vec<String>,
    pub prefers_before: Vec<String>,
    pub conflicts_with: Vec<String>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OperationState {
    pub state: String,
    pub waiting: String,
    pub released_by: Option<Actor>,
    pub steps: Vec<StepView>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub error: Option<OperationError>,
    pub result: Value,
}

/// One of its steps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct StepView {
    pub name: String,
    pub state: String,
    pub progress: u8,
    pub message: String,
    pub attempt: u32,
    pub next_try: Option<String>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

/// A Bundle.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct BundleView {
    pub metadata: ObjectMeta,
    pub spec: BundleWish,
    pub status: BundleState,
}

/// What it is to be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BundleWish {
    pub image: String,
    pub ports: Vec<Port>,
}

/// How it fares.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BundleState {
    pub observed_generation: i64,
    pub phase: String,
    pub conditions: Vec<Condition>,
    pub revision: Option<u64>,
    pub unit: Option<String>,
    pub address: Option<String>,
    pub image: Option<String>,
    pub restarts: u64,
    pub last_termination: Option<Termination>,
    pub available_actions: Vec<String>,
    pub next_try: Option<String>,
}

impl OperationView {
    /// Reads an object; what cannot be read at all is an operation nothing is known of.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(object).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn finished(&self) -> bool {
        matches!(self.status.state.as_str(), "Succeeded" | "Failed" | "Cancelled" | "RolledBack")
    }

    /// Whether a step of it has come to its end.
    pub fn has_done(&self, step: &str) -> bool {
        self.status.steps.iter().any(|one| one.name == step && one.state == "Succeeded")
    }

    /// What it waits for before it begins, and what can be done about that; empty if it waits for nothing.
    pub fn waits(&self) -> String {
        match (self.status.state.as_str(), self.status.waiting.as_str()) {
            ("Held", why) => format!("{why}: berth operation release {}", self.name()),
            (_, why) => why.to_owned(),
        }
    }

    /// The number of the revision it made, if it made one.
    pub fn revision(&self) -> Option<u64> {
        self.status.result["revision"].as_u64()
    }

    /// Sorts by age, the oldest first. Creation is told in whole seconds; within one, what ended
    /// earlier comes first, and what is still at work comes last.
    pub fn order(&self) -> (Option<Timestamp>, bool, Option<Timestamp>, String) {
        let created = self.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let finished = self.status.finished_at.as_deref().and_then(|time| time.parse().ok());
        (created, !self.finished(), finished, self.name().to_owned())
    }
}

impl BundleView {
    /// Reads an object; what cannot be read at all is a bundle nothing is known of.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(object).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// The first condition that does not hold: that is where it hangs.
    pub fn obstacle(&self) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.status != "True")
    }
}

/// `PullImage` as people say it: `pull image`.
pub(super) fn words(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_of_a_later_server_is_understood() {
        let operation = OperationView::of(&json!({
            "metadata": {"name": "x"},
            "spec": {"kind": "Teleport", "target": {"kind": "Bundle", "namespace": "a", "name": "b"}, "later": 1},
            "status": {"state": "Running", "steps": [{"name": "BeamUp", "state": "Running", "progress": 40}]}
        }));
        assert_eq!(operation.name(), "x");
        assert_eq!(words(&operation.status.steps[0].name), "beam up");
        assert!(!operation.finished());
    }
}
