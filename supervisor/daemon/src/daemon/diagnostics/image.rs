//! The image of the loopback: an OCI layout made on the spot around one program that stands alone.
//!
//! The program (`probe/main.rs`) is linked with all it needs by `build.rs` and carried in `berthd`, so that the machine
//! can be tried without any registry. The image is made as any other would be, and taken in the same way.

use std::io;

use berth_host::blob::sha256;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// The program.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/berth-probe"));
/// Where it is in the image.
pub(super) const PATH: &str = "/berth-probe";
/// The image as an archive.
///
/// # Errors
/// None that can come about: it is written into memory.
pub(super) fn archive() -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    add(&mut layer, PATH.trim_start_matches('/'), 0o755, PROGRAM)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": { "Entrypoint": [PATH] },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({
        "schemaVersion": 2, "manifests": [described("application/vnd.oci.image.manifest.v1+json", &manifest)],
    });
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [config, manifest, layer] {
        add(&mut archive, &format!("blobs/{}", sha256(&blob).replace(':', "/")), 0o644, &blob)?;
    }
    archive.into_inner()
}

fn described(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(blob), "size": blob.len() })
}

/// As registries call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A file of root's, the same at every run.
fn add(archive: &mut Builder<Vec<u8>>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    archive.append_data(&mut header, name, content)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::image::{ImageStore, Options};

    #[tokio::test]
    async fn the_image_is_taken_in_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let images = ImageStore::open(dir.path(), Options::default()).unwrap();
        let archive = archive().unwrap();
        let taken = images.import("localhost/berth-probe:1", archive.as_slice(), std::sync::Arc::new(|_| {})).await;
        let taken = taken.unwrap();
        assert_eq!((taken.entrypoint.as_slice(), taken.layers.len()), ([PATH.to_owned()].as_slice(), 1));
    }

    #[allow(clippy::disallowed_methods, reason = "the program is tried as it is, outside the machine it is made for")]
    #[test]
    fn its_program_writes_reads_and_says_what_it_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let [bytes, program] = ["bytes", "berth-probe"].map(|name| dir.path().join(name));
        std::fs::write(&bytes, PROGRAM).unwrap();
        // By another process: one that this one has open to write, as a child just forked would, too, cannot be run.
        let copied = Command::new("/usr/bin/install").args(["-m", "755"]).args([&bytes, &program]).status().unwrap();
        assert!(copied.success());
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "word").unwrap();
        let read = Command::new(&program).arg("read").arg(&kept).output().unwrap();
        assert_eq!((read.status.success(), read.stdout.as_slice()), (true, b"word".as_slice()));
        let wrong = Command::new(&program).arg("look-up").arg("no.such.name.invalid").output().unwrap();
        assert!(!wrong.status.success() && wrong.stderr.starts_with(b"berth-probe: "));
    }
}
