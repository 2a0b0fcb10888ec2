use super::*;

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

#[tokio::test]
async fn an_empty_network_is_shown_and_nobody_is_on_it() {
    let world = World::new();
    let status = world.get("/apis/berth.dev/v1/network").await.ok();
    assert_eq!(status, json!({"networks": [], "problems": [OVERLAP]}));
    let answer = world.get("/apis/berth.dev/v1/network/verdicts?from=web&to=192.0.2.1").await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (404, "NotFound"));
    assert!(message.contains("`web` is no bundle on the network"), "{message}");
}

#[tokio::test]
async fn there_is_one_settings_from_the_start_that_can_be_changed_and_neither_made_nor_deleted() {
    let world = World::new();
    let (all, only) = ("/apis/berth.dev/v1/settings", "/apis/berth.dev/v1/settings/berth");
    let default = json!({"openNamespaces": [], "multicastDns": true});
    assert_eq!(world.get(only).await.ok()["spec"]["network"], default);
    for answer in [world.delete(only).await, world.post(all, json!({"metadata": {"name": "more"}, "spec": {}})).await] {
        let (code, reason, message) = answer.failed();
        assert_eq!((code, reason), (405, "MethodNotAllowed"));
        assert!(message.contains("leave its fields out"), "{message}");
    }
    let merge = [("content-type", "application/merge-patch+json")];
    let patch = |body: Value| world.ask(Method::PATCH, only, &merge, body.to_string());
    let open = json!({"spec": {"network": {"openNamespaces": ["team"], "multicastDns": false}}});
    assert_eq!(patch(open.clone()).await.ok()["spec"]["network"], open["spec"]["network"]);
    for (wrong, field) in [
        (json!({"spec": {"network": {"openNamespaces": ["Bad_Name"]}}}), "spec.network.openNamespaces[0]"),
        (json!({"spec": {"network": {"nosuch": true}}}), "spec.network.nosuch"),
        (json!({"spec": {"nosuch": true}}), "spec.nosuch"),
    ] {
        let answer = patch(wrong).await;
        assert!((400..500).contains(&answer.code), "{}", answer.code);
        assert_eq!(answer.body["details"]["causes"][0]["field"], field);
    }
    assert_eq!(
        world.get(only).await.ok()["spec"]["network"],
        open["spec"]["network"],
        "what was refused has changed it"
    );
    assert_eq!(patch(json!({"spec": {"network": null}})).await.ok()["spec"]["network"], default);
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
