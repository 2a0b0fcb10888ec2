//! install, update, start, stop, restart, uninstall: asked for once, followed to the end.

use serde_json::{Value, json};

use crate::fake::{End, Fake, Reply, refusal};
use crate::reading::{BUNDLES, OPERATIONS};

fn bundle(version: u64, generation: i64, ready: Option<i64>) -> Value {
    let mut bundle = json!({
        "apiVersion": "berth.dev/v1", "kind": "Bundle",
        "metadata": {"name": "web", "namespace": "default", "generation": generation,
                     "resourceVersion": version.to_string()},
        "spec": {"image": "127.0.0.1:5000/web:1", "start": true, "resources": {}, "restart": "onFailure", "security": {},
                 "ports": [{"name": "port-80", "containerPort": 80, "protocol": "TCP", "expose": "lan", "hostPort": 8080}]}
    });
    if let Some(observed) = ready {
        bundle["status"] = json!({
            "observedGeneration": observed, "phase": "Running", "address": "10.213.1.2",
            "conditions": [{"type": "Ready", "status": "True", "reason": "StartCompleted", "message": "",
                            "lastTransitionTime": "2026-11-21T00:00:00Z"}]});
    }
    bundle
}

fn operation(kind: &str, version: u64, state: &str, steps: &[(&str, &str)]) -> Value {
    let steps: Vec<Value> = steps.iter().map(|(name, state)| json!({"name": name, "state": state})).collect();
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": "web-1", "namespace": "default", "resourceVersion": version.to_string(),
                     "creationTimestamp": "2026-11-21T00:00:00Z"},
        "spec": {"kind": kind, "generation": 1, "target": {"kind": "Bundle", "namespace": "default", "name": "web"},
                 "actor": {"identity": "local-root", "source": "cli"}},
        "status": {"state": state, "steps": steps}
    })
}

fn failed(kind: &str) -> Value {
    let mut operation = operation(kind, 14, "Failed", &[("ResolveImage", "Failed")]);
    operation["status"]["error"] = json!({
        "code": "WorkloadFailed", "message": "the registry has no such image",
        "detail": "127.0.0.1:5000 answered 404 to web:1", "suggestions": ["push it, or correct the tag"]});
    operation
}

/// The events of an install that goes well.
fn goes_well(fake: &Fake) {
    fake.list(&format!("GET {BUNDLES}"), 10, vec![bundle(10, 1, None)]);
    fake.list(&format!("GET {OPERATIONS}"), 10, vec![]);
    let steps =
        |state: &str| operation("Install", 12, "Running", &[("ResolveImage", "Succeeded"), ("PullImage", state)]);
    let done = operation("Install", 13, "Succeeded", &[("ResolveImage", "Succeeded"), ("PullImage", "Succeeded")]);
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![done.clone()]);
    fake.events(OPERATIONS, &[("ADDED", steps("Running")), ("MODIFIED", done)], End::Open);
    fake.events(BUNDLES, &[("MODIFIED", bundle(14, 1, Some(1)))], End::Open);
}

const INSTALL: [&str; 4] = ["install", "127.0.0.1:5000/web:1", "--publish", "8080:80"];

#[tokio::test]
async fn install_tells_every_step_and_where_to_reach_the_service() {
    let fake = Fake::start();
    fake.on(&format!("POST {BUNDLES}"), Reply::Json(201, bundle(10, 1, None)));
    goes_well(&fake);
    let ran = fake.run(&INSTALL).await;
    assert_eq!(
        ran.out,
        "bundle/web installed, ready\n  address  10.213.1.2\n  port     port-80: 8080 of the machine leads to 80/TCP\n"
    );
    assert_eq!(ran.err, "install web [1/2] resolve image: done\ninstall web [2/2] pull image: done\n");
    assert_eq!(ran.code, 0);
    let asked = &fake.asked(&format!("POST {BUNDLES}"))[0];
    assert_eq!(asked.query, "fieldValidation=Strict");
    assert_eq!(asked.header("idempotency-key").len(), 36);
    assert_eq!(
        asked.json(),
        json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"namespace": "default", "name": "web"},
               "spec": {"image": "127.0.0.1:5000/web:1", "ports": [
                   {"name": "port-80", "containerPort": 80, "protocol": "TCP", "expose": "lan", "hostPort": 8080}]}})
    );
}

#[tokio::test]
async fn every_flag_of_install_finds_its_field() {
    let fake = Fake::start();
    fake.on(&format!("POST {BUNDLES}"), Reply::Json(201, bundle(10, 1, None)));
    let mut line = vec!["install", "127.0.0.1:5000/web:1", "--no-wait", "--name", "shop", "--port", "http:80:8080=lan"];
    line.extend(["--env", "MODE=a=b", "--memory", "64Mi", "--cpu", "0.5", "--pids", "100", "--set", "restart=always"]);
    let ran = fake.run(&line).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bundle/web created\n"), "{}", ran.err);
    assert_eq!(ran.err, "follow it with: berth status web -w\n");
    let sent = fake.seen()[0].json();
    assert_eq!(sent["metadata"]["name"], "shop");
    assert_eq!(
        sent["spec"],
        json!({"image": "127.0.0.1:5000/web:1",
               "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP", "expose": "lan", "hostPort": 8080}],
               "env": [{"name": "MODE", "value": "a=b"}],
               "resources": {"memory": "64Mi", "cpu": "0.5", "pids": 100}, "restart": "always"})
    );
}

#[tokio::test]
async fn a_bundle_in_a_file_is_installed_with_the_flags_on_top() {
    let fake = Fake::start();
    fake.on("POST /apis/berth.dev/v1/namespaces/shop/bundles", Reply::Json(201, bundle(10, 1, None)));
    let manifest = "apiVersion: berth.dev/v1\nkind: Bundle\nmetadata: {name: till, namespace: shop}\n\
                    spec:\n  image: r/till:1\n  env: [{name: A, value: '0755'}]\n";
    let ran = fake.run_with(&["install", "-f", "-", "--env", "B=2", "--no-wait"], manifest.as_bytes()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let sent = fake.seen()[0].json();
    assert_eq!(sent["metadata"], json!({"name": "till", "namespace": "shop"}));
    assert_eq!(sent["spec"]["env"], json!([{"name": "A", "value": "0755"}, {"name": "B", "value": "2"}]));
}

#[tokio::test]
async fn the_same_install_again_changes_nothing_and_succeeds() {
    let fake = Fake::start();
    fake.refuse(&format!("POST {BUNDLES}"), 409, "AlreadyExists", "bundles.berth.dev \"web\" already exists");
    fake.json(&format!("GET {BUNDLES}/web"), bundle(14, 1, Some(1)));
    fake.list(&format!("GET {BUNDLES}"), 14, vec![bundle(14, 1, Some(1))]);
    fake.list(&format!("GET {OPERATIONS}"), 14, vec![operation("Install", 13, "Succeeded", &[])]);
    fake.events(BUNDLES, &[], End::Open);
    fake.events(OPERATIONS, &[], End::Open);
    let ran = fake.run(&INSTALL).await;
    assert_eq!(ran.out.lines().next(), Some("bundle/web unchanged, ready"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[tokio::test]
async fn an_install_of_something_else_under_the_name_is_a_conflict() {
    let fake = Fake::start();
    fake.refuse(&format!("POST {BUNDLES}"), 409, "AlreadyExists", "bundles.berth.dev \"web\" already exists");
    fake.json(&format!("GET {BUNDLES}/web"), bundle(14, 1, Some(1)));
    let ran = fake.run(&["install", "127.0.0.1:5000/web:2", "--publish", "8080:80"]).await;
    assert_eq!(ran.code, 5);
    assert_eq!(
        ran.err,
        "error [AlreadyExists]: bundle/web exists already, and differs in spec.image\n  \
         try: berth update web --image 127.0.0.1:5000/web:2\n"
    );
}

#[tokio::test]
async fn a_failed_install_says_once_what_happened_and_what_to_do() {
    let fake = Fake::start();
    fake.on(&format!("POST {BUNDLES}"), Reply::Json(201, bundle(10, 1, None)));
    fake.list(&format!("GET {BUNDLES}"), 10, vec![bundle(10, 1, None)]);
    fake.list(&format!("GET {OPERATIONS}"), 10, vec![]);
    fake.events(OPERATIONS, &[("ADDED", failed("Install"))], End::Open);
    fake.events(BUNDLES, &[], End::Open);
    let ran = fake.run(&INSTALL).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert_eq!(
        ran.err,
        "install web [1/1] resolve image: failed\n\
         error [WorkloadFailed]: the registry has no such image\n  127.0.0.1:5000 answered 404 to web:1\n  \
         try: push it, or correct the tag\n  try: berth operation show web-1\n"
    );
}

#[tokio::test]
async fn a_refused_install_names_every_field() {
    let fake = Fake::start();
    let mut status = refusal(422, "Invalid", "Bundle \"web\" is invalid");
    status["details"] = json!({"causes": [
        {"reason": "FieldValueInvalid", "field": "spec.ports[0].hostPort", "message": "8080 is taken by bundle other"},
        {"reason": "FieldValueInvalid", "field": "spec.resources.memory", "message": "`much` is no quantity"}]});
    fake.on(&format!("POST {BUNDLES}"), Reply::Json(422, status));
    let ran = fake.run(&INSTALL).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "error [422 Invalid]: Bundle \"web\" is invalid\n  spec.ports[0].hostPort: 8080 is taken by bundle other\n  \
         spec.resources.memory: `much` is no quantity\n"
    );
}

#[tokio::test]
async fn a_wrong_flag_is_wrong_usage_and_asks_nothing() {
    let fake = Fake::start();
    for line in
        [&["install", "r/web:1", "--port", "80"][..], &["install"], &["install", "r/web:1", "--set", "a"], &["stop"]]
    {
        let ran = fake.run(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{line:?}");
    }
    assert_eq!(fake.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn waiting_ends_at_the_timeout_and_says_how_to_go_on() {
    let fake = Fake::start();
    fake.json(&format!("POST {BUNDLES}/web/actions/stop"), operation("Stop", 12, "Pending", &[]));
    fake.list(&format!("GET {OPERATIONS}"), 12, vec![operation("Stop", 12, "Running", &[("StopUnit", "Running")])]);
    fake.events(OPERATIONS, &[], End::Open);
    let ran = fake.run(&["stop", "web", "--timeout", "1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (6, ""));
    assert_eq!(
        ran.err,
        "error [Timeout]: operation/web-1 is not done after 1 s\n  try: berth operation show web-1 -w -n default\n"
    );
}

#[tokio::test]
async fn ctrl_c_leaves_the_operation_running_and_says_how_to_follow_it() {
    let mut fake = Fake::start();
    fake.json(&format!("POST {BUNDLES}/web/actions/restart"), operation("Restart", 12, "Pending", &[]));
    fake.list(&format!("GET {OPERATIONS}"), 12, vec![operation("Restart", 12, "Running", &[])]);
    fake.events(OPERATIONS, &[], End::Open);
    let berth = fake.start_berth(&["restart", "web"]);
    fake.until_asked(&format!("WATCH {OPERATIONS}"), 1).await;
    let ran = berth.interrupt().await;
    assert_eq!(ran.code, 130);
    assert_eq!(
        ran.err,
        "error [Interrupted]: stopped waiting; operation/web-1 goes on\n  \
         try: berth operation show web-1 -w -n default\n"
    );
    assert_eq!(fake.lines().iter().filter(|line| line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn every_action_is_asked_for_once_with_a_key_of_its_own() {
    let fake = Fake::start();
    let mut keys = Vec::new();
    fake.list(
        &format!("GET {OPERATIONS}"),
        13,
        vec![operation("Start", 13, "Succeeded", &[("StartUnit", "Succeeded")])],
    );
    for (action, done) in [
        ("start", "started"),
        ("stop", "stopped"),
        ("restart", "restarted"),
        ("update", "updated"),
        ("uninstall", "uninstalled"),
    ] {
        let line = format!("POST {BUNDLES}/web/actions/{action}");
        fake.on(&line, Reply::Json(202, operation("Start", 12, "Pending", &[])));
        let ran = fake.run(&[action, "web"]).await;
        assert_eq!((ran.code, ran.out), (0, format!("bundle/web {done}\n")), "{}", ran.err);
        let asked = fake.asked(&line);
        assert_eq!(asked.len(), 1);
        keys.push(asked[0].header("idempotency-key").to_owned());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5);
}

#[tokio::test]
async fn an_action_whose_answer_breaks_off_is_asked_for_again_with_the_same_key() {
    let fake = Fake::start();
    let line = format!("POST {BUNDLES}/web/actions/start");
    fake.on(&line, Reply::Break).on(&line, Reply::Json(202, operation("Start", 12, "Pending", &[])));
    let ran = fake.run(&["start", "web", "--no-wait"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "operation/web-1\n"), "{}", ran.err);
    assert_eq!(ran.err, "follow it with: berth operation show web-1 -w\n");
    let asked = fake.asked(&line);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].header("idempotency-key"), asked[1].header("idempotency-key"));
}

#[tokio::test]
async fn an_uninstall_that_takes_its_record_along_is_done() {
    let fake = Fake::start();
    fake.on(
        &format!("POST {BUNDLES}/web/actions/uninstall"),
        Reply::Json(202, operation("Uninstall", 12, "Pending", &[])),
    );
    fake.list(&format!("GET {OPERATIONS}"), 12, vec![operation("Uninstall", 12, "Running", &[])]);
    fake.events(OPERATIONS, &[("DELETED", operation("Uninstall", 13, "Running", &[]))], End::Open);
    let ran = fake.run(&["uninstall", "web"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "bundle/web uninstalled\n"));
}

#[tokio::test]
async fn of_several_names_each_failure_is_told_and_the_rest_is_done() {
    let fake = Fake::start();
    fake.refuse(&format!("POST {BUNDLES}/gone/actions/stop"), 404, "NotFound", "bundles.berth.dev \"gone\" not found");
    fake.on(&format!("POST {BUNDLES}/web/actions/stop"), Reply::Json(202, operation("Stop", 12, "Pending", &[])));
    fake.list(&format!("GET {OPERATIONS}"), 13, vec![operation("Stop", 13, "Succeeded", &[])]);
    let ran = fake.run(&["stop", "gone", "web"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (3, "bundle/web stopped\n"));
    assert_eq!(
        ran.err,
        "bundle/gone: error [404 NotFound]: bundles.berth.dev \"gone\" not found\nerror [Failed]: 1 of 2 failed\n"
    );
}

#[tokio::test]
async fn an_update_to_an_image_waits_for_the_new_generation() {
    let fake = Fake::start();
    fake.json(&format!("GET {BUNDLES}/web"), bundle(14, 1, Some(1)));
    fake.json(&format!("PATCH {BUNDLES}/web"), bundle(15, 2, Some(1)));
    fake.list(&format!("GET {BUNDLES}"), 15, vec![bundle(15, 2, Some(1))]);
    fake.list(&format!("GET {OPERATIONS}"), 15, vec![operation("Install", 13, "Succeeded", &[])]);
    fake.events(OPERATIONS, &[], End::Open);
    fake.events(BUNDLES, &[("MODIFIED", bundle(16, 2, Some(2)))], End::Open);
    let ran = fake.run(&["update", "web", "--image", "127.0.0.1:5000/web:2"]).await;
    assert_eq!(ran.out.lines().next(), Some("bundle/web updated, ready"), "{}", ran.err);
    let asked = &fake.asked(&format!("PATCH {BUNDLES}/web"))[0];
    assert_eq!(asked.json(), json!({"spec": {"image": "127.0.0.1:5000/web:2"}}));
    assert_eq!(asked.header("content-type"), "application/merge-patch+json");
}

#[tokio::test]
async fn an_update_is_not_done_because_the_revision_before_it_is_ready() {
    let of_revision = |mut bundle: Value, revision: u64| {
        bundle["status"]["revision"] = revision.into();
        bundle["status"]["address"] = format!("10.213.1.{}", revision + 1).into();
        bundle
    };
    let update = |version: u64, state: &str| {
        let mut update = operation("Update", version, state, &[]);
        update["spec"]["generation"] = 2.into();
        update["status"]["result"] = json!({"revision": 2});
        update
    };
    let fake = Fake::start();
    fake.json(&format!("GET {BUNDLES}/web"), bundle(14, 1, Some(1)));
    fake.json(&format!("PATCH {BUNDLES}/web"), bundle(15, 2, Some(1)));
    fake.list(&format!("GET {BUNDLES}"), 15, vec![bundle(15, 2, Some(1))]);
    fake.list(&format!("GET {OPERATIONS}"), 15, vec![]);
    fake.list(&format!("GET {OPERATIONS}"), 17, vec![update(17, "Running")]);
    fake.events(BUNDLES, &[("MODIFIED", of_revision(bundle(16, 2, Some(2)), 1))], End::Properly);
    fake.events(BUNDLES, &[("MODIFIED", of_revision(bundle(19, 2, Some(2)), 2))], End::Open);
    fake.events(OPERATIONS, &[("MODIFIED", update(18, "Succeeded"))], End::Open);
    let ran = fake.run(&["update", "web", "--image", "127.0.0.1:5000/web:2"]).await;
    assert_eq!(ran.out.lines().nth(1), Some("  address  10.213.1.3"), "{ran:?}");
}

#[tokio::test]
async fn a_followed_operation_ends_as_the_operation_does() {
    let fake = Fake::start();
    fake.json(&format!("GET {OPERATIONS}/web-1"), operation("Install", 12, "Running", &[]));
    fake.list(&format!("GET {OPERATIONS}"), 12, vec![operation("Install", 12, "Running", &[])]);
    fake.events(OPERATIONS, &[("MODIFIED", failed("Install"))], End::Open);
    let shown = fake.run(&["operation", "show", "web-1"]).await;
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains("State:    Running\n"), "{}", shown.out);
    let followed = fake.run(&["operation", "show", "web-1", "-w"]).await;
    assert_eq!(followed.code, 1);
    assert!(followed.err.contains("error [WorkloadFailed]"), "{}", followed.err);
}
