use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::secrets::{CANARY, shows};
use super::*;
use berth_model::resource::change_set::Entry;
use berth_model::resource::operation::OperationState;
use berth_model::resource::{ChangeSet, Volume};

const SETS: &str = "/apis/berth.dev/v1/namespaces/default/changesets";

async fn set(world: &World) {
    world.post(SETS, json!({ "metadata": { "name": "s" } })).await.created();
}

async fn act(world: &World, action: &str, body: Value) -> Answer {
    world.post(&format!("{SETS}/s/actions/{action}"), body).await
}

async fn add(world: &World, edit: Value) -> Value {
    let mut edit = edit;
    if edit["kind"].is_null() {
        edit["kind"] = "Bundle".into();
    }
    act(world, "add", edit).await.ok()
}

async fn plan(world: &World) -> Vec<String> {
    let plan = act(world, "plan", json!({})).await.ok();
    let line = |change: &Value| {
        let from = change["renamedFrom"].as_str().map(|old| format!(" from {old}")).unwrap_or_default();
        format!("{} {}{from}", change["verb"].as_str().unwrap(), change["name"].as_str().unwrap())
    };
    plan["changes"].as_array().unwrap().iter().map(line).chain([format!("restarts {}", plan["restarts"])]).collect()
}

/// A database, and a service that refers to it.
async fn two(world: &World) {
    let db = json!({ "image": "registry.example/db:1", "ports": [{"name": "sql", "containerPort": 5432}] });
    world.post(BUNDLES, json!({ "metadata": { "name": "db" }, "spec": db })).await.created();
    let env = json!([{"name": "URL", "value": "db://${{db.HOST}}:${{db.PORT}}"}]);
    let web = json!({ "image": "registry.example/web:1", "env": env });
    world.post(BUNDLES, json!({ "metadata": { "name": "web" }, "spec": web })).await.created();
    world.bundle("other").await;
}

fn image(image: &str) -> Value {
    json!({ "spec": { "image": image } })
}

fn causes(answer: &Answer) -> Vec<String> {
    let causes = answer.body["details"]["causes"].as_array().cloned().unwrap_or_default();
    causes.iter().map(|cause| cause["field"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn staged_edits_do_not_act_until_they_are_applied_all_at_once() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:3")})).await;
    let new = json!({"metadata": {"name": "new"}, "spec": {"image": "registry.example/new:1"}});
    add(&world, json!({"verb": "create", "name": "new", "object": new})).await;
    let conf = json!({"data": {"a": "1"}});
    let staged = add(&world, json!({"verb": "apply", "kind": "configmap", "name": "conf", "object": conf})).await;
    let entries = staged["status"]["entries"].as_array().unwrap();
    assert_eq!(
        (entries.len(), &entries[0]["author"]["identity"], &entries[0]["time"]),
        (4, &json!("owner"), &json!(NOW))
    );
    assert_eq!(entries[1]["before"]["content"]["spec"]["image"], "registry.example/web:2");
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["image"], "registry.example/web:1");
    assert_eq!(world.get(&format!("{BUNDLES}/new")).await.code, 404);

    assert_eq!(plan(&world).await, ["create new", "update web", "create conf", "restarts [\"web\"]"]);
    assert_eq!(world.get(&format!("{BUNDLES}/new")).await.code, 404, "a plan does nothing");
    let operation = act(&world, "apply", json!({})).await.ok();
    assert_eq!(
        (&operation["spec"]["kind"], &operation["status"]["state"]),
        (&json!("ApplyChanges"), &json!("Succeeded"))
    );
    let steps: Vec<&str> =
        operation["status"]["steps"].as_array().unwrap().iter().map(|step| step["message"].as_str().unwrap()).collect();
    assert_eq!(steps, ["bundle/new created", "bundle/web updated: spec.image", "configmap/conf created"]);
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["image"], "registry.example/web:3");
    assert_eq!(world.get(&format!("{CONFIG_MAPS}/conf")).await.ok()["data"]["a"], "1");
    let after = world.get(&format!("{SETS}/s")).await.ok();
    assert_eq!(after["status"]["operation"], operation["metadata"]["name"]);
    let again = act(&world, "apply", json!({})).await;
    assert!(again.failed().2.contains("was applied by operation"), "{}", again.body);
}

#[tokio::test]
async fn a_bundle_with_another_name_is_followed_by_all_that_refer_to_it() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    let ports = json!({"spec": {"ports": [{"name": "sql", "containerPort": 5433}]}});
    add(&world, json!({"verb": "update", "name": "db", "object": ports})).await;
    add(&world, json!({"verb": "rename", "name": "db", "to": "pg"})).await;
    add(&world, json!({"verb": "update", "name": "other", "object": {"spec": {"dependsOn": ["pg"]}}})).await;
    assert_eq!(
        plan(&world).await,
        ["update other", "rename pg from db", "update web", "restarts [\"pg\",\"web\"]"],
        "what only may reach more does not restart"
    );
    act(&world, "apply", json!({})).await.ok();
    let web = world.get(&format!("{BUNDLES}/web")).await.ok();
    assert_eq!(web["spec"]["env"][0]["value"], "db://${{pg.HOST}}:${{pg.PORT}}");
    let pg = world.get(&format!("{BUNDLES}/pg")).await.ok();
    assert_eq!(pg["spec"]["ports"][0]["containerPort"], 5433);
    assert_eq!(pg["metadata"]["annotations"]["berth.dev/renamed-from"], "db");
    assert!(world.get(&format!("{BUNDLES}/db")).await.ok()["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn a_change_of_what_a_reference_leads_to_restarts_who_refers_once() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    let ports = json!({"spec": {"ports": [{"name": "sql", "containerPort": 5433}]}});
    add(&world, json!({"verb": "update", "name": "db", "object": ports})).await;
    assert_eq!(plan(&world).await, ["update db", "restarts [\"db\",\"web\"]"]);
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;
    assert_eq!(plan(&world).await, ["update db", "update web", "restarts [\"db\",\"web\"]"]);
}

#[tokio::test]
async fn one_wrong_edit_refuses_the_whole_set_by_object_and_field() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "update", "name": "other", "object": image("registry.example/web:2")})).await;
    add(&world, json!({"verb": "delete", "name": "db"})).await;
    let answer = act(&world, "apply", json!({})).await;
    assert_eq!((answer.code, causes(&answer)), (422, vec!["bundle/web spec.env[0].value".to_owned(); 2]));
    assert_eq!(world.get(&format!("{BUNDLES}/other")).await.ok()["spec"]["image"], "registry.example/web:1");
    assert!(world.get(&format!("{BUNDLES}/db")).await.ok()["metadata"]["deletionTimestamp"].is_null());

    let bad = json!({"kind": "Bundle", "verb": "update", "name": "web", "object": {"spec": {"image": ""}}});
    assert_eq!(causes(&act(&world, "add", bad).await), ["spec.image"]);
    let record = json!({"kind": "Revision", "verb": "create", "name": "x", "object": {}});
    let refused = act(&world, "add", record).await;
    assert!(refused.code == 422 && refused.body["message"].as_str().unwrap().contains("cannot be staged"));
}

/// A Secret, and a service that is given a value of it.
async fn a_secret_and_who_takes_it(world: &World) {
    let secret = json!({"metadata": {"name": "db"}, "stringData": {"password": "old", "user": "berth"}});
    world.post(SECRETS, secret).await.created();
    let env = json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]);
    let web = json!({ "image": "registry.example/web:1", "env": env });
    world.post(BUNDLES, json!({ "metadata": { "name": "web" }, "spec": web })).await.created();
}

async fn revealed(world: &World, secret: &str, key: &str) -> String {
    let object = world.get(&format!("{SECRETS}/{secret}?reveal=true")).await.ok();
    String::from_utf8(STANDARD.decode(object["data"][key].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn values_of_secrets_wait_where_nobody_sees_them_and_come_with_all_the_rest() {
    let world = World::new();
    a_secret_and_who_takes_it(&world).await;
    set(&world).await;
    let watch = world.send(owned(Method::GET, &format!("{SETS}?watch=true"), &[], Body::empty())).await;
    let mut watch = watch.into_body().into_data_stream();
    let password = json!({"stringData": {"password": CANARY}});
    let secret = json!({"kind": "Secret", "verb": "update", "name": "db", "object": password});
    let told = add(&world, secret.clone()).await;
    let entries = told["status"]["entries"].as_array().unwrap();
    let (before, after) = (&entries[0]["before"]["content"]["data"], &entries[0]["after"]["data"]);
    assert!(before["user"] == after["user"] && before["password"] != after["password"], "{told}");
    assert_eq!(add(&world, secret).await["status"], told["status"], "the same value once more is no edit");
    let new = json!({"stringData": {"token": CANARY}});
    add(&world, json!({"kind": "Secret", "verb": "create", "name": "new", "object": new})).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;

    let planned = act(&world, "plan", json!({})).await.ok();
    assert_eq!(planned["restarts"], json!(["web"]), "once, for both");
    let fields: Vec<&Value> =
        planned["changes"].as_array().unwrap().iter().flat_map(|change| change["fields"].as_array().unwrap()).collect();
    assert!(fields.contains(&&json!({"field": "data.password", "before": "(set)", "after": "(changed)"})), "{planned}");
    assert!(fields.contains(&&json!({"field": "data.token", "after": "(set)"})), "{planned}");
    let operation = act(&world, "apply", json!({})).await.ok();
    assert_eq!(revealed(&world, "db", "password").await, CANARY);
    assert_eq!(
        (revealed(&world, "db", "user").await, revealed(&world, "new", "token").await),
        ("berth".into(), CANARY.into())
    );

    let shown = [told, planned, operation, world.get(SETS).await.ok(), world.get(&format!("{SETS}/s")).await.ok()];
    assert!(shown.iter().all(|one| !shows(one) && !one.to_string().contains("\"sealed\"")), "{shown:?}");
    let mut told = String::new();
    while told.lines().count() < 5 {
        told.push_str(std::str::from_utf8(&watch.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(!shows(&told.as_str().into()) && !told.contains("\"sealed\""), "{told}");
    let stored = world.store.read(|tx| tx.get::<ChangeSet>("default", "s")).await.unwrap().unwrap();
    assert!(stored.status.unwrap().sealed.is_empty(), "what was applied waits no more");
    world.store.close().await;
    for needle in [CANARY.as_bytes(), STANDARD.encode(CANARY).as_bytes()] {
        assert!(!on_disk(world.dir.path(), needle));
    }
}

#[tokio::test]
async fn a_secret_that_somebody_else_has_changed_is_a_conflict_that_names_the_key() {
    let world = World::new();
    a_secret_and_who_takes_it(&world).await;
    set(&world).await;
    let staged = json!({"stringData": {"password": CANARY}});
    add(&world, json!({"kind": "Secret", "verb": "update", "name": "db", "object": staged})).await;
    world.merge(&format!("{SECRETS}/db"), json!({"stringData": {"user": "admin"}})).await.ok();
    let moved = act(&world, "apply", json!({})).await;
    assert_eq!((moved.code, causes(&moved)), (409, vec!["secret/db data.user".to_owned()]));
    act(&world, "rebase", json!({})).await.ok();
    act(&world, "apply", json!({})).await.ok();
    let now = (revealed(&world, "db", "password").await, revealed(&world, "db", "user").await);
    assert_eq!(now, (CANARY.to_owned(), "admin".to_owned()));
}

#[tokio::test]
async fn a_set_whose_base_moved_is_refused_until_it_is_led_on() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;
    let web = format!("{BUNDLES}/web");
    world.merge(&web, json!({"spec": {"resources": {"cpu": "1"}}})).await.ok();
    let moved = act(&world, "apply", json!({})).await;
    assert_eq!((moved.code, causes(&moved)), (409, vec!["bundle/web spec.resources.cpu".to_owned()]));
    act(&world, "rebase", json!({})).await.ok();
    act(&world, "apply", json!({})).await.ok();
    let spec = world.get(&web).await.ok()["spec"].clone();
    assert_eq!((&spec["image"], &spec["resources"]["cpu"]), (&json!("registry.example/web:2"), &json!("1")));
}

#[tokio::test]
async fn what_both_have_changed_is_told_by_name_when_a_set_is_led_on() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;
    let web = format!("{BUNDLES}/web");
    world.merge(&web, image("registry.example/web:3")).await.ok();
    let answer = act(&world, "rebase", json!({})).await;
    assert_eq!((answer.code, causes(&answer)), (409, vec!["bundle/web spec.image".to_owned()]));
    act(&world, "rebase", json!({"prefer": "ours"})).await.ok();
    act(&world, "apply", json!({})).await.ok();
    assert_eq!(world.get(&web).await.ok()["spec"]["image"], "registry.example/web:2");
}

#[tokio::test]
async fn of_many_who_add_at_once_nobody_loses_an_edit() {
    let world = World::new();
    set(&world).await;
    let edits = (0..20).map(|number| {
        let (world, name) = (&world, format!("c{number}"));
        async move {
            add(world, json!({"verb": "create", "kind": "ConfigMap", "name": name, "object": {}})).await;
        }
    });
    futures_util::future::join_all(edits).await;
    let staged = world.get(&format!("{SETS}/s")).await.ok();
    assert_eq!(staged["status"]["entries"].as_array().unwrap().len(), 20);
    let stale = json!({"kind": "ConfigMap", "verb": "delete", "name": "c0", "resourceVersion": "1"});
    assert_eq!(act(&world, "add", stale).await.failed().1, "Conflict");
}

#[tokio::test]
async fn a_set_that_is_dropped_takes_its_drafts_along() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "delete", "name": "web"})).await;
    world.delete(&format!("{SETS}/s")).await.ok();
    assert_eq!(act(&world, "apply", json!({})).await.code, 404);
    assert!(world.get(&format!("{BUNDLES}/web")).await.ok()["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn the_same_key_applies_a_set_once() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "delete", "name": "other"})).await;
    let path = format!("{SETS}/s/actions/apply");
    let once = world.ask(Method::POST, &path, &[("idempotency-key", "k")], "{}").await.ok();
    let twice = world.ask(Method::POST, &path, &[("idempotency-key", "k")], "{}").await.ok();
    assert_eq!(once["metadata"]["uid"], twice["metadata"]["uid"]);
}

#[tokio::test]
async fn a_set_takes_so_many_entries_and_bytes_and_says_so() {
    let long = json!({"kind": "ConfigMap", "data": {"a": "x".repeat(2 << 20)}});
    for (count, after) in [(500, json!({"kind": "ConfigMap"})), (1, long)] {
        let world = World::new();
        set(&world).await;
        add(&world, json!({"verb": "create", "kind": "ConfigMap", "name": "c0", "object": {}})).await;
        let fill = move |tx: &mut crate::store::Tx<'_>| {
            let mut set = tx.get::<ChangeSet>("default", "s")?.unwrap();
            let entries = &mut set.status.as_mut().unwrap().entries;
            entries[0].after = Some(after);
            let first = entries[0].clone();
            entries.extend((1..count).map(|number| Entry { name: format!("c{number}"), ..first.clone() }));
            tx.update_status(&set).map(drop)
        };
        world.store.write(&crate::store::house_keeping(), fill).await.unwrap();
        let more = json!({"verb": "create", "kind": "ConfigMap", "name": "more", "object": {}});
        let refused = act(&world, "add", more).await;
        assert_eq!((refused.code, causes(&refused)), (422, vec!["status.entries".to_owned()]));
        assert!(refused.failed().2.contains("takes 500 entries and 2097152 bytes"), "{}", refused.body);
        let staged = world.get(&format!("{SETS}/s")).await.ok();
        assert_eq!(staged["status"]["entries"].as_array().unwrap().len(), count);
    }
}

#[tokio::test]
async fn what_is_being_removed_meanwhile_is_neither_written_over_nor_led_on() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    add(&world, json!({"verb": "update", "name": "web", "object": image("registry.example/web:2")})).await;
    world.delete(&format!("{BUNDLES}/web")).await.ok();
    let moved = act(&world, "apply", json!({})).await;
    assert_eq!((moved.code, causes(&moved)), (409, vec!["bundle/web".to_owned()]));
    assert!(moved.failed().2.contains("bundle/web is being removed"), "{}", moved.body);
    let led = act(&world, "rebase", json!({})).await;
    assert_eq!((led.code, causes(&led)), (409, vec!["bundle/web".to_owned()]));
    assert_eq!(world.get(&format!("{BUNDLES}/web")).await.ok()["spec"]["image"], "registry.example/web:1");
}

#[tokio::test]
async fn a_name_that_is_taken_by_what_is_there_or_staged_is_given_to_no_bundle() {
    let world = World::new();
    two(&world).await;
    set(&world).await;
    let new = json!({"metadata": {"name": "new"}, "spec": {"image": "registry.example/new:1"}});
    let staged = add(&world, json!({"verb": "create", "name": "new", "object": new})).await;
    for taken in ["other", "new"] {
        let rename = json!({"kind": "Bundle", "verb": "rename", "name": "db", "to": taken});
        let refused = act(&world, "add", rename).await;
        assert_eq!(refused.failed().1, "AlreadyExists");
        assert!(refused.failed().2.contains(&format!("Bundle {taken} is there already")), "{}", refused.body);
    }
    assert_eq!(world.get(&format!("{SETS}/s")).await.ok()["status"], staged["status"]);
}

#[tokio::test]
async fn the_value_that_a_secret_has_already_is_no_edit() {
    let world = World::new();
    a_secret_and_who_takes_it(&world).await;
    set(&world).await;
    let same = json!({"stringData": {"password": "old"}});
    let told = add(&world, json!({"kind": "Secret", "verb": "update", "name": "db", "object": same})).await;
    assert!(told["status"]["entries"].is_null(), "{told}");
}

/// A database with data, as it is when it runs.
async fn with_data(world: &World, state: &'static str) -> Volume {
    let volumes = json!([{"name": "data", "mountPath": "/data", "size": "64Mi"}]);
    let db = json!({ "image": "registry.example/db:1", "volumes": volumes });
    world.post(BUNDLES, json!({ "metadata": { "name": "db" }, "spec": db })).await.created();
    volume(world, "db", state).await
}

async fn volume(world: &World, bundle: &str, state: &str) -> Volume {
    let volume = json!({"metadata": {"name": format!("{bundle}-data"), "namespace": "default", "finalizers": ["berth.dev/data"]},
                        "spec": {"bundle": bundle, "volume": "data"}, "status": {"state": state, "size": 67_108_864}});
    let volume: Volume = serde_json::from_value(volume).unwrap();
    world.store.write(&crate::store::house_keeping(), move |tx| tx.create(&volume)).await.unwrap()
}

async fn volumes(world: &World) -> Vec<Volume> {
    world.store.read(|tx| tx.list::<Volume>(None)).await.unwrap()
}

#[tokio::test]
async fn the_volumes_of_a_bundle_that_gets_another_name_go_over_with_all_that_goes_by_their_uid() {
    let world = World::new();
    let before = with_data(&world, "Ready").await;
    set(&world).await;
    add(&world, json!({"verb": "rename", "name": "db", "to": "pg"})).await;
    assert_eq!(plan(&world).await, ["rename pg from db", "rename pg-data from db-data", "restarts [\"pg\"]"]);
    assert_eq!(volumes(&world).await, std::slice::from_ref(&before), "a plan does nothing");
    let operation = act(&world, "apply", json!({})).await.ok();
    assert_eq!(operation["status"]["steps"][1]["message"], "volume/pg-data renamed from db-data");
    let [after] = volumes(&world).await.try_into().unwrap();
    assert_eq!((&after.metadata.uid, &after.status), (&before.metadata.uid, &before.status));
    assert_eq!((after.metadata.name.as_deref(), after.spec.bundle.as_str()), (Some("pg-data"), "pg"));
    assert_eq!(after.metadata.finalizers, before.metadata.finalizers);
}

#[tokio::test]
async fn volumes_stay_where_they_are_if_two_services_could_come_to_be_on_one_or_somebody_is_at_work_on_it() {
    let rename = |old: &str, new: &str| json!({"kind": "Bundle", "verb": "rename", "name": old, "to": new});
    let again = json!({"kind": "Bundle", "verb": "create", "name": "db", "object": image("registry.example/db:2")});
    for (state, taken, edits, said) in [
        ("Ready", false, vec![rename("db", "pg"), again], "two services could come to be on one"),
        ("Ready", true, vec![rename("db", "pg")], "would be named pg-data, as one of bundle pg is"),
        ("Growing", false, vec![rename("db", "pg")], "volume db-data is Growing; try again when it is Ready"),
    ] {
        let world = World::new();
        with_data(&world, state).await;
        if taken {
            volume(&world, "pg", "Ready").await;
        }
        let before = volumes(&world).await;
        set(&world).await;
        for edit in edits {
            add(&world, edit).await;
        }
        let answer = act(&world, "apply", json!({})).await;
        assert!(answer.code == 409 && answer.failed().2.contains(said), "{}", answer.body);
        assert_eq!(volumes(&world).await, before);
        assert!(world.get(&format!("{BUNDLES}/db")).await.ok()["metadata"]["deletionTimestamp"].is_null());
    }
}

#[tokio::test]
async fn a_locked_volume_goes_over_when_nobody_is_at_work_on_it_any_more_and_an_event_tells_so() {
    let world = World::new();
    let before = with_data(&world, "Locked").await;
    set(&world).await;
    add(&world, json!({"verb": "rename", "name": "db", "to": "pg"})).await;
    let unlock = "/apis/berth.dev/v1/namespaces/default/volumes/db-data/actions/unlock";
    let unlock = world.post(unlock, json!({})).await;
    let unlock = unlock.body["metadata"]["name"].as_str().unwrap().to_owned();
    let busy = act(&world, "apply", json!({})).await;
    let said = format!("operation {unlock} is at work on volume db-data; try again when it is done");
    assert!(busy.code == 409 && busy.failed().2.contains(&said), "{}", busy.body);
    assert_eq!(volumes(&world).await, std::slice::from_ref(&before));
    super::operations::ended(&world, &unlock, OperationState::Cancelled).await;
    act(&world, "apply", json!({})).await.ok();
    let [after] = volumes(&world).await.try_into().unwrap();
    assert_eq!((after.metadata.name.as_deref(), &after.status), (Some("pg-data"), &before.status));
    let events = world.get("/api/v1/namespaces/default/events").await.ok();
    let renamed = events["items"].as_array().unwrap().iter().find(|event| event["reason"] == "Renamed");
    let renamed = renamed.unwrap_or_else(|| panic!("nothing tells of the new name: {events}"));
    assert_eq!(renamed["involvedObject"]["name"], "pg-data");
    assert!(renamed["message"].as_str().unwrap().contains("it was db-data of bundle db"), "{renamed}");
}
