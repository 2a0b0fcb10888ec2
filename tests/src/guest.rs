//! The guest's root disk: Debian by `image/debian/guest.sh`, kept under a hash of that folder.

use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, Key};
use crate::spawn::{self, SpawnError};
use crate::tree;

/// The guest could not be built.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The cache failed.
    #[error("keeping the guest")]
    Cache(#[from] CacheError),
    /// The building script failed.
    #[error("building the guest")]
    Build(#[from] SpawnError),
}

/// What a machine boots.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Names everything it was made from.
    pub key: String,
    folder: PathBuf,
}

/// Which packages it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// What Berth depends on and the tests look with.
    Test,
    /// With the peers that the bench compares with.
    Bench,
    /// With a git server.
    Git,
}

impl Guest {
    /// Linux.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The initial ramdisk.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The root disk, raw; only ever the backing of an overlay.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.img")
    }
}

/// The guest, built if its inputs have changed.
pub fn build(flavor: Flavor) -> Result<Guest, GuestError> {
    let source = tree::top().join("image/debian");
    let lists: &[&str] = match flavor {
        Flavor::Test => &["packages"],
        Flavor::Bench => &["packages", "packages.bench"],
        Flavor::Git => &["packages", "packages.git"],
    };
    let mut key = Key::new("guest 1");
    for part in ["guest.sh", "guest-finish.sh", "guest"].iter().chain(lists) {
        key.add_path(&source.join(part))?;
    }
    let key = key.finish();
    let folder = cache::entry("guest", &key, 4, |folder| make(&source, folder, lists))?;
    Ok(Guest { key, folder })
}

fn make(source: &Path, folder: &Path, lists: &[&str]) -> Result<(), GuestError> {
    eprintln!("building the guest (Debian packages, about a minute; once)");
    let mut script = spawn::command("sh");
    script.arg(source.join("guest.sh")).arg(folder).args(lists.iter().map(|list| source.join(list)));
    Ok(spawn::run(&mut script)?)
}
