//! Role: rules under a name. The built-in ones are in [`crate::policy::BUILT_IN`].

use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::NoStatus;
use crate::field::{FieldError, Rule as Broken};
use crate::policy::{BuiltIn, built_in, problems};

crate::resource::object! {
    /// Rules under a name, for role bindings to grant.
    Role, "roles", RoleSpec, NoStatus
}

/// What a role allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleSpec {
    /// Whom it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is allowed; nothing else is.
    pub rules: Vec<PolicyRule>,
}

impl Role {
    /// The object that shows a built-in role.
    pub fn of(role: &BuiltIn) -> Self {
        let metadata = ObjectMeta { name: Some(role.name.to_owned()), ..ObjectMeta::default() };
        let spec = RoleSpec { description: Some(role.description.to_owned()), rules: role.rules() };
        Self { metadata, spec, status: None }
    }
}

/// The most rules of one role.
const MOST_RULES: usize = 256;

/// The rules of an object of this kind.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let changed = old.is_none_or(|old| old["spec"] != new["spec"]);
    if built_in(name).is_some() && changed {
        let message = format!("the role {name} is always the same; make another one with the rules that you want");
        return vec![FieldError::forbidden("spec", message)];
    }
    let Ok(spec) = RoleSpec::deserialize(&new["spec"]) else { return Vec::new() };
    if spec.rules.len() > MOST_RULES {
        let message = format!("has {} rules; at most {MOST_RULES} are allowed", spec.rules.len());
        return vec![FieldError::new(Broken::TooLong, "spec.rules", message)];
    }
    spec.rules.iter().enumerate().flat_map(|(at, rule)| problems(rule, &format!("spec.rules[{at}]"))).collect()
}
