//! Volumes: shown, changed, and never destroyed by the way.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};
use crate::reading::{BUNDLES, OPERATIONS};

const VOLUMES: &str = "/apis/berth.dev/v1/namespaces/default/volumes";

fn volume() -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Volume",
        "metadata": {"name": "web-data", "namespace": "default", "uid": "u", "resourceVersion": "5",
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"bundle": "web", "volume": "data"},
        "status": {"state": "Ready", "size": 1_073_741_824_u64}
    })
}

fn done(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "9",
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"kind": kind, "generation": 1, "target": {"kind": "Volume", "namespace": "default", "name": "web-data"},
                 "actor": {"identity": "local-root", "source": "cli"}},
        "status": {"state": "Succeeded", "steps": []}
    })
}

/// Answers an action with an operation that is done at once.
fn acts(fake: &Fake, path: &str, name: &str, kind: &str) {
    fake.on(&format!("POST {path}"), Reply::Json(202, done(name, kind)));
    fake.list(&format!("GET {OPERATIONS}"), 9, vec![done(name, kind)]);
}

#[tokio::test]
async fn the_list_shows_size_and_state() {
    let fake = Fake::start();
    fake.list(&format!("GET {VOLUMES}"), 9, vec![volume()]);
    let ran = fake.run(&["volume", "list"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let row: Vec<&str> = ran.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["web-data", "web", "1Gi", "Ready"]);
}

#[tokio::test]
async fn to_erase_takes_a_yes_and_asks_nothing_of_the_server_without_it() {
    let fake = Fake::start();
    let ran = fake.run(&["volume", "erase", "web-data"]).await;
    assert_eq!((ran.code, fake.lines()), (2, vec![]));
    assert!(ran.err.contains("destroys all data of volume web-data") && ran.err.contains("--yes"), "{}", ran.err);
    acts(&fake, &format!("{VOLUMES}/web-data/actions/erase"), "web-data-erase-1", "Erase");
    let ran = fake.run(&["volume", "erase", "web-data", "--yes"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "volume/web-data erased\n"), "{}", ran.err);
}

#[tokio::test]
async fn to_grow_sends_the_size_and_says_what_the_server_has_against_it() {
    let fake = Fake::start();
    let path = format!("{VOLUMES}/web-data/actions/grow");
    acts(&fake, &path, "web-data-grow-1", "Grow");
    let ran = fake.run(&["volume", "grow", "web-data", "2Gi"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "volume/web-data grown\n"), "{}", ran.err);
    assert_eq!(fake.asked(&format!("POST {path}"))[0].json(), json!({"size": "2Gi"}));
    let other = Fake::start();
    other.refuse(&format!("POST {path}"), 409, "Conflict", "no bundle uses volume web-data");
    let ran = other.run(&["volume", "grow", "web-data", "2Gi"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("no bundle uses volume web-data"), "{}", ran.err);
}

#[tokio::test]
async fn to_uninstall_keeps_volumes_and_names_them_unless_told_otherwise() {
    let fake = Fake::start();
    acts(&fake, &format!("{BUNDLES}/web/actions/uninstall"), "web-uninstall-1", "Uninstall");
    fake.list(&format!("GET {VOLUMES}"), 9, vec![volume()]);
    let ran = fake.run(&["uninstall", "web"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bundle/web uninstalled\n"), "{}", ran.err);
    assert!(
        ran.err.contains("volume/web-data with 1Gi is kept; berth volume erase web-data destroys it"),
        "{}",
        ran.err
    );
    assert!(!fake.lines().iter().any(|line| line.contains("erase")));
    let ran = fake.run(&["uninstall", "web", "--keep-volumes"]).await;
    assert_eq!((ran.code, ran.err.contains("is kept")), (0, false), "{}", ran.err);
}

#[tokio::test]
async fn to_uninstall_with_erasure_destroys_them_when_the_service_is_gone() {
    let fake = Fake::start();
    let (uninstall, erase) = (format!("{BUNDLES}/web/actions/uninstall"), format!("{VOLUMES}/web-data/actions/erase"));
    fake.on(&format!("POST {uninstall}"), Reply::Json(202, done("web-uninstall-1", "Uninstall")));
    fake.on(&format!("POST {erase}"), Reply::Json(202, done("web-data-erase-1", "Erase")));
    let both = vec![done("web-uninstall-1", "Uninstall"), done("web-data-erase-1", "Erase")];
    fake.list(&format!("GET {OPERATIONS}"), 9, both);
    fake.list(&format!("GET {VOLUMES}"), 9, vec![volume()]);
    let ran = fake.run(&["uninstall", "web", "--erase-volumes"]).await;
    assert_eq!(ran.out, "bundle/web uninstalled\nvolume/web-data erased\n", "{}", ran.err);
    let posts: Vec<String> = fake.lines().into_iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts, [format!("POST {uninstall}"), format!("POST {erase}")]);
    let ran = fake.run(&["uninstall", "web", "--erase-volumes", "--no-wait"]).await;
    assert_eq!(ran.code, 2);
}

#[tokio::test]
async fn a_volume_flag_becomes_a_part_of_the_spec() {
    let fake = Fake::start();
    fake.refuse(&format!("POST {BUNDLES}"), 422, "Invalid", "as the test wants it");
    let line = ["install", "127.0.0.1:5000/web:1", "--volume", "data:/data:1Gi"];
    assert_eq!(fake.run(&line).await.code, 1);
    assert_eq!(
        fake.asked(&format!("POST {BUNDLES}"))[0].json()["spec"]["volumes"],
        json!([{"name": "data", "mountPath": "/data", "size": "1Gi"}])
    );
}
