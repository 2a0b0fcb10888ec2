//! Device: a machine or a phone that asks by itself, with a client certificate. It belongs to a namespace, and its role
//! holds there alone.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::FieldError;
use crate::id::dns_subdomain;

/// How long a certificate of a device is good: nobody stands beside it, so that it has time to renew.
pub const DEVICE_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

crate::resource::object! {
    /// A machine or a phone that asks by itself, with a client certificate; deleting it ends its certificates at once.
    Device, "devices", DeviceSpec, DeviceStatus
}

/// What it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceSpec {
    /// What it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The role that it has in its namespace; without one it reads its own record, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its certificates are good for nothing any more, from the next request on. This is not taken back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// Its certificate, as it was last issued.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceStatus {
    /// The name by which records speak of it: `device:NAMESPACE:NAME`.
    pub subject: String,
    /// The serial number of the certificate, 32 digits in hexadecimal.
    pub serial: String,
    /// The SHA-256 of the certificate, in hexadecimal.
    pub hash: String,
    /// When it was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<Timestamp>,
    /// When the device last came with it, within an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_seen: Option<Timestamp>,
}

impl Device {
    /// The name by which records speak of it.
    pub fn identity(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("device:{}:{}", part(&self.metadata.namespace), part(&self.metadata.name))
    }
}

/// The rules of an object of this kind.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = |object: &Value| DeviceSpec::deserialize(&object["spec"]).ok();
    let Some(new) = spec(new) else { return Vec::new() };
    let mut errors = Vec::new();
    if let Some(Err(error)) = new.role.as_deref().map(dns_subdomain) {
        errors.push(FieldError::invalid("spec.role", error.to_string()));
    }
    if old.and_then(spec).is_some_and(|old| old.revoked) && !new.revoked {
        let message = "what is revoked stays so; delete the device, and make it anew";
        errors.push(FieldError::forbidden("spec.revoked", message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_device_is_revoked_for_good_and_its_role_has_a_name() {
        let object = |role: &str, revoked: bool| json!({ "spec": { "role": role, "revoked": revoked } });
        let wrong = |old: &Value, new: &Value| validate(new, Some(old)).first().map(|error| error.field.clone());
        assert_eq!(wrong(&object("viewer", false), &object("operator", true)), None);
        assert_eq!(wrong(&object("viewer", true), &object("viewer", false)), Some("spec.revoked".to_owned()));
        assert_eq!(wrong(&object("viewer", false), &object("No Role", false)), Some("spec.role".to_owned()));
    }
}
