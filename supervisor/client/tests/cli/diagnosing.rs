//! The machine is examined, and the exit code says how it was found.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply, dead_socket};
use crate::run::alone;

const DIAGNOSTICS: &str = "POST /apis/berth.dev/v1/system/diagnostics";

fn diagnosis(result: &str, not_probed: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Diagnosis", "notProbed": not_probed,
        "findings": [
            {"area": "machine", "name": "kernel", "result": "ok", "message": "6.12 has all", "tookMs": 3},
            {"area": "leftovers", "name": "links", "result": result, "message": "bv0-9", "meaning": "It leads nowhere.",
             "advice": "`--repair` removes them.", "repaired": ["removed bv0-9"], "tookMs": 12},
        ],
    })
}

#[tokio::test]
async fn every_finding_is_shown_with_its_time_and_a_problem_with_what_to_do() {
    let fake = Fake::start();
    fake.on(DIAGNOSTICS, Reply::Json(200, diagnosis("problem", &Value::Null)));
    let ran = fake.run(&["diagnostics", "--repair"]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let rows: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["WHAT", "RESULT", "TOOK", "FOUND"]);
    assert_eq!(rows[1], ["machine/kernel", "ok", "3", "ms", "6.12", "has", "all"]);
    assert_eq!(rows[2], ["leftovers/links", "problem", "12", "ms", "bv0-9"]);
    assert!(
        ran.out.ends_with("It leads nowhere.\n  try: `--repair` removes them.\n  repair: removed bv0-9\n"),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("1 problem was found"), "{}", ran.err);
    assert_eq!(fake.seen()[0].query, "loopback=true&repair=true");
}

#[tokio::test]
async fn the_exit_code_tells_healthy_from_problems_and_from_a_trial_that_could_not_be_begun() {
    for (result, not_probed, code) in [
        ("ok", Value::Null, 0),
        ("warning", Value::Null, 0),
        ("problem", Value::Null, 1),
        ("warning", json!("another one is under way"), 7),
        ("problem", json!("another one is under way"), 1),
    ] {
        let fake = Fake::start();
        fake.on(DIAGNOSTICS, Reply::Json(200, diagnosis(result, &not_probed)));
        let ran = fake.run(&["diagnostics", "--no-loopback", "-o", "json"]).await;
        assert_eq!(ran.code, code, "{result} {not_probed}: {}", ran.err);
        assert_eq!(fake.seen()[0].query, "");
        let told: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(told["findings"][1]["result"], result);
    }
}

#[tokio::test]
async fn with_the_supervisor_away_its_units_are_told_of_and_that_is_a_problem() {
    let (_dir, socket) = dead_socket();
    let address = format!("unix://{}", socket.display());
    let ran = alone(&["--server", &address, "diagnostics"]).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("berth/supervisor") && ran.out.contains("services run on"), "{}", ran.out);
    assert!(ran.out.contains("berth/berthd.service") && ran.out.contains("systemctl start berthd"), "{}", ran.out);
}

#[tokio::test]
async fn one_examination_at_a_time() {
    let fake = Fake::start();
    fake.refuse(DIAGNOSTICS, 409, "Conflict", "another examination is under way; try again when it has ended");
    let ran = fake.run(&["diagnostics"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (5, ""));
    assert!(ran.err.contains("another examination is under way"), "{}", ran.err);
}

#[tokio::test]
async fn a_setup_is_for_this_very_machine() {
    let ran = alone(&["--server", "https://192.0.2.7:6443", "setup"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("setup is for this very machine"), "{}", ran.err);
    let (_dir, socket) = dead_socket();
    let ran = alone(&["--server", &format!("unix://{}", socket.display()), "setup", "--curl"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
}
