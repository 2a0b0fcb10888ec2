//! The package under test: built by `image/debian/package.sh` from the programs beside this one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, Key, at};
use crate::spawn::{self, SpawnError};
use crate::tree;

/// The programs that go into it, built by `cargo build --workspace --all-targets`.
const PROGRAMS: [&str; 5] = ["berth", "berthd", "berth-run", "berth-dns", "berth-installer"];

/// The package could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Files.
    #[error("the package's files (is the workspace built?)")]
    Files(#[from] CacheError),
    /// The packing script.
    #[error("packing")]
    Pack(#[from] SpawnError),
}

/// A built package.
#[derive(Clone, Debug)]
pub struct Payload {
    /// A hash of its bytes, and so of everything in it.
    pub key: String,
    /// The `.deb` file.
    pub path: PathBuf,
}

/// Packs the programs as they are now.
pub fn build() -> Result<Payload, PayloadError> {
    let programs = at(Path::new("."), tree::programs())?;
    let source = tree::top();
    let mut inputs = Key::new("payload 1");
    for part in ["image/debian/package.sh", "image/debian/package", "units", "README.md", "LICENSE", "Cargo.toml"] {
        inputs.add_path(&source.join(part))?;
    }
    for program in PROGRAMS {
        inputs.add_path(&programs.join(program))?;
    }
    let folder = cache::entry("payload", &inputs.finish(), 3, |folder| -> Result<(), PayloadError> {
        let mut script = spawn::command("sh");
        script.arg(source.join("image/debian/package.sh")).arg(&programs).arg(folder);
        Ok(spawn::run(&mut script)?)
    })?;
    let path = cache::children(&folder)?.into_iter().next().unwrap_or(folder);
    let mut key = Key::new("payload");
    key.add(&at(&path, fs::read(&path))?);
    Ok(Payload { key: key.finish(), path })
}
