//! From what a bundle asks of ConfigMaps, Secrets and other bundles to the variables and files it is
//! given: a pure function of the bundle and of what the objects hold.
//!
//! It is used twice: with values, to provide them, and with digests in the place of secret values,
//! to see a change without the values (the outcome then is compared, never delivered).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;

use crate::provided::{Directory, Provided, ProvidedFile, Variable};
use crate::reference::{HOST, PORT, Reference, references, template};
use crate::resource::bundle::projection::{
    CONFIG_MAP_MODE, EnvFrom, EnvSource, Files, KeyRef, Mode, SECRET_MODE, VolumeMount,
};
use crate::resource::bundle::{BundleSpec, EnvVar};
use crate::resource::revision::Origin;

/// Where values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
    /// Another bundle, which holds what references can lead to ([`crate::reference::offers`]).
    Bundle,
}

/// An object by kind and name.
pub type Source = (SourceKind, String);

/// What the objects hold that are there. Values are in the clear: not for logs.
pub type Held = BTreeMap<Source, BTreeMap<String, Vec<u8>>>;

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Bundle => "Bundle",
        })
    }
}

/// Why nothing can be provided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No such object.
    #[error("{0} {1} is not there")]
    Object(SourceKind, String),
    /// No such key.
    #[error("{0} {1} has no key {2}")]
    Key(SourceKind, String, String),
    /// A variable cannot hold it.
    #[error("key {2} of {0} {1} is no text and so no value of a variable; mount it as a file")]
    NoText(SourceKind, String, String),
    /// A bundle has no such port, or none at all.
    #[error("Bundle {bundle} declares no port{}", .port.as_ref().map(|port| format!(" {port}")).unwrap_or_default())]
    Port {
        /// The bundle.
        bundle: String,
        /// The name of the port, if one was named.
        port: Option<String>,
    },
    /// A reference does not say which of several keys it means.
    #[error("Secret {0} has several keys")]
    Several(String),
}

impl Missing {
    /// Whether it can come by itself: somebody makes the object, or writes the key.
    pub fn may_come(&self) -> bool {
        !matches!(self, Self::NoText(..))
    }

    /// What to do, as the end of a sentence.
    pub fn advice(&self) -> String {
        let word = |kind: &SourceKind| kind.to_string().to_lowercase();
        match self {
            Self::Object(SourceKind::Bundle, name) => format!("install {name}, or refer to a bundle that is there"),
            Self::Port { bundle: name, .. } => {
                format!("add it to spec.ports of {name}, or refer to a port that it has")
            }
            Self::Several(name) => format!("say which, like `${{{{secret.{name}.KEY}}}}`"),
            Self::Object(kind, name) => format!("create it with `berth {} create {name}`", word(kind)),
            Self::Key(kind, name, key) => {
                format!("add {key} to it with `berth {} set {name}`, or name a key that it has", word(kind))
            }
            Self::NoText(..) => "use spec.volumeMounts for it".to_owned(),
        }
    }
}

/// Every object that the bundle asks for, by itself or by what it inherits from its namespace.
pub fn wanted(spec: &BundleSpec, inherited: &[EnvVar]) -> BTreeSet<Source> {
    let vars = inherited.iter().chain(&spec.env).filter_map(|var| var.value_from.as_ref());
    let keys = vars.filter_map(key_of).map(|(kind, key)| (kind, key.name.clone()));
    let wholes = spec.env_from.iter().filter_map(object_of).map(|(kind, name, _)| (kind, name.to_owned()));
    let files = spec.volume_mounts.iter().filter_map(files_of).map(|(kind, files)| (kind, files.name.clone()));
    let referred = references(spec).into_iter().map(|(_, reference)| source_of(&reference));
    keys.chain(wholes).chain(files).chain(referred).collect()
}

/// The variables of a namespace that a bundle does not have itself in any case.
pub fn inherited(spec: &BundleSpec, namespace: Vec<EnvVar>) -> Vec<EnvVar> {
    let is_own = |name: &str| spec.env.iter().any(|own| own.name == name && !is_optional(own));
    namespace.into_iter().filter(|var| !is_own(&var.name)).collect()
}

fn is_optional(var: &EnvVar) -> bool {
    var.value_from.as_ref().and_then(key_of).is_some_and(|(_, key)| key.optional)
}

/// What the container is given; nothing if it asks for nothing. What it inherits comes first, and so loses against all
/// that is the bundle's own.
///
/// # Errors
/// Everything that is missing, in the order of the bundle.
pub fn resolve(spec: &BundleSpec, inherited: &[EnvVar], held: &Held) -> Result<Provided, Vec<Missing>> {
    if inherited.is_empty() && wanted(spec, inherited).is_empty() {
        return Ok(Provided::default());
    }
    let mut missing = Vec::new();
    let first = inherited.iter().map(|var| variable(var, held));
    let wholes = spec.env_from.iter().map(|from| whole(from, held));
    let vars = spec.env.iter().map(|var| variable(var, held));
    let env = kept(first.chain(wholes).chain(vars), &mut missing).into_iter().flatten().collect();
    let directories = kept(spec.volume_mounts.iter().map(|mount| directory(mount, held)), &mut missing);
    missing.dedup();
    if missing.is_empty() { Ok(Provided { env, directories }) } else { Err(missing) }
}

/// Where each variable of a container comes from, by name: of its image (`NAME=value`), of its namespace, of an object
/// as a whole, or its own. `held` needs no values. The last of a name wins, as in [`resolve`].
pub fn origins(image: &[String], inherited: &[EnvVar], spec: &BundleSpec, held: &Held) -> Vec<Origin> {
    let of_image = image.iter().map(|pair| (pair.split('=').next().unwrap_or(pair).to_owned(), "Image".to_owned()));
    let there = |var: &&EnvVar| !is_optional(var) || variable(var, held).is_ok_and(|found| !found.is_empty());
    let first = inherited.iter().filter(there).map(|var| (var.name.clone(), "Namespace".to_owned()));
    let wholes = spec.env_from.iter().flat_map(|from| {
        let of = object_of(from).map(|(kind, name, _)| format!("{kind} {name}")).unwrap_or_default();
        whole(from, held).unwrap_or_default().into_iter().map(move |var| (var.name, of.clone()))
    });
    let own = spec.env.iter().filter(there).map(|var| (var.name.clone(), "Bundle".to_owned()));
    let all: BTreeMap<String, String> = of_image.chain(first).chain(wholes).chain(own).collect();
    all.into_iter().map(|(name, from)| Origin { name, from }).collect()
}

fn kept<T>(all: impl Iterator<Item = Result<T, Missing>>, missing: &mut Vec<Missing>) -> Vec<T> {
    all.filter_map(|one| one.map_err(|what| missing.push(what)).ok()).collect()
}

fn key_of(source: &EnvSource) -> Option<(SourceKind, &KeyRef)> {
    let config = source.config_map_key_ref.as_ref().map(|key| (SourceKind::ConfigMap, key));
    config.or(source.secret_key_ref.as_ref().map(|key| (SourceKind::Secret, key)))
}

fn object_of(from: &EnvFrom) -> Option<(SourceKind, &str, bool)> {
    let config = from.config_map_ref.as_ref().map(|it| (SourceKind::ConfigMap, it));
    let (kind, object) = config.or(from.secret_ref.as_ref().map(|it| (SourceKind::Secret, it)))?;
    Some((kind, &object.name, object.optional))
}

fn files_of(mount: &VolumeMount) -> Option<(SourceKind, &Files)> {
    let config = mount.config_map.as_ref().map(|files| (SourceKind::ConfigMap, files));
    config.or(mount.secret.as_ref().map(|files| (SourceKind::Secret, files)))
}

/// The object, or `None` if it is not there and need not be.
fn find<'a>(
    held: &'a Held,
    kind: SourceKind,
    name: &str,
    optional: bool,
) -> Result<Option<&'a BTreeMap<String, Vec<u8>>>, Missing> {
    match held.get(&(kind, name.to_owned())) {
        None if !optional => Err(Missing::Object(kind, name.to_owned())),
        found => Ok(found),
    }
}

/// Every key of an object as variables.
fn whole(from: &EnvFrom, held: &Held) -> Result<Vec<Variable>, Missing> {
    let Some((kind, name, optional)) = object_of(from) else { return Ok(Vec::new()) };
    let object = find(held, kind, name, optional)?;
    let variable = |(key, value): (&String, &Vec<u8>)| {
        let value = text(value).ok_or_else(|| Missing::NoText(kind, name.to_owned(), key.clone()))?;
        Ok(Variable { name: format!("{}{key}", from.prefix), value })
    };
    object.into_iter().flatten().map(variable).collect()
}

/// One variable, or none if what it is made from may be missing and is.
fn variable(var: &EnvVar, held: &Held) -> Result<Vec<Variable>, Missing> {
    let of = |value: String| vec![Variable { name: var.name.clone(), value }];
    if let Some(template) = template(var) {
        return template.filled(|reference| lead(reference, held)).map(of);
    }
    let Some(source) = &var.value_from else { return Ok(of(var.value.clone())) };
    let Some((kind, wanted)) = key_of(source) else { return Ok(Vec::new()) };
    let Some(object) = find(held, kind, &wanted.name, wanted.optional)? else { return Ok(Vec::new()) };
    let name = || (wanted.name.clone(), wanted.key.clone());
    match object.get(&wanted.key) {
        Some(value) => text(value).map(of).ok_or_else(|| Missing::NoText(kind, name().0, name().1)),
        None if wanted.optional => Ok(Vec::new()),
        None => Err(Missing::Key(kind, name().0, name().1)),
    }
}

/// The object that a reference leads to.
pub fn source_of(reference: &Reference) -> Source {
    match reference {
        Reference::Host { bundle } | Reference::Port { bundle, .. } => (SourceKind::Bundle, bundle.clone()),
        Reference::Secret { name, .. } => (SourceKind::Secret, name.clone()),
    }
}

/// The value that a reference leads to.
///
/// # Errors
/// What is missing on the way.
pub fn lead(reference: &Reference, held: &Held) -> Result<String, Missing> {
    let (kind, name) = source_of(reference);
    let object = held.get(&(kind, name.clone())).ok_or_else(|| Missing::Object(kind, name.clone()))?;
    let (key, absent) = match reference {
        Reference::Host { .. } => (HOST.to_owned(), Missing::Object(kind, name.clone())),
        Reference::Port { port: None, .. } => (PORT.to_owned(), Missing::Port { bundle: name.clone(), port: None }),
        Reference::Port { port: Some(port), .. } => {
            (format!("{PORT}.{port}"), Missing::Port { bundle: name.clone(), port: Some(port.clone()) })
        }
        Reference::Secret { key: Some(key), .. } => (key.clone(), Missing::Key(kind, name.clone(), key.clone())),
        Reference::Secret { key: None, .. } => match object.len() {
            0 | 1 => {
                let only = object.keys().next().cloned().unwrap_or_else(|| "at all".to_owned());
                (only.clone(), Missing::Key(kind, name.clone(), only))
            }
            _ => return Err(Missing::Several(name)),
        },
    };
    let value = object.get(&key).ok_or(absent)?;
    text(value).ok_or(Missing::NoText(kind, name, key))
}

fn text(value: &[u8]) -> Option<String> {
    std::str::from_utf8(value).ok().filter(|text| !text.contains('\0')).map(str::to_owned)
}

fn directory(mount: &VolumeMount, held: &Held) -> Result<Directory, Missing> {
    let files = match files_of(mount) {
        Some((kind, wanted)) => contents(kind, wanted, held)?,
        None => Vec::new(),
    };
    Ok(Directory { path: mount.mount_path.clone(), owner: mount.owner.clone(), files })
}

fn contents(kind: SourceKind, wanted: &Files, held: &Held) -> Result<Vec<ProvidedFile>, Missing> {
    let Some(object) = find(held, kind, &wanted.name, wanted.optional)? else { return Ok(Vec::new()) };
    let by_default = if kind == SourceKind::Secret { SECRET_MODE } else { CONFIG_MAP_MODE };
    let by_default = wanted.default_mode.as_ref().and_then(Mode::bits).unwrap_or(by_default);
    let file = |path: &str, mode: u32, value: &[u8]| ProvidedFile {
        path: path.to_owned(),
        mode,
        content: ByteString(value.to_owned()),
    };
    if wanted.items.is_empty() {
        return Ok(object.iter().map(|(key, value)| file(key, by_default, value)).collect());
    }
    let found = wanted.items.iter().filter_map(|item| match object.get(&item.key) {
        Some(value) => {
            let mode = item.mode.as_ref().and_then(Mode::bits).unwrap_or(by_default);
            Some(Ok(file(&item.path, mode, value)))
        }
        None if wanted.optional => None,
        None => Some(Err(Missing::Key(kind, wanted.name.clone(), item.key.clone()))),
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> BundleSpec {
        let mut spec = json!({ "image": "registry/web" });
        spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn held() -> Held {
        let object = |pairs: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
        };
        Held::from([
            ((SourceKind::ConfigMap, "app".to_owned()), object(&[("MODE", "fast"), ("app.conf", "x = 1")])),
            ((SourceKind::Secret, "db".to_owned()), object(&[("password", "hunter2")])),
        ])
    }

    fn everything() -> BundleSpec {
        spec(json!({
            "envFrom": [{"configMapRef": {"name": "app"}, "prefix": "APP_"}],
            "env": [
                {"name": "PLAIN", "value": "1"},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            ],
            "volumeMounts": [
                {"mountPath": "/etc/app", "configMap": {"name": "app", "items": [
                    {"key": "app.conf", "path": "main.conf"}, {"key": "MODE", "path": "d/mode", "mode": "0640"}]}},
                {"mountPath": "/run/secrets", "secret": {"name": "db"}, "owner": "postgres"},
            ],
        }))
    }

    #[test]
    fn variables_and_files_come_from_where_the_bundle_says() {
        let provided = resolve(&everything(), &[], &held()).unwrap();
        let pairs: Vec<String> = provided.env.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
        assert_eq!(pairs, ["APP_MODE=fast", "APP_app.conf=x = 1", "PLAIN=1", "PASSWORD=hunter2"]);
        let files = |directory: &Directory| -> Vec<String> {
            let line = |file: &ProvidedFile| {
                let text = String::from_utf8_lossy(&file.content.0).into_owned();
                format!("{}/{} {:04o} {text}", directory.path, file.path, file.mode)
            };
            directory.files.iter().map(line).collect()
        };
        assert_eq!(files(&provided.directories[0]), ["/etc/app/main.conf 0444 x = 1", "/etc/app/d/mode 0640 fast"]);
        assert_eq!(files(&provided.directories[1]), ["/run/secrets/password 0400 hunter2"]);
        assert_eq!(provided.directories[1].owner.as_deref(), Some("postgres"));
    }

    #[test]
    fn a_bundle_that_asks_for_nothing_is_given_nothing() {
        let plain = spec(json!({"env": [{"name": "A", "value": "1"}]}));
        assert!(resolve(&plain, &[], &held()).unwrap().is_empty());
    }

    #[test]
    fn what_a_namespace_gives_loses_against_what_is_the_bundles_own_and_wins_over_the_image() {
        let namespace: Vec<EnvVar> = serde_json::from_value(json!([
            {"name": "TZ", "value": "UTC"}, {"name": "PLAIN", "value": "2"}, {"name": "APP_MODE", "value": "slow"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
        ]))
        .unwrap();
        let spec = everything();
        let inherited = inherited(&spec, namespace.clone());
        let names: Vec<&str> = inherited.iter().map(|var| var.name.as_str()).collect();
        assert_eq!(names, ["TZ", "APP_MODE", "TOKEN"], "a change of the other would change nothing");
        let given: BTreeMap<String, String> = resolve(&spec, &inherited, &held())
            .unwrap()
            .env
            .into_iter()
            .map(|variable| (variable.name, variable.value))
            .collect();
        let value = |name: &str| given[name].as_str();
        assert_eq!(["TZ", "PLAIN", "APP_MODE", "TOKEN"].map(value), ["UTC", "1", "fast", "hunter2"]);
        let image = ["PATH=/bin".to_owned(), "TZ=CET".to_owned()];
        let told: Vec<String> = origins(&image, &inherited, &spec, &held())
            .into_iter()
            .map(|origin| format!("{}: {}", origin.name, origin.from))
            .collect();
        let expected = [
            "APP_MODE: ConfigMap app",
            "APP_app.conf: ConfigMap app",
            "PASSWORD: Bundle",
            "PATH: Image",
            "PLAIN: Bundle",
            "TOKEN: Namespace",
            "TZ: Namespace",
        ];
        assert_eq!(told, expected);
        let optional = json!({"env": [
            {"name": "TZ", "valueFrom": {"secretKeyRef": {"name": "db", "key": "nope", "optional": true}}}]});
        let optional = super::tests::spec(optional);
        let inherited = super::inherited(&optional, namespace);
        let given = resolve(&optional, &inherited, &held()).unwrap().env;
        assert!(given.iter().any(|one| one.name == "TZ" && one.value == "UTC"), "it has none of its own");
    }

    #[test]
    fn every_object_that_is_asked_for_is_named_once() {
        let names: Vec<String> =
            wanted(&everything(), &[]).into_iter().map(|(kind, name)| format!("{kind} {name}")).collect();
        assert_eq!(names, ["ConfigMap app", "Secret db"]);
    }

    #[test]
    fn everything_that_is_missing_is_told() {
        let spec = spec(json!({
            "envFrom": [{"secretRef": {"name": "absent"}}],
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "nope"}}}],
            "volumeMounts": [{"mountPath": "/a", "secret": {"name": "db", "items": [{"key": "user", "path": "u"}]}}],
        }));
        let missing = resolve(&spec, &[], &held()).unwrap_err();
        let told: Vec<String> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["Secret absent is not there", "ConfigMap app has no key nope", "Secret db has no key user"]);
        assert_eq!(missing[0].advice(), "create it with `berth secret create absent`");
    }

    fn referring(value: &str) -> BundleSpec {
        spec(json!({"env": [{"name": "URL", "value": value}]}))
    }

    #[test]
    fn a_reference_becomes_the_value_that_it_leads_to() {
        let mut held = held();
        let ports = spec(json!({"ports": [{"name": "sql", "containerPort": 5432}]}));
        held.insert((SourceKind::Bundle, "pg".to_owned()), crate::reference::offers("pg", &ports));
        let value = |text: &str| resolve(&referring(text), &[], &held).map(|provided| provided.env[0].value.clone());
        let url = "x://${{secret.db}}@${{pg.HOST}}:${{pg.PORT}}/${{secret.db.password}}/${{pg.PORT.sql}}";
        assert_eq!(value(url).unwrap(), "x://hunter2@pg:5432/hunter2/5432");
        let told = |text: &str| value(text).unwrap_err()[0].to_string();
        assert_eq!(told("${{gone.HOST}}"), "Bundle gone is not there");
        assert_eq!(told("${{pg.PORT.web}}"), "Bundle pg declares no port web");
        assert_eq!(told("${{secret.db.user}}"), "Secret db has no key user");
    }

    #[test]
    fn a_secret_of_several_keys_needs_one_named() {
        let mut held = held();
        held.entry((SourceKind::Secret, "db".to_owned())).or_default().insert("user".into(), b"web".to_vec());
        let told = resolve(&referring("${{secret.db}}"), &[], &held).unwrap_err();
        assert_eq!(told[0].advice(), "say which, like `${{secret.db.KEY}}`");
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let spec = spec(json!({
            "envFrom": [{"secretRef": {"name": "absent", "optional": true}}],
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "nope", "optional": true}}}],
            "volumeMounts": [{"mountPath": "/a", "secret": {"name": "absent", "optional": true}}],
        }));
        let provided = resolve(&spec, &[], &held()).unwrap();
        assert_eq!((provided.env.len(), provided.directories[0].files.len()), (0, 0));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_variable() {
        let mut held = held();
        held.entry((SourceKind::Secret, "db".to_owned())).or_default().insert("password".into(), vec![0xff]);
        let told = resolve(&everything(), &[], &held).unwrap_err();
        assert!(told[0].to_string().contains("mount it as a file") && !told[0].may_come(), "{told:?}");
    }

    #[test]
    fn values_are_not_shown_where_they_are_debugged() {
        assert!(!format!("{:?}", resolve(&everything(), &[], &held()).unwrap()).contains("hunter2"));
    }
}
