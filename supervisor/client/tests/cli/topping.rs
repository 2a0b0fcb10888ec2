//! What is used, told per second.

use serde_json::{Value, json};

use crate::fake::{Fake, Reply};

const USAGE: &str = "GET /apis/berth.dev/v1/system/usage";

fn look(taken_us: u64, machine_cpu_us: u64, bundles: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Usage", "takenUs": taken_us,
        "machine": {"cores": 2, "cpuUs": machine_cpu_us, "loadHundredths": 52, "memory": 2_147_483_648_u64,
                    "memoryAvailable": 1_073_741_824, "uptime": 7200, "disk": {"total": 21_474_836_480_u64, "free": 10_737_418_240_u64}},
        "bundles": bundles,
    })
}

fn bundle(namespace: &str, name: &str, cpu_us: u64, read: u64, memory: u64) -> Value {
    json!({"namespace": namespace, "name": name, "ready": true, "restarts": 3, "cpuUs": cpu_us, "memory": memory,
           "tasks": 4, "read": read, "written": 0})
}

fn fake() -> Fake {
    let fake = Fake::start();
    let before = [bundle("default", "calm", 0, 0, 4 << 20), bundle("default", "busy", 100, 0, 1 << 20)];
    let after = [
        bundle("default", "calm", 10_000, 8 << 20, 4 << 20),
        bundle("default", "busy", 3_000_100, 0, 1 << 20),
        json!({"namespace": "other", "name": "new", "ready": false, "restarts": 0}),
    ];
    fake.on(USAGE, Reply::Json(200, look(1_000_000, 0, &json!(before))));
    fake.on(USAGE, Reply::Json(200, look(3_000_000, 3_100_000, &json!(after))));
    fake
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn the_machine_stands_first_and_then_the_busiest_service() {
    let ran = fake().run(&["top"]).await;
    let lines: Vec<&str> = ran.out.lines().collect();
    let head = "machine: 1.55 of 2 cores, load 0.52, memory 1.0Gi of 2.0Gi, data disk 10.0Gi of 20.0Gi, up 120m";
    assert_eq!(lines[0], head, "{}", ran.err);
    assert_eq!(words(lines[1]), ["NAME", "READY", "CPU", "MEMORY", "READ/S", "WRITTEN/S", "PIDS", "RESTARTS"]);
    assert_eq!(words(lines[2]), ["busy", "true", "1.50", "1.0Mi", "0.0Ki", "0.0Ki", "4", "3"]);
    assert_eq!(words(lines[3]), ["calm", "true", "0.00", "4.0Mi", "4.0Mi", "0.0Ki", "4", "3"]);
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn all_namespaces_are_shown_if_asked_for_in_the_order_asked_for_and_what_is_not_known_is_a_dash() {
    let ran = fake().run(&["top", "-A", "--sort", "io"]).await;
    let lines: Vec<Vec<&str>> = ran.out.lines().skip(2).map(words).collect();
    assert_eq!(lines[0][..2], ["default", "calm"], "{}{}", ran.out, ran.err);
    assert_eq!(lines[2], ["other", "new", "false", "-", "-", "-", "-", "-", "0"]);
}

#[tokio::test]
async fn programs_are_told_in_plain_numbers() {
    let ran = fake().run(&["top", "-o", "json", "--sort", "memory"]).await;
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["machine"]["cpuMilliCores"], 1550);
    assert_eq!(
        (&told["bundles"][0]["name"], &told["bundles"][0]["readBytesPerSecond"]),
        (&json!("calm"), &json!(4 << 20))
    );
}

#[tokio::test]
async fn the_request_is_printed_if_asked_for() {
    let ran = fake().run(&["top", "--curl"]).await;
    assert!(ran.out.starts_with("curl ") && ran.out.contains("/apis/berth.dev/v1/system/usage"), "{}", ran.out);
}
