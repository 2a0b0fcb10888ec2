//! Rules a bundle must keep beyond its shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::volumes::MIN_VOLUME;
use super::{Bundle, BundleSpec, EnvVar, Port, Resources, devices, health, projection, security, volumes};
use crate::field::FieldError;
use crate::id::{self, ImageReference};
use crate::quantity;
use crate::reference::Template;

/// Least memory a container starts with, in bytes.
const MIN_MEMORY: u64 = 4 << 20;

/// Checks a bundle; of the old one, only the sizes that its volumes have matter.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match Bundle::deserialize(new) {
        Ok(bundle) => {
            let mut errors = spec(&bundle.spec);
            let before = old.and_then(|old| Bundle::deserialize(old).ok()).and_then(|old| old.status);
            let name = bundle.metadata.name.as_deref().unwrap_or_default();
            errors.extend(volumes::shrunk(name, &bundle.spec.volumes, &before.unwrap_or_default().volumes));
            errors.extend(dependencies(bundle.metadata.name.as_deref().unwrap_or_default(), &bundle.spec.depends_on));
            errors
        }
        Err(error) => vec![FieldError::invalid("", error.to_string())],
    }
}

fn spec(spec: &BundleSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(image(&spec.image));
    errors.extend(env_rules(&spec.env));
    errors.extend(projection::validate_env_from(&spec.env_from));
    errors.extend(projection::validate_mounts(&spec.volume_mounts, &spec.volumes));
    errors.extend(spec.working_dir.as_deref().and_then(working_dir));
    errors.extend(arguments("spec.command", &spec.command));
    errors.extend(arguments("spec.args", &spec.args));
    errors.extend(ports(&spec.ports));
    errors.extend(volumes::rules(&spec.volumes));
    errors.extend(resources(&spec.resources));
    errors.extend(spec.health.iter().flat_map(health::validate));
    errors.extend(security::validate(&spec.security));
    errors.extend(devices::validate(&spec.security.devices));
    errors
}

fn image(image: &str) -> Option<FieldError> {
    if image.is_empty() {
        return Some(FieldError::required("spec.image", "name the image to run"));
    }
    let parsed = ImageReference::try_from(image);
    parsed.err().map(|error| FieldError::invalid("spec.image", error.to_string()))
}

/// Complaints about the variables in `spec.env`.
pub(crate) fn env_rules(all: &[EnvVar]) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = all.iter().enumerate().flat_map(|(index, var)| env(index, var)).collect();
    errors.extend(twice("spec.env", "name", all.iter().map(|var| Some(var.name.as_str()))));
    errors
}

fn env(index: usize, var: &EnvVar) -> Vec<FieldError> {
    let (name, value) = (&var.name, &var.value);
    let field = |part: &str| format!("spec.env[{index}].{part}");
    if name.is_empty() || name.contains(['=', '\0']) || name.contains(char::is_whitespace) {
        let message = format!("`{name}` is no name of a variable: no blank, no `=`, not empty");
        return vec![FieldError::invalid(field("name"), message)];
    }
    let wrong = |message: &str| vec![FieldError::invalid(field("value"), message)];
    match &var.value_from {
        Some(_) if !value.is_empty() => wrong("give `value` or `valueFrom`, not both"),
        Some(source) => projection::validate_source(&field("valueFrom"), source),
        None if value.contains('\0') => wrong("a value cannot hold a NUL character"),
        None => value.parse::<Template>().err().map_or_else(Vec::new, |error| wrong(&error.to_string())),
    }
}

fn working_dir(path: &str) -> Option<FieldError> {
    let message = format!("`{path}` must be an absolute path");
    let absolute = path.starts_with('/') && !path.contains('\0');
    (!absolute).then(|| FieldError::invalid("spec.workingDir", message))
}

fn arguments(field: &str, arguments: &[String]) -> Vec<FieldError> {
    let check = |(index, argument): (usize, &String)| {
        let message = "an argument cannot hold a NUL character";
        let bad = argument.contains('\0');
        bad.then(|| FieldError::invalid(format!("{field}[{index}]"), message))
    };
    arguments.iter().enumerate().filter_map(check).collect()
}

fn ports(ports: &[Port]) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> =
        ports.iter().enumerate().flat_map(|(index, port)| port_rules(index, port)).collect();
    let proto = |port: &Port| format!("{:?}", port.protocol).to_lowercase();
    let names = ports.iter().map(|port| Some(port.name.clone()));
    errors.extend(twice("spec.ports", "name", names));
    let inside = ports.iter().map(|port| Some(format!("{}/{}", port.container_port, proto(port))));
    errors.extend(twice("spec.ports", "containerPort", inside));
    let outside = ports.iter().map(|port| Some(format!("{}/{}", port.published()?, proto(port))));
    errors.extend(twice("spec.ports", "hostPort", outside));
    errors
}

fn port_rules(index: usize, port: &Port) -> Vec<FieldError> {
    let path = |field: &str| format!("spec.ports[{index}].{field}");
    let mut errors = Vec::new();
    if let Err(error) = id::dns_label(&port.name) {
        errors.push(FieldError::invalid(path("name"), error.to_string()));
    }
    if port.container_port == 0 {
        errors.push(FieldError::invalid(path("containerPort"), "must be 1 to 65535"));
    }
    if port.host_port == Some(0) {
        errors.push(FieldError::invalid(path("hostPort"), "must be 1 to 65535"));
    }
    if port.host_port.is_some() && port.published().is_none() {
        let message = "has no effect without `expose: lan`; add that, or leave the port out";
        errors.push(FieldError::forbidden(path("hostPort"), message));
    }
    errors
}

/// The services need not be there yet; that they come later is what makes them installable in any order.
fn dependencies(own: &str, names: &[String]) -> Vec<FieldError> {
    let check = |(index, name): (usize, &String)| {
        let field = format!("spec.dependsOn[{index}]");
        if name == own {
            return Some(FieldError::invalid(field, "a service reaches itself anyway; leave it out"));
        }
        id::dns_label(name).err().map(|error| FieldError::invalid(field, error.to_string()))
    };
    let mut errors: Vec<FieldError> = names.iter().enumerate().filter_map(check).collect();
    let mut seen = std::collections::BTreeSet::new();
    let again = names.iter().enumerate().filter(|(_, name)| !seen.insert(name.as_str()));
    errors.extend(again.map(|(index, name)| {
        FieldError::duplicate(format!("spec.dependsOn[{index}]"), format!("`{name}` is named already"))
    }));
    errors
}

/// A complaint for every key that an earlier entry has already.
pub(super) fn twice<K: Ord + std::fmt::Display>(
    list: &str,
    field: &str,
    keys: impl Iterator<Item = Option<K>>,
) -> Vec<FieldError> {
    let mut first: BTreeMap<K, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for (index, key) in keys.enumerate() {
        let Some(key) = key else { continue };
        match first.get(&key) {
            Some(before) => {
                let message = format!("`{key}` is taken by {list}[{before}]");
                errors.push(FieldError::duplicate(format!("{list}[{index}].{field}"), message));
            }
            None => drop(first.insert(key, index)),
        }
    }
    errors
}

fn resources(resources: &Resources) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(cpu) = &resources.cpu {
        let millis = quantity::cpu_millis(cpu).map_err(|error| error.to_string());
        let checked = millis.and_then(|millis| at_least(millis, 10, "`10m`"));
        errors.extend(checked.err().map(|error| FieldError::invalid("spec.resources.cpu", error)));
    }
    if let Some(memory) = &resources.memory {
        let bytes = quantity::bytes(memory).map_err(|error| error.to_string());
        let checked = bytes.and_then(|bytes| at_least(bytes, MIN_MEMORY, "`4Mi`"));
        errors.extend(checked.err().map(|error| FieldError::invalid("spec.resources.memory", error)));
    }
    if let Some(size) = &resources.ephemeral_storage {
        let checked = quantity::bytes(size)
            .map_err(|error| error.to_string())
            .and_then(|bytes| at_least(bytes, MIN_VOLUME, "`16Mi`"));
        errors.extend(checked.err().map(|error| FieldError::invalid("spec.resources.ephemeralStorage", error)));
    }
    if resources.pids.is_some_and(|pids| !(1..=4_194_304).contains(&pids)) {
        errors.push(FieldError::invalid("spec.resources.pids", "must be 1 to 4194304"));
    }
    if resources.io_weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
        errors.push(FieldError::invalid("spec.resources.ioWeight", "must be 1 to 10000"));
    }
    errors
}

fn at_least(value: u64, least: u64, shown: &str) -> Result<(), String> {
    if value < least { Err(format!("must be at least {shown}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Rule;
    use serde_json::json;

    fn findings(spec: Value) -> Vec<(String, Rule)> {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        if object["spec"].get("image").is_none() {
            object["spec"]["image"] = json!("registry.local:5000/nginx:1.27");
        }
        validate(&object, None).into_iter().map(|error| (error.field, error.rule)).collect()
    }

    #[test]
    fn a_bundle_with_all_it_can_have_is_in_order() {
        let spec = json!({
            "env": [{"name": "A", "value": "1"}, {"name": "lower.case-name", "value": ""}],
            "command": ["/bin/sh"], "args": ["-c", "true"], "workingDir": "/srv",
            "ports": [
                {"name": "http", "containerPort": 80, "expose": "lan", "hostPort": 8080},
                {"name": "dns", "containerPort": 80, "protocol": "UDP", "expose": "lan", "hostPort": 8080},
            ],
            "resources": {"cpu": "500m", "memory": "512Mi", "pids": 100, "ioWeight": 100},
            "security": {"extraCapabilities": ["CAP_NET_BIND_SERVICE"], "devices": ["/dev/dri/renderD128", "/dev/ttyUSB0"]},
        });
        assert_eq!(findings(spec), []);
    }

    #[test]
    fn an_image_is_named_and_can_be_parsed() {
        assert_eq!(findings(json!({"image": ""})), [("spec.image".into(), Rule::Required)]);
        assert_eq!(findings(json!({"image": "a b"})), [("spec.image".into(), Rule::Invalid)]);
    }

    #[test]
    fn a_variable_has_a_name_of_its_own() {
        let env = json!([{"name": "A"}, {"name": "A=B"}, {"name": "A"}, {"name": "C", "value": "\0"}]);
        assert_eq!(
            findings(json!({"env": env})),
            [
                ("spec.env[1].name".into(), Rule::Invalid),
                ("spec.env[3].value".into(), Rule::Invalid),
                ("spec.env[2].name".into(), Rule::Duplicate),
            ]
        );
    }

    #[test]
    fn two_ports_cannot_share_name_number_or_place_on_the_machine() {
        let ports = json!([
            {"name": "a", "containerPort": 80, "expose": "lan"},
            {"name": "a", "containerPort": 81, "expose": "lan", "hostPort": 80},
            {"name": "b", "containerPort": 80},
        ]);
        assert_eq!(
            findings(json!({"ports": ports})),
            [
                ("spec.ports[1].name".into(), Rule::Duplicate),
                ("spec.ports[2].containerPort".into(), Rule::Duplicate),
                ("spec.ports[1].hostPort".into(), Rule::Duplicate),
            ]
        );
    }

    #[test]
    fn a_port_has_a_label_for_a_name_and_a_number_and_no_host_port_that_does_nothing() {
        let ports = json!([{"name": "Web", "containerPort": 0, "hostPort": 8080}]);
        assert_eq!(
            findings(json!({"ports": ports})),
            [
                ("spec.ports[0].name".into(), Rule::Invalid),
                ("spec.ports[0].containerPort".into(), Rule::Invalid),
                ("spec.ports[0].hostPort".into(), Rule::Forbidden),
            ]
        );
    }

    #[test]
    fn a_service_depends_on_others_by_name_once_each() {
        assert_eq!(
            findings(json!({"dependsOn": ["db", "web", "Db", "db", "a/b"], "egress": "lan"})),
            [
                ("spec.dependsOn[1]".into(), Rule::Invalid),
                ("spec.dependsOn[2]".into(), Rule::Invalid),
                ("spec.dependsOn[4]".into(), Rule::Invalid),
                ("spec.dependsOn[3]".into(), Rule::Duplicate),
            ]
        );
    }

    #[test]
    fn limits_are_quantities_within_bounds() {
        let resources =
            json!({"cpu": "lots", "memory": "1Mi", "pids": 0, "ioWeight": 10_001, "ephemeralStorage": "15Mi"});
        assert_eq!(
            findings(json!({"resources": resources})),
            [
                ("spec.resources.cpu".into(), Rule::Invalid),
                ("spec.resources.memory".into(), Rule::Invalid),
                ("spec.resources.ephemeralStorage".into(), Rule::Invalid),
                ("spec.resources.pids".into(), Rule::Invalid),
                ("spec.resources.ioWeight".into(), Rule::Invalid),
            ]
        );
    }

    #[test]
    fn paths_are_absolute_and_arguments_hold_no_nul() {
        let spec = json!({"workingDir": "srv", "command": ["a\0b"]});
        assert_eq!(
            findings(spec),
            [("spec.workingDir".into(), Rule::Invalid), ("spec.command[0]".into(), Rule::Invalid)]
        );
    }
}
