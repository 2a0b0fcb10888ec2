//! ChangeSet: edits of a namespace that wait to be made together.
//!
//! ```text
//!  Open --add, rebase--> Open --apply--> Applied (a record from then on)
//!   |
//!   +--discard--> (gone, with all that was staged)
//! ```
//!
//! Entries lie in the status: author and time are the server's to write. What they come to is in
//! [`crate::changes`]. Values of Secrets are in none of them, only their digests: they lie apart, sealed, until the set
//! is applied or discarded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::operation::Actor;

crate::resource::object! {
    /// Edits that are made together, or not at all.
    ChangeSet, "changesets", ChangeSetSpec, ChangeSetStatus
}

/// Entries a set takes.
pub const MAX_ENTRIES: usize = 500;
/// Bytes of all entries together.
pub const MAX_BYTES: usize = 2 << 20;

/// What a person says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeSetSpec {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What is staged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeSetStatus {
    /// Whether it acts already.
    pub state: ChangeSetState,
    /// In the order in which they were added.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// The operation that applied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Values of Secrets that wait, sealed, by the digest that stands for each in the entries. Nobody is shown them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed: BTreeMap<String, String>,
}

/// Takes away what nobody is shown.
pub fn without_sealed(set: &mut Value) {
    if let Some(status) = set.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("sealed");
    }
}

/// Whether a set acts already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChangeSetState {
    /// Nothing of it acts.
    #[default]
    Open,
    /// All of it was done.
    Applied,
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Who.
    pub author: Actor,
    /// When, RFC 3339.
    pub time: String,
    /// What.
    pub verb: EntryVerb,
    /// Group and version of the kind.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Of which object.
    pub name: String,
    /// The new name of a renamed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What was there, with all entries before this one; absent of one that is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Snapshot>,
    /// What is to be there; absent of one that is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An object as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its version in the store; empty if an entry before this one made it so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// All that a person can say of it.
    pub content: Value,
}

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryVerb {
    /// A new object.
    Create,
    /// Other content.
    Update,
    /// No object any more.
    Delete,
    /// The same under another name.
    Rename,
}

impl EntryVerb {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Rename => "rename",
        }
    }
}
