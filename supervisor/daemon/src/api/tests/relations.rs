use berth_model::resource::operation::OperationState;

use super::operations::{act, ended, hold};
use super::*;

const OPERATIONS: &str = "/apis/berth.dev/v1/namespaces/default/operations";

async fn asked(world: &World, bundle: &str, action: &str, relations: Value) -> Answer {
    world.post(&format!("{BUNDLES}/{bundle}/actions/{action}"), json!({"relations": relations})).await
}

async fn made(world: &World, bundle: &str, action: &str, relations: Value) -> String {
    let asked = asked(world, bundle, action, relations).await;
    assert_eq!(asked.code, 202, "{}", asked.body);
    asked.body["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn count(world: &World) -> usize {
    names(&world.get(OPERATIONS).await.ok()).len()
}

#[tokio::test]
async fn an_operation_is_asked_for_with_how_it_stands_to_others() {
    let world = World::new();
    world.bundle("web").await;
    world.bundle("db").await;
    let first = made(&world, "db", "update", json!({})).await;
    let relations = json!({"requires": [first], "conflictsWith": [first]});
    let second = made(&world, "web", "restart", relations.clone()).await;
    let shown = world.get(&format!("{OPERATIONS}/{second}")).await.ok();
    assert_eq!(shown["spec"]["relations"], relations);
    assert_eq!(world.get(&format!("{OPERATIONS}/{first}")).await.ok()["spec"].get("relations"), None);
}

#[tokio::test]
async fn an_unknown_name_a_failed_one_and_a_circle_are_refused_by_name_and_change_nothing() {
    let world = World::new();
    world.bundle("web").await;
    let db = world.bundle("db").await;
    let refused = asked(&world, "db", "stop", json!({"requires": ["nosuch"]})).await;
    assert_eq!((refused.code, refused.failed().1), (422, "Invalid"));
    assert!(refused.failed().2.starts_with("relations.requires[0]: there is no operation nosuch"), "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["field"], "relations.requires[0]");
    let first = made(&world, "web", "update", json!({})).await;
    let circle = asked(&world, "db", "stop", json!({"requires": [first], "prefersBefore": [first]})).await;
    assert_eq!(circle.code, 422);
    assert!(circle.failed().2.contains(&format!("before {first}, which goes before it")), "{}", circle.body);
    let unknown = asked(&world, "db", "stop", json!({"require": [first]})).await;
    assert_eq!(unknown.code, 400, "{}", unknown.body);
    ended(&world, &first, OperationState::Failed).await;
    let late = asked(&world, "db", "stop", json!({"requires": [first]})).await;
    assert!(late.failed().2.contains("has ended: Failed"), "{}", late.body);
    assert_eq!(world.get(&format!("{BUNDLES}/db")).await.ok()["spec"], db["spec"], "it is still to run");
    assert_eq!(count(&world).await, 1);
}

#[tokio::test]
async fn what_is_tried_again_stands_to_others_as_before_as_long_as_they_are_not_done() {
    let world = World::new();
    for name in ["web", "db", "other"] {
        world.bundle(name).await;
    }
    let first = made(&world, "db", "update", json!({})).await;
    let second = made(&world, "other", "update", json!({})).await;
    let relations = json!({"requires": [first], "prefersBefore": [second], "conflictsWith": [first, second]});
    let restart = made(&world, "web", "restart", relations.clone()).await;
    ended(&world, &restart, OperationState::Cancelled).await;
    let again = act(&world, &restart, "retry").await;
    assert_eq!((again.code, &again.body["spec"]["relations"]), (202, &relations), "{}", again.body);

    let again = again.body["metadata"]["name"].as_str().unwrap().to_owned();
    ended(&world, &again, OperationState::Failed).await;
    ended(&world, &first, OperationState::Failed).await;
    let later = act(&world, &again, "retry").await;
    let left = json!({"prefersBefore": [second], "conflictsWith": [second]});
    assert_eq!(later.body["spec"]["relations"], left, "what failed is required no more: {}", later.body);
}

#[tokio::test]
async fn what_is_tried_again_leaves_out_a_preference_that_would_close_a_circle_by_now() {
    let world = World::new();
    for name in ["web", "db", "other"] {
        world.bundle(name).await;
    }
    let first = made(&world, "db", "update", json!({})).await;
    let second = made(&world, "other", "update", json!({})).await;
    let restart = made(&world, "web", "restart", json!({"requires": [first], "prefersBefore": [second]})).await;
    ended(&world, &restart, OperationState::Cancelled).await;
    // It comes after the second, and goes before the first, which the restart requires.
    made(&world, "other", "restart", json!({"prefersBefore": [first]})).await;
    let again = act(&world, &restart, "retry").await;
    assert_eq!(again.body["spec"]["relations"], json!({"requires": [first]}), "{}", again.body);
}

#[tokio::test]
async fn what_requires_another_notes_nothing_of_what_it_wants_before_it_begins() {
    let world = World::new();
    let (web, db) = (world.bundle("web").await, world.bundle("db").await);
    let first = made(&world, "db", "update", json!({})).await;
    let unchanged = async |when: &str| {
        let now = world.get(&format!("{BUNDLES}/web")).await.ok();
        assert_eq!((&now["spec"], &now["metadata"]), (&web["spec"], &web["metadata"]), "{when}");
    };
    for action in ["stop", "uninstall"] {
        let asked = made(&world, "web", action, json!({"requires": [first]})).await;
        unchanged(action).await;
        ended(&world, &asked, OperationState::Cancelled).await;
        let again = act(&world, &asked, "retry").await;
        assert_eq!(again.code, 202, "{}", again.body);
        unchanged("tried again").await;
        ended(&world, again.body["metadata"]["name"].as_str().unwrap(), OperationState::Cancelled).await;
    }
    hold(&world, json!(["Stop"])).await;
    let held = made(&world, "web", "stop", json!({"requires": [first]})).await;
    assert_eq!(act(&world, &held, "release").await.body["status"]["state"], "Pending");
    unchanged("released").await;
    assert_eq!(world.get(&format!("{BUNDLES}/db")).await.ok()["spec"], db["spec"]);
}
