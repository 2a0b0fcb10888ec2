//! What a rule of a role allows, in the meaning that Kubernetes gives its `PolicyRule`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{Resource, Verb};
use crate::field::FieldError;

/// Stands for everything of its list.
const ANY: &str = "*";

fn list(field: Option<&Vec<String>>) -> &[String] {
    field.map_or(&[], Vec::as_slice)
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|one| one == ANY || one == word)
}

/// Whether a rule allows this.
pub(super) fn allows(rule: &PolicyRule, verb: Verb, resource: &Resource<'_>) -> bool {
    if !has(&rule.verbs, verb.name()) {
        return false;
    }
    match resource {
        Resource::Path(path) => list(rule.non_resource_urls.as_ref()).iter().any(|pattern| matches_path(pattern, path)),
        Resource::Object { group, plural, subresource, name, .. } => {
            let names = list(rule.resource_names.as_ref());
            has(list(rule.api_groups.as_ref()), group)
                && list(rule.resources.as_ref()).iter().any(|pattern| matches_resource(pattern, plural, subresource))
                && (names.is_empty() || names.iter().any(|one| one == name))
        }
    }
}

/// `/metrics`, or `/openapi/*` for all that begins so.
fn matches_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix(ANY) {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    }
}

/// `bundles`, `bundles/exec`, `bundles/*`, `*/log`, and `*` for everything.
fn matches_resource(pattern: &str, plural: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == ANY || (pattern == plural && subresource.is_empty()),
        Some((object, below)) => {
            (object == ANY || object == plural) && !subresource.is_empty() && (below == ANY || below == subresource)
        }
    }
}

/// Whether all that a rule allows is allowed by those that are held, taken together.
pub fn covers(held: &[&PolicyRule], rule: &PolicyRule) -> bool {
    let one = [String::new()];
    let names = match list(rule.resource_names.as_ref()) {
        [] => &one[..],
        names => names,
    };
    let objects = list(rule.resources.as_ref()).iter().all(|resource| {
        let groups = list(rule.api_groups.as_ref());
        groups.iter().all(|group| names.iter().all(|name| each_verb(held, rule, |one| of(one, group, resource, name))))
    });
    let paths = list(rule.non_resource_urls.as_ref());
    objects && paths.iter().all(|path| each_verb(held, rule, |one| has_path(one, path)))
}

fn each_verb(held: &[&PolicyRule], rule: &PolicyRule, fits: impl Fn(&PolicyRule) -> bool) -> bool {
    rule.verbs.iter().all(|verb| held.iter().any(|one| has(&one.verbs, verb) && fits(one)))
}

fn of(held: &PolicyRule, group: &str, resource: &str, name: &str) -> bool {
    let names = list(held.resource_names.as_ref());
    let (plural, below) = resource.split_once('/').unwrap_or((resource, ""));
    has(list(held.api_groups.as_ref()), group)
        && list(held.resources.as_ref()).iter().any(|pattern| pattern == resource || matches_resource(pattern, plural, below))
        // A rule for some names does not cover one for all.
        && (names.is_empty() || names.iter().any(|one| one == name))
}

fn has_path(held: &PolicyRule, path: &str) -> bool {
    list(held.non_resource_urls.as_ref()).iter().any(|pattern| pattern == path || matches_path(pattern, path))
}

/// What is wrong with a rule, by its field below `at`.
pub fn problems(rule: &PolicyRule, at: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if rule.verbs.is_empty() {
        errors.push(FieldError::required(format!("{at}.verbs"), "say what is allowed, as `get`; `*` is everything"));
    }
    for (number, verb) in rule.verbs.iter().enumerate() {
        if verb != ANY && !Verb::ALL.iter().any(|known| known.name() == verb) {
            let known: Vec<&str> = Verb::ALL.iter().map(|verb| verb.name()).collect();
            let message = format!("there is no verb `{verb}`; use {}, or `*`", known.join(", "));
            errors.push(FieldError::invalid(format!("{at}.verbs[{number}]"), message));
        }
    }
    let (resources, paths) = (list(rule.resources.as_ref()), list(rule.non_resource_urls.as_ref()));
    if resources.is_empty() && paths.is_empty() {
        let message = "say of what, as `bundles` or `bundles/exec`; `*` is everything";
        errors.push(FieldError::required(format!("{at}.resources"), message));
    }
    if !resources.is_empty() && list(rule.api_groups.as_ref()).is_empty() {
        let message = "say of which groups, as `berth.dev`, or \"\" for Kubernetes' own; `*` is all";
        errors.push(FieldError::required(format!("{at}.apiGroups"), message));
    }
    for (number, path) in paths.iter().enumerate() {
        if path != ANY && !path.starts_with('/') {
            let message = format!("`{path}` is no path: begin it with `/`; `*` at its end is all that begins so");
            errors.push(FieldError::invalid(format!("{at}.nonResourceURLs[{number}]"), message));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    fn object<'a>(plural: &'a str, subresource: &'a str, name: &'a str) -> Resource<'a> {
        Resource::Object { group: "berth.dev", plural, subresource, namespace: "default", name }
    }

    #[test]
    fn a_rule_is_for_an_object_or_for_what_is_below_it() {
        let reads = |resource: &str, asked: &Resource<'_>| {
            allows(&rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": [resource]})), Verb::Get, asked)
        };
        let (bundle, log) = (object("bundles", "", "web"), object("bundles", "log", "web"));
        assert!(reads("bundles", &bundle) && !reads("bundles", &log));
        assert!(reads("bundles/log", &log) && !reads("bundles/log", &bundle));
        assert!(reads("bundles/*", &log) && !reads("bundles/*", &bundle));
        assert!(reads("*/log", &log) && !reads("*/log", &bundle));
        assert!(reads("*", &log) && reads("*", &bundle));
        assert!(!reads("volumes", &bundle));
    }

    #[test]
    fn group_verb_and_name_all_have_to_fit() {
        let one = rule(json!({"verbs": ["get", "patch"], "apiGroups": ["berth.dev"], "resources": ["bundles"],
                              "resourceNames": ["web"]}));
        assert!(allows(&one, Verb::Patch, &object("bundles", "", "web")));
        assert!(!allows(&one, Verb::Delete, &object("bundles", "", "web")));
        assert!(!allows(&one, Verb::Get, &object("bundles", "", "db")));
        assert!(!allows(&one, Verb::List, &object("bundles", "", "")));
        let core = Resource::Object { group: "", plural: "bundles", subresource: "", namespace: "", name: "web" };
        assert!(!allows(&one, Verb::Get, &core));
    }

    #[test]
    fn paths_are_whole_or_begin_so() {
        let one = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics", "/openapi/*"]}));
        for (path, expected) in [("/metrics", true), ("/metrics/x", false), ("/openapi/v3", true), ("/", false)] {
            assert_eq!(allows(&one, Verb::Get, &Resource::Path(path)), expected, "{path}");
        }
        assert!(!allows(&one, Verb::Get, &object("metrics", "", "")));
    }

    #[test]
    fn what_is_held_covers_what_is_less_and_nothing_more() {
        let held =
            rule(json!({"verbs": ["get", "list"], "apiGroups": ["berth.dev"], "resources": ["bundles", "*/log"]}));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let wanted = |verbs: Value, resources: Value| {
            rule(json!({"verbs": verbs, "apiGroups": ["berth.dev"], "resources": resources}))
        };
        assert!(covers(&[&held], &wanted(json!(["get"]), json!(["bundles", "bundles/log"]))));
        for (verbs, resources) in [
            (json!(["get", "delete"]), json!(["bundles"])),
            (json!(["*"]), json!(["bundles"])),
            (json!(["get"]), json!(["volumes"])),
            (json!(["get"]), json!(["*"])),
            (json!(["get"]), json!(["bundles/exec"])),
            (json!(["get"]), json!(["bundles/*"])),
        ] {
            let wanted = wanted(verbs, resources);
            assert!(!covers(&[&held], &wanted), "{wanted:?}");
            assert!(covers(&[&all], &wanted), "{wanted:?}");
        }
        assert!(!covers(&[&all], &rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}))));
    }

    #[test]
    fn a_rule_for_one_name_does_not_cover_all_names() {
        let named =
            rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["bundles"], "resourceNames": ["web"]}));
        let all = rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["bundles"]}));
        assert!(covers(&[&named], &named) && covers(&[&all], &named));
        assert!(!covers(&[&named], &all));
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_told_by_field() {
        let told = |value| problems(&rule(value), "spec.rules[0]").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]})), Vec::<String>::new());
        let empty = told(json!({"verbs": []}));
        assert!(empty[0].starts_with("spec.rules[0].verbs: say what is allowed"), "{empty:?}");
        assert!(empty[1].starts_with("spec.rules[0].resources: say of what"), "{empty:?}");
        let odd = told(json!({"verbs": ["read"], "resources": ["bundles"], "nonResourceURLs": ["metrics"]}));
        assert!(odd[0].contains("there is no verb `read`; use get, list"), "{odd:?}");
        assert!(odd[1].starts_with("spec.rules[0].apiGroups: say of which groups"), "{odd:?}");
        assert!(odd[2].contains("begin it with `/`"), "{odd:?}");
    }
}
