use berth_model::resource::Volume;
use berth_model::resource::operation::Actor;
use berth_model::resource::volume::{VolumeSpec, VolumeState, VolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::operations::hold;
use super::*;

const VOLUMES: &str = "/apis/berth.dev/v1/namespaces/default/volumes";

/// A volume of 1 GiB, made for bundle web.
async fn volume(world: &World) {
    let volume = Volume {
        metadata: ObjectMeta {
            namespace: Some("default".into()),
            name: Some("web-data".into()),
            ..ObjectMeta::default()
        },
        spec: VolumeSpec { bundle: "web".into(), volume: "data".into() },
        status: Some(VolumeStatus { state: VolumeState::Ready, size: 1 << 30, ..VolumeStatus::default() }),
    };
    let berthd = Actor { identity: "berthd".into(), source: "reconciler".into() };
    world.store.write(&berthd, move |tx| tx.create(&volume)).await.unwrap();
}

/// A bundle that wants it.
async fn bundle(world: &World, start: bool) {
    let wish = json!([{"name": "data", "mountPath": "/data", "size": "1Gi"}]);
    let spec = json!({"image": "r.example/web:1", "start": start, "volumes": wish});
    let made = world.post(BUNDLES, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{}", made.body);
}

async fn act(world: &World, action: &str, body: &str) -> Answer {
    let body = Body::from(body.to_owned());
    world.ask(Method::POST, &format!("{VOLUMES}/web-data/actions/{action}"), &[], body).await
}

#[tokio::test]
async fn to_grow_a_volume_changes_the_wish_of_its_bundle_which_has_the_operation() {
    let world = World::new();
    volume(&world).await;
    bundle(&world, true).await;
    let answer = act(&world, "grow", r#"{"size": "2Gi"}"#).await;
    assert_eq!(answer.code, 202, "{}", answer.body);
    assert_eq!(answer.body["spec"]["kind"], "Grow");
    assert_eq!(answer.body["spec"]["target"]["kind"], "Bundle");
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["volumes"][0]["size"], "2Gi");
}

#[tokio::test]
async fn a_growth_that_is_held_or_waits_for_another_leaves_the_old_size_until_it_is_released_or_begins() {
    let world = World::new();
    volume(&world).await;
    bundle(&world, true).await;
    let size = async || world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["volumes"][0]["size"].clone();
    let name = |answer: &Answer| answer.body["metadata"]["name"].as_str().unwrap().to_owned();
    hold(&world, json!(["Grow"])).await;
    let wrong = act(&world, "grow", r#"{"size": "512Mi"}"#).await;
    assert_eq!(wrong.failed().0, 422, "what is wrong is told at once");
    let grow = act(&world, "grow", r#"{"size": "2Gi"}"#).await;
    assert_eq!((&grow.body["status"]["state"], size().await), (&json!("Held"), json!("1Gi")));
    let path = format!("/apis/berth.dev/v1/namespaces/default/operations/{}/actions/reject", name(&grow));
    world.post(&path, json!({"reason": "no room"})).await;
    assert_eq!(size().await, "1Gi", "a rejected growth leaves what was");
    let again = super::operations::act(&world, &name(&grow), "retry").await;
    assert_eq!((&again.body["status"]["state"], size().await), (&json!("Held"), json!("1Gi")), "{}", again.body);
    let released = super::operations::act(&world, &name(&again), "release").await;
    assert_eq!((released.code, size().await), (202, json!("2Gi")), "{}", released.body);
    hold(&world, json!([])).await;
    let after = format!(r#"{{"size": "4Gi", "relations": {{"requires": ["{}"]}}}}"#, name(&again));
    let waits = act(&world, "grow", &after).await;
    assert_eq!((waits.code, size().await), (202, json!("2Gi")), "{}", waits.body);
    let room = json!({"volume": "data", "size": "4Gi"});
    assert_eq!(waits.body["spec"]["room"], room, "what it wants is kept in it");
}

#[tokio::test]
async fn a_size_that_is_none_or_smaller_is_refused_by_field_and_changes_nothing() {
    let world = World::new();
    volume(&world).await;
    bundle(&world, true).await;
    for (body, code, said) in [
        (r#"{"size": "lots"}"#, 422, "`lots` is no number of bytes"),
        (r#"{"size": "512Mi"}"#, 422, "a volume never shrinks: it has 1Gi"),
        ("{}", 422, "grow takes the new size"),
    ] {
        let answer = act(&world, "grow", body).await;
        assert_eq!(answer.failed().0, code, "{body}");
        assert!(answer.failed().2.contains(said), "{}", answer.failed().2);
        assert_eq!(answer.body["details"]["causes"][0]["field"], "size");
    }
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["volumes"][0]["size"], "1Gi");
}

#[tokio::test]
async fn what_a_bundle_uses_is_neither_erased_nor_locked() {
    let world = World::new();
    volume(&world).await;
    bundle(&world, true).await;
    let said = |answer: Answer| (answer.failed().0, answer.failed().2.to_owned());
    assert_eq!(
        said(act(&world, "erase", "").await),
        (409, "volume web-data belongs to bundle web; first: berth uninstall web".to_owned())
    );
    assert_eq!(
        said(act(&world, "lock", "").await),
        (409, "volume web-data is in use by bundle web; first: berth stop web".to_owned())
    );
}

#[tokio::test]
async fn a_volume_without_its_bundle_can_be_erased_and_not_grown() {
    let world = World::new();
    volume(&world).await;
    let answer = act(&world, "grow", r#"{"size": "2Gi"}"#).await;
    assert_eq!(answer.failed().0, 409);
    assert!(answer.failed().2.contains("grows with bundle web"), "{}", answer.failed().2);
    let answer = act(&world, "erase", "").await;
    assert_eq!((answer.code, answer.body["spec"]["target"]["kind"].as_str()), (202, Some("Volume")));
}

#[tokio::test]
async fn nobody_makes_or_deletes_a_volume_by_hand() {
    let world = World::new();
    volume(&world).await;
    let answer = world.ask(Method::DELETE, &format!("{VOLUMES}/web-data"), &[], Body::empty()).await;
    assert_eq!(answer.failed().0, 405);
    assert!(answer.failed().2.contains("actions/erase"), "{}", answer.failed().2);
}

#[tokio::test]
async fn a_namespace_that_is_deleted_waits_for_its_data() {
    let world = World::new();
    volume(&world).await;
    let held = world.get(&format!("{VOLUMES}/web-data")).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["berth.dev/data"]));
    let namespaces = "/api/v1/namespaces";
    world.post(namespaces, json!({"metadata": {"name": "team"}})).await;
    let moved = Volume {
        metadata: ObjectMeta { namespace: Some("team".into()), name: Some("web-data".into()), ..ObjectMeta::default() },
        spec: VolumeSpec { bundle: "web".into(), volume: "data".into() },
        status: Some(VolumeStatus { state: VolumeState::Ready, size: 1 << 30, ..VolumeStatus::default() }),
    };
    let berthd = Actor { identity: "berthd".into(), source: "reconciler".into() };
    world.store.write(&berthd, move |tx| tx.create(&moved)).await.unwrap();
    world.ask(Method::DELETE, &format!("{namespaces}/team"), &[], Body::empty()).await.ok();
    assert_eq!(world.get(&format!("{namespaces}/team")).await.ok()["status"]["phase"], "Terminating");
    let path = "/apis/berth.dev/v1/namespaces/team/volumes/web-data/actions/erase";
    let erase = world.ask(Method::POST, path, &[], Body::empty()).await;
    assert_eq!(erase.code, 202, "{}", erase.body);
}
