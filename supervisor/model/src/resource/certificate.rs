//! Certificate: a client certificate of a user, from Berth's own authority. Its key is its holder's, and was never here.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::FieldError;

/// How long a certificate of a user is good; its holder renews it before.
pub const USER_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long the record of a certificate is kept after it was last seen, renewed or revoked.
pub const RECORD_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

crate::resource::object! {
    /// A client certificate of a user; revoking or deleting it ends it, and what it was renewed to, at once.
    Certificate, "certificates", CertificateSpec, CertificateStatus
}

/// Whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// The user who is recognised by it.
    pub user: String,
    /// What it is for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// It is good for nothing any more, from the next request on. This is not taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// What it says itself, as it was last renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// Its serial number, 32 digits in hexadecimal.
    pub serial: String,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
    /// When it was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// When somebody last came with it, within an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_seen: Option<Timestamp>,
}

/// The rules of an object of this kind: it is revoked, once and for all, and nothing else of it changes.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = |object: &Value| CertificateSpec::deserialize(&object["spec"]).ok();
    let (Some(new), Some(old)) = (spec(new), old.and_then(spec)) else { return Vec::new() };
    if old.revoked && !new.revoked {
        let message = "what is revoked stays so; have another one issued: `berth ca NAME`";
        return vec![FieldError::forbidden("spec.revoked", message)];
    }
    if (CertificateSpec { revoked: old.revoked, ..new }) != old {
        let message = "nothing of it changes but that it is revoked; have another one issued: `berth ca NAME`";
        return vec![FieldError::forbidden("spec", message)];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_certificate_is_revoked_for_good_and_nothing_else_of_it_changes() {
        let object = |user: &str, revoked: bool| json!({ "spec": { "user": user, "revoked": revoked } });
        let wrong = |old: &Value, new: &Value| validate(new, Some(old)).first().map(|error| error.field.clone());
        assert_eq!(wrong(&object("alice", false), &object("alice", true)), None);
        assert_eq!(wrong(&object("alice", true), &object("alice", true)), None);
        assert_eq!(wrong(&object("alice", true), &object("alice", false)), Some("spec.revoked".to_owned()));
        assert_eq!(wrong(&object("alice", false), &object("bob", false)), Some("spec".to_owned()));
    }
}
