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
async fn a_review_does_not_give_back_what_it_was_said_to_be_owned_by() {
    let world = World::new();
    let metadata = json!({"labels": {"a": "b"}, "managedFields": [{"manager": "x", "fieldsV1": [null, null]}]});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = world.post(path, json!({ "metadata": metadata })).await.created();
    assert_eq!(answer["metadata"], json!({"labels": {"a": "b"}}));
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

#[tokio::test]
async fn a_review_can_be_created_and_nothing_else_and_discovery_says_so() {
    let world = World::new();
    let reviews = ["selfsubjectreviews", "tokenreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    for plural in reviews {
        let group =
            if plural.contains("access") || plural.contains("rules") { "authorization" } else { "authentication" };
        let root = format!("/apis/{group}.k8s.io/v1");
        let listed = world.get(&root).await.ok();
        let listed = listed["resources"].as_array().unwrap().iter().find(|one| one["name"] == plural).unwrap().clone();
        assert_eq!((&listed["verbs"], &listed["namespaced"]), (&json!(["create"]), &json!(false)));
        let answer = world.get(&format!("{root}/{plural}")).await;
        let (code, _, message) = answer.failed();
        assert_eq!(code, 405);
        assert!(message.contains("create one, and read the answer in its status"), "{message}");
        let described = world.get(&format!("/openapi/v3{root}")).await.ok();
        let operations = described["paths"][format!("{root}/{plural}")].as_object().unwrap();
        assert_eq!(operations.keys().collect::<Vec<_>>(), ["parameters", "post"]);
    }
}

#[tokio::test]
async fn a_review_is_read_by_its_type() {
    let world = World::new();
    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let about =
        |verb: Value| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "secrets"}, "speck": 1}});
    let answer = world.post(&path, about("get".into())).await;
    assert_eq!(answer.header("warning"), "299 - \"unknown field 'spec.speck'\"");
    assert_eq!(answer.created()["spec"].get("speck"), None);
    let answer = world.post(&format!("{path}?fieldValidation=Strict"), about("get".into())).await;
    assert_eq!(answer.failed().0, 400);
    let answer = world.post(&path, about(7.into())).await;
    assert_eq!(
        (answer.failed().0, &answer.body["details"]["causes"][0]["field"]),
        (422, &json!("spec.resourceAttributes.verb"))
    );
    assert_eq!(world.post(&path, json!({"kind": "TokenReview"})).await.failed().0, 400);
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
    let whose =
        [b"k8s\0\n\x27\n\x18authentication.k8s.io/v1\x12\x0bTokenReview\x12\x3b\x12\x39\n\x37", TOKEN.as_bytes()]
            .concat();
    let told = world.ask(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", &PROTOBUF, whose).await.created();
    assert_eq!(told["status"]["user"]["username"], "owner");
    assert_eq!(send(CONFIG_MAPS, "AAAA").await.failed().0, 400);
    assert_eq!(send(SECRETS, settings).await.failed().0, 400);
}
