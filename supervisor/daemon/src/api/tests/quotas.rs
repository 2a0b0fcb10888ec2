//! Quotas of namespaces: what would exceed one is refused, and changes nothing.

use super::*;

const TEAM: &str = "/api/v1/namespaces/team";
const IN_TEAM: &str = "/apis/berth.dev/v1/namespaces/team/bundles";

async fn team(quota: Value) -> World {
    let world = World::new();
    let namespace = json!({"metadata": {"name": "team"}, "spec": {"quota": quota}});
    let made = world.post("/api/v1/namespaces", namespace).await;
    assert_eq!(made.code, 201, "{}", made.body);
    world
}

fn bundle(name: &str, rest: Value) -> Value {
    let mut spec = json!({"image": "registry.example/web:1"});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

async fn used(world: &World) -> Value {
    world.get(TEAM).await.ok()["status"]["used"].clone()
}

#[tokio::test]
async fn a_bundle_that_would_exceed_a_quota_is_refused_with_what_is_asked_for_used_and_there() {
    let world = team(json!({"memory": "1Gi", "bundles": 3})).await;
    assert_eq!(used(&world).await, json!({"memory": "0", "bundles": 0}));
    world.post(IN_TEAM, bundle("web", json!({}))).await.created();
    assert_eq!(used(&world).await, json!({"memory": "512Mi", "bundles": 1}));
    let answer = world.post(IN_TEAM, bundle("db", json!({"resources": {"memory": "768Mi"}}))).await;
    assert_eq!((answer.code, &answer.body["reason"]), (403, &json!("Forbidden")), "{}", answer.body);
    let message = answer.body["message"].as_str().unwrap();
    let told = "bundles.berth.dev \"db\" is forbidden: exceeded quota: team, requested: memory=768Mi, used: \
                memory=512Mi, limited: memory=1Gi; ask for less";
    assert!(message.starts_with(told), "{message}");
    assert_eq!(answer.body["details"]["causes"][0]["field"], "spec.resources.memory");
    assert_eq!(answer.body["details"]["name"], "db");
    assert_eq!(world.get(&format!("{IN_TEAM}/db")).await.code, 404);
    assert_eq!(used(&world).await, json!({"memory": "512Mi", "bundles": 1}));
    world.post(IN_TEAM, bundle("db", json!({"resources": {"memory": "512Mi"}}))).await.created();
    world.post("/apis/berth.dev/v1/namespaces/default/bundles", bundle("db", json!({}))).await.created();
    assert_eq!(used(&world).await, json!({"memory": "1Gi", "bundles": 2}), "only what is in it counts");
}

#[tokio::test]
async fn whatever_would_raise_a_sum_is_refused_and_what_lowers_it_is_not() {
    let world = team(json!({"cpu": "1", "pids": 1000, "storage": "3Gi"})).await;
    let data = json!([{"name": "data", "mountPath": "/data", "size": "2Gi"}]);
    world.post(IN_TEAM, bundle("web", json!({"volumes": data, "resources": {"pids": 400}}))).await.created();
    let web = format!("{IN_TEAM}/web");
    for (patch, field) in [
        (json!({"resources": {"cpu": "1001m"}}), "spec.resources.cpu"),
        (json!({"resources": {"pids": 1001}}), "spec.resources.pids"),
        (json!({"resources": {"ephemeralStorage": "2Gi"}}), "spec.volumes"),
        (json!({"volumes": [{"name": "data", "mountPath": "/data", "size": "4Gi"}]}), "spec.volumes"),
    ] {
        let answer = world.merge(&web, json!({ "spec": patch })).await;
        assert_eq!(answer.code, 403, "{}", answer.body);
        assert_eq!(answer.body["details"]["causes"][0]["field"], field);
    }
    assert_eq!(used(&world).await, json!({"cpu": "500m", "pids": 400, "storage": "2Gi"}));
    world.merge(&web, json!({"spec": {"resources": {"cpu": "1"}}})).await.ok();

    let lower = json!({"spec": {"quota": {"cpu": "500m", "pids": null}}});
    world.merge(TEAM, lower).await.ok();
    assert_eq!(used(&world).await, json!({"cpu": "1", "storage": "2Gi"}), "what is there stays");
    world.merge(&web, json!({"spec": {"env": [{"name": "A", "value": "b"}]}})).await.ok();
    world.merge(&web, json!({"spec": {"resources": {"cpu": "800m"}}})).await.ok();
    assert_eq!(world.merge(&web, json!({"spec": {"resources": {"cpu": "900m"}}})).await.code, 403);
    world.merge(TEAM, json!({"spec": {"quota": null}})).await.ok();
    assert_eq!(used(&world).await, Value::Null);
    world.merge(&web, json!({"spec": {"resources": {"cpu": "2"}}})).await.ok();
}

#[tokio::test]
async fn a_change_set_and_a_trial_are_held_to_the_quota_too() {
    let world = team(json!({"memory": "1Gi"})).await;
    let big = bundle("big", json!({"resources": {"memory": "2Gi"}}));
    assert_eq!(world.post(&format!("{IN_TEAM}?dryRun=All"), big.clone()).await.code, 403);
    world.post(&format!("{IN_TEAM}?dryRun=All"), bundle("web", json!({}))).await.created();
    assert_eq!(used(&world).await, json!({"memory": "0"}), "a trial uses nothing");
    const SETS: &str = "/apis/berth.dev/v1/namespaces/team/changesets";
    world.post(SETS, json!({"metadata": {"name": "both"}})).await.created();
    for object in [bundle("web", json!({})), big] {
        let edit = json!({"verb": "create", "kind": "Bundle", "name": object["metadata"]["name"], "object": object});
        world.post(&format!("{SETS}/both/actions/add"), edit).await.ok();
    }
    let applied = world.post(&format!("{SETS}/both/actions/apply"), json!({})).await;
    assert_eq!(applied.code, 403, "{}", applied.body);
    assert_eq!(world.get(&format!("{IN_TEAM}/web")).await.code, 404, "all of a change set or nothing");
}
