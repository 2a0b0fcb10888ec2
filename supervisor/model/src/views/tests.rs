use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

fn bundle(phase: &str, more: &Value) -> Value {
    let ready = if phase == "Running" { "True" } else { "False" };
    let mut status = json!({
        "observedGeneration": 3, "phase": phase, "revision": 2, "unit": "berth.team.web.r2.service", "address": "10.213.1.9",
        "image": "registry/web@sha256:00", "restarts": 4,
        "conditions": [{
            "type": "Ready", "status": ready, "reason": "CrashLooping", "message": "it ends again and again",
            "lastTransitionTime": "2026-03-01T12:00:00Z",
        }],
        "lastTermination": { "reason": "OOMKilled", "signal": "KILL" },
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        status[field] = value.clone();
    }
    json!({
        "apiVersion": "berth.dev/v1", "kind": "Bundle",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "u-1", "resourceVersion": "70", "generation": 3,
            "creationTimestamp": "2026-03-01T11:00:00Z", "labels": { "tier": "front" },
        },
        "spec": {
            "image": "registry/web:1", "start": phase != "Stopped",
            "env": [{ "name": "PASSWORD", "value": "not-for-everybody" }],
            "ports": [
                { "name": "http", "containerPort": 80, "expose": "lan", "hostPort": 8080 },
                { "name": "names", "containerPort": 53, "protocol": "UDP" },
            ],
            "volumes": [{ "name": "data", "mountPath": "/data", "size": "1Gi" }],
        },
        "status": status,
    })
}

/// As Kubernetes' own type reads it: nothing of it is lost, so nothing of it is misspelt.
fn read<T: DeserializeOwned + Serialize>(shown: &Value) -> T {
    let object: T = serde_json::from_value(shown.clone()).unwrap();
    let again = serde_json::to_value(&object).unwrap();
    let mut wanted = shown.clone();
    without_empty(&mut wanted);
    let mut found = again;
    without_empty(&mut found);
    assert_eq!(found, wanted);
    object
}

/// An absent field and an empty one mean the same.
fn without_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(without_empty);
            fields.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!({}));
        }
        Value::Array(items) => items.iter_mut().for_each(without_empty),
        _ => {}
    }
}

#[test]
fn a_running_bundle_is_a_pod_with_one_container_of_its_name() {
    let shown = pod(bundle("Running", &json!({}))).unwrap();
    let pod: Pod = read(&shown);
    let (spec, status) = (pod.spec.unwrap(), pod.status.unwrap());
    assert_eq!((spec.containers.len(), spec.containers[0].name.as_str()), (1, "web"));
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.213.1.9")));
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.ready && container.restart_count == 4);
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.reason.as_deref(), last.exit_code), (Some("OOMKilled"), 137));
    assert_eq!((pod.metadata.uid.as_deref(), pod.metadata.resource_version.as_deref()), (Some("u-1"), Some("70")));
    assert_eq!(
        pod.metadata.labels.unwrap().into_iter().collect::<Vec<_>>(),
        [("berth.dev/bundle".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned()),]
    );
    assert!(!shown.to_string().contains("not-for-everybody"), "values of variables are for who may read the bundle");
}

#[test]
fn a_pod_that_does_not_serve_says_why_and_one_that_is_not_there_is_none() {
    let shown = pod(bundle("Failed", &json!({}))).unwrap();
    let pod_of: Pod = read(&shown);
    let status = pod_of.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let waiting = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLooping"));
    assert_eq!(pod(bundle("Stopped", &json!({}))), None);
    assert_eq!(pod(bundle("Pending", &json!({ "unit": null }))), None);
}

#[test]
fn the_ports_of_a_bundle_are_a_service_at_its_address_also_when_it_is_stopped() {
    for phase in ["Running", "Stopped"] {
        let shown = service(bundle(phase, &json!({}))).unwrap();
        let spec = read::<Service>(&shown).spec.unwrap();
        assert_eq!((spec.type_.as_deref(), spec.cluster_ip.as_deref()), (Some("NodePort"), Some("10.213.1.9")));
        assert_eq!(ports_in_words(&shown), "80:8080/TCP,53/UDP");
    }
    let mut without = bundle("Running", &json!({}));
    without["spec"]["ports"] = json!([]);
    assert_eq!(service(without), None);
}

#[test]
fn a_bundle_is_rolled_out_when_what_is_wanted_serves() {
    let of = |phase: &str| read::<StatefulSet>(&stateful_set(bundle(phase, &json!({}))).unwrap());
    let status = of("Running").status.unwrap();
    assert_eq!((status.observed_generation, status.ready_replicas), (Some(3), Some(1)));
    assert_eq!(
        (status.current_revision.as_deref(), status.update_revision.as_deref()),
        (Some("web-r2"), Some("web-r2"))
    );
    let status = of("Progressing").status.unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    let stopped = of("Stopped");
    assert_eq!((stopped.spec.unwrap().replicas, stopped.status.unwrap().replicas), (Some(0), 0));
}

#[test]
fn a_volume_is_a_claim_that_is_bound_while_its_data_can_be_had() {
    let volume = |state: &str| {
        json!({
            "apiVersion": "berth.dev/v1", "kind": "Volume",
            "metadata": { "name": "web-data", "namespace": "team", "uid": "u-2" },
            "spec": { "bundle": "web", "volume": "data" },
            "status": { "state": state, "size": 1_u64 << 30 },
        })
    };
    let claim: PersistentVolumeClaim = read(&persistent_volume_claim(volume("Ready")).unwrap());
    let (spec, status) = (claim.spec.unwrap(), claim.status.unwrap());
    assert_eq!((spec.volume_name.as_deref(), status.phase.as_deref()), (Some("u-2"), Some("Bound")));
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");
    for (state, phase) in [("Creating", "Pending"), ("Locked", "Bound"), ("Damaged", "Lost"), ("Erasing", "Lost")] {
        assert_eq!(persistent_volume_claim(volume(state)).unwrap()["status"]["phase"], phase);
    }
}
