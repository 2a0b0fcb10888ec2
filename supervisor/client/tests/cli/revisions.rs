//! The history of a service, and the way back.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};
use crate::reading::{BUNDLES, OPERATIONS};

const REVISIONS: &str = "/apis/berth.dev/v1/namespaces/default/revisions";

fn revision(number: u64, state: &str) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Revision",
        "metadata": {"name": format!("web-r{number}"), "namespace": "default", "uid": format!("u{number}"),
                     "resourceVersion": "5", "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"bundle": "web", "number": number, "operation": format!("web-update-{number}"),
                 "bundleSpec": {"image": format!("r/web:{number}")},
                 "image": {"reference": format!("r/web@sha256:{}", "ab".repeat(32))}},
        "status": {"state": state}
    })
}

fn rollback(state: &str, result: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": "web-rollback-1", "namespace": "default", "resourceVersion": "9",
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"kind": "Rollback", "generation": 2, "rollbackTo": 1, "actor": {"identity": "owner", "source": "cli"},
                 "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
        "status": {"state": state, "steps": [], "result": result}
    })
}

#[tokio::test]
async fn the_history_is_shown_by_number_and_as_documents_in_the_same_order() {
    let fake = Fake::start();
    let all = vec![revision(10, "Active"), revision(9, "Superseded")];
    fake.list(&format!("GET {REVISIONS}"), 9, all);
    let ran = fake.run(&["revisions", "web"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NUMBER", "STATE", "IMAGE", "AGE", "MADE", "BY", "WHY", "NOT"]);
    assert_eq!(rows[1][..4], ["9", "Superseded", "r/web:9", "(abababababab)"]);
    assert_eq!((rows[2][0], *rows[2].last().unwrap()), ("10", "update"));
    assert!(fake.asked(&format!("GET {REVISIONS}"))[0].query.contains("spec.bundle"));
    let ran = fake.run(&["revisions", "web", "-o", "name"]).await;
    assert_eq!(ran.out, "revision/web-r9\nrevision/web-r10\n");
}

#[tokio::test]
async fn the_history_of_nothing_is_not_found() {
    let fake = Fake::start();
    fake.list(&format!("GET {REVISIONS}"), 9, Vec::new());
    fake.refuse(&format!("GET {BUNDLES}/web"), 404, "NotFound", "bundles.berth.dev \"web\" not found");
    assert_eq!(fake.run(&["revisions", "web"]).await.code, 3);
}

#[tokio::test]
async fn a_rollback_is_followed_to_its_end_and_says_what_serves() {
    let fake = Fake::start();
    let line = format!("POST {BUNDLES}/web/actions/rollback");
    fake.on(&line, Reply::Json(202, rollback("Pending", Value::Null)));
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![rollback("Succeeded", json!({"revision": 3}))]);
    let ran = fake.run(&["rollback", "web", "--to", "1"]).await;
    let said = "bundle/web rolled back: revision 3 serves, as revision 1 did\n";
    assert_eq!((ran.code, ran.out.as_str()), (0, said), "{}", ran.err);
    let asked = fake.asked(&line);
    assert_eq!((asked.len(), asked[0].json()), (1, json!({"to": 1})));
    assert_ne!(asked[0].header("idempotency-key"), "");
}

#[tokio::test]
async fn a_rollback_that_leads_nowhere_says_why_and_the_exit_code_tells_the_kind() {
    let fake = Fake::start();
    let line = format!("POST {BUNDLES}/web/actions/rollback");
    fake.refuse(&line, 409, "Conflict", "web: revision 2 is the one that runs");
    let ran = fake.run(&["rollback", "web", "--no-wait"]).await;
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("revision 2 is the one that runs"), "{}", ran.err);
}
