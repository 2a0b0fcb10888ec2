//! What is wrong with one field of a request.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One finding, by the path of the field it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON path, e.g. `spec.ports[1].name`; empty for the object as a whole.
    pub field: String,
    /// The kind of finding.
    pub rule: Rule,
    /// One sentence that says what to do.
    pub message: String,
}

/// The kinds of finding, named as Kubernetes names them in `details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// Absent or empty.
    #[serde(rename = "FieldValueRequired")]
    Required,
    /// Present but not acceptable.
    #[serde(rename = "FieldValueInvalid")]
    Invalid,
    /// Used twice where once is allowed.
    #[serde(rename = "FieldValueDuplicate")]
    Duplicate,
    /// Not one of a closed list.
    #[serde(rename = "FieldValueNotSupported")]
    Unsupported,
    /// May not be set or changed.
    #[serde(rename = "FieldValueForbidden")]
    Forbidden,
    /// Too many, or too large.
    #[serde(rename = "FieldValueTooLong")]
    TooLong,
    /// Somebody else owns it.
    #[serde(rename = "FieldManagerConflict")]
    Owned,
}

impl Rule {
    /// Its name on the wire.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Unsupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::Owned => "FieldManagerConflict",
        }
    }
}

impl FieldError {
    /// A finding under a rule.
    pub fn new(rule: Rule, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), rule, message: message.into() }
    }

    /// [`Rule::Required`].
    pub fn required(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Rule::Required, field, message)
    }

    /// [`Rule::Invalid`].
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Rule::Invalid, field, message)
    }

    /// [`Rule::Duplicate`].
    pub fn duplicate(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Rule::Duplicate, field, message)
    }

    /// [`Rule::Forbidden`].
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Rule::Forbidden, field, message)
    }

    /// [`Rule::Owned`].
    pub fn owned(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Rule::Owned, field, message)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "{}: {}", self.field, self.message)
        }
    }
}
