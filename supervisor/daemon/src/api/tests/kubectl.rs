//! What the real `kubectl` sends: discovery, OpenAPI, and its writes, as it was seen to send them.
//!
//! What it makes of the answers is seen with Debian's own in a booted machine, by the VM suite.

use super::*;

/// Requests of kubectl 1.32.5 in their order, as `-v=9` tells them, one JSON object a line; without hashes of documents
/// and versions of objects, which are others each time.
const TRACED: &str = include_str!("../../../tests/golden/kubectl-1.32.jsonl");

#[tokio::test]
async fn what_kubectl_was_seen_to_send_is_answered_as_it_was_then() {
    let world = World::new();
    for line in TRACED.lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| sent[field].as_str().unwrap_or("application/json");
        let headers = [("accept", text("accept")), ("content-type", text("contentType"))];
        let body = if sent["body"].is_null() { String::new() } else { sent["body"].to_string() };
        let answer = world.ask(text("method").parse().unwrap(), text("path"), &headers, body).await;
        assert_eq!(sent["code"], answer.code, "{line}: {}", answer.body);
    }
    assert_eq!(names(&world.get(BUNDLES).await.ok()), ["web"]);
    assert_eq!(names(&world.get(CONFIG_MAPS).await.ok()), [""; 0]);
}
