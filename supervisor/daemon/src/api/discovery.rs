//! What is served here, from the registry: the documents by which a client finds its way.

use std::collections::BTreeSet;

use berth_model::kinds::{KINDS, Registration};
use berth_model::policy::Verb;
use serde_json::{Value, json};

use super::reply::{self, Reply};
use super::request::Ask;

/// `GET /api`: versions of the core group.
pub(super) async fn core(_: Ask) -> Reply {
    Ok(reply::json(&json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })))
}

/// `GET /apis`: all other groups.
pub(super) async fn groups(_: Ask) -> Reply {
    let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.group).filter(|group| !group.is_empty()).collect();
    let groups: Vec<Value> = names.into_iter().map(group_document).collect();
    Ok(reply::json(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
}

/// Every group but the core one, with each of its versions.
pub(super) fn group_versions() -> BTreeSet<(&'static str, &'static str)> {
    KINDS.iter().map(|kind| (kind.group, kind.version)).filter(|(group, _)| !group.is_empty()).collect()
}

/// `GET /apis/berth.dev` and its like.
pub(super) async fn group(group: &'static str) -> Reply {
    let mut document = group_document(group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Ok(reply::json(&document))
}

/// `GET /api/v1`.
pub(super) async fn core_resources(_: Ask) -> Reply {
    Ok(reply::json(&resources("", "v1")))
}

/// `GET /apis/berth.dev/v1` and its like.
pub(super) async fn group_resources(group: &'static str, version: &'static str) -> Reply {
    Ok(reply::json(&resources(group, version)))
}

fn group_document(group: &str) -> Value {
    let versions: BTreeSet<&str> = KINDS.iter().filter(|kind| kind.group == group).map(|kind| kind.version).collect();
    let version = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
}

fn resources(group: &str, version: &str) -> Value {
    let of_group = |kind: &&&Registration| kind.group == group && kind.version == version;
    let documents = KINDS.iter().filter(of_group).flat_map(|kind| documents(kind));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": documents.collect::<Vec<_>>(),
    })
}

/// A kind, and its status if that is written apart.
fn documents(kind: &Registration) -> Vec<Value> {
    let verbs: Vec<&str> = kind.verbs.iter().map(|verb| verb.name()).collect();
    let mut whole = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": verbs, "shortNames": kind.short_names,
    });
    if !kind.categories.is_empty() {
        whole["categories"] = json!(kind.categories);
    }
    let status = json!({
        "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": [Verb::Get.name()],
    });
    if kind.status { vec![whole, status] } else { vec![whole] }
}
