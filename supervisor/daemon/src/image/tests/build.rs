//! Images made by hand, so that they can be anything.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_host::blob::sha256;
use serde_json::{Value, json};

use super::servers::run;

/// A tar archive written entry by entry.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn entry(mut self, kind: u8, name: &str, link: &str, mode: u32, body: &[u8]) -> Self {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", body.len()));
        put(136, "14000000000");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, body: &str) -> Self {
        self.entry(b'0', name, "", 0o644, body.as_bytes())
    }

    pub fn program(self, name: &str) -> Self {
        self.entry(b'0', name, "", 0o755, b"#!/bin/sh\n")
    }

    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name, to, 0o777, b"")
    }

    pub fn hard_link(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name, to, 0o644, b"")
    }

    /// Bytes that do not compress.
    pub fn noise(self, name: &str, length: usize, seed: u64) -> Self {
        let mut state = seed | 1;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .take(length)
        .collect();
        self.entry(b'0', name, "", 0o644, &noise)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// How a layer is packed.
#[derive(Clone, Copy)]
pub enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(tar).unwrap();
                gzip.finish().unwrap()
            }
            Self::Zstd => zstd::stream::encode_all(tar, 1).unwrap(),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// One image, the lowest layer first.
#[derive(Clone)]
pub struct Image {
    layers: Vec<(Vec<u8>, Packed)>,
    config: Value,
    architecture: &'static str,
    diff_ids: Option<Vec<String>>,
}

impl Image {
    pub fn new() -> Self {
        let config = json!({"Entrypoint": ["/usr/bin/web"], "Cmd": ["-v"], "Env": ["PATH=/usr/bin", "A=b"]});
        Self { layers: Vec::new(), config, architecture: native(), diff_ids: None }
    }

    /// One that runs.
    pub fn web() -> Self {
        Self::new().layer(Tar::default().program("usr/bin/web").file("etc/passwd", "root:x:0:0::/:/bin/sh\n"))
    }

    pub fn layer(self, tar: Tar) -> Self {
        self.packed(tar, Packed::Gzip)
    }

    pub fn packed(mut self, tar: Tar, packed: Packed) -> Self {
        self.layers.push((tar.end(), packed));
        self
    }

    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    pub fn architecture(mut self, architecture: &'static str) -> Self {
        self.architecture = architecture;
        self
    }

    pub fn diff_ids(mut self, diff_ids: &[&str]) -> Self {
        self.diff_ids = Some(diff_ids.iter().map(|id| (*id).to_owned()).collect());
        self
    }

    /// The directory names of its layers once unpacked, the topmost first.
    pub fn unpacked(&self) -> Vec<String> {
        self.layers.iter().rev().map(|(tar, _)| sha256(tar).replace(':', "-")).collect()
    }

    /// Digest and length of a layer as it is packed.
    pub fn packed_layer(&self, number: usize) -> (String, usize) {
        let (tar, packed) = &self.layers[number];
        let bytes = packed.pack(tar);
        (sha256(&bytes), bytes.len())
    }

    /// Puts it into the layout and returns its descriptor.
    fn put(&self, layout: &Layout) -> Value {
        let diff_ids =
            self.diff_ids.clone().unwrap_or_else(|| self.layers.iter().map(|(tar, _)| sha256(tar)).collect());
        let config = json!({
            "os": "linux", "architecture": self.architecture, "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> =
            self.layers.iter().map(|(tar, packed)| layout.blob(packed.media_type(), &packed.pack(tar))).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut descriptor = layout.blob(media_type, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"os": "linux", "architecture": self.architecture});
        descriptor
    }
}

/// This machine's architecture as images call it.
pub fn native() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An OCI layout on the disk.
pub struct Layout(tempfile::TempDir);

impl Layout {
    pub fn of(image: &Image) -> Self {
        let layout = Self::empty();
        let descriptor = image.put(&layout);
        layout.index(&[descriptor]);
        layout
    }

    /// One index of images for several platforms.
    pub fn multi(images: &[Image]) -> Self {
        let layout = Self::empty();
        let entries: Vec<Value> = images.iter().map(|image| image.put(&layout)).collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        let descriptor = layout.blob(media_type, index.to_string().as_bytes());
        layout.index(&[descriptor]);
        layout
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self(dir)
    }

    fn index(&self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fs::write(self.0.path().join("index.json"), index.to_string()).unwrap();
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "size": bytes.len(), "digest": digest})
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.0.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// As one tar file.
    pub fn tar(&self) -> Vec<u8> {
        run("tar", &["-cf", "-", "-C", self.path().to_str().unwrap(), "."]).stdout
    }
}
