//! What kubectl asks of itself, and what it sends as protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
const PROTOBUF: [(&str, &str); 2] = [
    ("content-type", "application/vnd.kubernetes.protobuf"),
    ("accept", "application/vnd.kubernetes.protobuf,application/json"),
];

async fn may_i(world: &World, spec: Value) -> Value {
    world.post(&format!("{AUTHORIZATION}/selfsubjectaccessreviews"), json!({ "spec": spec })).await.created()
}

#[tokio::test]
async fn the_owner_may_do_everything_that_can_be_done_here() {
    let world = World::new();
    for verb in ["create", "deletecollection", "*"] {
        let about = json!({"verb": verb, "group": "berth.dev", "resource": "bundles", "namespace": "default"});
        assert_eq!(may_i(&world, json!({ "resourceAttributes": about })).await["status"]["allowed"], true);
    }
    let dance = may_i(&world, json!({"resourceAttributes": {"verb": "dance", "resource": "secrets"}})).await;
    assert_eq!(dance["status"], json!({"allowed": false, "reason": "there is no such verb here"}));
    let path = may_i(&world, json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}})).await;
    assert_eq!(path["status"], json!({"allowed": true}));
    let nothing = world.post(&format!("{AUTHORIZATION}/selfsubjectaccessreviews"), json!({"spec": {}})).await;
    assert_eq!(nothing.failed().0, 400);
}

#[tokio::test]
async fn the_rules_of_whoever_asks_name_every_route_he_may_take() {
    let world = World::new();
    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let told = world.post(&path, json!({"spec": {"namespace": "default"}})).await.created();
    let rules = told["status"]["resourceRules"].as_array().unwrap();
    let bundles = rules.iter().find(|rule| rule["resources"] == json!(["bundles"])).unwrap();
    assert!(bundles["verbs"].as_array().unwrap().contains(&json!("create")), "{bundles}");
    assert!(rules.iter().any(|rule| rule["resources"] == json!(["bundles/exec"])), "{rules:?}");
    assert!(told["status"]["nonResourceRules"][0]["nonResourceURLs"].as_array().unwrap().contains(&json!("/metrics")));
    assert_eq!(world.post(&path, json!({"spec": {}})).await.failed().0, 400);
}

#[tokio::test]
async fn whoever_asks_is_told_who_he_is_and_strangers_are_not() {
    let world = World::new();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let told = world.post(path, json!({})).await.created();
    assert_eq!(told["status"]["userInfo"]["username"], "owner");
    let request = Request::post(path).body(Body::from("{}")).unwrap();
    assert_eq!(Answer::of(world.send(request).await).await.failed().0, 401);
}

#[tokio::test]
async fn whose_a_token_is_is_told_without_the_token() {
    let world = World::new();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let told = world.post(path, json!({"spec": {"token": TOKEN}})).await.created();
    assert_eq!(
        (&told["status"]["authenticated"], &told["status"]["user"]["username"]),
        (&true.into(), &"owner".into())
    );
    assert!(!told.to_string().contains(TOKEN), "{told}");
    let told = world.post(path, json!({"spec": {"token": "berth_owner_guessed"}})).await.created();
    assert_eq!(told["status"]["authenticated"], false);
    assert_eq!(world.post(path, json!({"spec": {}})).await.failed().0, 400);
}

/// What `kubectl create` and `kubectl auth` 1.32.4 send.
#[tokio::test]
async fn kinds_of_kubernetes_are_taken_as_protobuf_and_answered_as_json() {
    let world = World::new();
    let send =
        async |path: &str, body: &str| world.ask(Method::POST, path, &PROTOBUF, STANDARD.decode(body).unwrap()).await;
    let settings = "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEisKGAoIc2V0dGluZ3MSABoAIgAqADIAOABCABIPCgZjb2xvdXISBWdyZWVuGgAiAA==";
    let made = send(&format!("{CONFIG_MAPS}?fieldManager=kubectl-create&fieldValidation=Strict"), settings).await;
    assert_eq!(made.header("content-type"), "application/json");
    assert_eq!(made.created()["data"], json!({"colour": "green"}));
    let secret = "azhzAAoMCgJ2MRIGU2VjcmV0EioKEgoCZGISABoAIgAqADIAOABCABISCghwYXNzd29yZBIGY2FuYXJ5GgAaACIA";
    send(SECRETS, secret).await.created();
    let revealed = world.get(&format!("{SECRETS}/db?reveal=true")).await.ok();
    assert_eq!(revealed["data"]["password"], STANDARD.encode("canary"));
    let namespace = "azhzAAoPCgJ2MRIJTmFtZXNwYWNlEhwKFAoEc2hvcBIAGgAiACoAMgA4AEIAEgAaAgoAGgAiAA==";
    assert_eq!(send("/api/v1/namespaces", namespace).await.created()["metadata"]["name"], "shop");
    let whoami = "azhzAAotChhhdXRoZW50aWNhdGlvbi5rOHMuaW8vdjESEVNlbGZTdWJqZWN0UmV2aWV3EhoKEAoAEgAaACIAKgAyADgAQgASBgoECgASABoA\
                  IgA=";
    let told = send("/apis/authentication.k8s.io/v1/selfsubjectreviews", whoami).await.created();
    assert_eq!(told["status"]["userInfo"]["username"], "owner");
    assert_eq!(send(CONFIG_MAPS, "AAAA").await.failed().0, 400);
    assert_eq!(send(SECRETS, settings).await.failed().0, 400);
}
