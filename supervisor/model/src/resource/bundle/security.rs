//! Rules for what a service may do beyond nothing: capabilities, and the system calls it may make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecurityContext;
use crate::field::{FieldError, Rule};
use crate::id;

/// Capabilities of every service that begins as root: what images that drop to a user of their own need for that, and for
/// low ports.
pub const BASE_CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];

/// Those that anybody can ask for as well: with the former, Kubernetes' Pod Security Standard "Baseline" but for the two
/// that do nothing in a user namespace of a process that gains no privileges (`CAP_MKNOD`, `CAP_SETFCAP`).
pub const FURTHER_CAPABILITIES: [&str; 2] = ["CAP_AUDIT_WRITE", "CAP_SYS_CHROOT"];

/// Capabilities that `allowPrivileged` lets ask for. They hold in the container's own namespaces and open much of the
/// kernel there (its packet filter, raw packets, memory that is never swapped); the rest of the kernel's list would let a
/// service out of its box, or is denied by the system call filter anyway.
pub const PRIVILEGED_CAPABILITIES: [&str; 3] = ["CAP_IPC_LOCK", "CAP_NET_ADMIN", "CAP_NET_RAW"];

/// Which system calls a service may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    /// Which list.
    #[serde(rename = "type")]
    pub kind: SeccompProfileType,
    /// Of `Localhost`, the name of the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub localhost_profile: Option<String>,
}

/// The lists of system calls. There is no `Unconfined`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SeccompProfileType {
    /// What ordinary services need: `RuntimeDefault` without debugging other processes and without `chroot`.
    Baseline,
    /// The list that every service has unless it says otherwise.
    #[default]
    RuntimeDefault,
    /// A profile of this machine, in OCI's form, which takes calls away from `RuntimeDefault` and never adds one:
    /// `/etc/berth/seccomp/<localhostProfile>.json`.
    Localhost,
}

/// What is wrong with capabilities and profile.
pub(super) fn validate(wish: &SecurityContext) -> Vec<FieldError> {
    let mut errors = capabilities(&wish.extra_capabilities, wish.allow_privileged);
    errors.extend(gate(wish));
    errors.extend(wish.seccomp_profile.as_ref().and_then(profile));
    errors
}

fn capabilities(names: &[String], privileged: bool) -> Vec<FieldError> {
    let check = |(index, name): (usize, &String)| {
        let field = format!("spec.security.extraCapabilities[{index}]");
        if PRIVILEGED_CAPABILITIES.contains(&name.as_str()) {
            let message = format!(
                "`{name}` opens more of the kernel than services need; leave it out, or set \
                 `spec.security.allowPrivileged: true` as well"
            );
            return (!privileged).then(|| FieldError::forbidden(field, message));
        }
        let all = [&BASE_CAPABILITIES[..], &FURTHER_CAPABILITIES, &PRIVILEGED_CAPABILITIES].concat();
        let message = || format!("`{name}` cannot be given; known are {}", all.join(", "));
        (!all.contains(&name.as_str())).then(|| FieldError::new(Rule::Unsupported, field, message()))
    };
    names.iter().enumerate().filter_map(check).collect()
}

/// A word that does nothing would be believed to do something.
fn gate(wish: &SecurityContext) -> Option<FieldError> {
    let needed = wish.extra_capabilities.iter().any(|name| PRIVILEGED_CAPABILITIES.contains(&name.as_str()));
    (wish.allow_privileged && !needed).then(|| {
        let message = format!(
            "has no effect here: it only lets `spec.security.extraCapabilities` name {}; leave it out",
            PRIVILEGED_CAPABILITIES.join(", ")
        );
        FieldError::forbidden("spec.security.allowPrivileged", message)
    })
}

/// The form of its name alone: the file is the machine's, and is looked at when the service is about to start.
fn profile(profile: &SeccompProfile) -> Option<FieldError> {
    let field = "spec.security.seccompProfile.localhostProfile";
    match (profile.kind, &profile.localhost_profile) {
        (SeccompProfileType::Localhost, None) => {
            let message = "name the profile: `strict` is the file strict.json in /etc/berth/seccomp";
            Some(FieldError::required(field, message))
        }
        (SeccompProfileType::Localhost, Some(name)) => id::dns_label(name).err().map(|error| {
            let message = format!("{error}; it is the name of a file in /etc/berth/seccomp, without `.json`");
            FieldError::invalid(field, message)
        }),
        (_, Some(_)) => {
            let message = "has no effect without `type: Localhost`; set that, or leave the name out";
            Some(FieldError::forbidden(field, message))
        }
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::{BUNDLE, Request};

    fn admitted(security: Value) -> Result<Value, Vec<(String, Rule)>> {
        let spec = json!({"image": "registry/web:1", "security": security});
        let body = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        let admitted = BUNDLE.admit(body, &Request::Create);
        let shown = |errors: Vec<FieldError>| errors.into_iter().map(|error| (error.field, error.rule)).collect();
        admitted.map(|admitted| admitted.object["spec"]["security"].clone()).map_err(shown)
    }

    fn at<T>(field: &str, rule: Rule) -> Result<T, Vec<(String, Rule)>> {
        Err(vec![(format!("spec.security.{field}"), rule)])
    }

    #[test]
    fn only_capabilities_that_keep_a_service_in_its_box_can_be_given() {
        let asked = json!({"extraCapabilities": ["CAP_CHOWN", "CAP_SYS_ADMIN"]});
        assert_eq!(admitted(asked), at("extraCapabilities[1]", Rule::Unsupported));
        let asked = json!({"extraCapabilities": ["CAP_NET_RAW", "CAP_SYS_ADMIN"], "allowPrivileged": true});
        assert_eq!(admitted(asked), at("extraCapabilities[1]", Rule::Unsupported));
    }

    #[test]
    fn what_opens_much_of_the_kernel_takes_a_word_more() {
        let asked = json!({"extraCapabilities": ["CAP_CHOWN", "CAP_NET_ADMIN"]});
        assert_eq!(admitted(asked), at("extraCapabilities[1]", Rule::Forbidden));
        let asked = json!({"allowPrivileged": true, "extraCapabilities": ["CAP_CHOWN", "CAP_NET_ADMIN"]});
        assert_eq!(admitted(asked.clone()), Ok(asked));
    }

    #[test]
    fn a_word_that_does_nothing_is_refused() {
        assert_eq!(admitted(json!({"allowPrivileged": true})), at("allowPrivileged", Rule::Forbidden));
        let plain = json!({"allowPrivileged": true, "extraCapabilities": ["CAP_CHOWN"]});
        assert_eq!(admitted(plain), at("allowPrivileged", Rule::Forbidden));
        assert_eq!(admitted(json!({"allowPrivileged": false})), Ok(json!({})));
    }

    #[test]
    fn a_profile_is_one_of_three_and_only_one_of_them_has_a_name() {
        let name = |profile: Value| admitted(json!({ "seccompProfile": profile })).map(|_| ());
        for plain in ["Baseline", "RuntimeDefault"] {
            assert_eq!(name(json!({ "type": plain })), Ok(()));
        }
        assert_eq!(name(json!({"type": "Localhost", "localhostProfile": "strict-2"})), Ok(()));
        assert_eq!(
            name(json!({"type": "Baseline", "localhostProfile": "strict"})),
            at("seccompProfile.localhostProfile", Rule::Forbidden)
        );
        assert_eq!(name(json!({"type": "Localhost"})), at("seccompProfile.localhostProfile", Rule::Required));
        assert_eq!(name(json!({"type": "Unconfined"})), at("seccompProfile.type", Rule::Invalid));
    }

    #[test]
    fn a_name_of_a_profile_cannot_lead_elsewhere() {
        for name in ["", ".", "..", "../keys", "a/b", "/etc/passwd", "a.json", "A", "a\0"] {
            let asked = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
            assert_eq!(admitted(asked), at("seccompProfile.localhostProfile", Rule::Invalid), "{name:?}");
        }
    }
}
