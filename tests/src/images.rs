//! Container images for the tests, made from Debian packages without a container engine.
//!
//! A service in `image/services/<name>` has a lowest layer from packages (`rootfs.sh`), one small layer per tag
//! (`layers/<tag>`) and a `config.json`. Each tag becomes an OCI layout `<name>_<tag>`; tags of one service share the
//! lowest layer, as real versions do.

use std::fs;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::cache::{self, CacheError, Key, at};
use crate::spawn::{self, SpawnError};
use crate::tree;

/// An image could not be made or pushed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Files.
    #[error("an image's files")]
    Files(#[from] CacheError),
    /// A program.
    #[error("making or pushing an image")]
    Host(#[from] SpawnError),
    /// A `config.json` is none.
    #[error("{0} is no JSON")]
    Config(PathBuf, #[source] serde_json::Error),
}

/// All images, in one folder.
#[derive(Clone, Debug)]
pub struct Images {
    /// Names everything they were made from.
    pub key: String,
    folder: PathBuf,
}

impl Images {
    /// The OCI layout of an image like `nginx:1`.
    pub fn layout(&self, image: &str) -> PathBuf {
        self.folder.join(image.replace(':', "_"))
    }

    /// All there are, like `nginx:1`.
    pub fn names(&self) -> Result<Vec<String>, ImageError> {
        let folders = cache::children(&self.folder)?;
        Ok(folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.replace('_', ":"))).collect())
    }

    /// Pushes all of them to a registry on that port of 127.0.0.1, without TLS.
    pub fn push(&self, port: u16) -> Result<(), ImageError> {
        self.names()?.iter().try_for_each(|image| push(&self.layout(image), image, port))
    }
}

/// Pushes an OCI layout under a name like `nginx:1` to a registry on that port of 127.0.0.1, without TLS.
pub fn push(layout: &Path, image: &str, port: u16) -> Result<(), ImageError> {
    let tag = image.rsplit(':').next().unwrap_or("latest");
    let mut skopeo = spawn::command("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
    skopeo.arg(format!("oci:{}:{tag}", layout.display())).arg(format!("docker://127.0.0.1:{port}/{image}"));
    spawn::output(&mut skopeo)?;
    Ok(())
}

/// The images, built if their inputs have changed.
pub fn build() -> Result<Images, ImageError> {
    let source = tree::top().join("image/services");
    let mut key = Key::new("images 1");
    key.add_path(&source)?;
    let key = key.finish();
    let folder = cache::entry("images", &key, 2, |folder| {
        eprintln!("building the service images (Debian packages, about a minute; once)");
        let services = cache::children(&source)?.into_iter().filter(|path| path.is_dir());
        services.into_iter().try_for_each(|service| make(&source, &service, folder))
    })?;
    Ok(Images { key, folder })
}

/// All tags of a service.
fn make(source: &Path, service: &Path, folder: &Path) -> Result<(), ImageError> {
    let name = service.file_name().unwrap_or_default().to_string_lossy();
    let lowest = folder.join("lowest.tar");
    spawn::run(spawn::command("sh").arg(source.join("rootfs.sh")).arg(service).arg(&lowest))?;
    let config_file = service.join("config.json");
    let config = serde_json::from_slice(&at(&config_file, fs::read(&config_file))?);
    let config: Value = config.map_err(|err| ImageError::Config(config_file, err))?;
    for layer in cache::children(&service.join("layers"))? {
        let tag = layer.file_name().unwrap_or_default().to_string_lossy();
        let top = folder.join("top.tar");
        pack(&layer, &top)?;
        layout(&folder.join(format!("{name}_{tag}")), &tag, &[&lowest, &top], &config)?;
        cache::remove(&top)?;
    }
    Ok(cache::remove(&lowest)?)
}

/// A folder as a layer that is the same whenever and by whomever it is made.
fn pack(folder: &Path, out: &Path) -> Result<(), ImageError> {
    let mut tar = spawn::command("tar");
    tar.args([
        "--sort=name",
        "--mtime=@1767225600",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u=rwX,go=rX",
        "-C",
    ]);
    spawn::output(tar.arg(folder).arg("-cf").arg(out).arg("."))?;
    Ok(())
}

/// Makes an OCI layout of layers that are tar files, the lowest first.
pub fn layout(folder: &Path, tag: &str, layers: &[&Path], config: &Value) -> Result<(), ImageError> {
    at(folder, fs::create_dir_all(folder.join("blobs/sha256")))?;
    let (mut described, mut plain) = (Vec::new(), Vec::new());
    for layer in layers {
        plain.push(sum(&at(layer, fs::read(layer))?));
        let packed = spawn::output(spawn::command("gzip").args(["-n", "-c"]).arg(layer))?;
        described.push(blob(folder, "application/vnd.oci.image.layer.v1.tar+gzip", &packed)?);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": plain},
    });
    let config = blob(folder, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": described});
    let mut manifest = blob(folder, kind, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    for (name, text) in [("index.json", index.as_str()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)] {
        at(folder, fs::write(folder.join(name), text))?;
    }
    Ok(())
}

/// Stores a blob and returns its descriptor.
fn blob(folder: &Path, kind: &str, bytes: &[u8]) -> Result<Value, ImageError> {
    let sum = sum(bytes);
    at(folder, fs::write(folder.join("blobs").join(sum.replace(':', "/")), bytes))?;
    Ok(json!({"mediaType": kind, "digest": sum, "size": bytes.len()}))
}

fn sum(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
