//! AuditRecord: one deed or refusal, in a chain: each carries the hash of the one before it, so that none can be changed or
//! taken out without its being seen.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::NoStatus;

crate::resource::object! {
    /// One deed or refusal, in a chain with those before it.
    AuditRecord, "auditrecords", AuditRecordSpec, NoStatus
}

/// Who did what, from where, on what, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecordSpec {
    /// Where it is in the chain.
    pub sequence: u64,
    /// What was done.
    #[serde(flatten)]
    pub deed: Deed,
    /// The hash of the record before it, in hexadecimal.
    pub previous: String,
    /// SHA-256 of the previous hash, the sequence and the deed, in hexadecimal.
    pub hash: String,
}

/// Who did what, from where, on what, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deed {
    /// When.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// Who, e.g. `user:alice`.
    pub identity: String,
    /// By what way: panel, cli, api.
    pub source: String,
    /// From where; `local` is the machine's own socket.
    pub address: String,
    /// What was to be done: create, update, patch, delete, deletecollection, exec, get.
    pub verb: String,
    /// API group of the kind; empty for Kubernetes' core, and for paths.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind's plural with what is below it, e.g. `bundles/exec`; or a path, e.g. `/auth/login`.
    pub resource: String,
    /// The namespace, if it is in one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The object, if it is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Done or Denied.
    pub result: DeedResult,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What came of a deed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeedResult {
    /// It was done.
    #[default]
    Done,
    /// It was refused.
    Denied,
}

/// What an examination of the chain found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Records that were looked at.
    pub records: u64,
    /// The first and the last that are kept; 0 if there is none.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Signed checkpoints that were looked at.
    pub checkpoints: u64,
    /// By what checkpoints, and commits of the mirror, are signed: a line as in git's file of allowed signers, without the
    /// name.
    #[serde(default)]
    pub key: String,
    /// What is wrong; nothing, if the chain is whole.
    pub problems: Vec<String>,
}
