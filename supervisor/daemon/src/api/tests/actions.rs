use super::*;

const OPERATIONS: &str = "/apis/berth.dev/v1/namespaces/default/operations";

async fn act(world: &World, action: &str, key: Option<&str>) -> Answer {
    let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    world.ask(Method::POST, &format!("{BUNDLES}/web/actions/{action}"), &headers, Body::empty()).await
}

#[tokio::test]
async fn an_action_answers_with_its_operation_and_sets_what_is_wanted() {
    let world = World::new();
    let uid = world.bundle("web").await["metadata"]["uid"].clone();
    for (action, kind, start) in
        [("stop", "Stop", false), ("start", "Start", true), ("stop", "Stop", false), ("restart", "Restart", true)]
    {
        let answer = act(&world, action, None).await;
        assert_eq!(answer.code, 202, "{}", answer.body);
        let operation = answer.body;
        assert_eq!((operation["kind"].clone(), operation["spec"]["kind"].clone()), ("Operation".into(), kind.into()));
        let target = json!({"kind": "Bundle", "namespace": "default", "name": "web", "uid": uid});
        assert_eq!(operation["spec"]["target"], target);
        assert_eq!(operation["spec"]["actor"], json!({"identity": "owner", "source": "api"}));
        let name = operation["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with(&format!("web-{action}-")), "{name}");
        assert_eq!(world.get(&format!("{OPERATIONS}/{name}")).await.ok(), operation);
        let bundle = world.get(&format!("{BUNDLES}/web")).await.ok();
        assert_eq!(bundle["spec"]["start"], start);
        assert_eq!(operation["spec"]["generation"], bundle["metadata"]["generation"]);
    }
}

#[tokio::test]
async fn an_update_changes_nothing_that_is_wanted() {
    let world = World::new();
    let before = world.bundle("web").await;
    assert_eq!(act(&world, "update", None).await.body["spec"]["kind"], "Update");
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok(), before);
}

#[tokio::test]
async fn the_same_key_finds_the_same_operation() {
    let world = World::new();
    world.bundle("web").await;
    let first = act(&world, "restart", Some("k1")).await;
    let again = act(&world, "restart", Some("k1")).await;
    assert_eq!((again.code, again.body), (202, first.body.clone()));
    let other = act(&world, "restart", Some("k2")).await.body;
    assert_ne!(other["metadata"]["name"], first.body["metadata"]["name"]);
    let misused = act(&world, "stop", Some("k1")).await;
    assert_eq!((misused.failed().0, misused.failed().1), (409, "Conflict"));
    assert_eq!(names(&world.get(OPERATIONS).await.ok()).len(), 2);
}

#[tokio::test]
async fn uninstall_deletes_the_bundle_and_finds_itself_again() {
    let world = World::new();
    world.bundle("web").await;
    let first = act(&world, "uninstall", None).await;
    assert_eq!((first.code, first.body["spec"]["kind"].clone()), (202, "Uninstall".into()));
    let bundle = world.get(&format!("{BUNDLES}/web")).await.ok();
    assert_eq!(bundle["metadata"]["deletionTimestamp"], NOW);
    let again = act(&world, "uninstall", None).await;
    assert_eq!((again.code, again.body["metadata"]["uid"].clone()), (202, first.body["metadata"]["uid"].clone()));
    let start = act(&world, "start", None).await;
    assert_eq!(
        start.failed(),
        (409, "Conflict", "bundle web is being removed: start is no longer possible; install it again")
    );
}

#[tokio::test]
async fn an_action_on_nothing_is_not_found_and_an_unknown_action_is_no_path() {
    let world = World::new();
    let answer = act(&world, "start", None).await;
    assert_eq!(answer.failed(), (404, "NotFound", "bundles.berth.dev \"web\" not found"));
    world.bundle("web").await;
    assert_eq!(act(&world, "explode", None).await.failed().0, 404);
    let answer = world.get(&format!("{BUNDLES}/web/actions/start")).await;
    assert_eq!((answer.failed().0, answer.header("allow")), (405, "POST"));
    assert_eq!(names(&world.get(OPERATIONS).await.ok()), Vec::<&str>::new());
}

#[tokio::test]
async fn a_reason_is_kept_and_a_wrong_body_or_key_is_refused() {
    let world = World::new();
    world.bundle("web").await;
    let path = format!("{BUNDLES}/web/actions/stop");
    let answer = world.post(&path, json!({"reason": "maintenance"})).await;
    assert_eq!(answer.body["spec"]["reason"], "maintenance");
    assert_eq!(world.post(&path, json!({"why": "?"})).await.failed().0, 400);
    let long = "k".repeat(129);
    assert_eq!(act(&world, "stop", Some(&long)).await.failed().0, 400);
}

#[tokio::test]
async fn a_dry_run_of_an_action_starts_nothing() {
    let world = World::new();
    let before = world.bundle("web").await;
    let answer = world.post(&format!("{BUNDLES}/web/actions/stop?dryRun=All"), json!({})).await;
    assert_eq!(answer.code, 202);
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok(), before);
    assert_eq!(names(&world.get(OPERATIONS).await.ok()), Vec::<&str>::new());
}
