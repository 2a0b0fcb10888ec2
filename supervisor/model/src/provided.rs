//! What a container is given beside its plan: variables and files that may hold secrets, as one
//! JSON file of their own.
//!
//! The daemon writes it to `/run/berth/provided/<id>.json` (root only, in memory that is never
//! swapped), beside the plan and for as long as the plan. It is kept out of the plan so that a plan
//! can be looked at, logged and compared without a thought.

use std::fmt;

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};

/// Everything. Values are in the clear: not for logs, and so not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provided {
    /// Variables; a later one of the same name wins, and any of them over the plan's.
    pub env: Vec<Variable>,
    /// Directories of files.
    pub directories: Vec<Directory>,
}

/// One variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A directory in the container that holds nothing else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Owner as in an image's configuration; absent is the service's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What lies in it.
    pub files: Vec<ProvidedFile>,
}

/// A file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvidedFile {
    /// Path below the directory, of plain names.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes, base64 in JSON.
    pub content: ByteString,
}

impl Provided {
    /// Nothing is given.
    pub fn is_empty(&self) -> bool {
        self.env.is_empty() && self.directories.is_empty()
    }
}

impl fmt::Debug for Provided {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|one| one.name.as_str()).collect();
        let paths: Vec<&str> = self.directories.iter().map(|one| one.path.as_str()).collect();
        out.debug_struct("Provided").field("env", &names).field("directories", &paths).finish()
    }
}
