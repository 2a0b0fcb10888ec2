use super::*;

#[tokio::test]
async fn an_object_is_created_read_replaced_patched_and_deleted() {
    let world = World::new();
    let created = world.config_map("web", json!({"a": "1"})).await;
    assert_eq!(created["apiVersion"], "v1");
    assert_eq!(created["metadata"]["creationTimestamp"], NOW);
    let path = format!("{CONFIG_MAPS}/web");
    assert_eq!(world.get(&path).await.ok(), created);

    let mut changed = created.clone();
    changed["data"] = json!({"a": "2", "b": "1"});
    let replaced = world.put(&path, changed).await.ok();
    assert_ne!(replaced["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!(replaced["metadata"]["uid"], created["metadata"]["uid"]);

    let patched = world.merge(&path, json!({"data": {"a": null, "c": "3"}})).await.ok();
    assert_eq!(patched["data"], json!({"b": "1", "c": "3"}));

    let gone = world.delete(&path).await.ok();
    assert_eq!((gone["kind"].clone(), gone["status"].clone()), ("Status".into(), "Success".into()));
    assert_eq!(gone["details"]["uid"], created["metadata"]["uid"]);
    assert_eq!(world.get(&path).await.failed(), (404, "NotFound", "configmaps \"web\" not found"));
}

#[tokio::test]
async fn a_failure_tells_what_it_was_about() {
    let world = World::new();
    let answer = world.get(&format!("{BUNDLES}/web")).await;
    assert_eq!(answer.failed(), (404, "NotFound", "bundles.berth.dev \"web\" not found"));
    assert_eq!(answer.body["details"], json!({"name": "web", "group": "berth.dev", "kind": "bundles"}));
}

#[tokio::test]
async fn a_taken_name_a_missing_namespace_and_a_bad_name_are_told_apart() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    let create = async |namespace: &str, name: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        world.post(&path, json!({"metadata": {"name": name}})).await
    };
    assert_eq!(create("default", "web").await.failed().1, "AlreadyExists");
    let absent = create("nowhere", "web").await;
    assert_eq!(absent.failed(), (404, "NotFound", "namespace \"nowhere\" not found; create it first"));
    let bad = create("default", "No Name").await;
    assert_eq!((bad.code, bad.body["details"]["causes"][0]["field"].clone()), (422, "metadata.name".into()));
}

#[tokio::test]
async fn a_stale_resource_version_is_a_conflict() {
    let world = World::new();
    let first = world.config_map("web", json!({"a": "1"})).await;
    let path = format!("{CONFIG_MAPS}/web");
    let mut mine = first.clone();
    mine["data"]["a"] = "2".into();
    world.put(&path, mine).await.ok();
    let mut theirs = first.clone();
    theirs["data"]["a"] = "3".into();
    let answer = world.put(&path, theirs).await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (409, "Conflict"));
    assert!(message.ends_with("read it again and repeat the change"), "{message}");

    let version = first["metadata"]["resourceVersion"].clone();
    let patch = json!({"metadata": {"resourceVersion": version}, "data": {"a": "4"}});
    assert_eq!(world.merge(&path, patch).await.code, 409);
    let only = json!({"preconditions": {"resourceVersion": version}});
    let answer = world.ask(Method::DELETE, &path, &[], only.to_string()).await;
    assert_eq!(answer.code, 409);
    assert_eq!(world.get(&path).await.ok()["data"]["a"], "2");
}

#[tokio::test]
async fn a_name_is_generated_from_its_beginning() {
    let world = World::new();
    let body = json!({"metadata": {"generateName": "web-"}});
    let name = world.post(CONFIG_MAPS, body).await.created()["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("web-") && name.len() > 4, "{name}");
}

#[tokio::test]
async fn a_body_that_belongs_elsewhere_is_refused() {
    let world = World::new();
    let body = json!({"kind": "Secret", "metadata": {"name": "web"}});
    assert_eq!(
        world.post(CONFIG_MAPS, body).await.failed().2,
        "kind of the body is `Secret`, but this path takes `ConfigMap`"
    );
    let body = json!({"metadata": {"name": "web", "namespace": "other"}});
    assert_eq!(
        world.post(CONFIG_MAPS, body).await.failed().2,
        "metadata.namespace of the body is `other`, but the path says `default`"
    );
    let body = json!({"metadata": {"name": "db"}});
    assert_eq!(world.put(&format!("{CONFIG_MAPS}/web"), body).await.failed().0, 400);
}

#[tokio::test]
async fn an_unknown_field_is_named_warned_of_or_ignored_as_asked() {
    let world = World::new();
    let body = |name: &str| json!({"metadata": {"name": name}, "spec": {"image": "r.example/web", "imgae": "x"}});
    let strict = world.post(BUNDLES, body("web")).await;
    assert_eq!(
        strict.failed(),
        (400, "BadRequest", "Bundle has unknown field \"spec.imgae\"; correct the spelling, or leave it out")
    );
    assert_eq!(strict.body["details"]["causes"][0]["field"], "spec.imgae");
    let warn = world.post(&format!("{BUNDLES}?fieldValidation=Warn"), body("warn")).await;
    assert_eq!(warn.header("warning"), "299 - \"unknown field 'spec.imgae'\"");
    assert!(warn.created()["spec"].get("imgae").is_none());
    let ignore = world.post(&format!("{BUNDLES}?fieldValidation=Ignore"), body("ignore")).await;
    assert_eq!((ignore.code, ignore.header("warning")), (201, ""));
    let patch = world.merge(&format!("{BUNDLES}/warn"), json!({"spec": {"prots": []}})).await;
    assert_eq!(patch.body["details"]["causes"][0]["field"], "spec.prots");
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_named_warned_of_or_ignored_as_asked() {
    let world = World::new();
    let body =
        |name: &str| format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"image": "r/a", "image": "r/b"}}}}"#);
    let create = async |query: &str, name| world.ask(Method::POST, &format!("{BUNDLES}{query}"), &[], body(name)).await;
    let strict = create("", "strict").await;
    assert_eq!(strict.failed(), (400, "BadRequest", "Bundle has duplicate field \"spec.image\"; say it once"));
    assert_eq!(strict.body["details"]["causes"][0]["reason"], "FieldValueDuplicate");
    let warn = create("?fieldValidation=Warn", "warn").await;
    assert_eq!(warn.header("warning"), "299 - \"duplicate field 'spec.image'\"");
    assert_eq!(warn.created()["spec"]["image"], "r/b");
    let ignore = create("?fieldValidation=Ignore", "ignore").await;
    assert_eq!((ignore.code, ignore.header("warning")), (201, ""));
    let twice = r#"{"data": {"a": "1", "a": "2"}}"#;
    world.config_map("web", json!({})).await;
    for (media, body) in [("application/merge-patch+json", twice), ("application/strategic-merge-patch+json", twice)] {
        let path = format!("{CONFIG_MAPS}/web?fieldValidation=Strict");
        let answer = world.ask(Method::PATCH, &path, &[("content-type", media)], body).await;
        assert_eq!(answer.failed().2, "ConfigMap has duplicate field \"data.a\"; say it once");
    }
    assert_eq!(names(&world.get(BUNDLES).await.ok()), ["ignore", "warn"]);
}

#[tokio::test]
async fn a_strategic_merge_patch_is_taken_for_built_in_kinds() {
    let world = World::new();
    let created = world.config_map("web", json!({"a": "1", "b": "2"})).await;
    let owner = |name: &str, uid: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let one = owner("web", &created["metadata"]["uid"]);
    let body = json!({"metadata": {"name": "owned", "ownerReferences": [one]}, "data": {"a": "1", "b": "2"}});
    world.post(CONFIG_MAPS, body).await.created();
    let other = world.config_map("other", json!({})).await["metadata"]["uid"].clone();
    let patch = json!({
        "metadata": {"ownerReferences": [owner("other", &other)]}, "data": {"a": null, "$retainKeys": ["b"], "c": "3"},
    });
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let path = format!("{CONFIG_MAPS}/owned?fieldValidation=Strict");
    let patched = world.ask(Method::PATCH, &path, &strategic, patch.to_string()).await.ok();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
    assert_eq!(patched["metadata"]["ownerReferences"].as_array().unwrap().len(), 2, "{patched}");
    let wrong = json!({"data": {"$patch": "dance"}}).to_string();
    let answer = world.ask(Method::PATCH, &path, &strategic, wrong).await;
    assert_eq!((answer.failed().0, answer.body["details"]["causes"][0]["field"].clone()), (422, "data.$patch".into()));
}

#[tokio::test]
async fn every_broken_rule_is_told_by_its_field() {
    let world = World::new();
    let body =
        json!({"metadata": {"name": "web"}, "spec": {"image": "", "ports": [{"name": "A", "containerPort": 0}]}});
    let answer = world.post(BUNDLES, body).await;
    assert_eq!((answer.failed().0, answer.failed().1), (422, "Invalid"));
    let causes = answer.body["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    for field in ["spec.image", "spec.ports[0].name", "spec.ports[0].containerPort"] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
}

#[tokio::test]
async fn broken_json_is_told_with_its_position() {
    let world = World::new();
    let answer = world.ask(Method::POST, CONFIG_MAPS, &[], "{\"metadata\":\n  {\"name\": web}}").await;
    let (code, _, message) = answer.failed();
    assert_eq!(code, 400);
    assert!(message.ends_with("at line 2, column 12"), "{message}");
    let answer = world.ask(Method::POST, CONFIG_MAPS, &[], "[]").await;
    assert_eq!(answer.failed().2, "the body must be a JSON object");
}

#[tokio::test]
async fn a_body_of_more_than_three_mebibytes_is_refused() {
    let world = World::new();
    let body = vec![b' '; 3 * 1024 * 1024 + 1];
    let answer = world.ask(Method::POST, CONFIG_MAPS, &[], body).await;
    assert_eq!((answer.failed().0, answer.failed().1), (413, "RequestEntityTooLarge"));
}

#[tokio::test]
async fn a_body_of_a_type_that_is_not_read_is_refused_with_advice() {
    let world = World::new();
    world.config_map("web", json!({})).await;
    let yaml = [("content-type", "application/yaml")];
    let answer = world.ask(Method::POST, CONFIG_MAPS, &yaml, "a: 1").await;
    assert_eq!((answer.failed().0, answer.failed().1), (415, "UnsupportedMediaType"));
    world.bundle("web").await;
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let answer = world.ask(Method::PATCH, &format!("{BUNDLES}/web"), &strategic, "{}").await;
    assert!(answer.failed().2.contains("kubectl patch --type=merge"));
}

#[tokio::test]
async fn a_json_patch_is_applied_whole_or_not_at_all() {
    let world = World::new();
    world.config_map("web", json!({"a": "1"})).await;
    let path = format!("{CONFIG_MAPS}/web");
    let patch = async |operations: Value| {
        let json = [("content-type", "application/json-patch+json")];
        world.ask(Method::PATCH, &path, &json, operations.to_string()).await
    };
    let good = json!([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"}]);
    assert_eq!(patch(good.clone()).await.ok()["data"], json!({"a": "1", "b": "2"}));
    let bad = json!([{"op": "remove", "path": "/data/b"}, {"op": "test", "path": "/data/a", "value": "x"}]);
    assert_eq!(patch(bad).await.code, 422);
    assert_eq!(world.get(&path).await.ok()["data"]["b"], "2");
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_changes_nothing() {
    let world = World::new();
    world.config_map("web", json!({"a": "1"})).await;
    let before = *world.store.revision().borrow();
    let path = format!("{CONFIG_MAPS}/web?dryRun=All");
    assert_eq!(world.merge(&path, json!({"data": {"a": "2"}})).await.ok()["data"]["a"], "2");
    let body = json!({"metadata": {"name": "new"}});
    world.post(&format!("{CONFIG_MAPS}?dryRun=All"), body).await.created();
    assert_eq!(world.delete(&path).await.code, 200);
    let options = json!({"dryRun": ["All"]}).to_string();
    assert_eq!(world.ask(Method::DELETE, &format!("{CONFIG_MAPS}/web"), &[], options).await.code, 200);
    assert_eq!(names(&world.get(CONFIG_MAPS).await.ok()), ["web"]);
    assert_eq!(*world.store.revision().borrow(), before);
    assert_eq!(world.delete(&format!("{CONFIG_MAPS}/web?dryRun=Some")).await.code, 400);
}

#[tokio::test]
async fn an_object_that_something_holds_is_marked_and_stays() {
    let world = World::new();
    world.bundle("web").await;
    let path = format!("{BUNDLES}/web");
    let marked = world.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], NOW);
    assert_eq!(marked["metadata"]["finalizers"], json!(["berth.dev/teardown"]));
    let released = world.merge(&path, json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(released["metadata"]["name"], "web");
    assert_eq!(world.get(&path).await.code, 404);
}

#[tokio::test]
async fn deletion_takes_along_what_an_object_owns_unless_it_is_to_stay() {
    let world = World::new();
    let owned_by = |owner: &Value, name: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        }]}})
    };
    for (policy, left) in [("Background", vec![]), ("Orphan", vec!["child"])] {
        let owner = world.config_map("owner", json!({})).await;
        world.post(CONFIG_MAPS, owned_by(&owner, "child")).await.created();
        let options = json!({"propagationPolicy": policy}).to_string();
        assert_eq!(world.ask(Method::DELETE, &format!("{CONFIG_MAPS}/owner"), &[], options).await.code, 200);
        assert_eq!(names(&world.get(CONFIG_MAPS).await.ok()), left, "{policy}");
    }
    let answer = world.delete(&format!("{CONFIG_MAPS}/child?propagationPolicy=Sideways")).await;
    assert_eq!(answer.failed().0, 400);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let world = World::new();
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        world.post(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.created();
    }
    let deleted = world.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dweb")).await.ok();
    assert_eq!(names(&deleted), ["a", "c"]);
    assert_eq!(names(&world.get(CONFIG_MAPS).await.ok()), ["b"]);
}

#[tokio::test]
async fn status_is_read_like_the_object_and_written_by_nobody_here() {
    let world = World::new();
    let created = world.bundle("web").await;
    let path = format!("{BUNDLES}/web/status");
    assert_eq!(world.get(&path).await.ok(), created);
    let mine = json!({"metadata": {"name": "web"}, "spec": {"image": "r.example/web"}, "status": {"phase": "Running"}});
    for answer in [world.put(&path, mine.clone()).await, world.merge(&path, mine.clone()).await] {
        assert_eq!(
            answer.failed(),
            (405, "MethodNotAllowed", "the status of bundles is written by Berth alone; change the spec instead")
        );
    }
    let replaced = world.put(&format!("{BUNDLES}/web"), mine).await.ok();
    assert_ne!(replaced["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_verb_that_a_kind_does_not_serve_is_answered_with_what_to_do_instead() {
    let world = World::new();
    let operations = "/apis/berth.dev/v1/namespaces/default/operations";
    let answer = world.post(operations, json!({})).await;
    let (code, reason, message) = answer.failed();
    assert_eq!((code, reason), (405, "MethodNotAllowed"));
    assert!(message.contains("POST .../bundles/NAME/actions/restart"), "{message}");
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_version() {
    let world = World::new();
    let created = world.config_map("web", json!({"a": "1"})).await;
    let again = world.merge(&format!("{CONFIG_MAPS}/web"), json!({"data": {"a": "1"}})).await.ok();
    assert_eq!(again, created);
}

#[tokio::test]
async fn a_write_is_recorded_with_who_asked_and_by_what_way() {
    let world = World::new();
    world.config_map("api", json!({})).await;
    let send = async |peer, headers: &[(&str, &str)], name: &str| {
        let body = json!({"metadata": {"name": name}}).to_string();
        world.send_from(peer, owned(Method::POST, CONFIG_MAPS, headers, body.into())).await
    };
    let network = Peer::Network("192.0.2.1:1".parse().unwrap());
    send(network, &[("user-agent", "berth/0.1.0")], "cli").await;
    send(network, &[("x-berth-source", "panel")], "panel").await;
    send(Peer::Socket { uid: 0 }, &[("user-agent", "curl/8.5")], "root").await;
    let changes = world.store.changes(0, 100).await.unwrap();
    let seen: Vec<_> = changes
        .iter()
        .map(|change| (change.name.as_str(), change.actor.identity.as_str(), change.actor.source.as_str()))
        .collect();
    for expected in
        [("api", "owner", "api"), ("cli", "owner", "cli"), ("panel", "owner", "panel"), ("root", "local-root", "api")]
    {
        assert!(seen.contains(&expected), "{expected:?} is not in {seen:?}");
    }
}

#[tokio::test]
async fn the_manager_of_fields_is_the_one_named_or_the_program() {
    let world = World::new();
    let body = json!({"metadata": {"name": "web"}, "data": {"a": "1"}}).to_string();
    let agent = [("user-agent", "kubectl/v1.32.3 (linux/amd64)")];
    let created = world.ask(Method::POST, CONFIG_MAPS, &agent, body).await.created();
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "kubectl");
    let patched = world.merge(&format!("{CONFIG_MAPS}/web?fieldManager=me"), json!({"data": {"a": "2"}})).await.ok();
    let managers = patched["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|entry| entry["manager"] == "me"), "{managers:?}");
}
