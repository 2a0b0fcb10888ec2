//! Who may do what: one pure function that every route calls.

mod roles;
mod rule;

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::{Deserialize, Serialize};

use crate::resource::GROUP;

pub use roles::{BUILT_IN, BuiltIn, OWNER, built_in};
pub use rule::{covers, problems};

/// Whoever asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// Bearer of the owner's token.
    Owner,
    /// Local root, known by the peer credentials of the unix socket.
    LocalRoot,
    /// A user or service account, with what was granted to it.
    Known(Arc<Known>),
    /// Bearer of a bootstrap token, by the name that records speak of him: he may enrol, and nothing else.
    Bootstrap(Arc<str>),
    /// Somebody who said nothing of himself.
    Anonymous,
}

/// Somebody who has an account.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// `user:alice`, `system:serviceaccount:default:deploy`: the name by which records speak of it.
    pub identity: String,
    /// What was granted.
    pub grants: Vec<Grant>,
    /// What the credential that was shown may be used for, where that is less than what its holder may do.
    pub within: Option<Grant>,
    /// When he last proved who he is, if he is logged in; keys and service accounts do so each time.
    pub authenticated: Option<Timestamp>,
}

/// Rules that hold for the whole machine, or inside one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The role that has the rules.
    pub role: String,
    /// Where they hold; on the whole machine, if `None`.
    pub namespace: Option<String>,
    /// What is allowed.
    pub rules: Vec<PolicyRule>,
}

impl Grant {
    /// Whether it holds where a resource is.
    fn reaches(&self, resource: &Resource<'_>) -> bool {
        let Some(inside) = &self.namespace else { return true };
        match resource {
            Resource::Path(_) => false,
            // A namespace is a part of itself.
            Resource::Object { group: "", plural: "namespaces", name, .. } => name == inside,
            Resource::Object { namespace, .. } => namespace == inside,
        }
    }

    fn allows(&self, verb: Verb, resource: &Resource<'_>) -> bool {
        self.reaches(resource) && self.rules.iter().any(|rule| rule::allows(rule, verb, resource))
    }
}

impl Subject {
    /// The name by which records speak of it.
    pub fn identity(&self) -> &str {
        match self {
            Self::Owner => "owner",
            Self::LocalRoot => "local-root",
            Self::Known(known) => &known.identity,
            Self::Bootstrap(identity) => identity,
            Self::Anonymous => "anonymous",
        }
    }

    /// The first rule of some that it may not hand on, because it does not hold it itself in that namespace (or on the
    /// whole machine, if `None`). Nobody makes others, or himself, mightier than he is.
    pub fn lacks<'r>(&self, rules: &'r [PolicyRule], namespace: Option<&str>) -> Option<&'r PolicyRule> {
        let known = match self {
            Self::Owner | Self::LocalRoot => return None,
            Self::Anonymous | Self::Bootstrap(_) => return rules.first(),
            Self::Known(known) => known,
        };
        let holds = |grant: &&Grant| grant.namespace.is_none() || grant.namespace.as_deref() == namespace;
        let held: Vec<&PolicyRule> = known.grants.iter().filter(holds).flat_map(|grant| &grant.rules).collect();
        let within: Option<Vec<&PolicyRule>> = known
            .within
            .as_ref()
            .map(|grant| Some(grant).filter(holds).into_iter().flat_map(|one| &one.rules).collect());
        rules.iter().find(|rule| !covers(&held, rule) || within.as_ref().is_some_and(|within| !covers(within, rule)))
    }
}

/// So long after somebody has proven who he is he may do what is dangerous.
pub const FRESH: SignedDuration = SignedDuration::from_mins(15);

/// Whether somebody who is logged in has to prove anew who he is: what destroys data, shows what is hidden, or changes who
/// may do what is not for whoever finds a screen unlocked.
pub fn is_stale(subject: &Subject, verb: Verb, resource: &Resource<'_>, now: Timestamp) -> bool {
    let Subject::Known(known) = subject else { return false };
    let Some(at) = known.authenticated else { return false };
    is_dangerous(verb, resource) && (now < at || now.duration_since(at) >= FRESH)
}

fn is_dangerous(verb: Verb, resource: &Resource<'_>) -> bool {
    let Resource::Object { group, plural, subresource, .. } = resource else { return false };
    let reads = matches!(verb, Verb::Get | Verb::List | Verb::Watch);
    match (*group, *plural, *subresource) {
        ("", "secrets", "reveal") | (GROUP, "volumes", "actions/erase") => true,
        // What outlives the session it was made in.
        (GROUP, "certificates" | "invitations", "") => verb == Verb::Create,
        (GROUP, "devices", "bootstraptokens" | "certificates")
        | (GROUP, "system", "update" | "rollback" | "reboot" | "poweroff") => true,
        (GROUP, "rolebindings" | "roles" | "users", _) | ("", "serviceaccounts", "token") => !reads,
        _ => false,
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

/// Below it everybody may say who he is.
pub const AUTH_PATH: &str = "/auth/";

/// Decides. Owner and local root may do everything; users and service accounts what was granted to them, and what
/// everybody may who has an account; who has not said who he is may ask whether the machine lives, and say it.
pub fn authorize(subject: &Subject, verb: Verb, resource: &Resource<'_>) -> Decision {
    match subject {
        Subject::Bootstrap(identity) => enrolls(identity, verb, resource),
        _ if is_open(verb, resource) => Decision::Allowed,
        Subject::Owner | Subject::LocalRoot => Decision::Allowed,
        Subject::Known(known) => decide(known, verb, resource),
        Subject::Anonymous => Decision::Denied(format!(
            "anonymous may not {verb} {resource}; log in (`berth login`), send a token \
             (`Authorization: Bearer ...`), or ask as root on the machine itself"
        )),
    }
}

/// What is given to somebody who has nothing yet is good for one thing, and not even for what is open to everybody.
fn enrolls(identity: &str, verb: Verb, resource: &Resource<'_>) -> Decision {
    match resource {
        Resource::Object { group: GROUP, plural: "certificates", subresource: "", .. } if verb == Verb::Create => {
            Decision::Allowed
        }
        _ => Decision::Denied(format!(
            "{identity} may not {verb} {resource}: a bootstrap token is good for enrolling alone (`berth enrol`)"
        )),
    }
}

fn is_open(verb: Verb, resource: &Resource<'_>) -> bool {
    match resource {
        Resource::Path(path) if path.starts_with(AUTH_PATH) => verb == Verb::Create,
        Resource::Path(path) => verb == Verb::Get && OPEN_PATHS.contains(path),
        Resource::Object { .. } => false,
    }
}

fn decide(known: &Known, verb: Verb, resource: &Resource<'_>) -> Decision {
    // What everybody may who has an account is not for devices: they know what they have come for.
    let is_person = !known.identity.starts_with(DEVICE);
    if is_person && roles::everybody().iter().any(|rule| rule::allows(rule, verb, resource)) {
        return Decision::Allowed;
    }
    let own = is_own(known, verb, resource) || is_devices_own(known, verb, resource);
    let granted = known.grants.iter().any(|grant| grant.allows(verb, resource)) || own;
    match (&known.within, granted) {
        (None, true) => Decision::Allowed,
        (Some(within), true) if within.allows(verb, resource) => Decision::Allowed,
        (Some(within), true) => Decision::Denied(format!(
            "{} may {verb} {resource}, but not with this key, which is for {within}; use another one",
            known.identity
        )),
        (_, false) => Decision::Denied(denied(known, verb, resource)),
    }
}

/// Himself, and his keys, certificates and sessions, which are called after him: to see them, to end them, to have keys and
/// certificates made, and to say what he needs to log in.
fn is_own(known: &Known, verb: Verb, resource: &Resource<'_>) -> bool {
    let Some(user) = known.identity.strip_prefix("user:") else { return false };
    let Resource::Object { group: GROUP, plural, subresource, name, .. } = resource else { return false };
    let called_after = name.rsplit_once('.').is_some_and(|(owner, _)| owner == user);
    match (*plural, *subresource, verb) {
        ("users", "", Verb::Get) => *name == user,
        ("users", "apikeys" | "bootstraptokens" | "certificates", Verb::Create) => *name == user,
        ("users", "totp" | "totp/confirm" | "totp/disable", Verb::Create) => *name == user,
        ("users", "passkeys" | "passkeys/confirm" | "passkeys/remove", Verb::Create) => *name == user,
        ("users", "devicelogins" | "devicelogins/approve" | "devicelogins/deny", Verb::Create) => *name == user,
        // Whom it names is who asks.
        ("certificates", "", Verb::Create) => true,
        ("apikeys" | "certificates" | "sessions", "", Verb::Get | Verb::Delete) => called_after,
        ("certificates", "", Verb::Patch) => called_after,
        _ => false,
    }
}

/// How names of devices begin.
const DEVICE: &str = "device:";

/// Its own record: to read it, and to renew its certificate.
fn is_devices_own(known: &Known, verb: Verb, resource: &Resource<'_>) -> bool {
    let own = known.identity.strip_prefix(DEVICE).and_then(|own| own.split_once(':'));
    let Some((inside, own)) = own else { return false };
    let Resource::Object { group: GROUP, plural, subresource: "", namespace, name } = resource else { return false };
    match (*plural, verb) {
        ("devices", Verb::Get) => (*namespace, *name) == (inside, own),
        // Whom it names is who asks.
        ("certificates", Verb::Create) => true,
        _ => false,
    }
}

fn denied(known: &Known, verb: Verb, resource: &Resource<'_>) -> String {
    let elsewhere = |grant: &Grant| grant.rules.iter().any(|rule| rule::allows(rule, verb, resource));
    let places: Vec<&str> =
        known.grants.iter().filter(|grant| elsewhere(grant)).filter_map(|grant| grant.namespace.as_deref()).collect();
    let advice = if places.is_empty() {
        let would =
            BUILT_IN.iter().rev().find(|role| role.rules().iter().any(|rule| rule::allows(rule, verb, resource)));
        let role = would.map_or(OWNER, |role| role.name);
        format!("ask for a role that allows it, as {role} does")
    } else {
        format!("your roles allow it in the namespace {} alone", places.join(", "))
    };
    format!("{} may not {verb} {resource}; {advice}", known.identity)
}

impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "role {}", self.role)?;
        match &self.namespace {
            None => Ok(()),
            Some(namespace) => write!(out, " in the namespace {namespace}"),
        }
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
    fn what_is_dangerous_asks_who_is_logged_in_to_have_proven_it_of_late() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let since = |authenticated| {
            let known = Known { identity: "user:alice".into(), grants: Vec::new(), within: None, authenticated };
            Subject::Known(known.into())
        };
        let (alice, key) = (since(Some(at("2026-03-01T12:00:00Z"))), since(None));
        let object =
            |group, plural, subresource| Resource::Object { group, plural, subresource, namespace: "", name: "x" };
        let late = at("2026-03-01T12:15:00Z");
        for (verb, resource, dangerous) in [
            (Verb::Get, object("", "secrets", "reveal"), true),
            (Verb::Get, object("", "secrets", ""), false),
            (Verb::Create, object("berth.dev", "volumes", "actions/erase"), true),
            (Verb::Create, object("berth.dev", "volumes", "actions/grow"), false),
            (Verb::Create, object("berth.dev", "rolebindings", ""), true),
            (Verb::List, object("berth.dev", "rolebindings", ""), false),
            (Verb::Create, object("berth.dev", "users", "apikeys"), true),
            (Verb::Create, object("berth.dev", "users", "totp"), true),
            (Verb::Create, object("berth.dev", "users", "devicelogins/approve"), true),
            (Verb::Create, object("berth.dev", "invitations", ""), true),
            (Verb::Delete, object("berth.dev", "bundles", ""), false),
        ] {
            assert_eq!(is_stale(&alice, verb, &resource, late), dangerous, "{verb} {resource}");
            assert!(!is_stale(&alice, verb, &resource, at("2026-03-01T12:14:59Z")), "{verb} {resource}");
            assert!(!is_stale(&key, verb, &resource, late) && !is_stale(&Subject::LocalRoot, verb, &resource, late));
        }
        // A clock that was set back makes nobody fresh.
        assert!(is_stale(&alice, Verb::Get, &object("", "secrets", "reveal"), at("2026-03-01T11:00:00Z")));
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
    fn a_device_reads_its_own_record_and_what_its_role_grants_and_nothing_else() {
        let rules = built_in("viewer").unwrap().rules();
        let grant = Grant { role: "viewer".into(), namespace: Some("team".into()), rules };
        let device = |grants| {
            let known = Known { identity: "device:team:lamp".into(), grants, within: None, authenticated: None };
            Subject::Known(known.into())
        };
        let object =
            |plural, namespace, name| Resource::Object { group: "berth.dev", plural, subresource: "", namespace, name };
        let may = |who: &Subject, verb, resource| authorize(who, verb, &resource) == Decision::Allowed;
        let (bare, viewer) = (device(Vec::new()), device(vec![grant]));
        for who in [&bare, &viewer] {
            assert!(may(who, Verb::Get, object("devices", "team", "lamp")));
            assert!(may(who, Verb::Create, object("certificates", "", "")));
            assert!(!may(who, Verb::Get, object("devices", "team", "door")));
            assert!(!may(who, Verb::Get, object("devices", "other", "lamp")));
            assert!(!may(who, Verb::Delete, object("devices", "team", "lamp")));
            assert!(!may(who, Verb::List, object("devices", "team", "")));
            assert!(!may(who, Verb::Get, Resource::Path("/apis")));
        }
        assert!(
            may(&viewer, Verb::List, object("bundles", "team", ""))
                && !may(&bare, Verb::List, object("bundles", "team", ""))
        );
        assert!(!may(&viewer, Verb::List, object("bundles", "other", "")));
    }

    #[test]
    fn a_bootstrap_token_enrols_and_does_nothing_else() {
        let subject = Subject::Bootstrap("bootstrap:user:alice".into());
        let certificates = |subresource, name| Resource::Object {
            group: "berth.dev",
            plural: "certificates",
            subresource,
            namespace: "",
            name,
        };
        assert_eq!(authorize(&subject, Verb::Create, &certificates("", "")), Decision::Allowed);
        for (verb, resource) in [
            (Verb::List, certificates("", "")),
            (Verb::Create, certificates("status", "")),
            (Verb::Create, BUNDLES),
            (Verb::Get, Resource::Path("/livez")),
            (Verb::Create, Resource::Path("/auth/login")),
        ] {
            assert_ne!(authorize(&subject, verb, &resource), Decision::Allowed, "{verb} {resource}");
        }
        assert!(subject.lacks(&built_in("viewer").unwrap().rules(), None).is_some());
    }

    #[test]
    fn a_refusal_names_verb_and_resource_and_says_what_to_do() {
        let Decision::Denied(why) = authorize(&Subject::Anonymous, Verb::List, &BUNDLES) else {
            panic!("allowed");
        };
        assert_eq!(
            why,
            "anonymous may not list resource \"bundles\" in API group \"berth.dev\" in the \
             namespace \"default\"; log in (`berth login`), send a token (`Authorization: Bearer ...`), \
             or ask as root on the machine itself"
        );
    }
}
