//! Manifests, indexes and configurations of images: read, checked, never trusted.
//!
//! ```text
//! bytes -> parse -> Index -> choose(platform) -> digest of another manifest
//!                -> Image -> layers() -> descriptors of what is downloaded
//!                         -> configuration(bytes) -> diff ids, one per layer
//! ```

use std::fmt;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

use crate::blob::Digest;

/// More layers than an overlay can be made of; the kernel's own limit is 500.
const MOST_LAYERS: usize = 256;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// What a registry is asked for.
pub const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No JSON, or JSON of another shape.
    #[error("reading the {what}")]
    Json {
        /// `manifest`, `index` or `configuration`.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It could be read as an image and as an index.
    #[error("the manifest lists both layers and manifests")]
    Ambiguous,
    /// A type this build cannot handle.
    #[error("the {what} is of type `{media_type}`, which cannot be run")]
    MediaType {
        /// `manifest`, `configuration` or `layer`.
        what: &'static str,
        /// As announced.
        media_type: String,
    },
    /// Not for this machine.
    #[error("the image is made for {}, not for {wanted}", .available.join(", "))]
    Platform {
        /// This machine.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// Nothing to unpack.
    #[error("the image has no layers")]
    NoLayers,
    /// More than can be mounted.
    #[error("the image has {0} layers; at most {MOST_LAYERS} can be mounted")]
    TooManyLayers(usize),
    /// Manifest and configuration do not agree.
    #[error("the manifest lists {layers} layers, the configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// An index of indexes of indexes.
    #[error("the index leads to another index")]
    Nested,
}

/// Operating system and architecture, in the words of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
}

impl Platform {
    /// Of the machine this was built for.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)
    }
}

/// What a manifest turned out to be.
#[derive(Clone, Debug)]
pub enum Document {
    /// One image.
    Image(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// The manifest a reference stands for.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its digest.
    pub digest: Digest,
    /// As it came.
    pub bytes: Vec<u8>,
    /// As it reads.
    pub manifest: ImageManifest,
}

/// What tells the two apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index. Its own word about its type counts more than `announced`, the type
/// it was delivered with.
///
/// # Errors
/// It is neither, or could be both.
pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document, ManifestError> {
    let json = |what| move |source| ManifestError::Json { what, source };
    let outline: Outline = serde_json::from_slice(bytes).map_err(json("manifest"))?;
    if outline.manifests.is_some() && outline.layers.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    let shape = if outline.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
    let known = announced.filter(|kind| ACCEPTED.contains(kind));
    let media_type = outline.media_type.as_deref().or(known).unwrap_or(shape);
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => serde_json::from_slice(bytes).map(Document::Image).map_err(json("manifest")),
        OCI_INDEX | DOCKER_LIST => serde_json::from_slice(bytes).map(Document::Index).map_err(json("index")),
        other => Err(ManifestError::MediaType { what: "manifest", media_type: other.to_owned() }),
    }
}

/// The entry of an index for a platform. Of several the one without a variant is preferred, as it
/// runs on every machine of the architecture.
///
/// # Errors
/// There is none; the error lists what there is.
pub fn choose<'i>(index: &'i ImageIndex, platform: &Platform) -> Result<&'i Descriptor, ManifestError> {
    let is_manifest = |entry: &&Descriptor| ACCEPTED.contains(&entry.media_type().as_ref());
    let entries: Vec<&Descriptor> = index.manifests().iter().filter(is_manifest).collect();
    if let [only] = entries[..]
        && only.platform().is_none()
    {
        return Ok(only);
    }
    let fits = |entry: &&&Descriptor| {
        entry.platform().as_ref().is_some_and(|found| {
            found.os().to_string() == platform.os && found.architecture().to_string() == platform.architecture
        })
    };
    let variant = |entry: &&&Descriptor| entry.platform().as_ref().and_then(|found| found.variant().clone());
    entries
        .iter()
        .filter(fits)
        .min_by_key(variant)
        .copied()
        .ok_or_else(|| ManifestError::Platform { wanted: platform.clone(), available: platforms(&entries) })
}

fn platforms(entries: &[&Descriptor]) -> Vec<String> {
    let named = entries.iter().filter_map(|entry| entry.platform().as_ref());
    let mut names: Vec<String> = named
        .map(|found| format!("{}/{}", found.os(), found.architecture()))
        .filter(|name| name != "unknown/unknown")
        .collect();
    if names.is_empty() {
        names.push("no platform".into());
    }
    names
}

/// The layers of an image, the lowest first, of types that can be unpacked.
///
/// # Errors
/// There are none, too many, or one of another type.
pub fn layers(manifest: &ImageManifest) -> Result<&[Descriptor], ManifestError> {
    check_type("configuration", manifest.config().media_type(), |kind| {
        matches!(kind, MediaType::ImageConfig) || kind.as_ref() == DOCKER_CONFIG
    })?;
    let layers = manifest.layers();
    match layers.len() {
        0 => return Err(ManifestError::NoLayers),
        many if many > MOST_LAYERS => return Err(ManifestError::TooManyLayers(many)),
        _ => {}
    }
    for layer in layers {
        check_type("layer", layer.media_type(), is_layer)?;
    }
    Ok(layers)
}

/// Reads an image's configuration and holds it against the manifest and the machine.
///
/// # Errors
/// It is malformed, for another machine, or has not one diff id per layer.
pub fn configuration(
    bytes: &[u8],
    manifest: &ImageManifest,
    platform: &Platform,
) -> Result<ImageConfiguration, ManifestError> {
    let configuration: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Json { what: "configuration", source })?;
    let found = Platform { os: configuration.os().to_string(), architecture: configuration.architecture().to_string() };
    if found != *platform {
        return Err(ManifestError::Platform { wanted: platform.clone(), available: vec![found.to_string()] });
    }
    let (layers, diff_ids) = (manifest.layers().len(), configuration.rootfs().diff_ids().len());
    if layers != diff_ids {
        return Err(ManifestError::LayerCount { layers, diff_ids });
    }
    Ok(configuration)
}

fn check_type(
    what: &'static str,
    media_type: &MediaType,
    known: impl Fn(&MediaType) -> bool,
) -> Result<(), ManifestError> {
    if known(media_type) {
        return Ok(());
    }
    Err(ManifestError::MediaType { what, media_type: media_type.to_string() })
}

fn is_layer(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => true,
        MediaType::Other(name) => DOCKER_LAYERS.contains(&name.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(platform: serde_json::Value, digit: &str) -> serde_json::Value {
        json!({"mediaType": OCI_MANIFEST, "size": 5, "digest": format!("sha256:{}", digit.repeat(64)), "platform": platform})
    }

    fn index(entries: serde_json::Value) -> ImageIndex {
        let text = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let Document::Index(index) = parse(text.as_bytes(), None).unwrap() else { panic!("not an index") };
        *index
    }

    fn amd64() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into() }
    }

    fn image(config_type: &str, layer_types: &[&str]) -> ImageManifest {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layers: Vec<_> =
            layer_types.iter().map(|kind| json!({"mediaType": kind, "size": 5, "digest": digest})).collect();
        let config = json!({"mediaType": config_type, "size": 5, "digest": digest});
        let text = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        let Document::Image(image) = parse(text.as_bytes(), None).unwrap() else { panic!("not an image") };
        *image
    }

    #[test]
    fn the_entry_for_this_platform_is_chosen_and_attestations_are_not() {
        let found = index(json!([
            entry(json!({"os": "unknown", "architecture": "unknown"}), "0"),
            entry(json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), "1"),
            entry(json!({"os": "linux", "architecture": "amd64", "variant": "v3"}), "2"),
            entry(json!({"os": "linux", "architecture": "amd64"}), "3"),
        ]));
        assert_eq!(choose(&found, &amd64()).unwrap().digest().digest(), "3".repeat(64));
    }

    #[test]
    fn without_an_entry_for_this_platform_the_error_lists_what_there_is() {
        let found = index(json!([
            entry(json!({"os": "linux", "architecture": "arm64"}), "1"),
            entry(json!({"os": "windows", "architecture": "amd64"}), "2"),
        ]));
        let error = choose(&found, &amd64()).unwrap_err();
        assert_eq!(error.to_string(), "the image is made for linux/arm64, windows/amd64, not for linux/amd64");
    }

    #[test]
    fn a_document_that_could_be_read_two_ways_is_refused() {
        let text = json!({"schemaVersion": 2, "manifests": [], "layers": []}).to_string();
        assert!(matches!(parse(text.as_bytes(), Some(OCI_INDEX)), Err(ManifestError::Ambiguous)));
    }

    #[test]
    fn types_that_cannot_be_run_are_named() {
        let old = r#"{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+prettyjws"}"#;
        let error = parse(old.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains("manifest.v1+prettyjws"), "{error}");
        let chart = image("application/vnd.cncf.helm.config.v1+json", &[OCI_MANIFEST]);
        let error = layers(&chart).unwrap_err();
        assert!(error.to_string().contains("helm.config"), "{error}");
        let encrypted =
            image("application/vnd.oci.image.config.v1+json", &["application/vnd.oci.image.layer.v1.tar+encrypted"]);
        let error = layers(&encrypted).unwrap_err();
        assert!(error.to_string().contains("+encrypted"), "{error}");
    }

    #[test]
    fn docker_images_are_images() {
        assert_eq!(layers(&image(DOCKER_CONFIG, &DOCKER_LAYERS)).unwrap().len(), 4);
        assert!(matches!(layers(&image(DOCKER_CONFIG, &[])), Err(ManifestError::NoLayers)));
    }

    #[test]
    fn a_configuration_for_another_machine_or_another_manifest_is_refused() {
        let manifest = image(DOCKER_CONFIG, &DOCKER_LAYERS[..1]);
        let read = |architecture: &str, diff_ids: &[&str]| {
            let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
            let text = json!({"os": "linux", "architecture": architecture, "rootfs": rootfs}).to_string();
            configuration(text.as_bytes(), &manifest, &amd64())
        };
        assert!(read("amd64", &["sha256:x"]).is_ok());
        assert!(matches!(read("arm64", &["sha256:x"]), Err(ManifestError::Platform { .. })));
        assert!(matches!(read("amd64", &[]), Err(ManifestError::LayerCount { layers: 1, diff_ids: 0 })));
    }
}
