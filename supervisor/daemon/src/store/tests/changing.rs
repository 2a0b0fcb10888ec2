//! Create, update, status, events, keys.

use berth_model::resource::bundle::{BundleSpec, BundleStatus, Phase};
use berth_model::resource::operation::{
    OperationKind, OperationSpec, OperationState, OperationStatus, Priority, Target,
};
use berth_model::resource::volume::VolumeSpec;
use berth_model::resource::{Bundle, Operation, Volume};
use k8s_openapi::api::core::v1::Event;

use super::*;

fn bundle(name: &str) -> Bundle {
    Bundle {
        metadata: config(name, "").metadata,
        spec: BundleSpec { image: "nginx".into(), ..BundleSpec::default() },
        status: None,
    }
}

pub(super) fn operation(name: &str) -> Operation {
    let target = Target { kind: "Bundle".into(), namespace: "default".into(), name: "web".into(), uid: String::new() };
    let spec = serde_json::json!({ "kind": OperationKind::Start, "target": target, "actor": somebody() });
    let spec: OperationSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(spec.priority, Priority::Interactive);
    Operation { metadata: config(name, "").metadata, spec, status: None }
}

fn volume(bundle: &str, volume: &str) -> Volume {
    let spec = VolumeSpec { bundle: bundle.into(), volume: volume.into() };
    Volume { metadata: config(&format!("{bundle}-{volume}"), "").metadata, spec, status: None }
}

#[tokio::test]
async fn an_object_with_another_name_stays_itself_and_is_told_as_one_that_goes_and_one_that_comes() {
    let fixture = Fixture::new();
    let mut held = volume("db", "data");
    held.metadata.finalizers = Some(vec!["test.dev/hold".into()]);
    let before = fixture.create(held).await.unwrap();
    fixture.create(volume("other", "data")).await.unwrap();
    let since = fixture.newest();
    let name = |to: &'static str| {
        move |tx: &mut Tx<'_>| {
            tx.rename::<Volume>("default", "db-data", |volume| {
                volume.metadata.name = Some(format!("{to}-data"));
                volume.spec.bundle = to.into();
            })
        }
    };
    let refused = refusal(fixture.write(name("other")).await);
    assert_eq!(refused.to_string(), "volumes.berth.dev \"other-data\" already exists");
    assert_eq!(fixture.newest(), since);
    let after = fixture.write(name("pg")).await.unwrap();
    assert_eq!((&after.metadata.uid, &after.metadata.finalizers), (&before.metadata.uid, &before.metadata.finalizers));
    let of = |bundle: &'static str| fixture.store.read(move |tx| tx.list_about::<Volume>("default", bundle));
    assert_eq!((of("db").await.unwrap(), of("pg").await.unwrap()), (vec![], vec![after]));
    assert_eq!(fixture.told_since(since).await, ["Deleted volumes/db-data", "Added volumes/pg-data"]);
}

#[tokio::test]
async fn a_new_object_gets_uid_version_and_creation_time() {
    let fixture = Fixture::new();
    let before = fixture.newest();
    let made = fixture.create(config("a", "1")).await.unwrap().metadata;
    assert_eq!(made.uid.unwrap().len(), 36);
    assert_eq!(made.resource_version, Some((before + 1).to_string()));
    assert_eq!(made.creation_timestamp.unwrap().0.as_second(), 1_000_000);
    assert_eq!(made.generation, None, "a ConfigMap has no spec to count");
    assert_eq!(fixture.newest(), before + 1);
}

#[tokio::test]
async fn what_is_the_stores_to_give_is_not_taken_from_the_writer() {
    let fixture = Fixture::new();
    let first = fixture.create(config("a", "1")).await.unwrap();
    let mut copy = first.clone();
    copy.metadata.name = Some("b".into());
    copy.metadata.deletion_timestamp = copy.metadata.creation_timestamp.clone();
    let second = fixture.create(copy).await.unwrap();
    assert_ne!(second.metadata.uid, first.metadata.uid);
    assert_eq!(second.metadata.deletion_timestamp, None);
    assert!(fixture.get::<ConfigMap>("default", "a").await.is_some());
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let fixture = Fixture::new();
    fixture.create(config("a", "1")).await.unwrap();
    let refused = refusal(fixture.create(config("a", "2")).await);
    assert_eq!(refused.to_string(), "configmaps \"a\" already exists");
}

#[tokio::test]
async fn a_name_is_drawn_if_only_its_beginning_is_given() {
    let fixture = Fixture::new();
    let mut object = config("", "1");
    object.metadata.generate_name = Some("job-".into());
    let one = fixture.create(object.clone()).await.unwrap().metadata.name.unwrap();
    let two = fixture.create(object).await.unwrap().metadata.name.unwrap();
    assert!(one.starts_with("job-") && one.len() == 10, "{one}");
    assert_ne!(one, two);
}

#[tokio::test]
async fn an_object_without_a_name_is_refused() {
    let fixture = Fixture::new();
    let refused = refusal(fixture.create(config("", "1")).await);
    assert!(refused.to_string().contains("metadata.name: give the object a name"), "{refused}");
}

#[tokio::test]
async fn an_object_needs_its_namespace() {
    let fixture = Fixture::new();
    let mut object = config("a", "1");
    object.metadata.namespace = Some("team".into());
    let refused = refusal(fixture.create(object.clone()).await);
    assert_eq!(refused.to_string(), "namespace \"team\" not found; create it first");
    fixture.create(namespace("team")).await.unwrap();
    assert!(fixture.create(object).await.is_ok());
}

#[tokio::test]
async fn an_update_with_an_old_version_is_refused() {
    let fixture = Fixture::new();
    let first = fixture.create(config("a", "1")).await.unwrap();
    let mut second = first.clone();
    second.data = config("a", "2").data;
    fixture.update(second).await.unwrap();
    let mut third = first.clone();
    third.data = config("a", "3").data;
    let refused = refusal(fixture.update(third).await);
    assert!(matches!(refused, Refusal::Conflict { .. }), "{refused}");
    assert!(refused.to_string().contains("read it again"), "{refused}");
}

#[tokio::test]
async fn an_update_of_another_object_of_the_same_name_is_refused() {
    let fixture = Fixture::new();
    let mut first = fixture.create(config("a", "1")).await.unwrap();
    fixture.delete::<ConfigMap>("default", "a").await.unwrap();
    fixture.create(config("a", "2")).await.unwrap();
    first.metadata.resource_version = None;
    assert!(matches!(refusal(fixture.update(first).await), Refusal::Conflict { .. }));
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_version_and_tells_nobody() {
    let fixture = Fixture::new();
    let mut object = fixture.create(config("a", "1")).await.unwrap();
    let newest = fixture.newest();
    object.metadata.labels = Some([].into());
    assert!(fixture.update(object).await.unwrap().is_unchanged());
    assert_eq!(fixture.newest(), newest);
    assert_eq!(fixture.told_since(newest).await, [""; 0]);
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_alone() {
    let fixture = Fixture::new();
    let mut object = fixture.create(bundle("web")).await.unwrap();
    assert_eq!(object.metadata.generation, Some(1));
    object.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    object = fixture.update(object).await.unwrap().into_inner();
    assert_eq!(object.metadata.generation, Some(1));
    object.status = Some(BundleStatus { phase: Phase::Running, ..BundleStatus::default() });
    let status = object.clone();
    object = fixture.write(move |tx| tx.update_status(&status)).await.unwrap().into_inner();
    assert_eq!(object.metadata.generation, Some(1));
    object.spec.image = "nginx:2".into();
    object = fixture.update(object).await.unwrap().into_inner();
    assert_eq!(object.metadata.generation, Some(2));
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let fixture = Fixture::new();
    let mut object = fixture.create(bundle("web")).await.unwrap();
    object.metadata.resource_version = None;
    object.status = Some(BundleStatus { phase: Phase::Failed, ..BundleStatus::default() });
    let by_update = object.clone();
    assert!(fixture.update(by_update).await.unwrap().is_unchanged());
    object.spec.image = "other".into();
    let by_status = object.clone();
    let written = fixture.write(move |tx| tx.update_status(&by_status)).await.unwrap().into_inner();
    assert_eq!(written.spec.image, "nginx");
    assert_eq!(written.status.unwrap().phase, Phase::Failed);
}

#[tokio::test]
async fn the_spec_of_an_operation_never_changes() {
    let fixture = Fixture::new();
    let mut object = fixture.create(operation("op")).await.unwrap();
    object.spec.reason = "changed my mind".into();
    let refused = refusal(fixture.update(object).await);
    assert!(refused.to_string().contains("spec: never changes once the Operation exists"), "{refused}");
}

#[tokio::test]
async fn a_bundle_is_held_by_its_finalizer_from_the_start() {
    let fixture = Fixture::new();
    let object = fixture.create(bundle("web")).await.unwrap();
    assert_eq!(object.metadata.finalizers, Some(vec![berth_model::kinds::TEARDOWN_FINALIZER.into()]));
}

#[tokio::test]
async fn every_writer_owns_the_fields_it_wrote_last() {
    let fixture = Fixture::new();
    let made = fixture.store.write(&somebody(), |tx| {
        tx.set_manager("kubectl-create");
        tx.create(&config("a", "1"))
    });
    let mut object = made.await.unwrap();
    object.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    let object = fixture.update(object).await.unwrap().into_inner();
    let fields = object.metadata.managed_fields.unwrap();
    let owned: Vec<_> =
        fields.iter().map(|entry| (entry.manager.clone().unwrap(), entry.fields_v1.clone().unwrap().0)).collect();
    assert_eq!(
        owned,
        [
            ("kubectl-create".into(), serde_json::json!({"f:data": {"f:key": {}}})),
            ("owner".into(), serde_json::json!({"f:metadata": {"f:labels": {"f:x": {}}}})),
        ]
    );
}

#[tokio::test]
async fn a_failed_transaction_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let newest = fixture.newest();
    let failed = fixture.write(|tx| {
        tx.create(&config("a", "1"))?;
        tx.create(&config("a", "1"))
    });
    assert!(matches!(refusal(failed.await), Refusal::AlreadyExists { .. }));
    assert_eq!(fixture.get::<ConfigMap>("default", "a").await, None);
    assert_eq!(fixture.newest(), newest);
    assert_eq!(
        fixture.create(config("b", "1")).await.unwrap().metadata.resource_version,
        Some((newest + 1).to_string())
    );
}

#[tokio::test]
async fn a_transaction_that_panics_leaves_nothing_behind_and_the_next_one_works() {
    let fixture = Fixture::new();
    let panics = fixture.write(|tx| -> Result<(), StoreError> {
        tx.create(&config("a", "1"))?;
        panic!("on purpose");
    });
    assert!(matches!(panics.await, Err(StoreError::Broken(Fault::Panicked))));
    assert_eq!(fixture.get::<ConfigMap>("default", "a").await, None);
    assert!(fixture.create(config("a", "1")).await.is_ok());
}

#[tokio::test]
async fn transactions_that_wait_together_succeed_and_fail_each_for_itself() {
    let fixture = Fixture::new();
    let writes = (0..200).map(|number| fixture.create(config(&format!("c{}", number / 2), "1")));
    let results = futures_util::future::join_all(writes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    let mut versions: Vec<u64> =
        results.into_iter().flatten().map(|made| made.metadata.resource_version.unwrap().parse().unwrap()).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 100);
    assert_eq!(versions.last(), Some(&fixture.newest()));
}

#[tokio::test]
async fn the_same_event_is_counted_not_repeated() {
    let fixture = Fixture::new();
    let object = fixture.create(bundle("web")).await.unwrap();
    for message in ["exit code 1", "exit code 1", "exit code 2"] {
        let about = object.clone();
        fixture.let_pass(60);
        fixture.write(move |tx| tx.emit_event(&about, EventType::Warning, "StartFailed", message)).await.unwrap();
    }
    let mut events: Vec<Event> = fixture.store.read(|tx| tx.list(Some("default"))).await.unwrap();
    events.sort_by_key(|event| event.message.clone());
    let counts: Vec<_> = events.iter().map(|event| (event.message.as_deref().unwrap(), event.count.unwrap())).collect();
    assert_eq!(counts, [("exit code 1", 2), ("exit code 2", 1)]);
    assert_eq!(events[0].first_timestamp.as_ref().unwrap().0.as_second(), 1_000_060);
    assert_eq!(events[0].last_timestamp.as_ref().unwrap().0.as_second(), 1_000_120);
    assert_eq!(events[0].involved_object.uid, object.metadata.uid);
    assert_eq!(events[0].involved_object.kind.as_deref(), Some("Bundle"));
}

#[tokio::test]
async fn an_event_lives_for_a_week_after_it_was_last_seen() {
    let fixture = Fixture::new();
    let object = fixture.create(bundle("web")).await.unwrap();
    let tell = |object: Bundle| fixture.write(move |tx| tx.emit_event(&object, EventType::Normal, "Started", "up"));
    tell(object.clone()).await.unwrap();
    fixture.let_pass(6 * 86_400);
    tell(object).await.unwrap();
    fixture.let_pass(6 * 86_400);
    assert_eq!(fixture.write(super::sweep).await.unwrap(), 0);
    fixture.let_pass(86_400);
    let newest = fixture.newest();
    assert_eq!(fixture.write(super::sweep).await.unwrap(), 1);
    let told = fixture.told_since(newest).await;
    assert!(matches!(told.as_slice(), [only] if only.starts_with("Deleted events/web.")), "{told:?}");
}

#[tokio::test]
async fn a_key_leads_to_its_operation_as_long_as_the_record_is_kept() {
    let fixture = Fixture::new();
    let made = fixture.create(operation("op")).await.unwrap();
    let target = made.spec.target.clone();
    let found = |target: Target| fixture.store.read(move |tx| tx.operation_for("key-1", &target));
    assert_eq!(found(target.clone()).await.unwrap(), None);
    let (place, operation) = (target.clone(), made.clone());
    fixture.write(move |tx| tx.remember_key("key-1", &place, &operation)).await.unwrap();
    assert_eq!(found(target.clone()).await.unwrap(), Some(made));
    assert_eq!(found(Target { name: "other".into(), ..target.clone() }).await.unwrap(), None);
    fixture.delete::<Operation>("default", "op").await.unwrap();
    assert_eq!(found(target).await.unwrap(), None);
}

#[tokio::test]
async fn a_last_hand_sees_the_uid_before_the_object_is_kept() {
    let fixture = Fixture::new();
    let made = fixture.write(|tx| {
        let object = serde_json::to_value(config("a", "1")).unwrap();
        tx.create_finished(&berth_model::kinds::CONFIG_MAP, object, |object| {
            let uid = object["metadata"]["uid"].clone();
            object["data"]["key"] = uid;
            Ok::<(), StoreError>(())
        })
    });
    let made = made.await.unwrap();
    assert_eq!(made["data"]["key"], made["metadata"]["uid"]);
    let kept = fixture.get::<ConfigMap>("default", "a").await.unwrap();
    assert_eq!(kept.data.unwrap()["key"], kept.metadata.uid.unwrap());
}

#[tokio::test]
async fn a_transaction_that_the_database_gives_up_is_told_so_and_the_next_one_works() {
    let fixture = Fixture::new();
    let gives_up = |tx: &mut Tx<'_>| {
        tx.create(&config("a", "1"))?;
        tx.connection.execute_batch("ROLLBACK").map_err(Fault::of("roll back"))
    };
    let (before, given_up, after) = tokio::join!(
        fixture.create(config("before", "1")),
        fixture.write(gives_up),
        fixture.create(config("after", "1")),
    );
    assert!(given_up.is_err());
    assert!(after.is_ok());
    let all: Vec<ConfigMap> = fixture.store.read(|tx| tx.list(None)).await.unwrap();
    let names: Vec<_> = all.into_iter().map(|object| object.metadata.name.unwrap()).collect();
    let expected = if before.is_ok() { vec!["after", "before"] } else { vec!["after"] };
    assert_eq!(names, expected, "what was promised is there, and nothing else");
}

#[tokio::test]
async fn an_operation_goes_a_month_after_it_has_finished_and_not_before() {
    let fixture = Fixture::new();
    let mut object = fixture.create(operation("op")).await.unwrap();
    fixture.let_pass(60 * 86_400);
    assert_eq!(fixture.write(super::sweep).await.unwrap(), 0);
    object.status = Some(OperationStatus { state: OperationState::Failed, ..OperationStatus::default() });
    fixture.write(move |tx| tx.update_status(&object)).await.unwrap();
    fixture.let_pass(30 * 86_400 - 1);
    assert_eq!(fixture.write(super::sweep).await.unwrap(), 0);
    fixture.let_pass(1);
    assert_eq!(fixture.write(super::sweep).await.unwrap(), 1);
}
