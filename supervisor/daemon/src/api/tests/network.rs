use super::*;

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

#[tokio::test]
async fn an_empty_network_is_shown_and_nobody_is_on_it() {
    let world = World::new();
    let status = world.get("/apis/berth.dev/v1/network").await.ok();
    assert_eq!(status, json!({"networks": [], "problems": []}));
    let answer = world.get("/apis/berth.dev/v1/network/verdicts?from=web&to=192.0.2.1").await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (404, "NotFound"));
    assert!(message.contains("`web` is no bundle on the network"), "{message}");
}

#[tokio::test]
async fn a_question_that_lacks_a_part_is_told_which() {
    let world = World::new();
    for (path, said) in [
        ("verdicts?from=web", "say ?to="),
        ("verdicts?from=web&to=db&port=http", "port=http is not understood; write 5432 or 53/udp"),
        ("lookup?from=web", "say ?name="),
    ] {
        let answer = world.get(&format!("/apis/berth.dev/v1/network/{path}")).await;
        assert_eq!(answer.failed(), (400, "BadRequest", said));
    }
}

#[tokio::test]
async fn policies_are_served_as_kubernetes_names_them_with_their_defaults_filled_in() {
    let world = World::new();
    let listed = world.get("/apis/networking.k8s.io/v1").await.ok();
    assert_eq!(listed["resources"][0]["name"], "networkpolicies");
    let made = json!({"metadata": {"name": "guard"}, "spec": {"podSelector": {}, "egress": []}});
    let made = world.post(POLICIES, made).await.created();
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
}

#[tokio::test]
async fn a_policy_of_ten_thousand_rules_is_refused_by_name_of_the_field() {
    let world = World::new();
    let rules: Vec<Value> = (0..10_000).map(|n| json!({"ports": [{"port": n + 1}]})).collect();
    let vast = json!({"metadata": {"name": "vast"}, "spec": {"podSelector": {}, "ingress": rules}});
    let answer = world.post(POLICIES, vast).await;
    assert_eq!(answer.code, 422);
    let cause = &answer.body["details"]["causes"][0];
    assert_eq!((&cause["field"], &cause["reason"]), (&json!("spec"), &json!("FieldValueTooLong")));
    assert_eq!(world.get(&format!("{POLICIES}/vast")).await.failed().0, 404);
}
