//! Server-side apply, as kubectl and others send it.

use super::*;

const WEB: &str = "/apis/berth.dev/v1/namespaces/default/bundles/web";
const SETTINGS: &str = "/api/v1/namespaces/default/configmaps/settings";

async fn send(world: &World, path: &str, query: &str, configuration: &str) -> Answer {
    let media = [("content-type", "application/apply-patch+yaml")];
    world.ask(Method::PATCH, &format!("{path}?{query}"), &media, configuration.to_owned()).await
}

async fn apply(world: &World, path: &str, manager: &str, configuration: Value) -> Answer {
    send(world, path, &format!("fieldManager={manager}"), &configuration.to_string()).await
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "berth.dev/v1", "kind": "Bundle", "metadata": {"name": "web"}, "spec": spec})
}

fn data(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
}

/// Manager, operation and fields of each entry.
fn owners(object: &Value) -> Vec<(&str, &str, &Value)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries
        .map(|one| (one["manager"].as_str().unwrap(), one["operation"].as_str().unwrap(), &one["fieldsV1"]))
        .collect()
}

#[tokio::test]
async fn what_is_not_there_is_made_and_its_manager_owns_what_he_said_and_no_defaults() {
    let world = World::new();
    let ports = json!([{"name": "http", "containerPort": 80}]);
    let wish = web(json!({"image": "registry.example/web:1", "ports": ports}));
    let made = apply(&world, WEB, "me", wish.clone()).await.created();
    let fields = json!({"f:spec": {
        "f:image": {},
        "f:ports": {"k:{\"name\":\"http\"}": {".": {}, "f:name": {}, "f:containerPort": {}}},
    }});
    assert_eq!(owners(&made), [("me", "Apply", &fields)]);
    let again = apply(&world, WEB, "me", wish).await.ok();
    assert_eq!(again, made, "what is applied twice changes nothing");
}

#[tokio::test]
async fn what_others_own_is_refused_by_field_and_owner_or_taken_over() {
    let world = World::new();
    world.config_map("settings", json!({"colour": "green", "size": "1"})).await;
    world.merge(&format!("{SETTINGS}?fieldManager=kubectl-edit"), json!({"data": {"colour": "blue"}})).await.ok();
    let wish = data(json!({"colour": "red"}));
    let refused = apply(&world, SETTINGS, "me", wish.clone()).await;
    let (code, reason, message) = refused.failed();
    assert_eq!((code, reason), (409, "Conflict"));
    let first = "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1 at 2026-03-01T12:00:00Z: \
                 .data.colour";
    assert_eq!(message.lines().next().unwrap(), first);
    let cause = json!({
        "reason": "FieldManagerConflict", "field": ".data.colour",
        "message": "conflict with \"kubectl-edit\" using v1 at 2026-03-01T12:00:00Z",
    });
    assert_eq!(refused.body["details"]["causes"], json!([cause]));
    assert_eq!(world.get(SETTINGS).await.ok()["data"]["colour"], "blue");
    let forced = send(&world, SETTINGS, "fieldManager=me&force=true", &wish.to_string()).await.ok();
    assert_eq!(forced["data"], json!({"colour": "red", "size": "1"}));
    assert!(!owners(&forced).iter().any(|(manager, ..)| *manager == "kubectl-edit"), "{forced}");
    let same = apply(&world, SETTINGS, "another", wish).await.ok();
    assert_eq!(owners(&same).len(), 3, "what both want both own: {same}");
}

#[tokio::test]
async fn what_is_left_out_goes_unless_another_owns_it() {
    let world = World::new();
    apply(&world, SETTINGS, "me", data(json!({"a": "1", "b": "2", "c": "3"}))).await.created();
    apply(&world, SETTINGS, "another", data(json!({"b": "2"}))).await.ok();
    let left = apply(&world, SETTINGS, "me", data(json!({"c": "3"}))).await.ok();
    assert_eq!(left["data"], json!({"b": "2", "c": "3"}));
    world.merge(&format!("{SETTINGS}?fieldManager=edit"), json!({"data": {"c": "4"}})).await.ok();
    let left = apply(&world, SETTINGS, "me", data(json!({}))).await.ok();
    assert_eq!(left["data"], json!({"b": "2", "c": "4"}));
}

#[tokio::test]
async fn a_configuration_may_be_yaml_and_tried_without_keeping_it() {
    let world = World::new();
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  colour: green\n";
    let tried = send(&world, SETTINGS, "fieldManager=me&dryRun=All", yaml).await.created();
    assert_eq!(tried["data"], json!({"colour": "green"}));
    assert_eq!(world.get(SETTINGS).await.code, 404);
    send(&world, SETTINGS, "fieldManager=me", yaml).await.created();
    let broken = send(&world, SETTINGS, "fieldManager=me", "data: [").await;
    assert!(broken.failed().0 == 400 && broken.failed().2.contains("YAML"), "{}", broken.body);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_applied_is_refused_with_what_to_do_and_changes_nothing() {
    let world = World::new();
    let anonymous = send(&world, SETTINGS, "", &data(json!({})).to_string()).await;
    assert_eq!(
        (anonymous.failed().0, anonymous.body["details"]["causes"][0]["field"].clone()),
        (422, "fieldManager".into())
    );
    let mut record = data(json!({}));
    record["metadata"]["managedFields"] = json!([{"manager": "me"}]);
    assert!(apply(&world, SETTINGS, "me", record).await.failed().2.contains("managedFields must be nil"));
    let misspelt = apply(&world, WEB, "me", web(json!({"imgae": "a", "image": "registry.example/a:1"}))).await;
    assert_eq!(
        (misspelt.failed().0, misspelt.body["details"]["causes"][0]["field"].clone()),
        (400, "spec.imgae".into())
    );
    let twice = web(json!({"image": "registry.example/a:1", "env": [{"name": "A"}, {"name": "A"}]}));
    assert_eq!(apply(&world, WEB, "me", twice).await.failed().0, 422);
    let forced = world.merge(&format!("{SETTINGS}?force=true"), json!({})).await;
    assert_eq!((forced.failed().0, forced.body["details"]["causes"][0]["field"].clone()), (422, "force".into()));
    assert_eq!((world.get(SETTINGS).await.code, world.get(WEB).await.code), (404, 404));
    let operation = "/apis/berth.dev/v1/namespaces/default/operations/none";
    let body = json!({"apiVersion": "berth.dev/v1", "kind": "Operation", "metadata": {"name": "none"}});
    assert_eq!(apply(&world, operation, "me", body).await.code, 404);
}

#[tokio::test]
async fn values_of_a_secret_are_applied_pruned_and_kept_sealed() {
    let world = World::new();
    let path = format!("{SECRETS}/db");
    let wish =
        |values: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": values});
    let made = apply(&world, &path, "me", wish(json!({"user": "berth", "password": secrets::CANARY}))).await.created();
    assert!(!secrets::shows(&made), "{made}");
    let again = apply(&world, &path, "me", wish(json!({"user": "berth", "password": secrets::CANARY}))).await.ok();
    assert_eq!(again, made);
    let left = apply(&world, &path, "me", wish(json!({"user": "berth"}))).await.ok();
    let keys: Vec<&String> = left["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["user"]);
    assert_eq!(owners(&left), [("me", "Apply", &json!({"f:data": {"f:user": {}}}))]);
}

#[tokio::test]
async fn who_begins_to_apply_writes_what_he_wrote_otherwise_under_his_new_name() {
    let world = World::new();
    world.config_map("settings", json!({"colour": "green", "size": "1"})).await;
    // What kubectl sends when it finds fields that its client-side apply has written.
    let mine = json!([{
        "manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:colour": {}, "f:size": {}}},
    }]);
    let patch = json!([{"op": "replace", "path": "/metadata/managedFields", "value": mine}]);
    let media = [("content-type", "application/json-patch+json")];
    let moved = world.ask(Method::PATCH, SETTINGS, &media, patch.to_string()).await.ok();
    assert_eq!(moved["metadata"]["managedFields"], mine);
    let left = apply(&world, SETTINGS, "kubectl", data(json!({"colour": "green"}))).await.ok();
    assert_eq!(left["data"], json!({"colour": "green"}));
}

#[tokio::test]
async fn lists_that_are_merged_are_published_with_what_tells_their_items_apart() {
    let world = World::new();
    let schemas = world.get("/openapi/v3/apis/berth.dev/v1").await.ok()["components"]["schemas"].clone();
    let ports = &schemas["BundleSpec"]["properties"]["ports"];
    assert_eq!(
        (&ports["x-kubernetes-list-type"], &ports["x-kubernetes-list-map-keys"]),
        (&json!("map"), &json!(["name"]))
    );
    assert_eq!(schemas["SecurityContext"]["properties"]["devices"]["x-kubernetes-list-type"], "set");
    let told = schemas.to_string().matches("x-kubernetes-list-type").count();
    let known = berth_model::kinds::BUNDLE.lists().rows().count();
    assert!(told >= known, "{told} of {known} are told of");
}
