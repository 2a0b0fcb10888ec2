use super::*;

#[tokio::test]
async fn a_list_is_of_one_namespace_or_of_all() {
    let world = World::new();
    world.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.created();
    world.config_map("a", json!({})).await;
    world.post("/api/v1/namespaces/team/configmaps", json!({"metadata": {"name": "b"}})).await.created();
    let list = world.get(CONFIG_MAPS).await.ok();
    assert_eq!((list["kind"].clone(), names(&list)), ("ConfigMapList".into(), vec!["a"]));
    assert_eq!(names(&world.get("/api/v1/configmaps").await.ok()), ["a", "b"]);
    assert_eq!(names(&world.get("/api/v1/namespaces").await.ok()), ["default", "team"]);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(version, *world.store.revision().borrow());
}

#[tokio::test]
async fn labels_and_fields_select() {
    let world = World::new();
    for (name, app) in [("a", "web"), ("b", "db")] {
        world.post(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.created();
    }
    let list = async |query: &str| world.get(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(names(&list("labelSelector=app+in+(web,mail)").await.ok()), ["a"]);
    assert_eq!(names(&list("fieldSelector=metadata.name%3Db").await.ok()), ["b"]);
    let answer = list("fieldSelector=data.x%3D1").await;
    assert_eq!((answer.failed().0, answer.failed().1), (400, "BadRequest"));
    assert!(answer.failed().2.contains("metadata.name"), "{}", answer.failed().2);
    assert_eq!(list("labelSelector=%3D%3D").await.code, 400);
}

#[tokio::test]
async fn a_list_in_parts_is_a_list_of_one_version() {
    let world = World::new();
    for name in ["a", "b", "c", "d", "e"] {
        world.config_map(name, json!({})).await;
    }
    let first = world.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!((names(&first), first["metadata"]["remainingItemCount"].clone()), (vec!["a", "b"], 3.into()));
    world.delete(&format!("{CONFIG_MAPS}/c")).await.ok();
    world.config_map("bb", json!({})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = world.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = world.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!((names(&third), third["metadata"].get("continue")), (vec!["e"], None));
}

#[tokio::test]
async fn a_list_is_of_the_version_that_is_meant_or_none() {
    let world = World::new();
    let first = world.config_map("a", json!({})).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.config_map("b", json!({})).await;
    let newest = *world.store.revision().borrow();
    let list = async |query: String| world.get(&format!("{CONFIG_MAPS}?{query}")).await;
    let exact = list(format!("resourceVersion={first}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!((names(&exact), &exact["metadata"]["resourceVersion"]), (vec!["a"], &json!(first)));
    assert_eq!(names(&list(format!("resourceVersion={first}&limit=5")).await.ok()), ["a"]);
    for query in ["", "&resourceVersionMatch=NotOlderThan"] {
        assert_eq!(names(&list(format!("resourceVersion={first}{query}")).await.ok()), ["a", "b"]);
        let ahead = list(format!("resourceVersion={}{query}", newest + 1)).await;
        assert_eq!((ahead.failed().0, ahead.failed().1), (410, "Expired"));
    }
    assert_eq!(names(&list("resourceVersion=0&resourceVersionMatch=NotOlderThan".into()).await.ok()), ["a", "b"]);
    for query in ["resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Newest", "resourceVersion=x"] {
        assert_eq!(list(query.into()).await.failed().0, 400, "{query}");
    }
    let watch = format!("watch=true&sendInitialEvents=true&resourceVersion={}", newest + 1);
    assert_eq!(list(watch).await.failed().0, 410);
}

#[tokio::test]
async fn the_rest_of_a_list_that_is_forgotten_is_expired() {
    let world = World::new();
    for name in ["a", "b"] {
        world.config_map(name, json!({})).await;
    }
    let first = world.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    world.config_map("c", json!({})).await;
    let newest = *world.store.revision().borrow();
    world.store.compact(newest).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let answer = world.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert_eq!((answer.failed().0, answer.failed().1), (410, "Expired"));
    assert_eq!(world.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_kind_and_a_row_per_object() {
    let world = World::new();
    world.config_map("web", json!({"a": "1", "b": "2"})).await;
    let table = world.table(CONFIG_MAPS).await;
    assert_eq!((table["kind"].clone(), table["apiVersion"].clone()), ("Table".into(), "meta.k8s.io/v1".into()));
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(
        columns.iter().map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Name", "Data", "Age"]
    );
    assert_eq!(columns.iter().map(|column| &column["format"]).collect::<Vec<_>>(), ["name", "", ""]);
    assert_eq!(table["rows"][0]["cells"], json!(["web", 2, "0s"]));
    let row = &table["rows"][0]["object"];
    assert_eq!((row["kind"].clone(), row.get("data")), ("PartialObjectMetadata".into(), None));
    assert_eq!(world.table(&format!("{CONFIG_MAPS}/web")).await["rows"].as_array().unwrap().len(), 1);
    let whole = world.table(&format!("{CONFIG_MAPS}?includeObject=Object")).await;
    assert_eq!(whole["rows"][0]["object"]["data"]["a"], "1");
}

#[tokio::test]
async fn every_kind_has_its_table() {
    let world = World::new();
    for kind in KINDS.iter().filter(|kind| kind.serves(Verb::List)) {
        let root = if kind.group.is_empty() { "/api/v1".into() } else { format!("/apis/{}", kind.api_version()) };
        let table = world.table(&format!("{root}/{}", kind.plural)).await;
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), kind.columns.len(), "{}", kind.kind);
    }
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let world = World::new();
    world.config_map("web", json!({"a": "1"})).await;
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")];
    let list = world.ask(Method::GET, CONFIG_MAPS, &accept, Body::empty()).await.ok();
    assert_eq!((list["kind"].clone(), list["items"][0].get("data")), ("PartialObjectMetadataList".into(), None));
}
