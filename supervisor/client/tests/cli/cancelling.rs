//! Operations that are ended before they are done, or tried again.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};
use crate::reading::OPERATIONS;

fn update(name: &str, state: &str, error: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": name, "namespace": "default", "resourceVersion": "9",
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"kind": "Update", "generation": 2, "actor": {"identity": "owner", "source": "cli"},
                 "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
        "status": {"state": state, "steps": [], "error": error}
    })
}

#[tokio::test]
async fn a_cancel_waits_until_what_was_done_is_undone() {
    let fake = Fake::start();
    fake.on(&format!("POST {OPERATIONS}/u1/actions/cancel"), Reply::Json(202, update("u1", "Running", Value::Null)));
    let error = json!({"code": "Cancelled", "message": "owner (cli) asked for its end", "suggestions": []});
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![update("u1", "Cancelled", error)]);
    let ran = fake.run(&["operation", "cancel", "u1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "operation/u1 cancelled\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_says_so() {
    let fake = Fake::start();
    fake.on(&format!("POST {OPERATIONS}/u1/actions/cancel"), Reply::Json(202, update("u1", "Running", Value::Null)));
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![update("u1", "Succeeded", Value::Null)]);
    let ran = fake.run(&["operation", "cancel", "u1"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("operation/u1 was done before it could be cancelled"), "{}", ran.err);
}

#[tokio::test]
async fn a_retry_follows_the_new_operation() {
    let fake = Fake::start();
    fake.on(&format!("POST {OPERATIONS}/u1/actions/retry"), Reply::Json(202, update("u2", "Pending", Value::Null)));
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![update("u2", "Succeeded", Value::Null)]);
    let ran = fake.run(&["operation", "retry", "u1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "operation/u2 succeeded\n"), "{}", ran.err);
}

#[tokio::test]
async fn what_is_held_is_released_or_rejected_with_a_reason() {
    let fake = Fake::start();
    let held = json!({"kind": "Operation", "metadata": {"name": "u1"}, "spec": {}, "status": {"state": "Held"}});
    for action in ["release", "reject"] {
        fake.json(&format!("POST {OPERATIONS}/u1/actions/{action}"), held.clone());
    }
    let ran = fake.run(&["operation", "release", "u1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "operation/u1 released\n"), "{}", ran.err);
    let ran = fake.run(&["operation", "reject", "u1", "--reason", "not now"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "operation/u1 rejected\n"), "{}", ran.err);
    assert_eq!(fake.asked(&format!("POST {OPERATIONS}/u1/actions/reject"))[0].json(), json!({"reason": "not now"}));
    assert_eq!(fake.run(&["operation", "reject", "u1"]).await.code, 2, "a rejection says why");
}

#[tokio::test]
async fn an_action_says_how_it_stands_to_other_operations() {
    let fake = Fake::start();
    let bundles = "/apis/berth.dev/v1/namespaces/default/bundles";
    let made = json!({"kind": "Operation", "metadata": {"name": "r1"}, "spec": {}, "status": {"state": "Pending"}});
    fake.json(&format!("POST {bundles}/web/actions/restart"), made);
    let line = ["restart", "web", "--after", "a", "--after", "b", "--before", "c", "--not-with", "d", "--no-wait"];
    let ran = fake.run(&line).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let body = fake.asked(&format!("POST {bundles}/web/actions/restart"))[0].json();
    let relations = json!({"requires": ["a", "b"], "prefersBefore": ["c"], "conflictsWith": ["d"]});
    assert_eq!(body, json!({"relations": relations}));
    assert_eq!(fake.run(&["update", "web", "--image", "r/web:2", "--after", "a"]).await.code, 2);
}
