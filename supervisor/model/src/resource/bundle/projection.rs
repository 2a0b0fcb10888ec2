//! What a bundle takes from ConfigMaps and Secrets of its namespace: variables, and files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{VolumeWish, is_false};
use crate::field::{FieldError, Rule};
use crate::id;

/// One key of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// Name of the object.
    pub name: String,
    /// Key in it.
    pub key: String,
    /// It is no failure if it is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

/// Where the value of a variable comes from; one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource {
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
}

/// A whole object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name.
    pub name: String,
    /// It is no failure if it is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

/// Every key of an object becomes a variable; one of both objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvFrom {
    /// Put before each name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
}

/// A directory in the container with files from one ConfigMap or Secret, in memory and read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// A DNS label, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Absolute path of the directory; what the image has there is hidden.
    pub mount_path: String,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<Files>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Files>,
    /// Owner of the files, a user of the image (`postgres`, `999`, `999:999`); by default the
    /// service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Keys of an object as files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// Name of the object.
    pub name: String,
    /// Only these keys, under these names; empty is every key under its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// Mode of files that have none of their own; `0400` of a Secret and `0444` of a ConfigMap if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<Mode>,
    /// It is no failure if the object, or one of the keys, is not there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

/// One key as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The key.
    pub key: String,
    /// Where in the directory.
    pub path: String,
    /// Its mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// A file's mode. Text is octal (`"0440"`); a number is the number itself, as in Kubernetes, whose
/// JSON knows no octal: 288 is `0440`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a mode in quotes, as \"0440\"")]
pub enum Mode {
    /// Octal digits.
    Octal(String),
    /// The bits.
    Bits(u32),
}

/// Files of a Secret are their owner's alone.
pub const SECRET_MODE: u32 = 0o400;
/// Files of a ConfigMap are for all in the container.
pub const CONFIG_MAP_MODE: u32 = 0o444;
/// What a mode may hold: nobody but the owner may seem to write files that cannot be written, and
/// nobody to run what cannot be run.
const ALLOWED: u32 = 0o644;

impl Mode {
    /// The bits, if they are such as a file here can have.
    pub fn bits(&self) -> Option<u32> {
        let bits = match self {
            Self::Octal(text) => u32::from_str_radix(text, 8).ok(),
            Self::Bits(bits) => Some(*bits),
        };
        bits.filter(|bits| bits & !ALLOWED == 0)
    }
}

/// What is wrong with where a variable comes from.
pub(super) fn validate_source(field: &str, source: &EnvSource) -> Vec<FieldError> {
    let refs = [("configMapKeyRef", &source.config_map_key_ref), ("secretKeyRef", &source.secret_key_ref)];
    let mut errors: Vec<FieldError> =
        one_of(field, refs.map(|(name, given)| (name, given.is_some()))).into_iter().collect();
    for (name, given) in refs {
        if let Some(given) = given {
            errors.extend(object_name(&format!("{field}.{name}.name"), &given.name));
            errors.extend(key(&format!("{field}.{name}.key"), &given.key));
        }
    }
    errors
}

/// What is wrong with whole objects as variables.
pub(super) fn validate_env_from(all: &[EnvFrom]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let field = format!("spec.envFrom[{index}]");
        let refs = [("configMapRef", &one.config_map_ref), ("secretRef", &one.secret_ref)];
        errors.extend(one_of(&field, refs.map(|(name, given)| (name, given.is_some()))));
        let given = refs.iter().filter_map(|(name, given)| Some((name, given.as_ref()?)));
        errors.extend(given.filter_map(|(name, given)| object_name(&format!("{field}.{name}.name"), &given.name)));
        if one.prefix.contains(['=', '\0']) || one.prefix.contains(char::is_whitespace) {
            errors.push(FieldError::invalid(format!("{field}.prefix"), "holds no blank and no `=`"));
        }
    }
    errors
}

/// What is wrong with files.
pub(super) fn validate_mounts(all: &[VolumeMount], volumes: &[VolumeWish]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut taken: Vec<&str> = volumes.iter().map(|volume| volume.mount_path.as_str()).collect();
    for (index, mount) in all.iter().enumerate() {
        let field = format!("spec.volumeMounts[{index}]");
        let named = Some(mount.name.as_str()).filter(|name| !name.is_empty()).map(id::dns_label);
        let bad = named.and_then(Result::err);
        errors.extend(bad.map(|error| FieldError::invalid(format!("{field}.name"), error.to_string())));
        errors.extend(place(&format!("{field}.mountPath"), &mount.mount_path, &taken));
        taken.push(&mount.mount_path);
        let kinds = [("configMap", &mount.config_map), ("secret", &mount.secret)];
        errors.extend(one_of(&field, kinds.map(|(name, given)| (name, given.is_some()))));
        for (name, files) in kinds {
            errors.extend(files.iter().flat_map(|files| validate_files(&format!("{field}.{name}"), files)));
        }
        errors.extend(mount.owner.as_deref().and_then(|owner| validate_owner(&format!("{field}.owner"), owner)));
    }
    errors
}

fn validate_files(field: &str, files: &Files) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = object_name(&format!("{field}.name"), &files.name).into_iter().collect();
    errors.extend(files.default_mode.as_ref().and_then(|one| mode(&format!("{field}.defaultMode"), one)));
    let mut paths: Vec<&str> = Vec::new();
    for (index, item) in files.items.iter().enumerate() {
        let at = format!("{field}.items[{index}]");
        errors.extend(key(&format!("{at}.key"), &item.key));
        errors.extend(item.path.split('/').find_map(|part| key(&format!("{at}.path"), part)));
        errors.extend(item.mode.as_ref().and_then(|one| mode(&format!("{at}.mode"), one)));
        if paths.iter().any(|other| is_within(&item.path, other) || is_within(other, &item.path)) {
            errors.push(FieldError::duplicate(format!("{at}.path"), "is in the way of an earlier entry"));
        }
        paths.push(&item.path);
    }
    errors
}

/// Places that every container has for itself.
const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

fn place(field: &str, path: &str, others: &[&str]) -> Option<FieldError> {
    let rest = path.strip_prefix('/').unwrap_or_default();
    if rest.contains('\0') || rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        let message = format!("`{path}` must be an absolute path, without `.`, `..` and `//`, and not the root");
        return Some(FieldError::invalid(field, message));
    }
    if let Some(taken) = RESERVED.iter().find(|taken| is_within(path, taken)) {
        return Some(FieldError::forbidden(field, format!("`{path}` lies in {taken}, which every container has")));
    }
    let other = others.iter().find(|other| is_within(path, other) || is_within(other, path))?;
    let message = format!("`{path}` and `{other}` lie within one another; give each a place of its own");
    Some(FieldError::duplicate(field, message))
}

/// Whether `path` is `parent` or below it.
fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn mode(field: &str, mode: &Mode) -> Option<FieldError> {
    let shown = match mode {
        Mode::Octal(text) => format!("`{text}`"),
        Mode::Bits(bits) => format!("{bits}, which is {bits:04o} in octal,"),
    };
    let message = format!(
        "{shown} is no mode for files that nobody can write or run: \
         write it in quotes, as `\"0400\"`, `\"0440\"` or `\"0444\"`"
    );
    mode.bits().is_none().then(|| FieldError::invalid(field, message))
}

fn validate_owner(field: &str, owner: &str) -> Option<FieldError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && part.chars().all(allowed);
    let good = owner.splitn(2, ':').all(part);
    let message = format!("`{owner}` must be a user of the image, or `user:group`, by name or number");
    (!good).then(|| FieldError::invalid(field, message))
}

fn one_of(field: &str, given: [(&str, bool); 2]) -> Option<FieldError> {
    let [(first, has_first), (second, has_second)] = given;
    let message = format!("name one of {first} and {second}");
    match (has_first, has_second) {
        (true, false) | (false, true) => None,
        (false, false) => Some(FieldError::required(field, message)),
        (true, true) => Some(FieldError::new(Rule::Invalid, field, message)),
    }
}

fn object_name(field: &str, name: &str) -> Option<FieldError> {
    id::dns_subdomain(name).err().map(|error| FieldError::invalid(field, error.to_string()))
}

/// A key, or a part of a file's path: what Kubernetes allows for keys is good for both.
fn key(field: &str, key: &str) -> Option<FieldError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let bad = key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") || !key.chars().all(allowed);
    let message = format!("`{key}` must be of letters, digits, `-`, `_` and `.`, and not begin with `..`");
    bad.then(|| FieldError::invalid(field, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mounts(value: serde_json::Value) -> Vec<String> {
        let mounts: Vec<VolumeMount> = serde_json::from_value(value).unwrap();
        let data = VolumeWish { mount_path: "/data".into(), ..VolumeWish::default() };
        validate_mounts(&mounts, &[data]).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn a_mode_is_octal_as_text_and_itself_as_a_number() {
        let bits = |value| serde_json::from_value::<Mode>(value).unwrap().bits();
        assert_eq!(bits(json!("0440")), Some(0o440));
        assert_eq!(bits(json!(288)), Some(0o440));
        // What YAML makes of 0440, 0444 and 0600 where it does not take them for octal.
        assert_eq!([440, 444, 600].map(|number| bits(json!(number))), [None; 3]);
        assert_eq!(["0755", "7777", "rw", ""].map(|text| bits(json!(text))), [None; 4]);
    }

    #[test]
    fn a_mount_has_one_source_a_place_of_its_own_and_names_that_stay_in_it() {
        let items = json!([{"key": "k", "path": "f"}, {"key": "k", "path": "d/g", "mode": "0440"}]);
        let good = json!([
            {"name": "app", "mountPath": "/etc/app", "secret": {"name": "a", "items": items}, "owner": "web:33"},
            {"mountPath": "/etc/apps", "configMap": {"name": "a", "defaultMode": 292}}
        ]);
        assert_eq!(mounts(good), [""; 0]);
        let bad = json!([
            {"name": "A", "mountPath": "etc", "secret": {"name": "a"}},
            {"mountPath": "/a/../b", "configMap": {"name": "A_"}},
            {"mountPath": "/proc/x", "secret": {"name": "a", "defaultMode": "7777"}},
            {"mountPath": "/", "secret": {"name": "a"}, "configMap": {"name": "a"}},
            {"mountPath": "/b", "secret": {"name": "a", "items": [
                {"key": "k", "path": "../f"}, {"key": "", "path": "g"}, {"key": "k", "path": "g/h", "mode": 420}]}},
            {"mountPath": "/b/c", "secret": {"name": "a"}, "owner": "a b"},
            {"mountPath": "/d"},
            {"mountPath": "/data/conf", "secret": {"name": "a"}},
        ]);
        assert_eq!(
            mounts(bad),
            [
                "spec.volumeMounts[0].name",
                "spec.volumeMounts[0].mountPath",
                "spec.volumeMounts[1].mountPath",
                "spec.volumeMounts[1].configMap.name",
                "spec.volumeMounts[2].mountPath",
                "spec.volumeMounts[2].secret.defaultMode",
                "spec.volumeMounts[3].mountPath",
                "spec.volumeMounts[3]",
                "spec.volumeMounts[4].secret.items[0].path",
                "spec.volumeMounts[4].secret.items[1].key",
                "spec.volumeMounts[4].secret.items[2].path",
                "spec.volumeMounts[5].mountPath",
                "spec.volumeMounts[5].owner",
                "spec.volumeMounts[6]",
                "spec.volumeMounts[7].mountPath",
            ]
        );
    }

    #[test]
    fn a_variable_comes_from_one_place() {
        let source: EnvSource = serde_json::from_value(json!({"secretKeyRef": {"name": "a", "key": "k"}})).unwrap();
        assert_eq!(validate_source("f", &source), []);
        assert_eq!(validate_source("f", &EnvSource::default()).len(), 1);
        let both = json!([{"secretRef": {"name": "a"}, "configMapRef": {"name": "a"}, "prefix": "A="}]);
        let both: Vec<EnvFrom> = serde_json::from_value(both).unwrap();
        let fields: Vec<String> = validate_env_from(&both).into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["spec.envFrom[0]", "spec.envFrom[0].prefix"]);
    }
}
