//! get, status, describe, events, operations, image list, version.

use serde_json::{Value, json};

use crate::fake::Fake;

pub const BUNDLES: &str = "/apis/berth.dev/v1/namespaces/default/bundles";
pub const OPERATIONS: &str = "/apis/berth.dev/v1/namespaces/default/operations";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn table() -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "9"},
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Phase", "priority": 0},
                              {"name": "Image", "priority": 1}],
        "rows": [{"cells": ["web", "Running", "r/web:1"], "object": {"metadata": {"name": "web", "namespace": "default"}}},
                 {"cells": ["database", "Failed", "r/db:1"], "object": {"metadata": {"name": "database", "namespace": "shop"}}}]
    })
}

pub fn config_map(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"mode": "yes"},
           "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
                        "creationTimestamp": "2026-11-21T00:00:00Z"}})
}

#[tokio::test]
async fn get_shows_the_servers_table() {
    let fake = Fake::start();
    fake.json(&format!("GET {BUNDLES}"), table());
    let ran = fake.run(&["get", "bundles"]).await;
    assert_eq!(ran.out, "NAME       PHASE\nweb        Running\ndatabase   Failed\n");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(fake.seen()[0].header("accept").contains("as=Table"));
    let wide = fake.run(&["get", "bd", "-o", "wide"]).await;
    assert_eq!(wide.out.lines().next(), Some("NAME       PHASE     IMAGE"));
}

#[tokio::test]
async fn get_over_all_namespaces_says_which_is_which() {
    let fake = Fake::start();
    fake.json("GET /apis/berth.dev/v1/bundles", table());
    let ran = fake.run(&["get", "bundles", "-A", "-l", "tier=front"]).await;
    assert_eq!(ran.out.lines().nth(2), Some("shop        database   Failed"));
    assert_eq!(fake.seen()[0].query, "labelSelector=tier%3Dfront");
}

#[tokio::test]
async fn a_server_without_tables_gets_one_made_for_it() {
    let fake = Fake::start();
    fake.list("GET /api/v1/namespaces/default/configmaps", 4, vec![config_map("settings", 3)]);
    let ran = fake.run(&["get", "cm"]).await;
    assert!(ran.out.starts_with("NAME       DATA   AGE\nsettings   1      "), "{}", ran.out);
}

#[tokio::test]
async fn one_object_is_shown_in_every_form() {
    let fake = Fake::start();
    let (object, mut stored) = (config_map("settings", 3), config_map("settings", 3));
    stored["metadata"]["managedFields"] = json!([{"manager": "berth"}]);
    fake.json("GET /api/v1/namespaces/default/configmaps/settings", stored);
    let json = fake.run(&["get", "configmap", "settings", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap(), object);
    let yaml = fake.run(&["get", "configmap/settings", "-o", "yaml"]).await;
    assert!(
        yaml.out.contains("\ndata:\n  mode: 'yes'\n") || yaml.out.contains("\ndata:\n  mode: \"yes\"\n"),
        "{}",
        yaml.out
    );
    let name = fake.run(&["get", "configmap/settings", "-o", "name"]).await;
    assert_eq!(name.out, "configmap/settings\n");
}

#[tokio::test]
async fn what_is_not_there_ends_with_3() {
    let fake = Fake::start();
    fake.refuse(&format!("GET {BUNDLES}/web"), 404, "NotFound", "bundles.berth.dev \"web\" not found");
    let ran = fake.run(&["get", "bundle", "web"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert_eq!(ran.err, "error [404 NotFound]: bundles.berth.dev \"web\" not found\n");
}

#[tokio::test]
async fn an_empty_list_says_so() {
    let fake = Fake::start();
    fake.list(&format!("GET {BUNDLES}"), 1, vec![]);
    let ran = fake.run(&["status"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", "no bundles in namespace default\n"));
}

#[tokio::test]
async fn a_kind_of_a_later_server_is_asked_for() {
    let fake = Fake::start();
    let widgets =
        json!({"name": "widgets", "singularName": "widget", "kind": "Widget", "namespaced": true, "verbs": ["get"]});
    fake.json("GET /api/v1", json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": []}));
    fake.json(
        "GET /apis/berth.dev/v1",
        json!({"kind": "APIResourceList", "groupVersion": "berth.dev/v1", "resources": [widgets]}),
    );
    fake.list("GET /apis/berth.dev/v1/namespaces/default/widgets", 1, vec![json!({"metadata": {"name": "one"}})]);
    let ran = fake.run(&["get", "widgets"]).await;
    assert_eq!(ran.out, "NAME   AGE\none    <unknown>\n");
    let ran = fake.run(&["get", "gadgets"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("there is no kind \"gadgets\""), "{}", ran.err);
}

fn bundle() -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Bundle",
        "metadata": {"name": "web", "namespace": "default", "generation": 1, "resourceVersion": "7",
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"image": "r/web:1", "ports": [{"name": "http", "containerPort": 80, "expose": "lan", "hostPort": 8080}]},
        "status": {"observedGeneration": 1, "phase": "Failed", "restarts": 4, "revision": 2,
                   "unit": "berth.default.web.r2.service", "address": "10.213.1.2",
                   "availableActions": ["start", "uninstall"],
                   "lastTermination": {"reason": "OOMKilled", "signal": "KILL"},
                   "conditions": [{"type": "Ready", "status": "False", "reason": "CrashLooping",
                                   "message": "raise resources.memory", "lastTransitionTime": "2026-11-21T00:00:00Z"}]}
    })
}

#[tokio::test]
async fn status_of_a_service_says_where_it_hangs() {
    let fake = Fake::start();
    fake.json(&format!("GET {BUNDLES}/web"), bundle());
    fake.list(&format!("GET {EVENTS}"), 9, vec![
        json!({"metadata": {"name": "b"}, "type": "Warning", "reason": "OOMKilled", "message": "used more than 16Mi",
               "count": 3, "lastTimestamp": "2026-11-21T00:00:05Z", "involvedObject": {"kind": "Bundle", "name": "web"}}),
    ]);
    let ran = fake.run(&["status", "web"]).await;
    for line in [
        "Ready:       False (CrashLooping: raise resources.memory)",
        "Unit:        berth.default.web.r2.service",
        "Port:        http: 8080 of the machine leads to 80/TCP",
        "Last end:    OOMKilled (signal KILL)",
        "Can do:      start, uninstall",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line}\n{}", ran.out);
    }
    let event: Vec<&str> = ran.out.lines().last().unwrap().split_whitespace().skip(1).collect();
    assert_eq!(event.join(" "), "(x3) Warning OOMKilled bundle/web used more than 16Mi");
    let asked = &fake.asked(&format!("GET {EVENTS}"))[0];
    assert_eq!(asked.query, "fieldSelector=involvedObject.kind%3DBundle%2CinvolvedObject.name%3Dweb");
}

#[tokio::test]
async fn describe_shows_the_object_and_its_events() {
    let fake = Fake::start();
    fake.json("GET /api/v1/namespaces/default/configmaps/settings", config_map("settings", 3));
    fake.list(&format!("GET {EVENTS}"), 9, vec![]);
    let ran = fake.run(&["describe", "cm/settings"]).await;
    assert!(ran.out.contains("kind: ConfigMap\n") && ran.out.ends_with("events: []\n"), "{}", ran.out);
}

#[tokio::test]
async fn events_are_chosen_by_level_reason_and_age() {
    let fake = Fake::start();
    let event =
        |reason: &str, seen: &str| json!({"reason": reason, "type": "Warning", "lastTimestamp": seen, "message": "m"});
    let (old, new) = (event("Old", "2001-01-01T00:00:00Z"), event("New", "2101-01-01T00:00:00Z"));
    fake.list(&format!("GET {EVENTS}"), 4, vec![old, new]);
    let ran = fake.run(&["events", "--level", "warning", "--reason", "StartFailed", "--since", "10m"]).await;
    assert!(ran.out.contains("New") && !ran.out.contains("Old"), "{}", ran.out);
    assert_eq!(fake.seen()[0].query, "fieldSelector=type%3DWarning%2Creason%3DStartFailed");
    let ran = fake.run(&["events", "--since", "10m", "-o", "json"]).await;
    assert!(ran.out.contains("New") && !ran.out.contains("Old"), "{}", ran.out);
}

#[tokio::test]
async fn events_come_in_the_order_of_time() {
    let fake = Fake::start();
    let event = |reason: &str, second: u32| {
        json!({"metadata": {"name": reason, "namespace": "default"}, "type": "Normal", "reason": reason, "message": "m",
               "lastTimestamp": format!("2026-11-21T00:00:{second:02}Z"),
               "involvedObject": {"kind": "Bundle", "name": "web"}})
    };
    fake.list(&format!("GET {EVENTS}"), 9, vec![event("Second", 20), event("Third", 30), event("First", 10)]);
    let ran = fake.run(&["events", "--for", "bundle/web"]).await;
    let reasons: Vec<&str> = ran.out.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(reasons, ["First", "Second", "Third"], "{}", ran.out);
}

#[tokio::test]
async fn operations_come_in_the_order_of_time() {
    let fake = Fake::start();
    let operation = |name: &str, second: u32| {
        json!({"metadata": {"name": name, "creationTimestamp": format!("2026-11-21T00:00:{second:02}Z")},
               "spec": {"kind": "Start", "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
               "status": {"state": "Succeeded", "steps": []}})
    };
    fake.list(&format!("GET {OPERATIONS}"), 9, vec![operation("a-late", 30), operation("b-early", 10)]);
    let ran = fake.run(&["operations"]).await;
    let names: Vec<&str> = ran.out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["b-early", "a-late"]);
}

#[tokio::test]
async fn images_are_listed_with_digest_and_size() {
    let fake = Fake::start();
    let image = json!({"metadata": {"name": "sha256-ab"}, "spec": {
        "names": ["localhost/web:1", "r/web:1"], "references": [], "digest": "sha256:0123456789abcdef", "size": 3_145_728,
        "inUse": true}});
    fake.json("GET /apis/berth.dev/v1/images", json!({"kind": "ImageList", "items": [image]}));
    let ran = fake.run(&["image", "list"]).await;
    assert_eq!(
        ran.out,
        "NAME              DIGEST                SIZE       USED\n\
         localhost/web:1   sha256:0123456789ab   3.00 MiB   yes\n\
         r/web:1           sha256:0123456789ab   3.00 MiB   yes\n"
    );
}

#[tokio::test]
async fn both_versions_are_shown() {
    let fake = Fake::start();
    fake.json("GET /version", json!({"gitVersion": "v1.33.0+berth-9.9.9", "berthVersion": "9.9.9"}));
    let ran = fake.run(&["version"]).await;
    assert_eq!(ran.out, format!("client  {}\nserver  9.9.9\n", env!("CARGO_PKG_VERSION")));
}
