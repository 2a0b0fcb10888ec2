//! `berth secret` and `berth configmap`: objects of keys and values, made and changed.
//!
//! A value may come from a file or standard input, or be drawn here, so that it need not stand in an
//! argument list, which everybody on the machine can read. What is drawn is sent and forgotten: no
//! command shows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Map, Value, json};

use super::args::name;
use super::failure::Failure;
use super::{Context, bounded};
use crate::resource::ResourceType;

/// Characters of a generated value if no number is given: more than 190 bits.
const GENERATED: usize = 32;
/// Most characters of a generated value.
const MOST_GENERATED: usize = 1024;
/// What it is made of: good in any shell, URL and configuration file.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[derive(Debug, Args)]
pub(super) struct SecretArgs {
    #[command(subcommand)]
    pub command: SecretCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Make a new secret.
    Create(SecretValues),
    /// Add values to a secret, or replace some; the others stay.
    Set(SecretValues),
}

#[derive(Debug, Args)]
pub(super) struct SecretValues {
    /// Its name.
    #[arg(value_parser = name)]
    pub name: String,
    #[command(flatten)]
    pub given: Given,
    /// A random value of letters and digits, 32 if not said otherwise. It is not shown.
    #[arg(long, value_name = "KEY[=LENGTH]")]
    pub generate: Vec<GenerateFlag>,
}

#[derive(Debug, Args)]
pub(super) struct ConfigMapArgs {
    #[command(subcommand)]
    pub command: ConfigMapCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigMapCommand {
    /// Make a new one.
    Create(ConfigMapValues),
    /// Add values, or replace some; the others stay.
    Set(ConfigMapValues),
}

#[derive(Debug, Args)]
pub(super) struct ConfigMapValues {
    /// Its name.
    #[arg(value_parser = name)]
    pub name: String,
    #[command(flatten)]
    pub given: Given,
}

#[derive(Debug, Args)]
pub(super) struct Given {
    /// What a file holds, or standard input as KEY=-; without a key, the file's name is one.
    #[arg(long, value_name = "[KEY=]PATH")]
    pub from_file: Vec<FileFlag>,
    /// A value as it is. Who may list this machine's processes can read it meanwhile.
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<LiteralFlag>,
}

/// `KEY=VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct LiteralFlag {
    key: String,
    value: String,
}

/// `[KEY=]PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileFlag {
    key: String,
    path: PathBuf,
}

/// `KEY[=LENGTH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GenerateFlag {
    key: String,
    length: usize,
}

impl std::fmt::Debug for LiteralFlag {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LiteralFlag").field("key", &self.key).finish_non_exhaustive()
    }
}

impl FromStr for LiteralFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("write it like KEY=VALUE".to_owned()),
        }
    }
}

impl FromStr for FileFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, path) = match text.split_once('=') {
            Some((key, path)) => (key.to_owned(), path),
            None => (Path::new(text).file_name().unwrap_or_default().to_string_lossy().into_owned(), text),
        };
        match key.is_empty() || path.is_empty() || key == "-" {
            true => Err("write it like KEY=PATH, or KEY=- for standard input".to_owned()),
            false => Ok(Self { key, path: path.into() }),
        }
    }
}

impl FromStr for GenerateFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, length) = match text.split_once('=') {
            Some((key, length)) => (key, length.parse().unwrap_or(0)),
            None => (text, GENERATED),
        };
        match key.is_empty() || !(1..=MOST_GENERATED).contains(&length) {
            true => Err(format!("write it like KEY or KEY=LENGTH, with a length of 1 to {MOST_GENERATED}")),
            false => Ok(Self { key: key.to_owned(), length }),
        }
    }
}

/// Values by their keys.
type Values = BTreeMap<String, Vec<u8>>;

pub(super) async fn secret(context: &Context, command: SecretCommand) -> Result<(), Failure> {
    let kind = ResourceType::of::<Secret>();
    let (args, is_new) = match command {
        SecretCommand::Create(args) => (args, true),
        SecretCommand::Set(args) => (args, false),
    };
    let SecretValues { name, given, generate } = args;
    let mut values = read(given)?;
    for flag in generate {
        let drawn = generated(flag.length, context.surroundings.random)?;
        add(&mut values, flag.key, drawn)?;
    }
    let data: BTreeMap<String, ByteString> = values.into_iter().map(|(key, value)| (key, ByteString(value))).collect();
    send(context, &kind, &name, json!({ "data": data }), is_new).await
}

pub(super) async fn config_map(context: &Context, command: ConfigMapCommand) -> Result<(), Failure> {
    let kind = ResourceType::of::<ConfigMap>();
    let (args, is_new) = match command {
        ConfigMapCommand::Create(args) => (args, true),
        ConfigMapCommand::Set(args) => (args, false),
    };
    let ConfigMapValues { name, given } = args;
    let (mut text, mut binary) = (Map::new(), Map::new());
    for (key, value) in read(given)? {
        match String::from_utf8(value) {
            Ok(value) => drop(text.insert(key, value.into())),
            Err(error) => drop(binary.insert(key, json!(ByteString(error.into_bytes())))),
        }
    }
    let mut body = json!({});
    for (field, map) in [("data", text), ("binaryData", binary)] {
        if !map.is_empty() {
            body[field] = Value::Object(map);
        }
    }
    send(context, &kind, &name, body, is_new).await
}

/// Creates the object, or adds to the one that is there.
async fn send(
    context: &Context,
    kind: &ResourceType,
    name: &str,
    mut body: Value,
    is_new: bool,
) -> Result<(), Failure> {
    let namespace = &context.namespace;
    let shown = kind.shown(name);
    if !is_new {
        let is_empty = |map: &Value| map.as_object().is_none_or(Map::is_empty);
        if body.as_object().is_none_or(|maps| maps.values().all(is_empty)) {
            return Err(Failure::Usage("nothing to set: give values with --from-file or --from-literal".into()));
        }
        let after = context.client.merge_patch_dynamic(kind, namespace, name, body).await?;
        return context.outcome(kind, &after, &format!("{shown} set"));
    }
    body["apiVersion"] = kind.api_version().into();
    body["kind"] = kind.kind.clone().into();
    body["metadata"] = json!({"name": name, "namespace": namespace});
    let made = context.client.create_dynamic(kind, namespace, body, context.new_key()).await?;
    context.outcome(kind, &made, &format!("{shown} created"))
}

fn read(given: Given) -> Result<Values, Failure> {
    let mut values = Values::new();
    for flag in given.from_literal {
        add(&mut values, flag.key, flag.value.into_bytes())?;
    }
    if given.from_file.iter().filter(|flag| flag.path == Path::new("-")).count() > 1 {
        return Err(Failure::Usage("standard input can be one value only".to_owned()));
    }
    for flag in given.from_file {
        let value = bounded::read(&flag.path)?;
        add(&mut values, flag.key, value)?;
    }
    Ok(values)
}

fn add(values: &mut Values, key: String, value: Vec<u8>) -> Result<(), Failure> {
    match values.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!("{key} is given twice"))),
    }
}

/// Characters drawn with the same chance each.
fn generated(length: usize, random: fn(&mut [u8]) -> std::io::Result<()>) -> Result<Vec<u8>, Failure> {
    // Above the last whole multiple some characters would come more often.
    let fair = 256 / ALPHABET.len() * ALPHABET.len();
    let mut drawn = Vec::with_capacity(length);
    while drawn.len() < length {
        let mut bytes = [0; 64];
        random(&mut bytes).map_err(Failure::Random)?;
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
        drawn.extend(fair.map(|byte| ALPHABET[byte % ALPHABET.len()]).take(length - drawn.len()));
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_people_write_them() {
        let file = |text: &str| text.parse::<FileFlag>().map(|flag| (flag.key, flag.path));
        assert_eq!(file("/etc/app.conf"), Ok(("app.conf".into(), "/etc/app.conf".into())));
        assert_eq!(file("password=-"), Ok(("password".into(), "-".into())));
        assert!(["-", "=x", "x="].iter().all(|text| file(text).is_err()));
        let generate = |text: &str| text.parse::<GenerateFlag>().map(|flag| (flag.key, flag.length));
        assert_eq!(generate("password"), Ok(("password".into(), 32)));
        assert_eq!(generate("pin=6"), Ok(("pin".into(), 6)));
        assert!(["=6", "pin=0", "pin=x", "pin=1025"].iter().all(|text| generate(text).is_err()));
        assert!("novalue".parse::<LiteralFlag>().is_err());
        assert_eq!(format!("{:?}", "a=hunter2".parse::<LiteralFlag>().unwrap()), r#"LiteralFlag { key: "a", .. }"#);
    }

    #[test]
    fn a_generated_value_is_as_long_as_asked_and_takes_no_unfair_byte() {
        let counting = |bytes: &mut [u8]| {
            bytes.iter_mut().zip(216..=255).for_each(|(byte, value)| *byte = value);
            Ok(())
        };
        let drawn = String::from_utf8(generated(70, counting).unwrap()).unwrap();
        assert_eq!(drawn.len(), 70);
        // 216..=247 are fair, the eight above are not, then 24 zeros.
        assert!(drawn.starts_with("efghijklmnopqrstuvwxyz0123456789AAAA"), "{drawn}");
    }
}
