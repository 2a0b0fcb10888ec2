//! Changes, compaction, pages of a list.

use berth_model::kinds::CONFIG_MAP;
use berth_model::selector::Selector;

use super::*;

fn items(page: &Page) -> Vec<String> {
    let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    page.items.iter().map(name).collect()
}

async fn page(fixture: &Fixture, wanted: PageRequest) -> Result<Page, StoreError> {
    fixture.store.read(move |tx| tx.page(&CONFIG_MAP, &wanted)).await
}

async fn with_three() -> Fixture {
    let fixture = Fixture::new();
    for name in ["b", "a", "c"] {
        fixture.create(config(name, "1")).await.unwrap();
    }
    fixture
}

#[tokio::test]
async fn changes_come_in_order_with_before_after_and_who_did_it() {
    let fixture = Fixture::new();
    let start = fixture.newest();
    let made = fixture.create(config("a", "1")).await.unwrap();
    let mut next = made.clone();
    next.data = config("a", "2").data;
    fixture.update(next).await.unwrap();
    fixture.delete::<ConfigMap>("default", "a").await.unwrap();
    let changes = fixture.store.changes(start, 10).await.unwrap();
    let versions: Vec<u64> = changes.iter().map(|change| change.resource_version).collect();
    assert_eq!(versions, [start + 1, start + 2, start + 3]);
    let values: Vec<_> = changes
        .iter()
        .map(|change| {
            (change.previous.as_ref().map(|before| before["data"]["key"].clone()), change.object["data"]["key"].clone())
        })
        .collect();
    assert_eq!(values, [(None, "1".into()), (Some("1".into()), "2".into()), (Some("2".into()), "2".into())]);
    assert!(changes.iter().all(|change| change.actor == somebody() && change.at.as_second() == 1_000_000));
}

#[tokio::test]
async fn changes_can_be_read_piece_by_piece() {
    let fixture = with_three().await;
    let newest = fixture.newest();
    let first = fixture.store.changes(newest - 3, 2).await.unwrap();
    assert_eq!(first.iter().map(|change| change.resource_version).collect::<Vec<_>>(), [newest - 2, newest - 1]);
    let rest = fixture.store.changes(newest - 1, 2).await.unwrap();
    assert_eq!(rest.iter().map(|change| change.resource_version).collect::<Vec<_>>(), [newest]);
}

#[tokio::test]
async fn who_waits_for_the_next_version_is_woken_by_it() {
    let fixture = Fixture::new();
    let mut revision = fixture.store.revision();
    let before = *revision.borrow_and_update();
    let (made, woken) = tokio::join!(fixture.create(config("a", "1")), revision.changed());
    woken.unwrap();
    assert!(made.is_ok());
    assert_eq!(*revision.borrow(), before + 1);
}

#[tokio::test]
async fn forgotten_changes_are_gone_and_later_ones_are_not() {
    let fixture = with_three().await;
    let newest = fixture.newest();
    fixture.store.compact(newest - 1).await.unwrap();
    let refused = refusal(fixture.store.changes(newest - 2, 10).await);
    assert_eq!(refused, Refusal::Gone { asked: newest - 2, oldest: newest - 1 });
    assert_eq!(fixture.store.changes(newest - 1, 10).await.unwrap().len(), 1);
    assert_eq!(fixture.store.changes(newest, 10).await.unwrap(), []);
    let refused = refusal(fixture.store.changes(newest + 1, 10).await);
    assert_eq!(refused, Refusal::Ahead { asked: newest + 1, newest });
}

#[tokio::test]
async fn compaction_never_goes_back_and_never_beyond_the_newest() {
    let fixture = with_three().await;
    let newest = fixture.newest();
    fixture.store.compact(newest + 100).await.unwrap();
    fixture.store.compact(1).await.unwrap();
    assert_eq!(fixture.store.read(|tx| tx.compacted()).await.unwrap(), newest);
    assert!(fixture.store.changes(newest, 10).await.is_ok());
}

#[tokio::test]
async fn a_list_comes_in_pages_that_all_show_the_same_moment() {
    let fixture = with_three().await;
    let version = fixture.newest();
    let first = page(&fixture, PageRequest { limit: Some(2), ..PageRequest::default() }).await.unwrap();
    assert_eq!((items(&first), first.version, first.remaining), (vec!["a".into(), "b".into()], version, 1));
    fixture.create(config("bb", "new")).await.unwrap();
    fixture.delete::<ConfigMap>("default", "c").await.unwrap();
    fixture.update(config("a", "2")).await.unwrap();
    let rest = PageRequest { at: Some(first.version), after: first.next, limit: Some(2), ..PageRequest::default() };
    let rest = page(&fixture, rest).await.unwrap();
    assert_eq!((items(&rest), rest.version, rest.next), (vec!["c".into()], version, None));
    let whole = page(&fixture, PageRequest { at: Some(version), ..PageRequest::default() }).await.unwrap();
    assert_eq!(items(&whole), ["a", "b", "c"]);
    assert_eq!(whole.items[0]["data"]["key"], "1");
    assert_eq!(items(&page(&fixture, PageRequest::default()).await.unwrap()), ["a", "b", "bb"]);
}

#[tokio::test]
async fn a_page_of_a_forgotten_moment_is_gone() {
    let fixture = with_three().await;
    let version = fixture.newest();
    fixture.create(config("d", "1")).await.unwrap();
    fixture.store.compact(version + 1).await.unwrap();
    let refused = refusal(page(&fixture, PageRequest { at: Some(version), ..PageRequest::default() }).await);
    assert!(matches!(refused, Refusal::Gone { .. }));
}

#[tokio::test]
async fn a_list_can_be_narrowed_by_namespace_and_selector() {
    let fixture = with_three().await;
    fixture.create(namespace("team")).await.unwrap();
    let mut other = config("a", "1");
    other.metadata.namespace = Some("team".into());
    other.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    fixture.create(other).await.unwrap();
    let of_team = PageRequest { namespace: Some("team".into()), ..PageRequest::default() };
    assert_eq!(items(&page(&fixture, of_team).await.unwrap()), ["a"]);
    let selector = Selector::parse(&CONFIG_MAP, "app=web", "metadata.namespace=team").unwrap();
    let labelled = PageRequest { selector, ..PageRequest::default() };
    assert_eq!(items(&page(&fixture, labelled).await.unwrap()), ["a"]);
    let selector = Selector::parse(&CONFIG_MAP, "app!=web", "").unwrap();
    let others = PageRequest { selector, limit: Some(1), ..PageRequest::default() };
    let others = page(&fixture, others).await.unwrap();
    assert_eq!((items(&others), others.remaining), (vec!["a".into()], 2));
}

#[tokio::test]
async fn a_reader_that_panics_does_not_take_the_others_along() {
    let fixture = Fixture::new();
    for _ in 0..10 {
        let panics = fixture.store.read(|_| -> Result<(), StoreError> { panic!("on purpose") });
        assert!(matches!(panics.await, Err(StoreError::Broken(Fault::Panicked))));
    }
    assert!(fixture.store.read(|tx| tx.version()).await.is_ok());
}
