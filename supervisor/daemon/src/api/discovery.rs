//! What is served here, from the registry: the documents by which a client finds its way.
//!
//! `/api` and `/apis` answer in two shapes. The classic one names versions and groups, each with a document of its own;
//! the aggregated one (`apidiscovery.k8s.io/v2`) has all of their kinds in it, and is sent to whoever prefers it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use berth_model::kinds::{KINDS, Registration};
use berth_model::policy::Verb;
use http::header::ACCEPT;
use serde_json::{Value, json};

use super::document::Document;
use super::reply::{self, Reply};
use super::request::Ask;

/// The media type of an aggregated document. Clients compare its parameters.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The core group with all of its kinds.
static CORE: LazyLock<Document> = LazyLock::new(|| aggregated(&BTreeSet::from([("", "v1")])));
/// All other groups with all of theirs.
static GROUPS: LazyLock<Document> = LazyLock::new(|| aggregated(&group_versions()));

/// `GET /api`: versions of the core group.
pub(super) async fn core(ask: Ask) -> Reply {
    if prefers_aggregated(&ask) {
        return Ok(CORE.answer(&ask.headers));
    }
    Ok(reply::json(&json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })))
}

/// `GET /apis`: all other groups.
pub(super) async fn groups(ask: Ask) -> Reply {
    if prefers_aggregated(&ask) {
        return Ok(GROUPS.answer(&ask.headers));
    }
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

/// Whether the first shape in `Accept` that is served here is the aggregated one.
fn prefers_aggregated(ask: &Ask) -> bool {
    let accept = ask.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let served = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?;
        let parts: Vec<&str> = parts.filter(|part| !part.starts_with("q=")).collect();
        let all = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
        match media {
            "application/json" if all.iter().all(|part| parts.contains(part)) => Some(true),
            "application/json" | "application/*" | "*/*" if parts.is_empty() => Some(false),
            _ => None,
        }
    };
    accept.split(',').find_map(served).unwrap_or(false)
}

/// One entry per group; each has one version.
fn aggregated(group_versions: &BTreeSet<(&'static str, &'static str)>) -> Document {
    let item = |(group, version): &(&str, &str)| {
        let of_version = |kind: &&&Registration| (kind.group, kind.version) == (*group, *version);
        let resources: Vec<Value> = KINDS.iter().filter(of_version).map(|kind| aggregated_kind(kind)).collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
        let version = json!({ "version": version, "resources": resources, "freshness": "Current" });
        json!({ "metadata": metadata, "versions": [version] })
    };
    let items: Vec<Value> = group_versions.iter().map(item).collect();
    let content = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    Document::new(AGGREGATED, &content)
}

/// A kind, with its status if that is written apart.
fn aggregated_kind(kind: &Registration) -> Value {
    let verbs: Vec<&str> = kind.verbs.iter().map(|verb| verb.name()).collect();
    let response = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
    let mut whole = json!({
        "resource": kind.plural, "responseKind": response, "singularResource": kind.singular, "verbs": verbs,
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
    });
    for (field, words) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !words.is_empty() {
            whole[field] = json!(words);
        }
    }
    if kind.status {
        let status = json!({ "subresource": "status", "responseKind": response, "verbs": [Verb::Get.name()] });
        whole["subresources"] = json!([status]);
    }
    whole
}
