//! Versions of the machine's system: what is told of them, and an update followed as far as it goes without a restart.

use serde_json::{Value, json};

use crate::fake::{End, Fake, Reply};
use crate::reading::OPERATIONS;

const STATUS: &str = "GET /apis/berth.dev/v1/system/status";
const UPDATE: &str = "POST /apis/berth.dev/v1/system/update";

fn operation(version: u64, state: &str, steps: &[(&str, &str)]) -> Value {
    let steps: Vec<Value> = steps.iter().map(|(name, state)| json!({"name": name, "state": state})).collect();
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Operation",
        "metadata": {"name": "system-update-1", "namespace": "default", "resourceVersion": version.to_string()},
        "spec": {"kind": "UpdateSystem", "target": {"kind": "System", "namespace": "default", "name": "berth"}},
        "status": {"state": state, "steps": steps, "result": {"version": "1.1.0"}}
    })
}

fn begun(fake: &Fake, events: &[(&str, Value)]) {
    fake.on(UPDATE, Reply::Json(202, operation(11, "Pending", &[])));
    fake.list(&format!("GET {OPERATIONS}"), 11, vec![operation(11, "Pending", &[])]);
    fake.events(OPERATIONS, events, End::Open);
}

#[tokio::test]
async fn versions_are_shown_with_what_becomes_of_them_and_the_reason_of_a_start_that_went_wrong() {
    let fake = Fake::start();
    let versions =
        json!([{"version": "1.0.0"}, {"version": "1.1.0", "triesLeft": 2}, {"version": "1.2.0", "triesLeft": 0}]);
    let start =
        json!({"version": "1.2.0", "healthy": false, "why": "default/web: StartFailed", "at": "2026-11-21T00:00:00Z"});
    fake.json(STATUS, json!({"version": "1.0.0", "versions": versions, "lastStart": start}));
    let ran = fake.run(&["system", "status"]).await;
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[1..4],
        [vec!["1.0.0", "yes", "good"], vec!["1.1.0", "on", "trial,", "2", "left"], vec!["1.2.0", "given", "up"]]
    );
    assert!(
        ran.out.contains("1.2.0 did not come up well at 2026-11-21T00:00:00Z: default/web: StartFailed"),
        "{}",
        ran.out
    );
    assert_eq!(fake.run(&["system", "status", "-o", "name"]).await.out, "1.0.0\n");
}

#[tokio::test]
async fn an_update_is_followed_until_it_is_written_and_says_what_starts_it() {
    let fake = Fake::start();
    begun(
        &fake,
        &[
            ("ADDED", operation(12, "Running", &[("DownloadRelease", "Running")])),
            ("MODIFIED", operation(13, "Running", &[("WriteSlot", "Succeeded"), ("RestartMachine", "Running")])),
        ],
    );
    let ran = fake.run(&["system", "update", "--source", "https://updates.example", "--channel", "testing"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "version 1.1.0 is written\n"), "{}", ran.err);
    assert!(ran.err.contains("berth system reboot"), "{}", ran.err);
    let sent = json!({"source": "https://updates.example", "channel": "testing", "restart": false});
    assert_eq!(serde_json::from_slice::<Value>(&fake.asked(UPDATE)[0].body).unwrap(), sent);
}

#[tokio::test]
async fn with_a_restart_it_is_followed_to_the_end_and_a_version_that_was_left_again_is_a_failure() {
    let fake = Fake::start();
    let mut back = operation(14, "Failed", &[("ConfirmVersion", "Failed")]);
    back["status"]["error"] = json!({"code": "WentBack", "message": "version 1.1.0 did not come up well, and 1.0.0 runs again: why",
        "suggestions": ["data are untouched"]});
    begun(&fake, &[("ADDED", operation(13, "Running", &[("WriteSlot", "Succeeded")])), ("MODIFIED", back)]);
    let ran = fake.run(&["system", "update", "--restart"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("WentBack") && ran.err.contains("1.0.0 runs again: why"), "{}", ran.err);
}

#[tokio::test]
async fn the_machine_is_started_anew_or_switched_off_when_asked_to() {
    let fake = Fake::start();
    let done = || Reply::Json(202, json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 202}));
    fake.on("POST /apis/berth.dev/v1/system/reboot", done());
    fake.on("POST /apis/berth.dev/v1/system/poweroff", done());
    let told = json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "message": "the machine starts anew with 1.0.0"});
    fake.on("POST /apis/berth.dev/v1/system/rollback", Reply::Json(202, told));
    assert_eq!(fake.run(&["system", "rollback"]).await.out, "the machine starts anew with 1.0.0\n");
    assert_eq!(fake.run(&["system", "reboot"]).await.out, "the machine starts anew\n");
    assert_eq!(fake.run(&["system", "poweroff"]).await.out, "the machine is switched off\n");
}
