//! The registry as a client sees it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::field::Rule;

fn bundle(spec: Value) -> Value {
    json!({"apiVersion": "berth.dev/v1", "kind": "Bundle",
           "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

fn secret(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "s", "namespace": "default"}});
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

fn config(data: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "default"}, "data": data})
}

fn admitted(kind: &Registration, body: Value, request: Request<'_>) -> Value {
    kind.admit(body, &request).unwrap().object
}

fn refused(kind: &Registration, body: Value, request: Request<'_>) -> Vec<(String, Rule)> {
    let errors = kind.admit(body, &request).unwrap_err();
    errors.into_iter().map(|error| (error.field, error.rule)).collect()
}

#[test]
fn every_kind_has_as_many_cells_as_columns_even_for_an_empty_object() {
    for kind in KINDS {
        let cells = (kind.cells)(&json!({}), Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), kind.columns.len(), "{}", kind.kind);
    }
}

#[test]
fn no_two_kinds_answer_to_the_same_word() {
    for kind in KINDS {
        for word in [kind.plural, kind.singular].iter().chain(kind.short_names) {
            // What is used has the plural of who uses it, and gives way to it.
            let meant = match (kind.group, *word) {
                ("metrics.k8s.io", "nodes") => &NODE,
                ("metrics.k8s.io", "pods") => &POD,
                _ => *kind,
            };
            assert_eq!(by_word(word), Some(meant), "{word}");
        }
        assert_eq!(by_word(&kind.key()), Some(*kind));
    }
}

#[test]
fn a_kind_is_found_by_url_object_and_key() {
    assert_eq!(by_plural("berth.dev", "v1", "bundles"), Some(&BUNDLE));
    assert_eq!(by_plural("", "v1", "bundles"), None);
    assert_eq!(by_kind("v1", "ConfigMap"), Some(&CONFIG_MAP));
    assert_eq!(by_key("operations.berth.dev"), Some(&OPERATION));
    assert_eq!(by_word("CM"), Some(&CONFIG_MAP));
}

#[test]
fn a_registration_says_of_its_type_what_the_type_says_of_itself() {
    fn same<K: Kind>() {
        let kind = K::registration();
        assert_eq!((kind.group, kind.version, kind.kind), (K::GROUP, K::VERSION, K::KIND));
        assert_eq!(kind.plural, K::URL_PATH_SEGMENT);
        assert_eq!(kind.api_version(), K::API_VERSION);
    }
    same::<crate::resource::Namespace>();
    same::<k8s_openapi::api::core::v1::ConfigMap>();
    same::<k8s_openapi::api::core::v1::Secret>();
    same::<k8s_openapi::api::core::v1::Event>();
    same::<k8s_openapi::api::networking::v1::NetworkPolicy>();
    same::<k8s_openapi::api::authentication::v1::SelfSubjectReview>();
    same::<k8s_openapi::api::authentication::v1::TokenReview>();
    same::<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview>();
    same::<k8s_openapi::api::authorization::v1::SelfSubjectRulesReview>();
    same::<crate::resource::Bundle>();
    same::<crate::resource::Revision>();
    same::<crate::resource::Operation>();
    same::<crate::resource::Schedule>();
}

#[test]
fn a_verb_that_is_not_served_comes_with_advice() {
    let writes = [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];
    for kind in KINDS {
        let complete = writes.iter().all(|verb| kind.serves(*verb));
        assert!(complete || !kind.instead.is_empty(), "{}", kind.kind);
    }
}

#[test]
fn unknown_fields_are_dropped_and_named_by_their_path() {
    let body = bundle(json!({
        "image": "nginx", "imagee": "x",
        "ports": [{"name": "http", "containerPort": 80, "hots": 1}],
        "resources": {"gpu": 1},
    }));
    let admitted = BUNDLE.admit(body, &Request::Create).unwrap();
    assert_eq!(admitted.unknown, ["spec.imagee", "spec.ports[0].hots", "spec.resources.gpu"]);
    assert_eq!(admitted.object["spec"].get("imagee"), None);
}

#[test]
fn unknown_fields_of_built_in_kinds_are_named_too() {
    let mut body = config(json!({"k": "v"}));
    body["metadata"]["label"] = json!({});
    body["dta"] = json!({});
    let admitted = CONFIG_MAP.admit(body, &Request::Create).unwrap();
    assert_eq!(admitted.unknown, ["metadata.label", "dta"]);
}

#[test]
fn a_field_of_the_wrong_type_is_named_by_its_path() {
    let body = bundle(json!({"image": "nginx", "ports": [{"name": "http", "containerPort": "80"}]}));
    let errors = BUNDLE.admit(body, &Request::Create).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].field, "spec.ports[0].containerPort");
    assert!(errors[0].message.contains("expected u16"), "{}", errors[0].message);
}

#[test]
fn a_field_that_must_be_given_is_named() {
    assert_eq!(refused(&BUNDLE, bundle(json!({})), Request::Create), [("spec.image".into(), Rule::Required)]);
    let body = json!({"metadata": {"name": "web", "namespace": "default"}});
    assert_eq!(refused(&BUNDLE, body, Request::Create), [("spec".into(), Rule::Required)]);
}

#[test]
fn an_object_of_another_kind_is_refused() {
    let mut body = bundle(json!({"image": "nginx"}));
    body["kind"] = json!("Pod");
    let errors = BUNDLE.admit(body, &Request::Create).unwrap_err();
    assert!(errors[0].message.contains("kind is `Pod`, expected `Bundle`"), "{}", errors[0].message);
    assert!(CONFIG_MAP.admit(json!({"kind": "Pod"}), &Request::Create).is_err());
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    assert_eq!(refused(&BUNDLE, json!([]), Request::Create), [(String::new(), Rule::Invalid)]);
}

#[test]
fn names_are_checked_as_the_kind_needs_them() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    assert!(CONFIG_MAP.admit(named("a.b"), &Request::Create).is_ok());
    assert_eq!(refused(&CONFIG_MAP, named("a_b"), Request::Create), [("metadata.name".into(), Rule::Invalid)]);
    assert_eq!(refused(&CONFIG_MAP, named(""), Request::Create), [("metadata.name".into(), Rule::Required)]);
    let mut dotted = bundle(json!({"image": "nginx"}));
    dotted["metadata"]["name"] = json!("a.b");
    assert_eq!(refused(&BUNDLE, dotted, Request::Create), [("metadata.name".into(), Rule::Invalid)]);
}

#[test]
fn a_name_may_be_left_to_be_drawn() {
    let body = json!({"metadata": {"generateName": "web-", "namespace": "default"}});
    assert!(CONFIG_MAP.admit(body, &Request::Create).is_ok());
}

#[test]
fn a_namespace_is_given_where_there_is_one_and_nowhere_else() {
    let body = json!({"metadata": {"name": "c"}});
    assert_eq!(refused(&CONFIG_MAP, body, Request::Create), [("metadata.namespace".into(), Rule::Invalid)]);
    let body = json!({"metadata": {"name": "c", "namespace": "default"}});
    assert_eq!(refused(&NAMESPACE, body, Request::Create), [("metadata.namespace".into(), Rule::Forbidden)]);
}

#[test]
fn labels_annotations_finalizers_and_owners_are_checked() {
    let mut body = config(json!({}));
    body["metadata"]["labels"] = json!({"ok/key": "v", "bad key": "v", "k": "bad value"});
    body["metadata"]["annotations"] = json!({"-": "anything goes"});
    body["metadata"]["finalizers"] = json!(["berth.dev/x", "no good"]);
    body["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": ""}]);
    assert_eq!(
        refused(&CONFIG_MAP, body, Request::Create),
        [
            ("metadata.labels[bad key]".into(), Rule::Invalid),
            ("metadata.labels[k]".into(), Rule::Invalid),
            ("metadata.annotations[-]".into(), Rule::Invalid),
            ("metadata.finalizers[1]".into(), Rule::Invalid),
            ("metadata.ownerReferences[0].uid".into(), Rule::Required),
        ]
    );
}

#[test]
fn an_object_that_is_being_deleted_gets_no_new_finalizer() {
    let mut old = config(json!({}));
    old["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    old["metadata"]["finalizers"] = json!(["a.b/c"]);
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["a.b/c", "a.b/d"]);
    let errors = refused(&CONFIG_MAP, new, Request::Replace(&old));
    assert_eq!(errors, [("metadata.finalizers[1]".into(), Rule::Forbidden)]);
}

#[test]
fn an_update_cannot_rename() {
    let old = config(json!({}));
    let mut new = old.clone();
    new["metadata"]["name"] = json!("d");
    assert_eq!(refused(&CONFIG_MAP, new, Request::Replace(&old)), [("metadata.name".into(), Rule::Forbidden)]);
}

#[test]
fn status_is_never_taken_from_a_client() {
    let mut body = bundle(json!({"image": "nginx"}));
    body["status"] = json!({"phase": "Running"});
    assert_eq!(admitted(&BUNDLE, body.clone(), Request::Create).get("status"), None);
    let mut old = bundle(json!({"image": "nginx"}));
    old["status"] = json!({"phase": "Failed", "observedGeneration": 1, "restarts": 0});
    assert_eq!(admitted(&BUNDLE, body, Request::Replace(&old))["status"]["phase"], "Failed");
}

#[test]
fn defaults_are_filled_in() {
    assert_eq!(admitted(&BUNDLE, bundle(json!({"image": "nginx"})), Request::Create)["spec"]["start"], true);
    let namespace = json!({"metadata": {"name": "team"}});
    assert_eq!(admitted(&NAMESPACE, namespace, Request::Create)["status"]["phase"], "Active");
    assert_eq!(admitted(&SECRET, secret(json!({})), Request::Create)["type"], "Opaque");
}

#[test]
fn the_text_of_a_secret_becomes_bytes() {
    let body = secret(json!({"data": {"a": "AAEC"}, "stringData": {"b": "text"}}));
    let object = admitted(&SECRET, body, Request::Create);
    assert_eq!(object["data"], json!({"a": "AAEC", "b": "dGV4dA=="}));
    assert_eq!(object.get("stringData"), None);
}

#[test]
fn replacing_a_secret_keeps_the_keys_left_out_and_removes_those_set_to_null() {
    let old = secret(json!({"type": "Opaque", "data": {"kept": "AA==", "gone": "AA==", "changed": "AA=="}}));
    let body = secret(json!({"data": {"gone": null, "changed": "AQ=="}}));
    let object = admitted(&SECRET, body, Request::Replace(&old));
    assert_eq!(object["data"], json!({"changed": "AQ==", "kept": "AA=="}));
}

#[test]
fn a_patched_secret_lacks_what_the_patch_removed() {
    let old = secret(json!({"type": "Opaque", "data": {"kept": "AA==", "gone": "AA=="}}));
    let body = crate::patch::merge(&old, &json!({"data": {"gone": null}, "stringData": {"new": "x"}})).unwrap();
    let object = admitted(&SECRET, body, Request::Patch(&old));
    assert_eq!(object["data"], json!({"kept": "AA==", "new": "eA=="}));
}

#[test]
fn the_last_applied_annotation_of_a_secret_is_never_kept() {
    let mut body = secret(json!({"data": {"a": "AAEC"}}));
    body["metadata"]["annotations"] = json!({LAST_APPLIED: "{\"data\":...}", "mine": "1"});
    let object = admitted(&SECRET, body, Request::Create);
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "1"}));
}

#[test]
fn the_type_of_a_secret_and_what_is_immutable_never_change() {
    let old = secret(json!({"type": "Opaque", "data": {"a": "AA=="}}));
    let body = secret(json!({"type": "kubernetes.io/tls"}));
    assert_eq!(refused(&SECRET, body, Request::Replace(&old)), [("type".into(), Rule::Forbidden)]);
    let mut old = config(json!({"a": "1"}));
    old["immutable"] = json!(true);
    let mut new = old.clone();
    new["data"]["a"] = json!("2");
    assert_eq!(refused(&CONFIG_MAP, new, Request::Replace(&old)), [("data".into(), Rule::Forbidden)]);
    let new = config(json!({"a": "1"}));
    assert_eq!(refused(&CONFIG_MAP, new, Request::Replace(&old)), [("immutable".into(), Rule::Forbidden)]);
}

#[test]
fn keys_and_size_of_data_are_checked() {
    let mut body = config(json!({"good.key_-1": "v", "bad/key": "v"}));
    body["binaryData"] = json!({"good.key_-1": "AA=="});
    assert_eq!(
        refused(&CONFIG_MAP, body, Request::Create),
        [("data[bad/key]".into(), Rule::Invalid), ("binaryData[good.key_-1]".into(), Rule::Duplicate)]
    );
    let body = config(json!({"big": "x".repeat(1024 * 1024 + 1)}));
    assert_eq!(refused(&CONFIG_MAP, body, Request::Create), [("data".into(), Rule::TooLong)]);
}

#[test]
fn the_spec_of_an_operation_never_changes_but_its_labels_may() {
    let spec = |kind: &str| {
        json!({"kind": kind, "target": {"kind": "Bundle", "namespace": "default", "name": "web"},
               "actor": {"identity": "owner", "source": "cli"}})
    };
    let operation = |kind| json!({"metadata": {"name": "o", "namespace": "default"}, "spec": spec(kind)});
    let old = admitted(&OPERATION, operation("Start"), Request::Create);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(OPERATION.admit(labelled, &Request::Replace(&old)).is_ok());
    let errors = refused(&OPERATION, operation("Stop"), Request::Replace(&old));
    assert_eq!(errors, [("spec".into(), Rule::Forbidden)]);
}

#[test]
fn an_event_is_about_an_object_of_its_own_namespace() {
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "type": "Bad",
                       "involvedObject": {"name": "web", "namespace": "other"}});
    assert_eq!(
        refused(&EVENT, event, Request::Create),
        [("involvedObject.namespace".into(), Rule::Invalid), ("type".into(), Rule::Unsupported)]
    );
}

#[test]
fn the_row_of_a_bundle_says_how_it_fares() {
    let mut object = bundle(json!({"image": "nginx:1"}));
    object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:00Z");
    object["status"] = json!({
        "phase": "Failed", "restarts": 4, "address": "10.213.0.2", "unit": "berth.default.web.r1.service",
        "conditions": [{"type": "Ready", "status": "False", "reason": "CrashLooping"}],
    });
    let cells = (BUNDLE.cells)(&object, Timestamp::from_second(60).unwrap());
    let expected = json!([
        "web",
        "Failed",
        "False",
        4,
        "10.213.0.2",
        "60s",
        "CrashLooping",
        "berth.default.web.r1.service",
        "nginx:1"
    ]);
    assert_eq!(Value::from(cells), expected);
}

#[test]
fn the_row_of_an_operation_names_the_step_it_is_at() {
    let object = json!({
        "metadata": {"name": "op-1"},
        "spec": {"kind": "Stop", "target": {"kind": "Bundle", "name": "web"}, "actor": {"identity": "owner"}},
        "status": {"state": "Running", "steps": [
            {"name": "StopUnit", "state": "Succeeded"}, {"name": "RemoveFiles", "state": "Running"}]},
    });
    let cells = (OPERATION.cells)(&object, Timestamp::UNIX_EPOCH);
    assert_eq!(cells[1..5], [json!("Stop"), json!("bundle/web"), json!("Running"), json!("2/2 RemoveFiles")]);
}

#[test]
fn the_row_of_an_event_says_when_what_and_to_whom() {
    let object = json!({
        "involvedObject": {"kind": "Bundle", "name": "web"}, "type": "Warning", "reason": "StartFailed",
        "message": "exit code 1", "count": 3, "lastTimestamp": "1970-01-01T00:00:00Z",
    });
    let cells = (EVENT.cells)(&object, Timestamp::from_second(5).unwrap());
    assert_eq!(
        cells[..6],
        [json!("5s"), json!("Warning"), json!("StartFailed"), json!("bundle/web"), json!("exit code 1"), json!(3)]
    );
}

#[test]
fn a_schedule_is_shown_with_when_it_runs_and_how_it_went() {
    let now: Timestamp = "2026-05-02T12:00:00Z".parse().unwrap();
    let shown = |spec: Value, status: Value| {
        let object = json!({"metadata": {"name": "s", "creationTimestamp": "2026-05-02T00:00:00Z"},
                            "spec": spec, "status": status});
        let cells = (SCHEDULE.cells)(&object, now);
        cells.iter().map(|cell| cell.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("|")
    };
    let cron =
        json!({"cron": "0 3 * * *", "timezone": "Europe/Berlin", "action": {"kind": "restart", "bundle": "web"}});
    let status = json!({"nextRun": "2026-05-03T01:00:00Z", "lastRun": "2026-05-02T11:30:00Z",
                        "lastOperation": "op", "lastResult": "Failed"});
    assert_eq!(shown(cron, status), "s|0 3 * * * Europe/Berlin|restart web|in 13h|30m ago|Failed|12h|op|");
    let interval = json!({"interval": "6h", "suspend": true, "action": {"kind": "cleanup"}});
    assert_eq!(shown(interval, json!({})), "s|every 6h|cleanup|suspended|never||12h||");
}
