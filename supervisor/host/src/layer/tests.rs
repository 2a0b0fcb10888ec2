//! Layers of every legal and hostile kind, unpacked for real. Needs root: owners, whiteouts and
//! the overlay's own attributes cannot be made without.

mod hostile;
mod legal;
mod whole;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::process::Stdio;

use super::*;
use crate::blob::{parse_digest, sha256};
use crate::layer::merged::{Found, Program, find, find_program};
use crate::layer::refusal::Refusal;

/// A tar archive written byte by byte, so that it can say anything.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, body: &[u8]) -> Self {
        self.header(kind, name, link, mode, (1000, 100), body.len() as u64);
        self.body(body);
        self
    }

    fn header(&mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, owner: (u64, u64), size: u64) {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        old.linkflag = [kind];
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_500_000_000);
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
    }

    fn body(&mut self, body: &[u8]) {
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", 0o644, body.as_bytes())
    }

    fn program(self, name: &str) -> Self {
        self.entry(b'0', name.as_bytes(), b"", 0o755, b"#!/bin/sh\n")
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(b'2', name.as_bytes(), to.as_bytes(), 0o777, b"")
    }

    fn hard_link(self, name: &str, to: &str) -> Self {
        self.entry(b'1', name.as_bytes(), to.as_bytes(), 0o644, b"")
    }

    /// Records for the entry after this.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend(format!("{length} {key}=").bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(b'x', b"pax", b"", 0o644, &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    store: LayerStore,
}

impl Fixture {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root: owners and whiteouts cannot be made without");
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        Self { dir, store }
    }

    fn unpack(&self, tar: Tar) -> Result<PathBuf, LayerError> {
        self.unpack_bytes(&tar.end())
    }

    fn unpack_bytes(&self, bytes: &[u8]) -> Result<PathBuf, LayerError> {
        let diff_id = parse_digest(&sha256(bytes)).unwrap();
        self.store.unpack(bytes, &diff_id, &Limits::default())?;
        Ok(self.store.path(&diff_id))
    }

    /// Everything below the directory, by path.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        walk(self.dir.path(), self.dir.path(), &mut found);
        found
    }

    /// The archive is refused for this reason, the message names the entry, nothing is left.
    #[track_caller]
    fn refuses(&self, tar: Tar, entry: &str, expected: &Refusal) {
        let before = self.everything();
        let error = self.unpack(tar).unwrap_err();
        let LayerError::Refused { why, .. } = &error else { panic!("{error:?}") };
        assert_eq!(why, expected);
        assert!(error.to_string().contains(entry), "{error}");
        assert_eq!(self.everything(), before);
    }
}

fn walk(root: &Path, at: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        found.insert(path.strip_prefix(root).unwrap().to_owned(), format!("{:o} {}", meta.mode(), meta.len()));
        if meta.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[allow(clippy::disallowed_methods, reason = "a test drives the tools a user would")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    std::process::Command::new(program)
}
