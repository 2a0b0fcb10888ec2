//! Who may do what: one pure function that every route calls.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Bearer of the owner's token.
    Owner,
    /// Local root, known by the peer credentials of the unix socket.
    LocalRoot,
    /// Somebody who said nothing of himself.
    Anonymous,
}

impl Subject {
    /// The name by which records speak of it.
    pub fn identity(&self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::LocalRoot => "local-root",
            Self::Anonymous => "anonymous",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Read one object or path.
    Get,
    /// Read all of a kind.
    List,
    /// Follow changes.
    Watch,
    /// Make a new object.
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Remove one object.
    Delete,
    /// Remove many objects.
    DeleteCollection,
    /// Run a command in a service.
    Exec,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::List,
        Self::Watch,
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::DeleteCollection,
        Self::Exec,
    ];

    /// Its name in discovery and rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Exec => "exec",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What it is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// Objects of a kind.
    Object {
        /// API group, empty for core.
        group: &'a str,
        /// `bundles`.
        plural: &'a str,
        /// `status`, `log`, `actions/start`; empty for the object itself.
        subresource: &'a str,
        /// Empty for all namespaces, or for a kind without.
        namespace: &'a str,
        /// Empty for all objects.
        name: &'a str,
    },
    /// A path that is no object, e.g. `/metrics`.
    Path(&'a str),
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(out, "path \"{path}\""),
            Self::Object { group, plural, subresource, namespace, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                write!(out, "resource \"{plural}{slash}{subresource}\" in API group \"{group}\"")?;
                match *namespace {
                    "" => Ok(()),
                    namespace => write!(out, " in the namespace \"{namespace}\""),
                }
            }
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allowed,
    /// Refused, and why, for the one who asked.
    Denied(String),
}

/// Paths that answer to everybody, without details.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// Decides. Owner and local root may do everything; who has not said who he is may ask whether
/// the machine lives, and nothing else.
pub fn authorize(subject: &Subject, verb: Verb, resource: &Resource<'_>) -> Decision {
    match (subject, resource) {
        (Subject::Owner | Subject::LocalRoot, _) => Decision::Allowed,
        (Subject::Anonymous, Resource::Path(path)) if verb == Verb::Get && OPEN_PATHS.contains(path) => {
            Decision::Allowed
        }
        (Subject::Anonymous, _) => Decision::Denied(format!(
            "anonymous may not {verb} {resource}; send the owner's token \
             (`Authorization: Bearer ...`), or ask as root on the machine itself"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLES: Resource<'_> =
        Resource::Object { group: "berth.dev", plural: "bundles", subresource: "", namespace: "default", name: "" };

    #[test]
    fn the_owner_and_local_root_may_do_everything() {
        for subject in [Subject::Owner, Subject::LocalRoot] {
            for verb in [Verb::Get, Verb::Create, Verb::DeleteCollection] {
                assert_eq!(authorize(&subject, verb, &BUNDLES), Decision::Allowed);
                assert_eq!(authorize(&subject, verb, &Resource::Path("/metrics")), Decision::Allowed);
            }
        }
    }

    #[test]
    fn a_stranger_may_ask_whether_the_machine_lives_and_nothing_else() {
        for path in ["/livez", "/readyz"] {
            let decision = authorize(&Subject::Anonymous, Verb::Get, &Resource::Path(path));
            assert_eq!(decision, Decision::Allowed);
        }
        for path in ["/metrics", "/version", "/apis", "/livez/", "/"] {
            let decision = authorize(&Subject::Anonymous, Verb::Get, &Resource::Path(path));
            assert_ne!(decision, Decision::Allowed, "{path}");
        }
        let decision = authorize(&Subject::Anonymous, Verb::Create, &Resource::Path("/livez"));
        assert_ne!(decision, Decision::Allowed);
    }

    #[test]
    fn a_refusal_names_verb_and_resource_and_says_what_to_do() {
        let Decision::Denied(why) = authorize(&Subject::Anonymous, Verb::List, &BUNDLES) else {
            panic!("allowed");
        };
        assert_eq!(
            why,
            "anonymous may not list resource \"bundles\" in API group \"berth.dev\" in the \
             namespace \"default\"; send the owner's token (`Authorization: Bearer ...`), or ask \
             as root on the machine itself"
        );
    }
}
