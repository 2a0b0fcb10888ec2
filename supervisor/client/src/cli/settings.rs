//! `--env` and `--set`: single settings on top of a Bundle.

use std::str::FromStr;

use berth_model::resource::bundle::{BundleSpec, EnvVar, VolumeWish};
use serde_json::{Map, Value, json};

/// `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvFlag(pub EnvVar);

impl FromStr for EnvFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self(EnvVar { name: name.to_owned(), value: value.to_owned(), value_from: None }))
            }
            _ => Err("write it like NAME=VALUE".to_owned()),
        }
    }
}

/// `NAME:PATH:SIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeFlag(pub VolumeWish);

impl FromStr for VolumeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(name, rest)| Some((name, rest.rsplit_once(':')?)));
        match parts {
            Some((name, (path, size))) if !name.is_empty() && path.starts_with('/') && !size.is_empty() => {
                Ok(Self(VolumeWish { name: name.into(), mount_path: path.into(), size: size.into(), backup: true }))
            }
            _ => Err("write it like NAME:PATH:SIZE, e.g. data:/data:10Gi".to_owned()),
        }
    }
}

/// `secret/NAME` or `configmap/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectFlag {
    is_secret: bool,
    name: String,
}

/// `secret/NAME:PATH` or `configmap/NAME:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountFlag {
    object: ObjectFlag,
    path: String,
}

impl FromStr for ObjectFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_secret, name) = match text.split_once('/') {
            Some(("secret", name)) => (true, name),
            Some(("configmap" | "cm", name)) => (false, name),
            _ => (false, ""),
        };
        match name {
            "" => Err("write it like secret/NAME or configmap/NAME".to_owned()),
            name => Ok(Self { is_secret, name: name.to_owned() }),
        }
    }
}

impl FromStr for MountFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (object, path) = text.split_once(':').ok_or("write it like secret/NAME:/PATH")?;
        Ok(Self { object: object.parse()?, path: path.to_owned() })
    }
}

impl ObjectFlag {
    /// As an entry of `envFrom`.
    pub fn env_from(&self) -> Value {
        let kind = if self.is_secret { "secretRef" } else { "configMapRef" };
        json!({ kind: { "name": self.name } })
    }
}

impl MountFlag {
    /// As an entry of `volumeMounts`.
    pub fn volume_mount(&self) -> Value {
        let kind = if self.object.is_secret { "secret" } else { "configMap" };
        json!({ "mountPath": self.path, kind: { "name": self.object.name } })
    }
}

/// `PATH=VALUE` below the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetFlag {
    shown: String,
    path: Vec<Step>,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
}

impl FromStr for SetFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shown, value) = text.split_once('=').ok_or("write it like PATH=VALUE, e.g. restart=always")?;
        let path = shown.strip_prefix("spec.").unwrap_or(shown);
        let steps: Result<Vec<Vec<Step>>, String> = path.split('.').map(steps).collect();
        Ok(Self { shown: shown.to_owned(), path: steps?.concat(), value: value.to_owned() })
    }
}

/// `ports[0]` is a field and an item of it.
fn steps(part: &str) -> Result<Vec<Step>, String> {
    let (field, items) = part.split_once('[').map_or((part, ""), |(field, items)| (field, items));
    if field.is_empty() {
        return Err("a field of the path has no name".to_owned());
    }
    let mut steps = vec![Step::Field(field.to_owned())];
    for item in items.split_terminator('[') {
        let number = item.strip_suffix(']').and_then(|number| number.parse().ok());
        steps.push(Step::Item(number.ok_or("an item of a list is written like ports[0]")?));
    }
    Ok(steps)
}

/// Puts the settings into a spec. A value is taken as JSON where the field wants that, else as text:
/// `pids=100` is a number, and `cpu=2` is a string because the cpu is one.
pub(super) fn set(spec: &mut Value, flags: &[SetFlag]) -> Result<(), String> {
    for flag in flags {
        let text = Value::from(flag.value.clone());
        let json = serde_json::from_str(&flag.value).unwrap_or_else(|_| text.clone());
        let with = |value: Value| put(spec.clone(), &flag.path, value);
        let fits = |spec: &Value| serde_json::from_value::<BundleSpec>(spec.clone()).is_ok();
        let spoken = || format!("{} cannot be set: it leads through something that is no map or list", flag.shown);
        let first = with(json).ok_or_else(spoken)?;
        *spec = match fits(&first) {
            true => first,
            false => with(text).filter(fits).unwrap_or(first),
        };
    }
    Ok(())
}

fn put(mut root: Value, path: &[Step], value: Value) -> Option<Value> {
    let mut place = &mut root;
    for step in path {
        place = match step {
            Step::Field(name) => map(place)?.entry(name).or_insert(Value::Null),
            Step::Item(number) => item(place, *number)?,
        };
    }
    *place = value;
    Some(root)
}

fn map(place: &mut Value) -> Option<&mut Map<String, Value>> {
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// An item, or a new one right behind the last.
fn item(place: &mut Value, number: usize) -> Option<&mut Value> {
    if place.is_null() {
        *place = Value::Array(Vec::new());
    }
    let list = place.as_array_mut()?;
    if number == list.len() {
        list.push(Value::Null);
    }
    list.get_mut(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(flags: &[&str]) -> Result<Value, String> {
        let mut spec = json!({"image": "r/web:1", "ports": [{"name": "http", "containerPort": 80}]});
        let flags: Vec<SetFlag> = flags.iter().map(|flag| flag.parse()).collect::<Result<_, _>>()?;
        set(&mut spec, &flags).map(|()| spec)
    }

    #[test]
    fn a_volume_has_a_name_a_path_and_a_size() {
        let volume = "data:/var/lib/x:y:1Gi".parse::<VolumeFlag>().unwrap().0;
        assert_eq!((volume.name.as_str(), volume.mount_path.as_str()), ("data", "/var/lib/x:y"));
        assert_eq!((volume.size.as_str(), volume.backup), ("1Gi", true));
        for wrong in ["data", "data:/data", "data:1Gi", ":/data:1Gi", "data:data:1Gi", "data:/data:"] {
            assert!(wrong.parse::<VolumeFlag>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_and_items_are_reached_by_path() {
        let spec = with(&["restart=always", "spec.ports[0].hostPort=8080", "ports[1].name=extra"]).unwrap();
        assert_eq!(spec["restart"], "always");
        assert_eq!(spec["ports"][0]["hostPort"], 8080);
        assert_eq!(spec["ports"][1]["name"], "extra");
    }

    #[test]
    fn a_value_takes_the_type_that_its_field_wants() {
        let spec = with(&["resources.cpu=2", "resources.pids=100", "start=false", "user=0"]).unwrap();
        assert_eq!(spec["resources"], json!({"cpu": "2", "pids": 100}));
        assert_eq!(spec["start"], false);
        assert_eq!(spec["user"], "0");
    }

    #[test]
    fn what_fits_in_no_way_is_left_to_the_server_to_name() {
        assert_eq!(with(&["resources.pids=many"]).unwrap()["resources"]["pids"], "many");
    }

    #[test]
    fn a_wrong_path_is_explained() {
        assert_eq!(with(&["restart"]).unwrap_err(), "write it like PATH=VALUE, e.g. restart=always");
        assert_eq!(with(&["ports[x]=1"]).unwrap_err(), "an item of a list is written like ports[0]");
        assert_eq!(with(&["a..b=1"]).unwrap_err(), "a field of the path has no name");
        let error = with(&["image.tag=1"]).unwrap_err();
        assert_eq!(error, "image.tag cannot be set: it leads through something that is no map or list");
    }

    #[test]
    fn an_object_is_named_by_kind_and_name_and_mounted_at_a_path() {
        let from = |text: &str| text.parse::<ObjectFlag>().map(|flag| flag.env_from());
        assert_eq!(from("secret/db"), Ok(json!({"secretRef": {"name": "db"}})));
        assert_eq!(from("configmap/app"), Ok(json!({"configMapRef": {"name": "app"}})));
        assert!(["db", "pod/db", "secret/"].iter().all(|text| from(text).is_err()));
        let mount = "secret/db:/run/secrets".parse::<MountFlag>().unwrap().volume_mount();
        assert_eq!(mount, json!({"mountPath": "/run/secrets", "secret": {"name": "db"}}));
        assert!("secret/db".parse::<MountFlag>().is_err());
    }

    #[test]
    fn the_value_of_a_variable_may_hold_anything() {
        let flag: EnvFlag = "URL=http://a/?b=c".parse().unwrap();
        assert_eq!((flag.0.name.as_str(), flag.0.value.as_str()), ("URL", "http://a/?b=c"));
        assert!("=x".parse::<EnvFlag>().is_err());
        assert!("x".parse::<EnvFlag>().is_err());
    }
}
