//! Whether everything serves, asked once or waited for, and kept for the next start of the machine.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};

const HEALTH: &str = "GET /apis/berth.dev/v1/system/health";

fn hangs(seconds: u32) -> Reply {
    let waiting = json!([{"what": "default/web", "why": "StartFailed: exit code 3"}]);
    Reply::Json(200, json!({"healthy": false, "waitingFor": waiting, "timeoutSeconds": seconds}))
}

fn well() -> Reply {
    Reply::Json(200, json!({"healthy": true, "waitingFor": [], "timeoutSeconds": 30}))
}

#[tokio::test]
async fn what_does_not_serve_is_shown_with_the_reason_and_told_by_the_exit_code() {
    let fake = Fake::start();
    fake.on(HEALTH, hangs(30));
    let ran = fake.run(&["system", "health"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("default/web") && ran.out.contains("StartFailed: exit code 3"), "{}", ran.out);
    let other = Fake::start();
    other.on(HEALTH, well());
    let ran = other.run(&["system", "health"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("everything that should serve does"), "{}", ran.err);
}

#[tokio::test]
async fn it_is_waited_for_and_what_came_of_it_is_kept() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boot.json");
    let line = ["system", "health", "--wait", "--image-version", "2.0.0", "--record", file.to_str().unwrap()];
    let kept = || serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap();
    fake.refuse(HEALTH, 503, "ServiceUnavailable", "starting");
    fake.on(HEALTH, hangs(30));
    fake.on(HEALTH, well());
    let ran = fake.run(&line).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!((&kept()["version"], &kept()["healthy"], &kept()["why"]), (&json!("2.0.0"), &json!(true), &json!("")));
    assert_eq!(fake.asked(HEALTH).len(), 3);
    let other = Fake::start();
    other.on(HEALTH, hangs(0));
    let ran = other.run(&line).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!((&kept()["healthy"], &kept()["why"]), (&json!(false), &json!("default/web: StartFailed: exit code 3")));
}
