//! `berth install`: makes a Bundle of an image or a file and waits until it is ready.
//!
//! It creates first and looks afterwards: if a bundle of the name is there and wants the same,
//! nothing is changed and the command waits for it as if it had made it; if it wants something
//! else, that is a conflict, because to change a service is `update` or `apply`.

use std::collections::BTreeSet;
use std::path::Path;

use berth_model::resource::bundle::{BundleSpec, EnvVar, Port, Protocol, VolumeWish};
use berth_model::resource::{API_VERSION, Bundle};
use serde_json::{Value, json};

use super::apply::Applied;
use super::args::InstallArgs;
use super::failure::Failure;
use super::follow::Wish;
use super::settings::{MountFlag, ObjectFlag};
use super::views::BundleView;
use super::{Context, follow, manifest, settings};
use crate::resource::ResourceType;

pub(super) async fn run(context: &Context, args: InstallArgs) -> Result<(), Failure> {
    let wish = wish(context, args)?;
    let (applied, bundle) = create(context, wish).await?;
    let view = BundleView::of(&bundle);
    let what = format!("bundle/{}", view.name());
    if context.wait == Some(false) {
        context.outcome(&ResourceType::of::<Bundle>(), &bundle, &format!("{what} {}", applied.word()))?;
        return context.note(&format!("follow it with: berth status {} -w", view.name()));
    }
    let last = follow::ready(context, &Wish::of(&view, applied != Applied::Unchanged)).await?;
    let done = if applied == Applied::Unchanged { "unchanged" } else { "installed" };
    context.outcome(&ResourceType::of::<Bundle>(), &last, &summary(&last, done))
}

/// The bundle that is to be.
fn wish(context: &Context, args: InstallArgs) -> Result<Value, Failure> {
    let mut bundle = match &args.file {
        Some(file) => single(file)?,
        None => json!({"apiVersion": API_VERSION, "kind": "Bundle", "metadata": {}, "spec": {}}),
    };
    let metadata = &mut bundle["metadata"];
    if metadata["namespace"].is_null() {
        metadata["namespace"] = context.namespace.clone().into();
    }
    let default = args.image.as_deref().map(name_of).filter(|_| metadata["name"].is_null());
    if let Some(name) = args.name.clone().or(default) {
        metadata["name"] = name.into();
    }
    change(&mut bundle["spec"], args)?;
    Ok(bundle)
}

fn single(file: &Path) -> Result<Value, Failure> {
    let mut objects = manifest::read(file)?;
    match objects.len() {
        1 if objects[0]["kind"] == "Bundle" => Ok(objects.remove(0)),
        _ => Err(Failure::Usage(format!("{} must hold one Bundle; for anything else use berth apply", file.display()))),
    }
}

/// Puts the flags into the spec.
fn change(spec: &mut Value, args: InstallArgs) -> Result<(), Failure> {
    if let Some(image) = args.image {
        spec["image"] = image.into();
    }
    let ports = args.port.into_iter().map(|flag| flag.0).chain(args.publish.into_iter().map(|flag| flag.0));
    extend(spec, "ports", ports.map(port_value).collect());
    extend(spec, "env", args.env.into_iter().map(|flag| env_value(flag.0)).collect());
    extend(spec, "volumes", args.volume.into_iter().map(|flag| volume_value(&flag.0)).collect());
    extend(spec, "envFrom", args.env_from.iter().map(ObjectFlag::env_from).collect());
    extend(spec, "volumeMounts", args.mount.iter().map(MountFlag::volume_mount).collect());
    for (field, value) in [("memory", args.memory), ("cpu", args.cpu)] {
        if let Some(value) = value {
            spec["resources"][field] = value.into();
        }
    }
    if let Some(pids) = args.pids {
        spec["resources"]["pids"] = pids.into();
    }
    settings::set(spec, &args.set).map_err(Failure::Usage)
}

fn extend(spec: &mut Value, field: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match spec[field].as_array_mut() {
        Some(list) => list.extend(more),
        None => spec[field] = more.into(),
    }
}

fn port_value(port: Port) -> Value {
    let mut value = json!({"name": port.name, "containerPort": port.container_port, "protocol": port.protocol,
                           "expose": port.expose});
    if let Some(host) = port.host_port {
        value["hostPort"] = host.into();
    }
    value
}

fn volume_value(volume: &VolumeWish) -> Value {
    json!({"name": volume.name, "mountPath": volume.mount_path, "size": volume.size})
}

fn env_value(env: EnvVar) -> Value {
    json!({"name": env.name, "value": env.value})
}

/// The last part of an image's repository as a DNS label.
fn name_of(image: &str) -> String {
    let repository = image.split('@').next().unwrap_or(image);
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let bare = last.split(':').next().unwrap_or(last).to_lowercase();
    let label = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = bare.chars().map(label).take(63).collect();
    name.trim_matches('-').to_owned()
}

async fn create(context: &Context, wish: Value) -> Result<(Applied, Value), Failure> {
    let kind = ResourceType::of::<Bundle>();
    let text = |field: &str| wish["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    match context.client.create_dynamic(&kind, &namespace, wish.clone(), context.new_key()).await {
        Ok(created) => Ok((Applied::Created, created)),
        Err(error) if error.is_already_exists() => {
            let there = context.client.get_dynamic(&kind, &namespace, &name).await?;
            let fields = differences(&there["spec"], &wish["spec"]);
            match fields.is_empty() {
                true => Ok((Applied::Unchanged, there)),
                false => Err(differs(&name, &fields, &wish)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn differs(name: &str, fields: &BTreeSet<String>, wish: &Value) -> Failure {
    let all: Vec<&str> = fields.iter().map(String::as_str).collect();
    let instead = match (all.as_slice(), wish["spec"]["image"].as_str()) {
        (["spec.image"], Some(image)) => format!("berth update {name} --image {image}"),
        (["spec.start"], _) => format!("berth start {name}"),
        _ => format!("change it with berth apply, take another --name, or first berth uninstall {name}"),
    };
    Failure::Differs { what: format!("bundle/{name}"), fields: all.join(", "), instead }
}

/// Fields of two specs that are not the same once defaults are filled in.
fn differences(there: &Value, wanted: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    compare("spec", &complete(there), &complete(wanted), &mut found);
    found
}

/// The spec with its defaults, and with whatever this version does not know.
fn complete(spec: &Value) -> Value {
    let typed = serde_json::from_value::<BundleSpec>(spec.clone()).ok();
    match typed.and_then(|typed| serde_json::to_value(typed).ok()) {
        Some(mut whole) => {
            merge(&mut whole, spec);
            whole
        }
        None => spec.clone(),
    }
}

/// Adds what `whole` does not have.
fn merge(whole: &mut Value, more: &Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (field, value) in more.iter().filter(|(_, value)| !value.is_null()) {
                merge(whole.entry(field).or_insert_with(|| value.clone()), value);
            }
        }
        (Value::Array(whole), Value::Array(more)) => {
            whole.iter_mut().zip(more).for_each(|(whole, more)| merge(whole, more));
        }
        _ => {}
    }
}

fn compare(path: &str, left: &Value, right: &Value, found: &mut BTreeSet<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let fields: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for field in fields {
                let value = |map: &serde_json::Map<String, Value>| map.get(field).cloned().unwrap_or_default();
                compare(&format!("{path}.{field}"), &value(left), &value(right), found);
            }
        }
        (left, right) if is_nothing(left) && is_nothing(right) => {}
        (left, right) if left == right => {}
        _ => drop(found.insert(path.to_owned())),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A sentence, and where to reach it.
pub(super) fn summary(bundle: &Value, done: &str) -> String {
    let view = BundleView::of(bundle);
    let mut lines = vec![format!("bundle/{} {done}{}", view.name(), state(&view))];
    lines.extend(view.status.address.iter().map(|address| format!("  address  {address}")));
    lines.extend(view.spec.ports.iter().map(|port| format!("  port     {}", port_line(port))));
    lines.join("\n")
}

fn state(view: &BundleView) -> String {
    match view.condition("Ready") {
        Some(ready) if ready.status == "True" => ", ready".to_owned(),
        Some(ready) => format!(", not started: {}", ready.reason),
        None => String::new(),
    }
}

/// `http: 8080 of this machine leads to 80/TCP`.
pub(super) fn port_line(port: &Port) -> String {
    let protocol = if port.protocol == Protocol::Udp { "UDP" } else { "TCP" };
    let inner = format!("{}/{protocol}", port.container_port);
    match port.published() {
        Some(host) => format!("{}: {host} of the machine leads to {inner}", port.name),
        None => format!("{}: {inner} of the address, from inside the machine", port.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_comes_from_the_image() {
        let names = [
            ("docker.io/library/nginx:1.27", "nginx"),
            ("127.0.0.1:5000/web", "web"),
            ("registry:5000/team/My_App:1@sha256:0123", "my-app"),
            ("nginx", "nginx"),
            ("r/web.site:2", "web-site"),
        ];
        for (image, name) in names {
            assert_eq!(name_of(image), name, "{image}");
        }
    }

    #[test]
    fn defaults_make_no_difference() {
        let there = json!({"image": "r/web:1", "start": true, "resources": {}, "restart": "onFailure", "security": {},
                           "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP", "expose": "none"}]});
        let wanted = json!({"image": "r/web:1", "ports": [{"name": "http", "containerPort": 80}]});
        assert_eq!(differences(&there, &wanted), BTreeSet::new());
    }

    #[test]
    fn a_difference_is_named_by_field_even_if_this_version_does_not_know_it() {
        let there = json!({"image": "r/web:1", "resources": {"memory": "64Mi"}, "later": 1});
        let wanted = json!({"image": "r/web:2", "resources": {"memory": "128Mi"}});
        let fields: Vec<String> = differences(&there, &wanted).into_iter().collect();
        assert_eq!(fields, ["spec.image", "spec.later", "spec.resources.memory"]);
    }

    #[test]
    fn the_summary_says_where_to_reach_it() {
        let bundle = json!({
            "metadata": {"name": "web"},
            "spec": {"image": "r/web:1", "ports": [
                {"name": "http", "containerPort": 80, "expose": "lan", "hostPort": 8080},
                {"name": "admin", "containerPort": 9000}]},
            "status": {"address": "10.213.1.2", "conditions": [
                {"type": "Ready", "status": "True", "reason": "StartCompleted", "message": "",
                 "lastTransitionTime": "2026-11-21T00:00:00Z"}]}
        });
        assert_eq!(
            summary(&bundle, "installed"),
            "bundle/web installed, ready\n  address  10.213.1.2\n  \
             port     http: 8080 of the machine leads to 80/TCP\n  \
             port     admin: 9000/TCP of the address, from inside the machine"
        );
    }
}
