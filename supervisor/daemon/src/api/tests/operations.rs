use berth_model::resource::Operation;
use berth_model::resource::operation::{Actor, OperationState, StepName, StepState};

use super::*;

const OPERATIONS: &str = "/apis/berth.dev/v1/namespaces/default/operations";

async fn asked_for(world: &World, action: &str) -> String {
    let asked = world.post(&format!("{BUNDLES}/web/actions/{action}"), json!({})).await;
    assert_eq!(asked.code, 202, "{}", asked.body);
    asked.body["metadata"]["name"].as_str().unwrap().to_owned()
}

pub(super) async fn act(world: &World, operation: &str, action: &str) -> Answer {
    world.post(&format!("{OPERATIONS}/{operation}/actions/{action}"), json!({})).await
}

/// What the runner would write.
async fn write(world: &World, name: &str, change: impl FnOnce(&mut Operation) + Send + 'static) {
    let (name, runner) = (name.to_owned(), Actor { identity: "berthd".into(), source: "reconciler".into() });
    let write = move |tx: &mut crate::store::Tx<'_>| {
        let mut operation = tx.get::<Operation>("default", &name)?.unwrap();
        change(&mut operation);
        tx.update_status(&operation).map(drop)
    };
    world.store.write(&runner, write).await.unwrap();
}

pub(super) async fn ended(world: &World, name: &str, state: OperationState) {
    write(world, name, move |operation| operation.status.as_mut().unwrap().state = state).await;
}

#[tokio::test]
async fn a_cancel_notes_who_wants_it_and_twice_is_once() {
    let world = World::new();
    world.bundle("web").await;
    let update = asked_for(&world, "update").await;
    let first = act(&world, &update, "cancel").await;
    assert_eq!(first.code, 202, "{}", first.body);
    assert_eq!(first.body["status"]["cancelledBy"]["source"], "api");
    let again = act(&world, &update, "cancel").await;
    assert_eq!((again.code, &again.body), (202, &first.body));
}

#[tokio::test]
async fn what_has_ended_is_past_its_point_of_no_return_or_leaves_nothing_behind_is_not_cancelled() {
    let world = World::new();
    world.bundle("web").await;
    let update = asked_for(&world, "update").await;
    write(&world, &update, |operation| {
        let mut step = serde_json::to_value(json!({"name": "Promote", "state": "Succeeded"})).unwrap();
        step["progress"] = json!(100);
        operation.status.as_mut().unwrap().steps = vec![serde_json::from_value(step).unwrap()];
        assert_eq!(operation.status.as_ref().unwrap().steps[0].state, StepState::Succeeded);
        assert_eq!(operation.spec.kind.commits(), Some(StepName::Promote));
    })
    .await;
    let late = act(&world, &update, "cancel").await;
    assert_eq!(late.failed().0, 409);
    assert!(late.failed().2.contains("tidying up; `berth rollback` goes back"), "{}", late.failed().2);
    ended(&world, &update, OperationState::Succeeded).await;
    assert!(act(&world, &update, "cancel").await.failed().2.contains("has ended: Succeeded"));
    let removal = asked_for(&world, "uninstall").await;
    let refused = act(&world, &removal, "cancel").await;
    assert!(refused.failed().2.contains("Uninstall leaves nothing to go back to"), "{}", refused.failed().2);
    assert_eq!(act(&world, "nosuch", "cancel").await.failed().0, 404);
}

#[tokio::test]
async fn a_failed_operation_is_tried_again_as_a_new_one_for_what_is_wanted_now() {
    let world = World::new();
    world.bundle("web").await;
    let update = asked_for(&world, "update").await;
    let early = act(&world, &update, "retry").await;
    assert_eq!(early.failed().0, 409);
    assert!(early.failed().2.contains("has not ended: Pending"), "{}", early.failed().2);
    ended(&world, &update, OperationState::Failed).await;
    world.merge(&format!("{BUNDLES}/web"), json!({"spec": {"image": "registry.example/web:3"}})).await.ok();
    let again = act(&world, &update, "retry").await;
    assert_eq!(again.code, 202, "{}", again.body);
    let (spec, bundle) = (&again.body["spec"], world.get(&format!("{BUNDLES}/web")).await.ok());
    assert_eq!((&spec["kind"], &spec["generation"]), (&json!("Update"), &bundle["metadata"]["generation"]));
    assert_eq!(spec["reason"], format!("{update} tried again"));
    assert_eq!(again.body["status"]["state"], "Pending");
    let twice = act(&world, &update, "retry").await;
    assert!(twice.failed().2.contains("is at work"), "{}", twice.failed().2);
}

#[tokio::test]
async fn what_succeeded_is_not_tried_again_and_a_removal_that_failed_is() {
    let world = World::new();
    world.bundle("web").await;
    let update = asked_for(&world, "update").await;
    ended(&world, &update, OperationState::Succeeded).await;
    assert!(act(&world, &update, "retry").await.failed().2.contains("nothing to try again"));
    let removal = asked_for(&world, "uninstall").await;
    ended(&world, &removal, OperationState::Failed).await;
    let again = act(&world, &removal, "retry").await;
    assert_eq!(again.code, 202, "a removal that failed is tried again: {}", again.body);
}

pub(super) async fn hold(world: &World, kinds: Value) {
    let settings = "/apis/berth.dev/v1/settings/berth";
    world.merge(settings, json!({"spec": {"operations": {"hold": kinds}}})).await.ok();
}

#[tokio::test]
async fn what_is_held_says_so_and_notes_what_it_wants_when_it_is_released() {
    let world = World::new();
    world.bundle("web").await;
    hold(&world, json!(["Stop"])).await;
    let stop = asked_for(&world, "stop").await;
    let shown = world.get(&format!("{OPERATIONS}/{stop}")).await.ok();
    let told = "operations of kind Stop are held until somebody releases or rejects them";
    assert_eq!((&shown["status"]["state"], &shown["status"]["waiting"]), (&json!("Held"), &json!(told)));
    let starts = async || world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["start"].clone();
    assert_eq!(starts().await, true, "nothing is noted yet");
    let table = world.table(&format!("{OPERATIONS}/{stop}")).await;
    assert!(table["rows"][0]["cells"].to_string().contains("\"Held\""), "{table}");
    let released = act(&world, &stop, "release").await;
    assert_eq!(released.code, 202, "{}", released.body);
    let status = &released.body["status"];
    assert_eq!((&status["state"], &status["releasedBy"]["source"]), (&json!("Pending"), &json!("api")));
    assert_eq!(status.get("waiting"), None);
    assert_eq!(starts().await, false);
    let again = act(&world, &stop, "release").await;
    assert!(again.failed().2.contains("is not held: Pending"), "{}", again.body);
    assert_eq!(again.failed().0, 409);
}

#[tokio::test]
async fn what_is_rejected_ends_with_the_reason_and_by_whom_and_has_changed_nothing() {
    let world = World::new();
    let before = world.bundle("web").await;
    hold(&world, json!(["Uninstall"])).await;
    let removal = asked_for(&world, "uninstall").await;
    let silent = act(&world, &removal, "reject").await;
    assert_eq!((silent.failed().0, silent.failed().1), (422, "Invalid"));
    let path = format!("{OPERATIONS}/{removal}/actions/reject");
    let rejected = world.post(&path, json!({"reason": "not before the backup"})).await;
    assert_eq!(rejected.code, 202, "{}", rejected.body);
    let status = &rejected.body["status"];
    assert_eq!((&status["state"], &status["error"]["code"]), (&json!("Cancelled"), &json!("Rejected")));
    assert_eq!(status["error"]["message"], "owner (api) rejected it: not before the backup");
    assert_eq!(status["cancelledBy"]["identity"], "owner");
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["metadata"], before["metadata"]);
    assert_eq!(world.post(&path, json!({"reason": "again"})).await.failed().0, 409, "what is finished never changes");
    hold(&world, json!([])).await;
    let again = act(&world, &removal, "retry").await;
    assert_eq!(again.body["status"]["state"], "Pending", "{}", again.body);
    let web = world.get(&format!("{BUNDLES}/web")).await.ok();
    assert!(web["metadata"]["deletionTimestamp"].is_string(), "what is asked for again is noted: {web}");
}
