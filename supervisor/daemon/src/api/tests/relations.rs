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
    super::operations::ended(&world, &first, berth_model::resource::operation::OperationState::Failed).await;
    let late = asked(&world, "db", "stop", json!({"requires": [first]})).await;
    assert!(late.failed().2.contains("has ended: Failed"), "{}", late.body);
    assert_eq!(world.get(&format!("{BUNDLES}/db")).await.ok()["spec"], db["spec"], "it is still to run");
    assert_eq!(count(&world).await, 1);
}
