//! Settings: all that an administrator may change while Berth runs, in one object.
//!
//! There is exactly one, named [`NAME`]. The store makes it with its defaults and it cannot be deleted:
//! whoever wants the defaults back leaves its fields out. What has to be known before anything runs is
//! in `berthd.toml` instead.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::allocation::SERVICES;
use crate::field::{FieldError, Rule};
use crate::id::dns_label;

/// The name of the only one.
pub const NAME: &str = "berth";

crate::resource::object! {
    /// All that an administrator may change while Berth runs.
    Settings, "settings", SettingsSpec, NoStatus
}

/// What is set. What is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SettingsSpec {
    /// Who reaches whom.
    pub network: NetworkSettings,
}

/// Who reaches whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkSettings {
    /// Namespaces whose bundles reach one another on every port, without a declared dependency. One
    /// that does not exist yet is open as soon as it does.
    pub open_namespaces: Vec<String>,
}

/// What is set holds at once: there is nothing to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoStatus {}

/// The rules of an object of this kind.
pub fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if new.pointer("/metadata/name").is_some_and(|name| name != NAME) {
        errors.push(FieldError::invalid("metadata.name", format!("there is one Settings, and it is named {NAME}")));
    }
    let open = new.pointer("/spec/network/openNamespaces").and_then(Value::as_array);
    let names: Vec<&str> = open.into_iter().flatten().filter_map(Value::as_str).collect();
    if names.len() > usize::from(SERVICES) {
        let message = format!("has {} names; at most {SERVICES} namespaces have a network", names.len());
        errors.push(FieldError::new(Rule::TooLong, "spec.network.openNamespaces", message));
        return errors;
    }
    let mut seen = BTreeSet::new();
    for (at, name) in names.into_iter().enumerate() {
        let field = format!("spec.network.openNamespaces[{at}]");
        match dns_label(name) {
            Err(error) => errors.push(FieldError::invalid(field, error.to_string())),
            Ok(()) if !seen.insert(name) => errors.push(FieldError::duplicate(field, format!("{name} is named twice"))),
            Ok(()) => {}
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{Request, SETTINGS};

    fn admitted(spec: Value) -> Result<Value, Vec<String>> {
        let body = json!({"metadata": {"name": "berth"}, "spec": spec});
        let admitted = SETTINGS.admit(body, &Request::Create);
        let shown = |errors: Vec<FieldError>| errors.iter().map(|error| error.field.clone()).collect();
        admitted.map_err(shown).map(|admitted| json!([admitted.object["spec"], admitted.unknown]))
    }

    #[test]
    fn what_is_left_out_is_shown_with_its_default_and_what_is_unknown_is_named() {
        let default = json!({"network": {"openNamespaces": []}});
        assert_eq!(admitted(json!({})), Ok(json!([default, []])));
        assert_eq!(admitted(json!({"network": {"nosuch": 1}})), Ok(json!([default, ["spec.network.nosuch"]])));
    }

    #[test]
    fn names_are_those_of_namespaces_and_there_is_one_object() {
        let open = |names: Value| admitted(json!({"network": {"openNamespaces": names}})).map(|_| ());
        assert_eq!(open(json!(["team", "later"])), Ok(()));
        let wrong = open(json!(["team", "Bad_Name", "team"]));
        assert_eq!(wrong, Err(["[1]", "[2]"].map(|at| format!("spec.network.openNamespaces{at}")).to_vec()));
        let many: Vec<String> = (0..129).map(|number| format!("n{number}")).collect();
        assert_eq!(open(json!(many)), Err(vec!["spec.network.openNamespaces".to_owned()]));
        assert_eq!(open(json!("team")), Err(vec!["spec.network.openNamespaces".to_owned()]));
        let other = json!({"metadata": {"name": "other"}, "spec": {}});
        assert_eq!(SETTINGS.admit(other, &Request::Create).unwrap_err()[0].field, "metadata.name");
    }
}
