use berth_model::resource::operation::Actor;
use berth_model::resource::volume::{VolumeSpec, VolumeState, VolumeStatus};
use berth_model::resource::{Revision, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

const WEB: &str = "/apis/berth.dev/v1/namespaces/default/bundles/web";

fn berthd() -> Actor {
    Actor { identity: "berthd".into(), source: "reconciler".into() }
}

/// A revision of bundle web, made of this spec.
async fn revision(world: &World, number: u64, state: &str, spec: Value) {
    let name = format!("web-r{number}");
    let pinned = format!("registry.example/web@sha256:{number}");
    let image = json!({"reference": pinned, "digest": format!("sha256:{number}"), "layers": [], "entrypoint": [],
                       "cmd": [], "env": [], "user": "", "workingDir": ""});
    let revision: Revision = serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": name},
        "spec": {"bundle": "web", "number": number, "generation": 1, "operation": "", "bundleSpec": spec,
                 "image": image, "allocation": {"address": "", "idBase": 0, "hostLink": ""}},
        "status": {"state": state},
    }))
    .unwrap();
    world.store.write(&berthd(), move |tx| tx.create(&revision)).await.unwrap();
}

fn first() -> Value {
    json!({"image": "registry.example/web:1", "env": [{"name": "MODE", "value": "old"}]})
}

fn second() -> Value {
    json!({"image": "registry.example/web:2", "ports": [{"name": "http", "containerPort": 80}]})
}

/// A bundle that was installed as `first` and updated to `second`.
async fn updated() -> World {
    let world = World::new();
    let made = world.post(BUNDLES, json!({"metadata": {"name": "web"}, "spec": second()})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    revision(&world, 1, "Superseded", first()).await;
    revision(&world, 2, "Active", second()).await;
    world
}

async fn roll_back(world: &World, wish: Value) -> Answer {
    world.post(&format!("{WEB}/actions/rollback"), wish).await
}

#[tokio::test]
async fn a_rollback_sets_the_earlier_spec_and_tells_its_operation_where_to_go() {
    let world = updated().await;
    world.merge(WEB, json!({"spec": {"egress": "none"}})).await.ok();
    let answer = roll_back(&world, json!({"reason": "it was better"})).await;
    assert_eq!(answer.code, 202, "{}", answer.body);
    let spec = &answer.body["spec"];
    assert_eq!((&spec["kind"], &spec["rollbackTo"]), (&json!("Rollback"), &json!(1)));
    let bundle = world.get(WEB).await.ok();
    assert_eq!(spec["generation"], bundle["metadata"]["generation"]);
    assert_eq!(bundle["spec"]["image"], "registry.example/web:1");
    assert_eq!(bundle["spec"]["env"], first()["env"]);
    assert_eq!((&bundle["spec"]["ports"], &bundle["spec"]["egress"]), (&Value::Null, &json!("none")));
}

#[tokio::test]
async fn the_operation_names_the_one_that_it_undoes() {
    let world = updated().await;
    let update = world.post(&format!("{WEB}/actions/update"), json!({})).await.body;
    let rollback = roll_back(&world, json!({"to": 1})).await.body;
    assert_eq!(rollback["spec"]["rollbackOf"], update["metadata"]["name"]);
}

#[tokio::test]
async fn a_rollback_that_leads_nowhere_is_refused_with_what_there_is_and_changes_nothing() {
    let world = updated().await;
    revision(&world, 3, "Failed", first()).await;
    let before = world.get(WEB).await.ok();
    for (to, code, said) in [
        (2, 409, "web: revision 2 is the one that runs; `berth revisions web` shows what there is"),
        (3, 409, "web: revision 3 never served, so there is nothing to go back to"),
        (9, 404, "web: there is no revision 9: there are 1"),
    ] {
        let answer = roll_back(&world, json!({"to": to})).await;
        assert_eq!(answer.failed().0, code, "{to}");
        assert!(answer.failed().2.starts_with(said), "{}", answer.failed().2);
        assert_eq!(answer.body["details"]["causes"][0]["field"], "to");
    }
    assert_eq!(world.get(WEB).await.ok(), before);
    let alone = World::new();
    alone.bundle("web").await;
    assert!(roll_back(&alone, json!({})).await.failed().2.contains("no revision has served yet"));
    let wrong = alone.post(&format!("{WEB}/actions/update"), json!({"to": 1})).await;
    assert_eq!((wrong.failed().0, &wrong.body["details"]["causes"][0]["field"]), (422, &json!("to")));
}

#[tokio::test]
async fn a_rollback_to_an_image_that_cannot_be_had_says_so_and_changes_nothing() {
    let world = updated().await;
    *world.images.lost.lock().unwrap() = Some("registry.example/web@sha256:1".into());
    let before = world.get(WEB).await.ok();
    let answer = roll_back(&world, json!({})).await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (409, "Conflict"));
    let image = "registry.example/web@sha256:1 is no longer on this machine";
    for part in ["revision 1", image, "nobody answers", "berth image import"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(world.get(WEB).await.ok(), before);
}

#[tokio::test]
async fn a_rollback_to_a_volume_that_was_erased_is_refused_by_name() {
    let wish = json!([{"name": "data", "mountPath": "/data", "size": "1Gi"}]);
    let world = World::new();
    world.post(BUNDLES, json!({"metadata": {"name": "web"}, "spec": second()})).await.created();
    let mut with_data = first();
    with_data["volumes"] = wish;
    revision(&world, 1, "Superseded", with_data).await;
    revision(&world, 2, "Active", second()).await;
    let refused = roll_back(&world, json!({})).await;
    assert_eq!(refused.failed().0, 409);
    assert!(refused.failed().2.contains("volumes that are no longer there: web-data"), "{}", refused.failed().2);
    let volume = Volume {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web-data".into()),
            ..ObjectMeta::default()
        },
        spec: VolumeSpec { bundle: "web".into(), volume: "data".into() },
        status: Some(VolumeStatus { state: VolumeState::Ready, size: 2 << 30, ..VolumeStatus::default() }),
    };
    world.store.write(&berthd(), move |tx| tx.create(&volume)).await.unwrap();
    assert_eq!(roll_back(&world, json!({})).await.code, 202);
    let volumes = &world.get(WEB).await.ok()["spec"]["volumes"];
    assert_eq!(volumes[0]["size"], "2Gi", "the room it has");
}

#[tokio::test]
async fn the_same_key_asks_for_one_rollback() {
    let world = updated().await;
    let path = format!("{WEB}/actions/rollback");
    let ask = || world.ask(Method::POST, &path, &[("idempotency-key", "k1")], Body::empty());
    let first = ask().await;
    revision(&world, 3, "Candidate", self::first()).await;
    let again = ask().await;
    assert_eq!((first.code, again.code), (202, 202));
    assert_eq!(again.body["metadata"]["name"], first.body["metadata"]["name"]);
}
