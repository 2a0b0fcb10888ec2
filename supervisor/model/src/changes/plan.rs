//! What applying a change set would do, as it is shown.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangePlan {
    /// One entry per object; a bundle with a new name is one.
    pub changes: Vec<PlannedChange>,
    /// Names of bundles that are started anew, each of them once.
    pub restarts: Vec<String>,
}

/// What becomes of one object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedChange {
    /// `create`, `update`, `delete` or `rename`.
    pub verb: String,
    /// Kind.
    pub kind: String,
    /// Name, the new one if it is renamed.
    pub name: String,
    /// The old name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Nobody edited it: it follows a new name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follows: bool,
    /// What is different.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// One field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldChange {
    /// Its path.
    pub field: String,
    /// Its value; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl PlannedChange {
    /// `bundle/web`.
    pub fn shown(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    /// In one line.
    pub fn sentence(&self) -> String {
        let fields: Vec<&str> = self.fields.iter().map(|one| one.field.as_str()).collect();
        let what = match (self.verb.as_str(), &self.renamed_from) {
            ("rename", Some(old)) => format!("renamed from {old}"),
            ("update", _) if self.follows => format!("follows a new name: {}", fields.join(", ")),
            ("update", _) => format!("updated: {}", fields.join(", ")),
            (verb, _) => format!("{verb}d"),
        };
        format!("{} {what}", self.shown())
    }
}
