//! Change sets: staged, looked at, applied.

use serde_json::{Value, json};

use crate::fake::{End, Fake};
use crate::reading::BUNDLES;

const SETS: &str = "/apis/berth.dev/v1/namespaces/default/changesets";

fn set(version: &str, entries: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "ChangeSet",
        "metadata": {"name": "s", "namespace": "default", "resourceVersion": version},
        "spec": {}, "status": {"state": "Open", "entries": entries}
    })
}

fn web(image: &str) -> Value {
    json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": "web", "namespace": "default"},
           "spec": {"image": image, "env": [{"name": "A", "value": "1"}]}})
}

#[tokio::test]
async fn a_field_is_set_on_top_of_what_is_staged_and_again_if_somebody_was_faster() {
    let fake = Fake::start();
    let entry = json!({"author": {"identity": "owner", "source": "cli"}, "time": "2026-11-21T00:00:00Z",
        "verb": "update", "apiVersion": "berth.dev/v1", "kind": "Bundle", "name": "web",
        "before": {"resourceVersion": "3", "content": web("r/web:1")}, "after": web("r/web:2")});
    fake.json(&format!("GET {SETS}/s"), set("7", &json!([])));
    fake.json(&format!("GET {SETS}/s"), set("8", &json!([entry])));
    fake.json(&format!("GET {BUNDLES}/web"), web("r/web:1"));
    let line = format!("POST {SETS}/s/actions/add");
    fake.refuse(&line, 409, "Conflict", "changeset s has changed meanwhile");
    fake.json(&line, set("9", &json!([])));
    let ran = fake.run(&["changeset", "add", "s", "web", "--set", "restart=always", "--env", "A=2"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bundle/web staged in changeset/s\n"), "{}", ran.err);
    let asked = fake.asked(&line);
    let sent: Vec<Value> = asked.iter().map(|seen| seen.json()).collect();
    assert_eq!([&sent[0]["resourceVersion"], &sent[1]["resourceVersion"]], ["7", "8"]);
    let env = json!([{"name": "A", "value": "2"}]);
    assert_eq!(sent[1]["object"]["spec"], json!({"image": "r/web:2", "env": env, "restart": "always"}));
    assert_eq!((&sent[1]["verb"], &sent[1]["kind"]), (&json!("update"), &json!("Bundle")));
}

#[tokio::test]
async fn a_plan_is_shown_field_by_field_with_what_restarts() {
    let fake = Fake::start();
    let plan = json!({"changes": [
        {"verb": "create", "kind": "ConfigMap", "name": "conf", "fields": [{"field": "data.a", "after": "1"}]},
        {"verb": "rename", "kind": "Bundle", "name": "pg", "renamedFrom": "db"},
        {"verb": "update", "kind": "Bundle", "name": "web", "follows": true,
         "fields": [{"field": "spec.env[URL].value", "before": "${{db.HOST}}", "after": "${{pg.HOST}}"}]},
    ], "restarts": ["pg", "web"]});
    fake.json(&format!("POST {SETS}/s/actions/plan"), plan.clone());
    let ran = fake.run(&["changeset", "plan", "s"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, "restarts, once each: pg, web\n"));
    let rows: Vec<String> = ran.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        rows,
        [
            "CHANGE OBJECT FIELD BEFORE AFTER",
            "create configmap/conf",
            "rename bundle/pg (was db)",
            "follow bundle/web spec.env[URL].value ${{db.HOST}} ${{pg.HOST}}",
        ]
    );
    let ran = fake.run(&["changeset", "plan", "s", "-o", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), plan);
}

#[tokio::test]
async fn a_base_that_moved_is_a_conflict_by_its_exit_code() {
    let fake = Fake::start();
    fake.refuse(&format!("POST {SETS}/s/actions/apply"), 409, "Conflict", "what changeset s is based on has moved");
    let ran = fake.run(&["changeset", "apply", "s"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("has moved"), "{}", ran.err);
}

const OPERATIONS: &str = "/apis/berth.dev/v1/namespaces/default/operations";

/// A set that starts `web` anew for what is not in its own spec.
fn applies(fake: &Fake) {
    let plan = json!({"changes": [{"verb": "update", "kind": "Secret", "name": "db"}], "restarts": ["web"]});
    let operation = json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation", "metadata": {"name": "s-apply-1", "namespace": "default"},
        "spec": {"kind": "ApplyChanges", "sequence": 20,
                 "target": {"kind": "ChangeSet", "namespace": "default", "name": "s"}},
        "status": {"state": "Succeeded", "result": plan}});
    fake.json(&format!("POST {SETS}/s/actions/apply"), operation);
    fake.json(&format!("GET {BUNDLES}/web"), ready(1));
    fake.list(&format!("GET {BUNDLES}"), 21, vec![ready(1)]);
}

fn ready(revision: u64) -> Value {
    let mut web = web("r/web:1");
    web["metadata"]["generation"] = 1.into();
    web["status"] = json!({
        "observedGeneration": 1, "phase": "Running", "revision": revision,
        "conditions": [{"type": "Ready", "status": "True", "reason": "StartCompleted", "message": "",
                        "lastTransitionTime": "2026-11-21T00:00:00Z"}]});
    web
}

fn update(sequence: u64, state: &str) -> Value {
    let error = json!({"code": "StartFailed", "message": "web did not start"});
    let version = if state == "Running" { sequence + 1 } else { sequence + 2 };
    let steps = json!([{"name": "StartUnit", "state": state}]);
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": format!("web-update-{sequence}"), "namespace": "default",
                     "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"kind": "Update", "generation": 1, "sequence": sequence,
                 "target": {"kind": "Bundle", "namespace": "default", "name": "web"}},
        "status": {"state": state, "steps": steps, "error": if state == "Failed" { error } else { Value::Null }}
    })
}

#[tokio::test]
async fn what_a_set_starts_anew_is_waited_for_though_it_looks_ready_and_told_one_by_one() {
    let fake = Fake::start();
    applies(&fake);
    fake.list(&format!("GET {OPERATIONS}"), 21, vec![update(10, "Succeeded")]);
    fake.list(&format!("GET {OPERATIONS}"), 30, vec![update(10, "Succeeded"), update(25, "Succeeded")]);
    fake.events(BUNDLES, &[], End::Open);
    fake.events(OPERATIONS, &[("ADDED", update(25, "Running")), ("MODIFIED", update(25, "Succeeded"))], End::Open);
    let ran = fake.run(&["changeset", "apply", "s", "--wait"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.err, "update web [1/1] start unit: done\nbundle/web is ready\n");
}

#[tokio::test]
async fn a_service_that_does_not_come_up_with_its_set_is_told_and_is_the_commands_failure() {
    let fake = Fake::start();
    applies(&fake);
    fake.list(&format!("GET {OPERATIONS}"), 30, vec![update(25, "Failed")]);
    fake.events(BUNDLES, &[], End::Open);
    fake.events(OPERATIONS, &[], End::Open);
    let ran = fake.run(&["changeset", "apply", "s", "--wait"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("bundle/web: ") && ran.err.contains("web did not start"), "{}", ran.err);
}

#[tokio::test]
async fn new_names_and_removals_are_staged_and_printed_as_requests() {
    let fake = Fake::start();
    let line = format!("POST {SETS}/s/actions/add");
    fake.json(&line, set("9", &json!([])));
    for (args, verb) in [(["--rename", "pg"].as_slice(), "rename"), (["--delete"].as_slice(), "delete")] {
        let ran = fake.run(&[&["changeset", "add", "s", "db"], args].concat()).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(fake.asked(&line).last().unwrap().json()["verb"], verb);
    }
    let ran = fake.run(&["changeset", "apply", "s", "--curl"]).await;
    assert!(ran.out.starts_with("curl ") && ran.out.contains("/changesets/s/actions/apply"), "{}", ran.out);
    assert_eq!(fake.run(&["changeset", "add", "s", "db"]).await.code, 2);
}
