//! What the image store has and does behind its handle: find, pull, import, remember, clean up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_host::blob::{BlobStore, Digest, parse_digest};
use berth_host::disk_image;
use berth_host::fs::ensure_dir;
use berth_host::layer::{LayerError, LayerStore, Limits};
use berth_host::manifest::Platform;
use berth_host::oci_layout::Layout;
use berth_host::registry::{Registry, RegistryError, Session, Settings};
use berth_model::id::ImageReference;
use berth_model::resource::revision::ResolvedImage;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_CLOEXEC, O_TMPFILE};
use oci_spec::image::ImageConfiguration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{RwLock, RwLockWriteGuard};
use tracing::{info, warn};

use super::locks::Locks;
use super::pull::{Pull, Source, blocking};
use super::record::{ImageRecord, NameRecord, Records};
use super::{Fullness, ImageError, Options, Watcher};

/// The least that images leave free, in bytes.
const KEPT: u64 = 64 << 20;

/// What is free on the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    free: u64,
}

impl Room {
    /// Bytes that images leave: a tenth, and enough for the database and whoever has to make room again.
    pub(super) fn kept(self) -> u64 {
        (self.free / 10).max(KEPT)
    }

    /// Bytes that images may take.
    pub(super) fn for_images(self) -> u64 {
        self.free.saturating_sub(self.kept())
    }
}

/// The store itself.
pub(super) struct Inner {
    root: PathBuf,
    pub(super) layers: LayerStore,
    pub(super) blobs: BlobStore,
    pub(super) records: Records,
    pub(super) registry: Registry,
    settings: PathBuf,
    pub(super) limits: Limits,
    pub(super) platform: Platform,
    pub(super) locks: Locks,
    /// Held for reading by pulls, for writing while garbage is removed.
    gate: RwLock<()>,
    /// There may be garbage.
    dirty: AtomicBool,
    /// Why no image is taken in, if none is.
    paused: Mutex<Option<Fullness>>,
    /// Names asked about for images that are not here yet, by pinned reference.
    asked: Mutex<HashMap<String, BTreeSet<String>>>,
    _lock: Flock<File>,
}

impl Inner {
    pub(super) fn open(root: &Path, options: Options) -> Result<Self, ImageError> {
        ensure_dir(root, 0o700)?;
        let lock = lock(root)?;
        let inner = Self {
            root: root.to_owned(),
            layers: LayerStore::open(root).map_err(ImageError::Layers)?,
            blobs: BlobStore::open(&root.join("blobs")).map_err(ImageError::Blobs)?,
            records: Records::open(root)?,
            registry: Registry::new(options.patience).map_err(ImageError::Open)?,
            settings: options.settings,
            limits: options.limits,
            platform: options.platform,
            locks: Locks::default(),
            gate: RwLock::default(),
            dirty: AtomicBool::new(false),
            paused: Mutex::default(),
            asked: Mutex::default(),
            _lock: lock,
        };
        let left =
            inner.layers.sweep().map_err(ImageError::Layers)? + inner.blobs.sweep().map_err(ImageError::Blobs)?;
        let garbage = inner.collect()?;
        if left + garbage > 0 {
            info!("removed {} things that an earlier run left in the image store", left + garbage);
        }
        Ok(inner)
    }

    pub(super) fn session(&self, reference: &ImageReference) -> Result<Session, RegistryError> {
        let settings = Settings::load(&self.settings)?;
        Ok(self.registry.session(reference.reference(), &settings))
    }

    /// The image of a reference if it is here whole, and the name it goes by.
    pub(super) fn local(
        &self,
        reference: &ImageReference,
    ) -> Result<Option<(ImageRecord, Option<NameRecord>)>, ImageError> {
        let parsed = reference.reference();
        if let Some(digest) = parsed.digest() {
            let digest = digest_of(digest)?;
            if let Some(record) = self.whole(&digest)?
                && record.repositories.contains(&repository(reference))
            {
                return Ok(Some((record, None)));
            }
        }
        let Some(name) = self.records.name(&name_of(reference))? else {
            return Ok(None);
        };
        let record = self.whole(&digest_of(&name.digest)?)?;
        Ok(record.map(|record| (record, Some(name))))
    }

    /// A record all of whose layers are here.
    fn whole(&self, digest: &Digest) -> Result<Option<ImageRecord>, ImageError> {
        let Some(record) = self.records.image(digest)? else {
            return Ok(None);
        };
        for layer in &record.layers {
            if !self.layers.contains(&digest_of(layer)?) {
                return Ok(None);
            }
        }
        Ok(Some(record))
    }

    pub(super) async fn pull(
        self: &Arc<Self>,
        wanted: &ImageReference,
        watcher: Watcher,
    ) -> Result<(ImageRecord, ImageReference), ImageError> {
        let _open = self.gate.read().await;
        let _alone = self.locks.lock(&format!("image {wanted}")).await;
        if let Some((record, _)) = self.local(wanted)? {
            self.mark(&record, None)?;
            return Ok((record, wanted.clone()));
        }
        self.open_to(&wanted.to_string())?;
        let failed = |source| ImageError::Registry { reference: wanted.to_string(), source };
        let session = self.session(wanted).map_err(failed)?;
        let resolved = session.resolve(&self.platform).await.map_err(failed)?;
        let digest = resolved.digest.clone();
        let source = Source::Registry(Box::new(session));
        let pull = Pull { store: self.clone(), reference: wanted.clone(), source, resolved };
        let record = pull.run(watcher).await?;
        // The digest may have been that of an index.
        self.remember(&pinned(wanted, digest.as_ref()), wanted, &digest)?;
        Ok((record, wanted.clone()))
    }

    pub(super) async fn import(
        self: &Arc<Self>,
        name: &ImageReference,
        layout: Layout,
        watcher: Watcher,
    ) -> Result<ImageRecord, ImageError> {
        let _open = self.gate.read().await;
        let (reference, platform) = (name.clone(), self.platform.clone());
        let found = blocking(move || {
            let text = reference.to_string();
            let image = layout.image(&text, reference.reference().tag(), &platform);
            Ok((layout, image.map_err(|source| ImageError::Archive { reference: text, source })?))
        });
        let source = Arc::new(found.await?);
        let resolved = source.1.resolved.clone();
        let digest = resolved.digest.clone();
        if name.reference().digest().is_some_and(|wanted| wanted != digest.as_ref()) {
            return Err(ImageError::OtherImage { reference: name.to_string(), found: digest.to_string() });
        }
        let source = Source::Layout(source);
        let record = Pull { store: self.clone(), reference: name.clone(), source, resolved }.run(watcher).await?;
        if name.reference().digest().is_none() {
            let name = NameRecord { name: name_of(name), digest: digest.to_string(), imported: true };
            self.records.put_name(&name)?;
        }
        Ok(record)
    }

    /// Takes images in or not, from now on; those on their way are finished.
    pub(super) fn pause(&self, why: Option<Fullness>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Images are taken in.
    pub(super) fn open_to(&self, reference: &str) -> Result<(), ImageError> {
        let paused = *self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.map_or(Ok(()), |fullness| Err(ImageError::Paused { reference: reference.to_owned(), fullness }))
    }

    /// Notes what a name means: on record if the image is here, else until it is.
    pub(super) fn remember(&self, pinned: &str, reference: &ImageReference, digest: &Digest) -> Result<(), ImageError> {
        let name = name_of(reference);
        let here = self.whole(digest)?.is_some();
        let names = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if name != pinned {
                asked.entry(pinned.to_owned()).or_default().insert(name);
            }
            if here { asked.remove(pinned).unwrap_or_default() } else { BTreeSet::new() }
        };
        for name in names {
            self.records.put_name(&NameRecord { name, digest: digest.to_string(), imported: false })?;
        }
        Ok(())
    }

    pub(super) fn resolved_image(
        &self,
        reference: &ImageReference,
        record: &ImageRecord,
    ) -> Result<ResolvedImage, ImageError> {
        let unknown = || ImageError::Unknown { reference: reference.to_string() };
        let bytes = self.blobs.get(&digest_of(&record.config)?).map_err(ImageError::Blobs)?.ok_or_else(unknown)?;
        let configuration: ImageConfiguration = serde_json::from_slice(&bytes)
            .map_err(|source| ImageError::Record { name: record.config.clone(), source })?;
        let config = configuration.config().clone().unwrap_or_default();
        Ok(ResolvedImage {
            reference: pinned(reference, &record.digest),
            digest: record.digest.clone(),
            layers: self.visible(&record.layers)?,
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone().unwrap_or_default(),
        })
    }

    /// Without the layers below one that hides everything, as an overlay does not honour the mark
    /// on the root of a layer; and each once, as it cannot be mounted twice.
    fn visible(&self, layers: &[String]) -> Result<Vec<String>, ImageError> {
        let mut visible: Vec<String> = Vec::new();
        for layer in layers {
            if visible.contains(layer) {
                continue;
            }
            visible.push(layer.clone());
            if self.layers.is_opaque(&digest_of(layer)?).map_err(ImageError::Layers)? {
                break;
            }
        }
        Ok(visible)
    }

    pub(super) fn room(&self) -> Result<Room, ImageError> {
        let found = disk_image::room(&self.root).map_err(ImageError::Room)?;
        Ok(Room { free: found.free })
    }

    /// Puts an upload into a file without a name, which is gone with its last user.
    pub(super) async fn spool(&self, archive: impl AsyncRead + Send) -> Result<File, ImageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(O_TMPFILE | O_CLOEXEC)
            .open(&self.root)
            .map_err(ImageError::Upload)?;
        let limit = self.limits.bytes.min(self.room()?.for_images());
        let mut archive = Box::pin(archive.take(limit + 1));
        let mut into = tokio::fs::File::from_std(file);
        let copied = tokio::io::copy(&mut archive, &mut into).await.map_err(ImageError::Upload)?;
        if copied > limit {
            return Err(ImageError::UploadTooLarge { limit });
        }
        into.flush().await.map_err(ImageError::Upload)?;
        Ok(into.into_std().await)
    }

    pub(super) fn mark(&self, record: &ImageRecord, unused_since: Option<Timestamp>) -> Result<(), ImageError> {
        self.records.mark(&digest_of(&record.digest)?, unused_since)
    }

    pub(super) fn forget(&self, record: &ImageRecord) -> Result<(), ImageError> {
        for name in self.records.names()?.iter().filter(|name| name.digest == record.digest) {
            self.records.remove_name(&name.name)?;
        }
        self.records.remove_image(&digest_of(&record.digest)?)
    }

    /// Removes garbage if there may be some and nobody is pulling; whoever finishes last does.
    pub(super) async fn tidy(self: &Arc<Self>, dirty: bool) {
        if dirty {
            self.dirty.store(true, Ordering::SeqCst);
        }
        let Ok(_closed) = self.gate.try_write() else { return };
        if !self.dirty.swap(false, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.clear().await {
            self.dirty.store(true, Ordering::SeqCst);
            warn!("removing unused layers: {}", crate::log::chain(&error));
        }
    }

    /// Lets nobody pull; an error while somebody does.
    pub(super) fn close(&self) -> Result<RwLockWriteGuard<'_, ()>, ImageError> {
        self.gate.try_write().map_err(|_| ImageError::Busy)
    }

    /// Removes garbage. Only while nobody pulls.
    pub(super) async fn clear(self: &Arc<Self>) -> Result<(), ImageError> {
        let store = self.clone();
        blocking(move || store.collect()).await.map(drop)
    }

    /// Removes layers and blobs that no record speaks of. Only while nobody pulls.
    fn collect(&self) -> Result<usize, ImageError> {
        let records = self.records.images()?;
        let layers: HashSet<&str> = records.iter().flat_map(|image| &image.layers).map(String::as_str).collect();
        let blobs: HashSet<&str> = records.iter().flat_map(|image| [image.digest.as_str(), &image.config]).collect();
        let mut removed = 0;
        for layer in self.layers.list().map_err(ImageError::Layers)? {
            if !layers.contains(layer.as_ref()) {
                self.layers.remove(&layer).map_err(ImageError::Layers)?;
                removed += 1;
            }
        }
        for blob in self.blobs.list().map_err(ImageError::Blobs)? {
            if !blobs.contains(blob.as_ref()) {
                self.blobs.remove(&blob).map_err(ImageError::Blobs)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn lock(root: &Path) -> Result<Flock<File>, ImageError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join("lock"));
    let opening = "opening the lock of the image store";
    let file = file.map_err(|source| ImageError::Layers(LayerError::Store { doing: opening, source }))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| ImageError::Locked)
}

pub(super) fn parse(reference: &str) -> Result<ImageReference, ImageError> {
    ImageReference::try_from(reference).map_err(ImageError::Reference)
}

fn digest_of(text: &str) -> Result<Digest, ImageError> {
    parse_digest(text).map_err(ImageError::Blobs)
}

/// `registry/repository`.
pub(super) fn repository(reference: &ImageReference) -> String {
    format!("{}/{}", reference.reference().registry(), reference.reference().repository())
}

/// `registry/repository@digest`.
pub(super) fn pinned(reference: &ImageReference, digest: &str) -> String {
    format!("{}@{digest}", repository(reference))
}

/// What is remembered of a reference: its digest if it has one, else its tag.
fn name_of(reference: &ImageReference) -> String {
    let parsed = reference.reference();
    match (parsed.digest(), parsed.tag()) {
        (Some(digest), _) => pinned(reference, digest),
        (None, tag) => format!("{}:{}", repository(reference), tag.unwrap_or("latest")),
    }
}
