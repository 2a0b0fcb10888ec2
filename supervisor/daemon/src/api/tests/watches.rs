use std::time::Duration;

use futures_util::stream::BoxStream;

use super::*;

/// The events of one watch, as they come.
pub(super) struct Events {
    pieces: BoxStream<'static, Result<Bytes, axum::Error>>,
    rest: Vec<u8>,
}

impl Events {
    pub(super) async fn of(world: &World, path: &str) -> Self {
        Self::asked(world, owned(Method::GET, path, &[], Body::empty())).await
    }

    /// Of whoever bears a token.
    pub(super) async fn of_bearer(world: &World, token: &str, path: &str) -> Self {
        let request = Request::builder().uri(path).header("authorization", format!("Bearer {token}"));
        Self::asked(world, request.body(Body::empty()).unwrap()).await
    }

    async fn asked(world: &World, request: Request<Body>) -> Self {
        let response = world.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self { pieces: StreamExt::boxed(response.into_body().into_data_stream()), rest: Vec::new() }
    }

    /// The next event, or `None` when the watch has ended.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.pieces.next()).await.expect("no event came");
            self.rest.extend_from_slice(&piece?.unwrap());
        }
    }

    /// Type and name of the next event.
    async fn told(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch has ended");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

fn event(what: &str, name: &str) -> (String, String) {
    (what.to_owned(), name.to_owned())
}

fn quick() -> World {
    let pace = WatchPace { bookmark: Duration::from_millis(50), patience: Duration::from_millis(50) };
    World::with(MasterKey::from_bytes(&[7; 32]), pace)
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_the_list() {
    let world = World::new();
    world.config_map("old", json!({})).await;
    let version = world.get(CONFIG_MAPS).await.ok()["metadata"]["resourceVersion"].clone();
    let version = version.as_str().unwrap();
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}")).await;
    world.config_map("web", json!({"a": "1"})).await;
    world.bundle("other-kind").await;
    world.merge(&format!("{CONFIG_MAPS}/web"), json!({"data": {"a": "2"}})).await.ok();
    world.delete(&format!("{CONFIG_MAPS}/web")).await.ok();
    assert_eq!(events.told().await, event("ADDED", "web"));
    assert_eq!(events.told().await, event("MODIFIED", "web"));
    let gone = events.next().await.unwrap();
    assert_eq!((gone["type"].clone(), gone["object"]["data"]["a"].clone()), ("DELETED".into(), "2".into()));
    let last = gone["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(last, *world.store.revision().borrow());
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_there_is() {
    let world = World::new();
    world.config_map("old", json!({})).await;
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(events.told().await, event("ADDED", "old"));
    }
}

#[tokio::test]
async fn the_end_of_what_there_is_is_marked_if_asked_for() {
    let world = World::new();
    let old = world.config_map("old", json!({})).await;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(events.told().await, event("ADDED", "old"));
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn bookmarks_follow_what_happens_elsewhere() {
    let world = quick();
    let path = format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true");
    let mut events = Events::of(&world, &path).await;
    let version = world.bundle("web").await["metadata"]["resourceVersion"].clone();
    loop {
        let mark = events.next().await.unwrap();
        assert_eq!((mark["type"].clone(), mark["object"]["kind"].clone()), ("BOOKMARK".into(), "ConfigMap".into()));
        if mark["object"]["metadata"]["resourceVersion"] == version {
            break;
        }
    }
}

#[tokio::test]
async fn entering_and_leaving_a_selection_looks_like_creation_and_removal() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    let version = *world.store.revision().borrow();
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}&labelSelector=on");
    let mut events = Events::of(&world, &path).await;
    let label = async |value: Value| {
        world.merge(&format!("{CONFIG_MAPS}/web"), json!({"metadata": {"labels": value}})).await.ok()
    };
    label(json!({"on": "1"})).await;
    label(json!({"on": "2"})).await;
    label(json!({"on": null})).await;
    world.delete(&format!("{CONFIG_MAPS}/web")).await.ok();
    world.post(CONFIG_MAPS, json!({"metadata": {"name": "db", "labels": {"on": "1"}}})).await.created();
    for what in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(events.told().await, event(what, "web"));
    }
    assert_eq!(events.told().await, event("ADDED", "db"));
}

#[tokio::test]
async fn a_watch_sees_its_namespace_only() {
    let world = World::new();
    world.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.created();
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true")).await;
    world.post("/api/v1/namespaces/team/configmaps", json!({"metadata": {"name": "theirs"}})).await.created();
    world.config_map("ours", json!({})).await;
    assert_eq!(events.told().await, event("ADDED", "ours"));
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_expired() {
    let world = World::new();
    let version = world.config_map("web", json!({})).await["metadata"]["resourceVersion"].clone();
    world.config_map("db", json!({})).await;
    let newest = *world.store.revision().borrow();
    world.store.compact(newest).await.unwrap();
    let path = |version: &str| format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}");
    let answer = world.get(&path(version.as_str().unwrap())).await;
    assert_eq!((answer.failed().0, answer.failed().1), (410, "Expired"));
    assert!(answer.failed().2.ends_with("list again"), "{}", answer.failed().2);
    let mut events = Events::of(&world, &path(&newest.to_string())).await;
    world.config_map("new", json!({})).await;
    assert_eq!(events.told().await, event("ADDED", "new"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_told_so() {
    let world = quick();
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true")).await;
    // More than the queue holds; the feed then waits in vain.
    for number in 0..80 {
        world.config_map(&format!("c{number}"), json!({})).await;
    }
    let mut seen = 0;
    let last = loop {
        // Reading begins only when the feed has given up: the queue is then full to its last place.
        if seen == 0 {
            while world.metrics.encode().unwrap().contains("berth_api_watches 1\n") {
                tokio::task::yield_now().await;
            }
        }
        let event = events.next().await.unwrap();
        seen += 1;
        if event["type"] == "ERROR" {
            break event;
        }
    };
    assert_eq!((last["object"]["code"].clone(), last["object"]["reason"].clone()), (410.into(), "Expired".into()));
    assert_eq!(events.next().await, None);
    assert!(seen < 80, "{seen}");
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_last_bookmark() {
    let world = World::new();
    let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut events = Events::of(&world, &path).await;
    assert_eq!(events.next().await.unwrap()["type"], "BOOKMARK");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_is_told_that_the_daemon_stops() {
    let world = World::new();
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true")).await;
    world.stop.cancel();
    let last = events.next().await.unwrap();
    assert_eq!((last["type"].clone(), last["object"]["code"].clone()), ("ERROR".into(), 503.into()));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_can_be_a_table() {
    let world = World::new();
    world.config_map("web", json!({"a": "1"})).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let path = format!("{CONFIG_MAPS}?watch=true");
    let response = world.send(owned(Method::GET, &path, &accept, Body::empty())).await;
    let mut events = Events { pieces: StreamExt::boxed(response.into_body().into_data_stream()), rest: Vec::new() };
    let table = events.next().await.unwrap();
    assert_eq!((table["type"].clone(), table["object"]["kind"].clone()), ("ADDED".into(), "Table".into()));
    assert_eq!(table["object"]["rows"][0]["cells"], json!(["web", 1, "0s"]));
}

#[tokio::test]
async fn open_watches_are_counted() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    let mut events = Events::of(&world, &format!("{CONFIG_MAPS}?watch=true")).await;
    events.told().await;
    assert!(world.metrics.encode().unwrap().contains("berth_api_watches 1\n"));
}
