//! The image store against a real registry, with images of every kind. Needs root, and the tools
//! docker-registry, skopeo and tar.

mod archives;
mod build;
mod faults;
mod keep;
mod pull;
mod servers;
mod slow;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use build::{Image, Layout as Built, Packed, Tar, native};
use servers::{Fault, Proxy, Registry as Server, run};

use super::*;

/// A store in a directory of its own, and what it looked like when it was empty.
struct Fixture {
    dir: tempfile::TempDir,
    store: ImageStore,
    empty: BTreeMap<PathBuf, u64>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::on(&std::env::temp_dir(), limits)
    }

    /// One that waits two seconds for the next byte, and tries three times.
    fn hurried() -> Self {
        let hurry = |patience: &mut Patience| (patience.read, patience.tries) = (Duration::from_secs(2), 3);
        Self::open(&std::env::temp_dir(), Limits::default(), hurry)
    }

    fn on(disk: &Path, limits: Limits) -> Self {
        Self::open(disk, limits, |_| {})
    }

    fn open(disk: &Path, limits: Limits, change: impl FnOnce(&mut Patience)) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root: owners and whiteouts cannot be made without");
        let dir = tempfile::tempdir_in(disk).unwrap();
        fs::create_dir(dir.path().join("settings")).unwrap();
        let mut options = options(dir.path(), limits);
        change(&mut options.patience);
        let store = ImageStore::open(&dir.path().join("store"), options).unwrap();
        let mut fixture = Self { dir, store, empty: BTreeMap::new() };
        fixture.empty = fixture.everything();
        fixture
    }

    /// Credentials for a registry.
    fn login(&self, registry: &str, user: &str, password: &str) {
        let path = self.dir.path().join("settings/auth.json");
        let entry = serde_json::json!({"auths": {registry: {"username": user, "password": password}}});
        fs::write(&path, entry.to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    async fn ensure(&self, reference: &str) -> Result<ResolvedImage, ImageError> {
        self.store.ensure(reference, nobody()).await
    }

    /// It fails with this code, every part of the message is in it, and nothing is left.
    #[track_caller]
    fn assert_refused(&self, result: Result<ResolvedImage, ImageError>, code: &str, parts: &[&str]) {
        let error = result.unwrap_err();
        let message = chain(&error);
        assert_eq!(error.code(), code, "{message}");
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(!error.advice().is_empty());
        assert_eq!(self.everything(), self.empty, "after: {message}");
    }

    /// Every file and directory of the store with its length.
    fn everything(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        walk(&self.dir.path().join("store"), &mut found);
        found
    }

    fn text(&self, image: &ResolvedImage, layer: usize, path: &str) -> String {
        let layer = self.store.layers().join(layer_directory(&image.layers[layer]));
        fs::read_to_string(layer.join(path)).unwrap()
    }
}

fn options(dir: &Path, limits: Limits) -> Options {
    let wait = Duration::from_millis(5);
    let patience =
        Patience { read: Duration::from_secs(20), first_wait: wait, longest_wait: wait, ..Patience::default() };
    Options { settings: dir.join("settings"), limits, patience, platform: Platform::here() }
}

fn walk(at: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            found.insert(path.clone(), 0);
            walk(&path, found);
        } else {
            found.insert(path, meta.len());
        }
    }
}

fn nobody() -> Watcher {
    Arc::new(|_| {})
}

fn chain(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn directories(image: &ResolvedImage) -> Vec<String> {
    image.layers.iter().map(|layer| layer_directory(layer)).collect()
}
