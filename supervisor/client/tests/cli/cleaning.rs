//! Cleanup: told before it is done, and what shells and `man` are given.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};

const CLEANUP: &str = "POST /apis/berth.dev/v1/system/cleanup";

fn report(items: Value, freed: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "CleanupReport", "dryRun": freed.is_null(), "items": items,
        "size": 15_728_640, "freed": freed, "disk": {"total": 21_474_836_480_u64, "free": 10_737_418_240_u64},
        "level": "Fine",
    })
}

fn items() -> Value {
    json!([
        {"kind": "Operation", "namespace": "default", "name": "web-stop-1", "id": "u", "why": "finished 31 d ago",
         "size": 1024},
        {"kind": "Image", "name": "localhost/web:1", "id": "sha256:a", "why": "unused for 8 d", "size": 15_727_616},
    ])
}

#[tokio::test]
async fn a_cleanup_shows_what_it_removes_why_and_how_much_that_is() {
    let fake = Fake::start();
    fake.on(CLEANUP, Reply::Json(200, report(items(), Value::Null)));
    let ran = fake.run(&["system", "cleanup", "--dry-run"]).await;
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KIND", "NAMESPACE", "NAME", "WHY", "SIZE"], "{}{}", ran.out, ran.err);
    assert_eq!(lines[1], ["operation", "default", "web-stop-1", "finished", "31", "d", "ago", "1.0Ki"]);
    assert_eq!(lines[2], ["image", "localhost/web:1", "unused", "for", "8", "d", "14.9Mi"]);
    assert_eq!(ran.out.lines().nth(3), Some("would be removed: 1 operation, 1 image; 15.0Mi"));
    assert_eq!(ran.out.lines().nth(4), Some("data disk: 50 % of 20.0Gi used"));
    let other = Fake::start();
    other.on(CLEANUP, Reply::Json(200, report(items(), json!(14_680_064))));
    let ran = other.run(&["system", "cleanup"]).await;
    let told = "removed: 1 operation, 1 image; 15.0Mi; the data disk has 14.0Mi more room";
    assert_eq!(ran.out.lines().nth(3), Some(told));
    let names = other.run(&["system", "cleanup", "-o", "name"]).await;
    assert_eq!(names.out, "operation/web-stop-1\nimage/localhost/web:1\n");
}

#[tokio::test]
async fn a_cleanup_with_nothing_to_do_says_so_and_one_that_is_refused_says_why() {
    let fake = Fake::start();
    fake.on(CLEANUP, Reply::Json(200, report(json!([]), json!(0))));
    let ran = fake.run(&["system", "cleanup"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!((ran.out + &ran.err).contains("nothing is old enough to be removed"));
    let other = Fake::start();
    other.refuse(CLEANUP, 409, "Conflict", "an image is being fetched");
    let ran = other.run(&["system", "cleanup"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("an image is being fetched"), "{}", ran.err);
}

#[tokio::test]
async fn completions_are_printed_without_a_server() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish"] {
        let ran = fake.run(&["completions", shell]).await;
        assert_eq!((ran.code, fake.lines()), (0, vec![]), "{}", ran.err);
        assert!(ran.out.contains("cleanup") && ran.out.contains("dry-run"), "{shell}");
    }
}
