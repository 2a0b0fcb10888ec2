//! Delete, finalizers, owners, namespaces.

use berth_model::resource::Bundle;
use berth_model::resource::bundle::BundleSpec;
use k8s_openapi::api::core::v1::Event;

use super::*;

fn names(fixture: &Fixture) -> impl Future<Output = Vec<String>> {
    let store = fixture.store.clone();
    async move {
        let all: Vec<ConfigMap> = store.read(|tx| tx.list(None)).await.unwrap();
        all.into_iter().map(|object| object.metadata.name.unwrap()).collect()
    }
}

fn in_team(mut object: ConfigMap) -> ConfigMap {
    object.metadata.namespace = Some("team".into());
    object
}

fn with(propagation: Propagation) -> Deletion {
    Deletion { propagation, ..Deletion::default() }
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_watchers_get_its_last_state() {
    let fixture = Fixture::new();
    let made = fixture.create(config("a", "1")).await.unwrap();
    let version = fixture.newest();
    assert!(matches!(fixture.delete::<ConfigMap>("default", "a").await, Ok(Written::Removed(_))));
    assert_eq!(fixture.get::<ConfigMap>("default", "a").await, None);
    let change = fixture.store.changes(version, 10).await.unwrap().remove(0);
    assert_eq!(change.object["metadata"]["resourceVersion"], (version + 1).to_string());
    assert_eq!(change.object["data"]["key"], "1");
    assert_eq!(
        change.previous.as_ref().unwrap()["metadata"]["resourceVersion"],
        made.metadata.resource_version.unwrap()
    );
    assert!(matches!(refusal(fixture.delete::<ConfigMap>("default", "a").await), Refusal::NotFound { .. }));
}

#[tokio::test]
async fn only_the_object_that_is_meant_is_deleted() {
    let fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    for how in [
        Deletion { uid: Some("another".into()), ..Deletion::default() },
        Deletion { resource_version: Some("1".into()), ..Deletion::default() },
    ] {
        let deleted = fixture.write(move |tx| tx.delete::<ConfigMap>("default", "a", &how)).await;
        assert!(matches!(refusal(deleted), Refusal::Conflict { .. }));
    }
}

#[tokio::test]
async fn an_object_with_a_finalizer_is_marked_and_goes_with_the_finalizer() {
    let fixture = Fixture::new();
    fixture.create(held(config("a", "1"))).await.unwrap();
    let Written::Changed(marked) = fixture.delete::<ConfigMap>("default", "a").await.unwrap() else {
        panic!("removed at once");
    };
    assert_eq!(marked.metadata.deletion_timestamp.unwrap().0.as_second(), 1_000_000);
    assert!(fixture.delete::<ConfigMap>("default", "a").await.unwrap().is_unchanged());
    let version = fixture.newest();
    let freed = fixture.write(|tx| tx.remove_finalizer::<ConfigMap>("default", "a", "test.dev/hold")).await;
    assert!(matches!(freed, Ok(Written::Removed(_))));
    assert_eq!(fixture.told_since(version).await, ["Deleted configmaps/a"]);
}

#[tokio::test]
async fn an_object_that_is_not_deleted_stays_without_its_finalizer() {
    let fixture = Fixture::new();
    fixture.create(held(config("a", "1"))).await.unwrap();
    let freed = fixture.write(|tx| tx.remove_finalizer::<ConfigMap>("default", "a", "test.dev/hold")).await;
    assert!(matches!(freed, Ok(Written::Changed(_))));
    assert_eq!(names(&fixture).await, ["a"]);
}

#[tokio::test]
async fn what_an_object_owns_goes_with_it_in_one_transaction_however_deep() {
    let fixture = Fixture::new();
    let mut owner = fixture.create(config("c0", "1")).await.unwrap();
    for number in 1..50 {
        owner = fixture.create(owned_by(config(&format!("c{number}"), "1"), &owner)).await.unwrap();
    }
    let version = fixture.newest();
    fixture.delete::<ConfigMap>("default", "c0").await.unwrap();
    assert_eq!(names(&fixture).await, [""; 0]);
    assert_eq!(fixture.newest(), version + 50);
}

#[tokio::test]
async fn owners_in_a_circle_go_together() {
    let fixture = Fixture::new();
    let first = fixture.create(config("a", "1")).await.unwrap();
    let second = fixture.create(owned_by(config("b", "1"), &first)).await.unwrap();
    fixture.update(owned_by(first, &second)).await.unwrap();
    fixture.delete::<ConfigMap>("default", "b").await.unwrap();
    assert_eq!(names(&fixture).await, [""; 0]);
}

#[tokio::test]
async fn an_object_with_another_owner_stays_and_loses_the_reference() {
    let fixture = Fixture::new();
    let one = fixture.create(config("one", "1")).await.unwrap();
    let two = fixture.create(config("two", "1")).await.unwrap();
    fixture.create(owned_by(owned_by(config("shared", "1"), &one), &two)).await.unwrap();
    fixture.delete::<ConfigMap>("default", "one").await.unwrap();
    let shared = fixture.get::<ConfigMap>("default", "shared").await.unwrap();
    let owners = shared.metadata.owner_references.unwrap();
    assert_eq!(owners.iter().map(|owner| owner.name.as_str()).collect::<Vec<_>>(), ["two"]);
    fixture.delete::<ConfigMap>("default", "two").await.unwrap();
    assert_eq!(names(&fixture).await, [""; 0]);
}

#[tokio::test]
async fn an_owner_that_is_not_there_is_refused() {
    let fixture = Fixture::new();
    let owner = fixture.create(config("owner", "1")).await.unwrap();
    fixture.delete::<ConfigMap>("default", "owner").await.unwrap();
    let refused = refusal(fixture.create(owned_by(config("a", "1"), &owner)).await);
    assert!(refused.to_string().contains("metadata.ownerReferences[0].uid"), "{refused}");
}

#[tokio::test]
async fn orphans_stay_without_owner() {
    let fixture = Fixture::new();
    let owner = fixture.create(config("owner", "1")).await.unwrap();
    fixture.create(owned_by(config("a", "1"), &owner)).await.unwrap();
    fixture.write(|tx| tx.delete::<ConfigMap>("default", "owner", &with(Propagation::Orphan))).await.unwrap();
    let orphan = fixture.get::<ConfigMap>("default", "a").await.unwrap();
    assert_eq!(orphan.metadata.owner_references, None);
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let fixture = Fixture::new();
    let owner = fixture.create(config("owner", "1")).await.unwrap();
    fixture.create(owned_by(config("free", "1"), &owner)).await.unwrap();
    fixture.create(held(owned_by(config("held", "1"), &owner))).await.unwrap();
    let how = with(Propagation::Foreground);
    let deleted = fixture.write(move |tx| tx.delete::<ConfigMap>("default", "owner", &how)).await.unwrap();
    assert!(matches!(deleted, Written::Changed(_)));
    assert_eq!(names(&fixture).await, ["held", "owner"]);
    let version = fixture.newest();
    fixture.write(|tx| tx.remove_finalizer::<ConfigMap>("default", "held", "test.dev/hold")).await.unwrap();
    assert_eq!(fixture.told_since(version).await, ["Deleted configmaps/held", "Deleted configmaps/owner"]);
}

#[tokio::test]
async fn an_empty_namespace_goes_at_once() {
    let fixture = Fixture::new();
    fixture.create(namespace("team")).await.unwrap();
    assert!(matches!(fixture.delete::<Namespace>("", "team").await, Ok(Written::Removed(_))));
}

#[tokio::test]
async fn the_default_namespace_cannot_be_deleted() {
    let fixture = Fixture::new();
    let refused = refusal(fixture.delete::<Namespace>("", DEFAULT_NAMESPACE).await);
    assert_eq!(refused.to_string(), "namespace \"default\" cannot be deleted; delete what is in it instead");
}

#[tokio::test]
async fn a_namespace_takes_its_content_along_and_waits_for_what_is_held() {
    let fixture = Fixture::new();
    fixture.create(namespace("team")).await.unwrap();
    fixture.create(in_team(config("free", "1"))).await.unwrap();
    fixture.create(held(in_team(config("held", "1")))).await.unwrap();
    fixture.create(config("elsewhere", "1")).await.unwrap();
    let Written::Changed(marked) = fixture.delete::<Namespace>("", "team").await.unwrap() else {
        panic!("removed at once");
    };
    assert_eq!(marked.status.unwrap().phase, "Terminating");
    assert_eq!(names(&fixture).await, ["elsewhere", "held"]);
    let refused = refusal(fixture.create(in_team(config("late", "1"))).await);
    assert!(matches!(refused, Refusal::NamespaceTerminating(_)), "{refused}");
    fixture.write(|tx| tx.remove_finalizer::<ConfigMap>("team", "held", "test.dev/hold")).await.unwrap();
    assert_eq!(names(&fixture).await, ["elsewhere"]);
    assert_eq!(fixture.get::<Namespace>("", "team").await, None);
}

#[tokio::test]
async fn no_update_lets_a_namespace_go_before_its_content() {
    let fixture = Fixture::new();
    fixture.create(namespace("team")).await.unwrap();
    fixture.create(held(in_team(config("held", "1")))).await.unwrap();
    let mut marked = fixture.delete::<Namespace>("", "team").await.unwrap().into_inner();
    marked.metadata.finalizers = None;
    assert!(fixture.update(marked).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn records_are_kept_until_the_rest_of_a_namespace_is_gone() {
    let fixture = Fixture::new();
    fixture.create(namespace("team")).await.unwrap();
    let object = Bundle {
        metadata: in_team(config("web", "")).metadata,
        spec: BundleSpec { image: "nginx".into(), ..BundleSpec::default() },
        status: None,
    };
    let object = fixture.create(object).await.unwrap();
    fixture.delete::<Namespace>("", "team").await.unwrap();
    let tell = fixture.write(move |tx| tx.emit_event(&object, EventType::Normal, "Stopping", "on its way"));
    tell.await.unwrap();
    let events: Vec<Event> = fixture.store.read(|tx| tx.list(Some("team"))).await.unwrap();
    assert_eq!(events.len(), 1);
    let finalizer = berth_model::kinds::TEARDOWN_FINALIZER;
    fixture.write(move |tx| tx.remove_finalizer::<Bundle>("team", "web", finalizer)).await.unwrap();
    let events: Vec<Event> = fixture.store.read(|tx| tx.list(Some("team"))).await.unwrap();
    assert_eq!(events.len(), 0);
    assert_eq!(fixture.get::<Namespace>("", "team").await, None);
}

#[tokio::test]
async fn an_event_about_something_in_a_namespace_that_is_gone_is_told_to_nobody() {
    let fixture = Fixture::new();
    fixture.create(namespace("team")).await.unwrap();
    let object = fixture.create(in_team(config("a", "1"))).await.unwrap();
    fixture.delete::<Namespace>("", "team").await.unwrap();
    let version = fixture.newest();
    fixture.write(move |tx| tx.emit_event(&object, EventType::Normal, "Gone", "gone")).await.unwrap();
    assert_eq!(fixture.newest(), version);
}

#[tokio::test]
async fn in_the_foreground_an_owner_does_not_wait_for_what_has_another_owner_or_drops_it() {
    let fixture = Fixture::new();
    let owner = fixture.create(config("owner", "1")).await.unwrap();
    let other = fixture.create(config("other", "1")).await.unwrap();
    fixture.create(owned_by(owned_by(config("shared", "1"), &owner), &other)).await.unwrap();
    fixture.create(held(owned_by(config("held", "1"), &owner))).await.unwrap();
    let how = with(Propagation::Foreground);
    fixture.write(move |tx| tx.delete::<ConfigMap>("default", "owner", &how)).await.unwrap();
    assert_eq!(names(&fixture).await, ["held", "other", "owner", "shared"]);
    let mut held = fixture.get::<ConfigMap>("default", "held").await.unwrap();
    held.metadata.owner_references = None;
    fixture.update(held).await.unwrap();
    assert_eq!(names(&fixture).await, ["held", "other", "shared"]);
}
