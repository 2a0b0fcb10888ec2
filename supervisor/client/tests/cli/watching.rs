//! `-w`: what changes is shown, whatever happens to the connection.

use serde_json::{Value, json};

use crate::fake::{End, Fake, refusal};
use crate::reading::config_map;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn name(line: &str) -> &str {
    line.split_whitespace().next().unwrap()
}

fn bookmark(version: u64) -> (&'static str, Value) {
    ("BOOKMARK", json!({"kind": "ConfigMap", "metadata": {"resourceVersion": version.to_string()}}))
}

#[tokio::test]
async fn what_is_there_comes_first_and_then_what_changes() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![config_map("one", 3), config_map("two", 4)]);
    fake.events(MAPS, &[("ADDED", config_map("three", 11)), ("DELETED", config_map("one", 12))], End::Open);
    let mut berth = fake.start_berth(&["get", "configmaps", "-w"]);
    assert!(berth.line().await.starts_with("NAME"));
    for expected in ["one", "two", "three", "one"] {
        assert_eq!(name(&berth.line().await), expected);
    }
    let asked = &fake.asked(&format!("WATCH {MAPS}"))[0];
    assert!(asked.query.contains("resourceVersion=10") && asked.query.contains("allowWatchBookmarks=true"));
}

#[tokio::test]
async fn a_change_that_shows_in_no_column_is_not_printed() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![config_map("one", 3)]);
    let mut touched = config_map("one", 11);
    touched["metadata"]["annotations"] = json!({"note": "nobody sees this"});
    let mut grown = config_map("one", 12);
    grown["data"]["more"] = "1".into();
    fake.events(MAPS, &[("MODIFIED", touched), ("MODIFIED", grown.clone()), ("DELETED", grown)], End::Open);
    let mut berth = fake.start_berth(&["get", "configmaps", "-w"]);
    assert!(berth.line().await.starts_with("NAME"));
    for entries in ["1", "2", "2"] {
        let line = berth.line().await;
        assert_eq!(line.split_whitespace().nth(1), Some(entries), "{line}");
    }
}

#[tokio::test]
async fn a_compacted_version_is_listed_anew_and_only_differences_are_shown() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![config_map("one", 3), config_map("two", 4)]);
    fake.list(&format!("GET {MAPS}"), 90, vec![config_map("one", 3), config_map("three", 80)]);
    fake.events(MAPS, &[("ERROR", refusal(410, "Expired", "too old"))], End::Properly);
    fake.events(MAPS, &[("MODIFIED", config_map("three", 91))], End::Open);
    let mut berth = fake.start_berth(&["get", "configmaps", "-w", "-o", "name"]);
    for expected in ["configmap/one", "configmap/two", "configmap/two", "configmap/three", "configmap/three"] {
        assert_eq!(berth.line().await, expected);
    }
    let versions: Vec<bool> =
        fake.asked(&format!("WATCH {MAPS}")).iter().map(|seen| seen.query.contains("resourceVersion=90")).collect();
    assert_eq!(versions, [false, true]);
}

#[tokio::test]
async fn a_refused_watch_is_listed_anew_too() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![]);
    fake.list(&format!("GET {MAPS}"), 90, vec![config_map("one", 80)]);
    fake.refuse(&format!("WATCH {MAPS}"), 410, "Expired", "too old");
    fake.events(MAPS, &[], End::Open);
    let mut berth = fake.start_berth(&["get", "configmaps", "-w", "-o", "name"]);
    assert_eq!(berth.line().await, "configmap/one");
}

#[tokio::test]
async fn a_broken_connection_goes_on_from_the_last_version() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![]);
    fake.events(MAPS, &[("ADDED", config_map("one", 11)), bookmark(30)], End::Broken);
    fake.refuse(&format!("WATCH {MAPS}"), 503, "ServiceUnavailable", "starting");
    fake.events(MAPS, &[("ADDED", config_map("two", 31))], End::Open);
    let mut berth = fake.start_berth(&["get", "configmaps", "-w", "-o", "name"]);
    assert_eq!(berth.line().await, "configmap/one");
    assert_eq!(berth.line().await, "configmap/two");
    let watches = fake.asked(&format!("WATCH {MAPS}"));
    assert!(watches[2].query.contains("resourceVersion=30"), "{}", watches[2].query);
    assert_eq!(fake.asked(&format!("GET {MAPS}")).len(), 1);
    let ran = berth.interrupt().await;
    assert_eq!(ran.err.matches("connection lost").count(), 1, "{}", ran.err);
}

#[tokio::test]
async fn a_watch_that_may_not_be_is_a_failure_and_not_tried_again() {
    let fake = Fake::start();
    fake.list(&format!("GET {MAPS}"), 10, vec![]);
    fake.refuse(&format!("WATCH {MAPS}"), 403, "Forbidden", "viewer may not watch configmaps");
    let ran = fake.run(&["get", "configmaps", "-w"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (4, "error [403 Forbidden]: viewer may not watch configmaps\n"));
    assert_eq!(fake.asked(&format!("WATCH {MAPS}")).len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_at_first_is_a_failure() {
    let fake = Fake::start();
    fake.refuse(&format!("GET {MAPS}"), 503, "ServiceUnavailable", "starting");
    let ran = fake.run(&["get", "configmaps", "-w"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (1, "error [503 ServiceUnavailable]: starting\n"));
}
