//! The roles that are always there. Their rules are the same data as everybody's, and cannot be changed.

use std::sync::LazyLock;

use k8s_openapi::api::rbac::v1::PolicyRule;

/// The role that may do everything.
pub const OWNER: &str = "owner";

/// A role that is always there.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// How it is called.
    pub name: &'static str,
    /// Whom it is for.
    pub description: &'static str,
    rules: fn() -> Vec<PolicyRule>,
}

impl BuiltIn {
    /// What it allows.
    pub fn rules(&self) -> Vec<PolicyRule> {
        (self.rules)()
    }
}

/// From the mightiest to the least: the last that allows something is the one to ask for.
pub static BUILT_IN: &[BuiltIn] = &[
    BuiltIn { name: OWNER, description: "Everything, other owners included.", rules: owner },
    BuiltIn {
        name: "admin",
        description: "Everything but owners: services, data, users, settings, values of secrets.",
        rules: admin,
    },
    BuiltIn {
        name: "operator",
        description: "Makes, changes and enters services, which see the secrets they are given; destroys no data.",
        rules: operator,
    },
    BuiltIn {
        name: "auditor",
        description: "Sees what is there and who may do what; changes nothing.",
        rules: auditor,
    },
    BuiltIn {
        name: "viewer",
        description: "Sees services, their output and their data's names; changes nothing.",
        rules: viewer,
    },
];

/// A role that is always there, by its name.
pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|role| role.name == name)
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// What services are made of, in Berth's group.
const SERVICES: &[&str] = &["bundles", "changesets", "schedules"];
/// What Berth writes about them.
const RECORDS: &[&str] = &["operations", "revisions", "volumes"];
/// What Berth writes about them is changed by labels alone.
const MARK: &[&str] = &["get", "list", "watch", "update", "patch"];
/// The same in the words of Kubernetes, and what they read.
const PROJECTED: &[&str] =
    &["events", "namespaces", "nodes", "persistentvolumeclaims", "pods", "serviceaccounts", "services"];
/// Who has an account, and what he may do.
const ACCOUNTS: &[&str] =
    &["apikeys", "certificates", "devices", "invitations", "rolebindings", "roles", "sessions", "users"];

const STATUS_OF_ACCOUNTS: &[&str] =
    &["apikeys/status", "certificates/status", "devices/status", "sessions/status", "users/status"];

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        verbs: owned(verbs),
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        ..PolicyRule::default()
    }
}

fn paths(verbs: &[&str], paths: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    PolicyRule { verbs: owned(verbs), non_resource_urls: Some(owned(paths)), ..PolicyRule::default() }
}

fn owner() -> Vec<PolicyRule> {
    vec![rule(&["*"], &["*"], &["*"]), paths(&["*"], &["*"])]
}

fn admin() -> Vec<PolicyRule> {
    let own = [
        "bundles",
        "changesets",
        "images",
        "network",
        "operations",
        "revisions",
        "schedules",
        "settings",
        "system",
        "volumes",
    ];
    let below: Vec<String> = own.iter().map(|plural| format!("{plural}/*")).collect();
    let below: Vec<&str> = below.iter().map(String::as_str).collect();
    let mut rules = vec![
        rule(&["*"], &["berth.dev"], &own),
        rule(&["*"], &["berth.dev"], &below),
        rule(WRITE, &["berth.dev"], ACCOUNTS),
        rule(READ, &["berth.dev"], STATUS_OF_ACCOUNTS),
        rule(READ, &["berth.dev"], &["auditrecords", "auditrecords/*"]),
        rule(&["create"], &["berth.dev"], &["devices/bootstraptokens", "devices/certificates"]),
        rule(
            &["create"],
            &["berth.dev"],
            &[
                "users/apikeys",
                "users/bootstraptokens",
                "users/certificates",
                "users/passkeys/remove",
                "users/password",
                "users/totp/disable",
            ],
        ),
        rule(WRITE, &[""], &["configmaps", "events", "namespaces", "secrets", "serviceaccounts"]),
        rule(READ, &[""], &["secrets/reveal"]),
        rule(&["create"], &[""], &["serviceaccounts/token"]),
        rule(WRITE, &["networking.k8s.io"], &["networkpolicies"]),
        paths(&["get"], &["/metrics"]),
    ];
    rules.extend(entering());
    rules.extend(viewer());
    rules
}

fn operator() -> Vec<PolicyRule> {
    let mut rules = vec![
        rule(WRITE, &["berth.dev"], SERVICES),
        rule(MARK, &["berth.dev"], RECORDS),
        rule(&["create"], &["berth.dev"], &["bundles/*", "changesets/*", "operations/*"]),
        rule(&["create"], &["berth.dev"], &["volumes/actions/grow", "volumes/actions/lock", "volumes/actions/unlock"]),
        rule(&["create", "delete"], &["berth.dev"], &["images", "images/*"]),
        rule(&["create"], &["berth.dev"], &["system/cleanup", "system/diagnostics"]),
        rule(WRITE, &[""], &["configmaps", "secrets"]),
        rule(WRITE, &["networking.k8s.io"], &["networkpolicies"]),
    ];
    rules.extend(entering());
    rules.extend(viewer());
    rules
}

/// Commands in services, and connections to them.
fn entering() -> [PolicyRule; 2] {
    [
        rule(&["exec"], &["berth.dev"], &["bundles/exec"]),
        rule(&["exec"], &[""], &["pods/attach", "pods/exec", "pods/portforward"]),
    ]
}

fn auditor() -> Vec<PolicyRule> {
    let mut rules = vec![
        rule(READ, &["berth.dev"], &["auditrecords", "auditrecords/*"]),
        rule(READ, &["berth.dev"], ACCOUNTS),
        rule(READ, &["berth.dev"], STATUS_OF_ACCOUNTS),
        paths(&["get"], &["/metrics"]),
    ];
    rules.extend(viewer());
    rules
}

fn viewer() -> Vec<PolicyRule> {
    vec![
        rule(READ, &["berth.dev"], &["bundles", "changesets", "images", "network", "schedules", "settings"]),
        rule(READ, &["berth.dev"], RECORDS),
        rule(READ, &["berth.dev"], &["bundles/status", "changesets/status", "schedules/status"]),
        rule(READ, &["berth.dev"], &["operations/status", "revisions/status", "volumes/status"]),
        rule(
            READ,
            &["berth.dev"],
            &["bundles/log", "network/lookup", "network/verdicts", "system/usage", "system/health", "system/status"],
        ),
        rule(READ, &[""], PROJECTED),
        // Of a secret they see its keys.
        rule(READ, &[""], &["configmaps", "secrets", "pods/log"]),
        rule(READ, &[""], &["namespaces/status", "persistentvolumeclaims/status", "pods/status"]),
        rule(READ, &["apps"], &["statefulsets", "statefulsets/status"]),
        rule(READ, &["metrics.k8s.io"], &["nodes", "pods"]),
        rule(READ, &["networking.k8s.io"], &["networkpolicies"]),
    ]
}

/// What everybody may who has an account: find out what is served, who he is, and what he may.
pub(super) fn everybody() -> &'static [PolicyRule] {
    static RULES: LazyLock<Vec<PolicyRule>> = LazyLock::new(|| {
        let documents = ["/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version", "/version/"];
        vec![
            paths(&["get"], &documents),
            rule(&["create"], &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ]
    });
    &RULES
}

#[cfg(test)]
mod tests {
    use super::super::{Decision, Grant, Known, Resource, Subject, Verb, authorize};
    use super::*;

    fn with(role: &str, namespace: Option<&str>) -> Subject {
        let rules = built_in(role).unwrap().rules();
        let grant = Grant { role: role.into(), namespace: namespace.map(str::to_owned), rules };
        Subject::Known(
            Known { identity: format!("user:{role}"), grants: vec![grant], within: None, authenticated: None }.into(),
        )
    }

    fn may(subject: &Subject, verb: Verb, group: &str, resource: &str, namespace: &str) -> bool {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        authorize(subject, verb, &Resource::Object { group, plural, subresource, namespace, name: "" })
            == Decision::Allowed
    }

    #[test]
    fn every_role_holds_all_that_those_after_it_hold_but_the_auditors() {
        let [owner, admin, operator, auditor, viewer] =
            ["owner", "admin", "operator", "auditor", "viewer"].map(|role| built_in(role).unwrap().rules());
        for (more, less) in
            [(&owner, &admin), (&admin, &operator), (&operator, &viewer), (&auditor, &viewer), (&admin, &auditor)]
        {
            let held: Vec<&PolicyRule> = more.iter().collect();
            for rule in less {
                assert!(super::super::covers(&held, rule), "{rule:?}");
            }
        }
    }

    #[test]
    fn each_role_does_its_work_and_no_more() {
        let [admin, operator, auditor, viewer] =
            ["admin", "operator", "auditor", "viewer"].map(|role| with(role, None));
        for (verb, group, resource, allowed) in [
            (Verb::List, "berth.dev", "bundles", [true, true, true, true]),
            (Verb::Get, "", "secrets", [true, true, true, true]),
            (Verb::Get, "", "secrets/reveal", [true, false, false, false]),
            (Verb::Get, "", "pods/log", [true, true, true, true]),
            (Verb::Create, "berth.dev", "bundles", [true, true, false, false]),
            (Verb::Exec, "berth.dev", "bundles/exec", [true, true, false, false]),
            (Verb::Create, "berth.dev", "volumes/actions/grow", [true, true, false, false]),
            (Verb::Create, "berth.dev", "volumes/actions/erase", [true, false, false, false]),
            (Verb::Update, "berth.dev", "settings", [true, false, false, false]),
            (Verb::List, "berth.dev", "users", [true, false, true, false]),
            (Verb::Create, "berth.dev", "users", [true, false, false, false]),
            (Verb::Delete, "", "namespaces", [true, false, false, false]),
        ] {
            let found = [&admin, &operator, &auditor, &viewer].map(|who| may(who, verb, group, resource, "default"));
            assert_eq!(found, allowed, "{verb} {resource}");
        }
    }

    #[test]
    fn a_role_in_a_namespace_is_nothing_outside_of_it() {
        let operator = with("operator", Some("team"));
        assert!(may(&operator, Verb::Create, "berth.dev", "bundles", "team"));
        for namespace in ["default", ""] {
            assert!(!may(&operator, Verb::List, "berth.dev", "bundles", namespace), "{namespace:?}");
        }
        let named = |name| Resource::Object { group: "", plural: "namespaces", subresource: "", namespace: "", name };
        assert_eq!(authorize(&operator, Verb::Get, &named("team")), Decision::Allowed);
        let Decision::Denied(why) = authorize(&operator, Verb::Get, &named("default")) else { panic!("allowed") };
        assert!(why.ends_with("your roles allow it in the namespace team alone"), "{why}");
    }

    #[test]
    fn whoever_has_an_account_finds_out_what_there_is_and_who_he_is() {
        let nobody = Subject::Known(
            Known { identity: "user:new".into(), grants: Vec::new(), within: None, authenticated: None }.into(),
        );
        assert!(may(&nobody, Verb::Create, "authentication.k8s.io", "selfsubjectreviews", ""));
        assert_eq!(authorize(&nobody, Verb::Get, &Resource::Path("/openapi/v3")), Decision::Allowed);
        let Decision::Denied(why) = authorize(&nobody, Verb::Get, &Resource::Path("/metrics")) else {
            panic!("allowed")
        };
        assert_eq!(why, "user:new may not get path \"/metrics\"; ask for a role that allows it, as auditor does");
        assert!(!may(&nobody, Verb::Create, "authentication.k8s.io", "tokenreviews", ""));
    }

    #[test]
    fn everybody_sees_and_ends_what_is_his_own_and_nobody_elses() {
        let alice = Subject::Known(
            Known { identity: "user:alice".into(), grants: Vec::new(), within: None, authenticated: None }.into(),
        );
        let may = |verb, plural, subresource, name| {
            let resource = Resource::Object { group: "berth.dev", plural, subresource, namespace: "", name };
            authorize(&alice, verb, &resource) == Decision::Allowed
        };
        assert!(may(Verb::Get, "users", "", "alice") && may(Verb::Create, "users", "apikeys", "alice"));
        assert!(may(Verb::Create, "users", "totp/confirm", "alice") && !may(Verb::Create, "users", "totp", "bob"));
        assert!(may(Verb::Delete, "sessions", "", "alice.x7k2p") && may(Verb::Get, "apikeys", "", "alice.ci"));
        for (verb, plural, subresource, name) in [
            (Verb::Get, "users", "", "bob"),
            (Verb::Update, "users", "", "alice"),
            (Verb::Create, "users", "password", "alice"),
            (Verb::Create, "users", "apikeys", "bob"),
            (Verb::Delete, "sessions", "", "alice.b.x7k2p"),
            (Verb::Delete, "sessions", "", "alice"),
            (Verb::List, "sessions", "", ""),
        ] {
            assert!(!may(verb, plural, subresource, name), "{verb} {plural} {name}");
        }
    }

    #[test]
    fn a_key_for_less_is_good_for_less() {
        let Subject::Known(owner) = with("owner", None) else { panic!("known") };
        let viewer = Grant { role: "viewer".into(), namespace: Some("team".into()), rules: viewer() };
        let key = Subject::Known(Known { within: Some(viewer), ..(*owner).clone() }.into());
        assert!(may(&key, Verb::List, "berth.dev", "bundles", "team"));
        assert!(!may(&key, Verb::List, "berth.dev", "bundles", "default"));
        let team =
            Resource::Object { group: "berth.dev", plural: "bundles", subresource: "", namespace: "team", name: "web" };
        let Decision::Denied(why) = authorize(&key, Verb::Delete, &team) else { panic!("allowed") };
        assert!(why.contains("but not with this key, which is for role viewer in the namespace team"), "{why}");
        assert!(key.lacks(&built_in("operator").unwrap().rules(), Some("team")).is_some());
    }

    #[test]
    fn nobody_hands_on_what_he_does_not_hold() {
        let admin = with("admin", None);
        assert_eq!(admin.lacks(&operator(), None), None);
        assert_eq!(admin.lacks(&operator(), Some("team")), None);
        assert!(admin.lacks(&owner(), None).is_some());
        let inside = with("admin", Some("team"));
        assert_eq!(inside.lacks(&operator(), Some("team")), None);
        assert!(inside.lacks(&viewer(), None).is_some() && inside.lacks(&viewer(), Some("default")).is_some());
        assert_eq!(Subject::LocalRoot.lacks(&owner(), None), None);
        assert!(Subject::Anonymous.lacks(&viewer(), None).is_some());
    }
}
