//! Bundles and volumes as Kubernetes' clients look for them: read, listed, watched, and never written.

use super::watches::Events;
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A bundle that fares so.
async fn bundle(world: &World, name: &str, phase: &'static str) {
    let body = json!({ "metadata": { "name": name }, "spec": { "image": "registry/web", "ports": [{ "name": "http", "containerPort": 80 }] } });
    world.post(BUNDLES, body).await.created();
    fares(world, name, phase).await;
}

async fn fares(world: &World, name: &str, phase: &'static str) {
    fares_at(world, name, phase, "10.213.0.2").await;
}

/// A bundle that runs at an address.
pub(super) async fn bundle_at(world: &World, name: &str, address: &'static str) {
    bundle(world, name, "Running").await;
    fares_at(world, name, "Running", address).await;
}

async fn fares_at(world: &World, name: &str, phase: &'static str, address: &'static str) {
    let name = name.to_owned();
    let write = move |tx: &mut crate::store::Tx<'_>| {
        let mut bundle = tx.get::<berth_model::resource::Bundle>("default", &name)?.unwrap();
        let status = json!({
            "phase": phase, "revision": 1, "unit": format!("berth.default.{name}.r1.service"), "address": address,
            "conditions": [{
                "type": "Ready", "status": if phase == "Running" { "True" } else { "False" }, "reason": "Because",
                "message": "", "lastTransitionTime": NOW,
            }],
        });
        bundle.status = Some(serde_json::from_value(status).unwrap());
        tx.update_status(&bundle).map(drop)
    };
    world.store.write(&crate::store::house_keeping(), write).await.unwrap();
}

#[tokio::test]
async fn who_runs_is_a_pod_and_who_does_not_is_none() {
    let world = World::new();
    bundle(&world, "web", "Running").await;
    bundle(&world, "idle", "Stopped").await;
    bundle(&world, "sick", "Failed").await;
    assert_eq!(names(&world.get(PODS).await.ok()), ["sick", "web"]);
    assert_eq!(names(&world.get("/api/v1/pods?fieldSelector=status.phase%3DRunning").await.ok()), ["web"]);
    let labelled = world.get(&format!("{PODS}?labelSelector=berth.dev/bundle%3Dsick")).await.ok();
    assert_eq!(names(&labelled), ["sick"]);
    let pod = world.get(&format!("{PODS}/web")).await.ok();
    assert_eq!((&pod["kind"], &pod["status"]["podIP"]), (&json!("Pod"), &json!("10.213.0.2")));
    assert_eq!(world.get(&format!("{PODS}/idle")).await.failed().1, "NotFound");
    let services = world.get("/api/v1/namespaces/default/services").await.ok();
    assert_eq!(names(&services), ["idle", "sick", "web"]);
    let sets = world.get("/apis/apps/v1/statefulsets").await.ok();
    assert_eq!(names(&sets), ["idle", "sick", "web"]);
}

#[tokio::test]
async fn a_list_of_pods_in_parts_misses_none() {
    let world = World::new();
    for (name, phase) in [("a", "Stopped"), ("b", "Running"), ("c", "Stopped"), ("d", "Running")] {
        bundle(&world, name, phase).await;
    }
    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{PODS}?limit=1&continue={next}")).await.ok();
        found.extend(names(&page).into_iter().map(str::to_owned));
        match page["metadata"]["continue"].as_str() {
            Some(token) => next = token.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["b", "d"]);
}

#[tokio::test]
async fn a_pod_comes_and_goes_with_its_bundle_for_who_watches() {
    let world = World::new();
    bundle(&world, "web", "Stopped").await;
    let version = *world.store.revision().borrow();
    let mut watch = Events::of(&world, &format!("{PODS}?watch=true&resourceVersion={version}")).await;
    for (phase, told) in [("Running", "ADDED"), ("Failed", "MODIFIED"), ("Stopped", "DELETED"), ("Running", "ADDED")] {
        fares(&world, "web", phase).await;
        let event = watch.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(told), &json!("web")), "{phase}");
        let version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(version, *world.store.revision().borrow(), "{phase}");
    }
}

#[tokio::test]
async fn what_is_a_view_cannot_be_written_and_it_is_said_what_can() {
    let world = World::new();
    bundle(&world, "web", "Running").await;
    let before = *world.store.revision().borrow();
    let answer = world.delete(&format!("{PODS}/web")).await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (405, "MethodNotAllowed"));
    assert!(message.contains("change, stop or restart the bundle"), "{message}");
    assert_eq!(world.post(PODS, json!({ "metadata": { "name": "x" } })).await.code, 405);
    assert_eq!(*world.store.revision().borrow(), before);
}

#[tokio::test]
async fn the_output_of_a_pod_is_that_of_its_bundle_and_no_longer_than_asked() {
    let world = World::new();
    let cut = world.get(&format!("{PODS}/web/log?container=web&tailLines=5&limitBytes=6")).await.ok();
    assert_eq!(cut, "one\ntw");
    let asked = world.logs.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.bundle.as_str(), asked.tail_lines), ("web", Some(5)));
    let answer = world.get(&format!("{PODS}/web/log?container=sidecar")).await;
    let (code, _, message) = answer.failed();
    assert!(code == 400 && message.contains("the only one is called web"), "{message}");
}
