//! What the real `kubectl` sends: discovery, OpenAPI, and its writes, as it was seen to send them.
//!
//! What it makes of the answers is seen with Debian's own in a booted machine, by the VM suite.

use super::*;

/// Requests of Debian 13's kubectl in their order, as `-v=9` tells them, one JSON object a line; without hashes of
/// documents and versions of objects, which are others each time. `tests/it/vm/kubectl/sent.rs` records them, with what
/// they were answered.
const SENT: &str = include_str!("../../../tests/golden/kubectl-sent.jsonl");

fn body(sent: &Value) -> Vec<u8> {
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    match (sent["protobuf"].as_str(), sent.get("body")) {
        (Some(digits), _) => digits.as_bytes().chunks(2).map(byte).collect(),
        (None, Some(body)) => body.to_string().into_bytes(),
        (None, None) => Vec::new(),
    }
}

#[tokio::test]
async fn what_kubectl_sends_is_answered_with_the_code_and_the_type_that_it_took_before() {
    let world = World::new();
    for line in SENT.lines() {
        let sent: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| sent[field].as_str().unwrap();
        let mut headers = vec![("accept", text("accept"))];
        headers.extend(sent["contentType"].as_str().map(|media_type| ("content-type", media_type)));
        let request = owned(text("method").parse().unwrap(), text("path"), &headers, body(&sent).into());
        // The head alone: a watch goes on.
        let (head, body) = world.send(request).await.into_parts();
        if sent["code"] != head.status.as_u16() {
            let said = body.collect().await.unwrap().to_bytes();
            panic!("{line}: {} {}", head.status, String::from_utf8_lossy(&said));
        }
        assert_eq!(head.headers["content-type"], text("type"), "{line}");
    }
    // All that was made was deleted by then; the bundle waits for what it runs.
    assert_eq!(names(&world.get("/api/v1/namespaces/sent/configmaps").await.ok()), [""; 0]);
    let bundle = world.get("/apis/berth.dev/v1/namespaces/sent/bundles/box").await.ok();
    assert_eq!(
        (&bundle["spec"]["image"], &bundle["metadata"]["annotations"]["note"]),
        (&"registry.example/web:3".into(), &"short".into())
    );
    assert!(bundle["metadata"]["deletionTimestamp"].is_string(), "{bundle}");
}

#[test]
fn what_is_kept_of_kubectl_has_no_token_and_no_date() {
    for line in SENT.lines() {
        assert!(
            !["Bearer", "berth_", "resourceVersion", "Timestamp", "T12:00:00"].iter().any(|word| line.contains(word)),
            "{line}"
        );
    }
}
