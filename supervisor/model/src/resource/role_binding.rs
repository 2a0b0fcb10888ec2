//! RoleBinding: grants a role to users and service accounts, on the whole machine or in one namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::settings::NoStatus;
use crate::field::{FieldError, Rule};
use crate::id::{NameError, dns_label, dns_subdomain};

crate::resource::object! {
    /// Grants a role to users and service accounts.
    RoleBinding, "rolebindings", RoleBindingSpec, NoStatus
}

/// Who is granted what, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleBindingSpec {
    /// The name of the role. One that does not exist yet grants nothing until it does.
    pub role: String,
    /// The namespace in which it is granted; on the whole machine, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// To whom.
    pub subjects: Vec<SubjectReference>,
}

/// A user or service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectReference {
    /// What it is.
    pub kind: SubjectKind,
    /// Its name.
    pub name: String,
    /// The namespace of a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What can be granted a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// A person.
    User,
    /// A program.
    ServiceAccount,
}

impl SubjectReference {
    /// A user.
    pub fn user(name: &str) -> Self {
        Self { kind: SubjectKind::User, name: name.to_owned(), namespace: None }
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self { kind: SubjectKind::ServiceAccount, name: name.to_owned(), namespace: Some(namespace.to_owned()) }
    }

    /// The name by which records speak of it.
    pub fn identity(&self) -> String {
        match self.kind {
            SubjectKind::User => format!("user:{}", self.name),
            SubjectKind::ServiceAccount => {
                format!("system:serviceaccount:{}:{}", self.namespace.as_deref().unwrap_or_default(), self.name)
            }
        }
    }
}

/// The most subjects of one binding.
const MOST_SUBJECTS: usize = 1000;

/// The rules of an object of this kind.
pub fn validate(new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let Ok(spec) = RoleBindingSpec::deserialize(&new["spec"]) else { return Vec::new() };
    if spec.subjects.len() > MOST_SUBJECTS {
        let message = format!("has {} entries; at most {MOST_SUBJECTS} are allowed", spec.subjects.len());
        return vec![FieldError::new(Rule::TooLong, "spec.subjects", message)];
    }
    let mut errors: Vec<FieldError> = named("spec.role".into(), dns_subdomain(&spec.role)).collect();
    errors.extend(spec.namespace.iter().flat_map(|name| named("spec.namespace".into(), dns_label(name))));
    for (at, subject) in spec.subjects.iter().enumerate() {
        errors.extend(named(format!("spec.subjects[{at}].name"), dns_subdomain(&subject.name)));
        errors.extend(place(subject, format!("spec.subjects[{at}].namespace")));
    }
    errors
}

fn named(field: String, checked: Result<(), NameError>) -> impl Iterator<Item = FieldError> {
    checked.err().map(|error| FieldError::invalid(field, error.to_string())).into_iter()
}

/// Users are in no namespace, service accounts in one.
fn place(subject: &SubjectReference, field: String) -> Option<FieldError> {
    match (subject.kind, subject.namespace.as_deref()) {
        (SubjectKind::User, None) => None,
        (SubjectKind::User, Some(_)) => Some(FieldError::forbidden(field, "users are in no namespace: leave it out")),
        (SubjectKind::ServiceAccount, None) => {
            Some(FieldError::required(field, "say in which namespace the service account is"))
        }
        (SubjectKind::ServiceAccount, Some(name)) => named(field, dns_label(name)).next(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(spec: Value) -> Vec<String> {
        validate(&json!({ "spec": spec }), None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn users_are_in_no_namespace_and_service_accounts_in_one() {
        let subjects = json!([
            {"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "deploy", "namespace": "team"},
        ]);
        assert_eq!(told(json!({"role": "viewer", "namespace": "team", "subjects": subjects})), Vec::<String>::new());
        let subjects =
            json!([{"kind": "User", "name": "alice", "namespace": "team"}, {"kind": "ServiceAccount", "name": "A"}]);
        let wrong = told(json!({"role": "No Role", "namespace": "a.b", "subjects": subjects}));
        let fields: Vec<&str> = wrong.iter().map(|one| one.split(": ").next().unwrap()).collect();
        let expected = [
            "spec.role",
            "spec.namespace",
            "spec.subjects[0].namespace",
            "spec.subjects[1].name",
            "spec.subjects[1].namespace",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn records_speak_of_users_and_service_accounts_in_different_words() {
        assert_eq!(SubjectReference::user("alice").identity(), "user:alice");
        assert_eq!(SubjectReference::service_account("team", "alice").identity(), "system:serviceaccount:team:alice");
    }
}
