//! Reading manifests from files, directories and standard input.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failure::Failure;
use super::{Context, bounded};
use crate::resource::ResourceType;
use crate::yaml;

/// One object of a manifest, and where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manifest {
    pub kind: ResourceType,
    pub namespace: String,
    pub name: String,
    pub object: Value,
}

/// All objects of the files, in their order.
pub(super) async fn read_all(context: &Context, files: &[PathBuf]) -> Result<Vec<Manifest>, Failure> {
    let mut all = Vec::new();
    for file in files {
        for object in read(file)? {
            all.push(placed(context, object).await?);
        }
    }
    Ok(all)
}

/// All objects of a file, a directory's manifests, or standard input (`-`).
pub(super) fn read(path: &Path) -> Result<Vec<Value>, Failure> {
    if path == Path::new("-") {
        return Ok(yaml::objects("standard input", &bounded::text(path)?)?);
    }
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        let text = bounded::text(path)?;
        return Ok(yaml::objects(&path.display().to_string(), &text)?);
    }
    let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| is_manifest(file));
    files.sort();
    let read: Result<Vec<Vec<Value>>, Failure> = files.iter().map(|file| read(file)).collect();
    Ok(read?.concat())
}

fn is_manifest(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    file.is_file() && matches!(ending, Some("yaml" | "yml" | "json"))
}

/// Finds out of which kind an object is and where it belongs.
async fn placed(context: &Context, mut object: Value) -> Result<Manifest, Failure> {
    let text =
        |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = kind(context, &text(&object, "/apiVersion"), &text(&object, "/kind")).await?;
    let (name, given) = (text(&object, "/metadata/name"), text(&object, "/metadata/namespace"));
    let namespace = if given.is_empty() { context.namespace.clone() } else { given };
    if kind.namespaced {
        object["metadata"]["namespace"] = namespace.clone().into();
    }
    Ok(Manifest { kind, namespace, name, object })
}

async fn kind(context: &Context, api_version: &str, kind: &str) -> Result<ResourceType, Failure> {
    if let Some(known) = ResourceType::by_kind(api_version, kind) {
        return Ok(known);
    }
    let found = match context.is_printing() {
        true => None,
        false => context.client.discover(api_version, |one| one.kind == kind).await?,
    };
    found.ok_or_else(|| Failure::Usage(format!("the server knows no kind {kind} of {api_version}")))
}
