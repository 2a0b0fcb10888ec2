//! Bundles and volumes in Kubernetes' words, for clients that look for these: Pod, Service, PersistentVolumeClaim and
//! StatefulSet.
//!
//! ```text
//! Bundle ──┬─ running ────> Pod           one container, named like the bundle
//!          ├─ with ports ─> Service       the bundle's address; NodePort if one is published
//!          └──────────────> StatefulSet   one replica or none
//! Volume ─────────────────> PersistentVolumeClaim
//! ```
//!
//! A view has namespace, name, uid and version of what it is a view of: what is told about the one (Events) is found for
//! the other. Values of variables are not shown.

use serde_json::{Map, Value, json};

use crate::condition::ConditionType;
use crate::kinds::{BUNDLE, Registration, VOLUME};
use crate::machine::NODE;
use crate::quantity;
use crate::resource::bundle::{BundleSpec, BundleStatus, Phase, Port, Protocol, RestartPolicy, Termination};
use crate::resource::bundle::{DEFAULT_CPU, DEFAULT_MEMORY};
use crate::resource::volume::{VolumeState, VolumeStatus, volume_name};
use crate::resource::{Bundle, Volume};

/// On views of bundles: whose they are, which is what selectors of Services and StatefulSets look for.
pub const BUNDLE_LABEL: &str = "berth.dev/bundle";

/// The Pod of a bundle that has a unit.
pub fn pod(bundle: Value) -> Option<Value> {
    let bundle: Bundle = serde_json::from_value(bundle).ok()?;
    let status = bundle.status.as_ref().filter(|status| is_up(status))?;
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(&bundle, true),
        "spec": pod_spec(&bundle),
        "status": pod_status(&bundle, status),
    }))
}

/// The Service of a bundle that has ports.
pub fn service(bundle: Value) -> Option<Value> {
    let bundle: Bundle = serde_json::from_value(bundle).ok()?;
    let ports = &bundle.spec.ports;
    if ports.is_empty() {
        return None;
    }
    let address = bundle.status.as_ref().and_then(|status| status.address.clone());
    let published = ports.iter().any(|port| port.published().is_some());
    let mut spec = json!({
        "type": if published { "NodePort" } else { "ClusterIP" },
        "selector": selector(&bundle),
        "ports": ports.iter().map(service_port).collect::<Vec<_>>(),
        "sessionAffinity": "None",
    });
    // Until it is installed it has none.
    spec["clusterIP"] = address.clone().unwrap_or_else(|| "None".to_owned()).into();
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    Some(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(&bundle, true),
        "spec": spec,
        "status": { "loadBalancer": {} },
    }))
}

/// The StatefulSet of a bundle: rolled out once the revision that is wanted serves.
pub fn stateful_set(bundle: Value) -> Option<Value> {
    let bundle: Bundle = serde_json::from_value(bundle).ok()?;
    let status = bundle.status.clone().unwrap_or_default();
    let (wanted, ready) = (u8::from(bundle.spec.start), u8::from(status.is_ready() && is_up(&status)));
    let own = name(&bundle.metadata);
    let current = format!("{own}-r{}", status.revision.unwrap_or_default());
    let next = if status.phase == Phase::Progressing { format!("{own}-next") } else { current.clone() };
    let updated = if next == current { ready } else { 0 };
    Some(json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(&bundle, false),
        "spec": {
            "replicas": wanted,
            "serviceName": own,
            "selector": { "matchLabels": selector(&bundle) },
            "template": { "metadata": { "labels": labels(&bundle, true) }, "spec": pod_spec(&bundle) },
            "updateStrategy": { "type": "RollingUpdate" },
            "podManagementPolicy": "OrderedReady",
        },
        "status": {
            "observedGeneration": status.observed_generation,
            "replicas": u8::from(is_up(&status)),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": ready,
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": next,
        },
    }))
}

/// The claim that a volume answers.
pub fn persistent_volume_claim(volume: Value) -> Option<Value> {
    let volume: Volume = serde_json::from_value(volume).ok()?;
    let status = volume.status.clone().unwrap_or_default();
    let size = quantity::show_bytes(status.size);
    let wanted = quantity::show_bytes(status.target.unwrap_or(status.size));
    let owner = json!([owner(&VOLUME, &volume.metadata)]);
    let mut metadata = json!({ "labels": { BUNDLE_LABEL: volume.spec.bundle }, "ownerReferences": owner });
    identity(&mut metadata, &volume.metadata);
    let mut shown = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": wanted } },
            "volumeMode": "Filesystem",
            "volumeName": volume.metadata.uid,
        },
        "status": { "phase": claim_phase(&status) },
    });
    if status.state != VolumeState::Creating {
        shown["status"]["accessModes"] = json!(["ReadWriteOnce"]);
        shown["status"]["capacity"] = json!({ "storage": size });
    }
    Some(shown)
}

fn claim_phase(status: &VolumeStatus) -> &'static str {
    match status.state {
        VolumeState::Creating => "Pending",
        VolumeState::Ready | VolumeState::Growing | VolumeState::Locked => "Bound",
        VolumeState::Damaged | VolumeState::Erasing => "Lost",
    }
}

/// Port, the machine's port that leads to it, and protocol, as `80:8080/TCP,53/UDP`.
pub(crate) fn ports_in_words(service: &Value) -> String {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let word = |port: &Value| {
        let published = port.get("nodePort").map(|number| format!(":{number}")).unwrap_or_default();
        format!("{}{published}/{}", port["port"], port["protocol"].as_str().unwrap_or_default())
    };
    ports.into_iter().flatten().map(word).collect::<Vec<_>>().join(",")
}

fn is_up(status: &BundleStatus) -> bool {
    status.unit.is_some() && !matches!(status.phase, Phase::Stopped | Phase::Terminating)
}

type Condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
type Metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn name(of: &Metadata) -> &str {
    of.name.as_deref().unwrap_or_default()
}

/// Namespace, name, uid and version are those of the object that is shown.
fn identity(shown: &mut Value, of: &Metadata) {
    let creation = of.creation_timestamp.as_ref().and_then(|time| serde_json::to_value(time).ok());
    shown["namespace"] = of.namespace.clone().into();
    shown["name"] = of.name.clone().into();
    shown["uid"] = of.uid.clone().into();
    shown["resourceVersion"] = of.resource_version.clone().into();
    shown["creationTimestamp"] = creation.into();
}

fn metadata(bundle: &Bundle, owned: bool) -> Value {
    let mut shown = json!({ "labels": labels(bundle, owned), "generation": bundle.metadata.generation });
    if owned {
        shown["ownerReferences"] = json!([owner(&BUNDLE, &bundle.metadata)]);
    }
    identity(&mut shown, &bundle.metadata);
    shown
}

fn owner(kind: &Registration, of: &Metadata) -> Value {
    json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "name": of.name, "uid": of.uid, "controller": true })
}

/// The bundle's own, and on what is selected whose it is.
fn labels(bundle: &Bundle, selected: bool) -> Value {
    let mut labels: Map<String, Value> =
        bundle.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if selected {
        labels.insert(BUNDLE_LABEL.to_owned(), name(&bundle.metadata).into());
    }
    labels.into()
}

fn selector(bundle: &Bundle) -> Value {
    json!({ BUNDLE_LABEL: name(&bundle.metadata) })
}

fn service_port(port: &Port) -> Value {
    let mut shown = json!({
        "name": port.name,
        "port": port.container_port,
        "targetPort": port.container_port,
        "protocol": protocol(port),
    });
    if let Some(published) = port.published() {
        shown["nodePort"] = published.into();
    }
    shown
}

fn protocol(port: &Port) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

fn pod_spec(bundle: &Bundle) -> Value {
    let (spec, own) = (&bundle.spec, name(&bundle.metadata));
    let image = bundle.status.as_ref().and_then(|status| status.image.clone());
    let limits = json!({
        "cpu": spec.resources.cpu.as_deref().unwrap_or(DEFAULT_CPU),
        "memory": spec.resources.memory.as_deref().unwrap_or(DEFAULT_MEMORY),
    });
    let mut container = json!({
        "name": own,
        "image": image.unwrap_or_else(|| spec.image.clone()),
        "ports": spec.ports.iter().map(container_port).collect::<Vec<_>>(),
        "resources": { "limits": limits },
        "volumeMounts": mounts(spec),
    });
    for (field, words) in [("command", &spec.command), ("args", &spec.args)] {
        if !words.is_empty() {
            container[field] = json!(words);
        }
    }
    let claim = |volume: &str| json!({ "claimName": volume_name(own, volume) });
    let volumes = spec.volumes.iter().map(|one| json!({ "name": one.name, "persistentVolumeClaim": claim(&one.name) }));
    json!({
        "nodeName": NODE,
        "containers": [container],
        "volumes": volumes.collect::<Vec<_>>(),
        "restartPolicy": restart_policy(spec.restart),
    })
}

fn container_port(port: &Port) -> Value {
    json!({ "name": port.name, "containerPort": port.container_port, "protocol": protocol(port) })
}

fn mounts(spec: &BundleSpec) -> Vec<Value> {
    spec.volumes.iter().map(|one| json!({ "name": one.name, "mountPath": one.mount_path })).collect()
}

fn restart_policy(policy: RestartPolicy) -> &'static str {
    match policy {
        RestartPolicy::OnFailure => "OnFailure",
        RestartPolicy::Always => "Always",
        RestartPolicy::Never => "Never",
    }
}

fn pod_status(bundle: &Bundle, status: &BundleStatus) -> Value {
    let ready = status.is_ready();
    let found = status.conditions.iter().find(|one| one.type_ == ConditionType::Ready.name());
    let condition = |kind: &str, holds: bool| json!({ "type": kind, "status": if holds { "True" } else { "False" } });
    let mut is_ready = condition("Ready", ready);
    if let Some(found) = found {
        is_ready["reason"] = found.reason.clone().into();
        is_ready["message"] = found.message.clone().into();
    }
    let phase = match status.phase {
        Phase::Failed => "Failed",
        _ if ready => "Running",
        _ => "Pending",
    };
    json!({
        "phase": phase,
        "podIP": status.address,
        "podIPs": status.address.iter().map(|address| json!({ "ip": address })).collect::<Vec<_>>(),
        "startTime": bundle.metadata.creation_timestamp,
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            is_ready,
        ],
        "containerStatuses": [container_status(bundle, status, found)],
    })
}

/// It is told to run since it serves.
fn container_status(bundle: &Bundle, status: &BundleStatus, condition: Option<&Condition>) -> Value {
    let (ready, image) = (status.is_ready(), status.image.clone().unwrap_or_default());
    let state = match condition {
        Some(condition) if ready => json!({ "running": { "startedAt": condition.last_transition_time } }),
        Some(condition) => json!({ "waiting": { "reason": condition.reason } }),
        None => json!({}),
    };
    let last = status.last_termination.as_ref().map_or(json!({}), |one| json!({ "terminated": terminated(one) }));
    json!({
        "name": name(&bundle.metadata),
        "image": image,
        "imageID": image,
        "ready": ready,
        "started": ready,
        "restartCount": status.restarts,
        "state": state,
        "lastState": last,
    })
}

/// A signal is told as shells tell it, where there is no exit code.
fn terminated(last: &Termination) -> Value {
    let by_signal = || last.signal.as_ref().map(|_| 137);
    json!({ "reason": last.reason, "exitCode": last.exit_code.or_else(by_signal).unwrap_or_default() })
}

#[cfg(test)]
mod tests;
