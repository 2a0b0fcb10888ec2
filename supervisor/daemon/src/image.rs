//! Images on this machine: pulled or imported once, whole, shared, and used without a registry.
//!
//! ```text
//! resolve(reference) -> asks the registry what the name means now; if nobody answers, what it
//!                       meant the last time
//! ensure(pinned)     -> everything of that image here (pull.rs), then a ResolvedImage
//! import(name, tar)  -> the same from an archive; the name is then never asked about elsewhere
//! ```
//!
//! ```text
//! <root>/lock                one process at a time
//!        layers/ unpacking/  berth_host::layer
//!        blobs/              manifests and configurations; layers only while they are on their way
//!        images/ names/      records: what is here, and what a name meant (record.rs)
//! ```
//!
//! Layers and blobs that no record speaks of are removed: at the start, after a failure, and after
//! a removal, whenever no pull is at work. A record is written after everything it speaks of and
//! removed before, so a crash leaves garbage at worst, which the next start removes.

pub mod error;
mod locks;
pub mod program;
pub mod progress;
mod pull;
mod record;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use berth_host::blob::{BlobStore, Digest, parse_digest};
use berth_host::fs::ensure_dir;
use berth_host::layer::{LayerError, LayerStore, Limits};
use berth_host::manifest::Platform;
use berth_host::oci_layout::Layout;
use berth_host::registry::{Patience, Registry, RegistryError, Session, Settings};
use berth_model::id::ImageReference;
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::revision::{ResolvedImage, layer_directory};
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_CLOEXEC, O_TMPFILE};
use oci_spec::image::ImageConfiguration;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::RwLock;
use tracing::{info, warn};

pub use error::ImageError;
use locks::Locks;
pub use progress::{Progress, Watcher};
use pull::{Pull, Source, blocking};
use record::{ImageRecord, NameRecord, Records};

/// What the store may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of `auth.json` and `registries.toml`.
    pub settings: PathBuf,
    /// What may come out of one layer.
    pub limits: Limits,
    /// How patient it is with registries.
    pub patience: Patience,
    /// What images have to be made for.
    pub platform: Platform,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: "/etc/berth/registries".into(),
            limits: Limits::default(),
            patience: Patience::default(),
            platform: Platform::here(),
        }
    }
}

/// What a reference means.
#[derive(Debug)]
pub struct Resolution {
    /// `registry/repository@sha256:...` of the image for this machine.
    pub pinned: String,
    /// The registry could not be asked, for this reason; it is what the name meant before.
    pub offline: Option<RegistryError>,
}

/// An image on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalImage {
    /// Names that stand for it.
    pub names: Vec<String>,
    /// `registry/repository@sha256:...`, once for each place it came from.
    pub references: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes of its layers as they were fetched.
    pub size: u64,
    /// How many layers.
    pub layers: usize,
    /// Something needs it.
    pub in_use: bool,
}

/// The images. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    layers: LayerStore,
    blobs: BlobStore,
    records: Records,
    registry: Registry,
    settings: PathBuf,
    limits: Limits,
    platform: Platform,
    locks: Locks,
    /// Held for reading by pulls, for writing while garbage is removed.
    gate: RwLock<()>,
    /// There may be garbage.
    dirty: AtomicBool,
    /// Names asked about for images that are not here yet, by pinned reference.
    asked: Mutex<HashMap<String, BTreeSet<String>>>,
    _lock: Flock<File>,
}

impl ImageStore {
    /// Opens the store, made if it is not there, and removes what a crash left. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used, or another process has it.
    pub fn open(root: &Path, options: Options) -> Result<Self, ImageError> {
        ensure_dir(root, 0o700)?;
        let lock = lock(root)?;
        let inner = Inner {
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
            asked: Mutex::default(),
            _lock: lock,
        };
        let left =
            inner.layers.sweep().map_err(ImageError::Layers)? + inner.blobs.sweep().map_err(ImageError::Blobs)?;
        let garbage = inner.collect()?;
        if left + garbage > 0 {
            info!(left, garbage, "removed what an earlier run left in the image store");
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Directory of the unpacked layers, for a plan; [`layer_directory`] names one in it.
    #[must_use]
    pub fn layers(&self) -> &Path {
        self.0.layers.directory()
    }

    /// What a reference means now. A digest that is here, and a name that was imported, are known
    /// without asking anybody.
    ///
    /// # Errors
    /// The reference is malformed, or the registry says no, or nobody answers and nothing is known.
    pub async fn resolve(&self, reference: &str) -> Result<Resolution, ImageError> {
        let reference = parse(reference)?;
        let local = self.0.local(&reference)?;
        if let Some((record, name)) = &local
            && (reference.reference().digest().is_some() || name.as_ref().is_some_and(|name| name.imported))
        {
            return Ok(Resolution { pinned: pinned(&reference, &record.digest), offline: None });
        }
        let asked = match self.0.session(&reference) {
            Ok(session) => session.resolve(&self.0.platform).await,
            Err(error) => Err(error),
        };
        match (asked, local) {
            (Ok(resolved), _) => {
                let pinned = pinned(&reference, resolved.digest.as_ref());
                self.0.remember(&pinned, &reference, &resolved.digest)?;
                Ok(Resolution { pinned, offline: None })
            }
            (Err(error), Some((record, _))) if error.is_offline() => {
                Ok(Resolution { pinned: pinned(&reference, &record.digest), offline: Some(error) })
            }
            (Err(source), _) => Err(ImageError::Registry { reference: reference.to_string(), source }),
        }
    }

    /// Brings an image here unless it is, and tells what a start needs of it. Goes on to its end
    /// even if the caller does not wait for it.
    ///
    /// # Errors
    /// It cannot be fetched, is damaged, hostile or for another machine. Nothing is left of it.
    pub async fn ensure(&self, reference: &str, watcher: Watcher) -> Result<ResolvedImage, ImageError> {
        let wanted = parse(reference)?;
        let wanted = match wanted.reference().digest() {
            Some(_) => wanted,
            None => parse(&self.resolve(reference).await?.pinned)?,
        };
        if let Some((record, _)) = self.0.local(&wanted)? {
            watcher(Progress { done: record.size, total: record.size });
            return self.0.resolved_image(&wanted, &record);
        }
        let store = self.0.clone();
        let work = async move {
            let done = store.pull(&wanted, watcher).await;
            store.tidy(done.is_err()).await;
            let (record, reference) = done?;
            store.resolved_image(&reference, &record)
        };
        tokio::spawn(work).await.map_err(|_| ImageError::CutOff)?
    }

    /// Takes an image from a tar archive (OCI layout or docker archive) under a name.
    ///
    /// # Errors
    /// As [`ImageStore::ensure`], or the upload breaks off.
    pub async fn import(
        &self,
        name: &str,
        archive: impl AsyncRead + Send,
        watcher: Watcher,
    ) -> Result<ResolvedImage, ImageError> {
        let name = parse(name)?;
        let file = self.0.spool(archive).await?;
        let reference = name.to_string();
        let open = move || Layout::archive(file).map_err(|source| ImageError::Archive { reference, source });
        self.import_layout(name, blocking(open).await?, watcher).await
    }

    /// Takes an image from the directory of an OCI layout under a name.
    ///
    /// # Errors
    /// As [`ImageStore::ensure`].
    pub async fn import_directory(
        &self,
        name: &str,
        directory: &Path,
        watcher: Watcher,
    ) -> Result<ResolvedImage, ImageError> {
        let name = parse(name)?;
        let layout = Layout::directory(directory)
            .map_err(|source| ImageError::Archive { reference: name.to_string(), source })?;
        self.import_layout(name, layout, watcher).await
    }

    /// The images on this machine. `in_use` holds digests of manifests.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn list(&self, in_use: &HashSet<String>) -> Result<Vec<LocalImage>, ImageError> {
        let names = self.0.records.names()?;
        let local = |record: ImageRecord| LocalImage {
            names: names.iter().filter(|name| name.digest == record.digest).map(|name| name.name.clone()).collect(),
            references: record.repositories.iter().map(|place| format!("{place}@{}", record.digest)).collect(),
            size: record.size,
            layers: record.layers.len(),
            in_use: in_use.contains(&record.digest),
            digest: record.digest,
        };
        Ok(self.0.records.images()?.into_iter().map(local).collect())
    }

    /// Removes a name, and the image with its last name; a digest removes the image with all of its
    /// names. `in_use` holds digests of manifests that have to stay, also those of operations at
    /// work.
    ///
    /// # Errors
    /// There is no such image, or it is in use.
    pub async fn remove(&self, reference: &str, in_use: &HashSet<String>) -> Result<(), ImageError> {
        let reference = parse(reference)?;
        let unknown = || ImageError::Unknown { reference: reference.to_string() };
        let (record, name) = self.0.local(&reference)?.ok_or_else(unknown)?;
        if in_use.contains(&record.digest) {
            return Err(ImageError::InUse { reference: reference.to_string() });
        }
        if let Some(name) = name {
            self.0.records.remove_name(&name.name)?;
        }
        let named = self.0.records.names()?.iter().any(|name| name.digest == record.digest);
        if reference.reference().digest().is_some() || !named {
            self.0.forget(&record)?;
        }
        self.0.tidy(true).await;
        Ok(())
    }

    /// Removes every image whose digest is not in `in_use`, and tells which.
    ///
    /// # Errors
    /// A record cannot be removed.
    pub async fn prune(&self, in_use: &HashSet<String>) -> Result<Vec<LocalImage>, ImageError> {
        let unused: Vec<LocalImage> = self.list(in_use)?.into_iter().filter(|image| !image.in_use).collect();
        for record in self.0.records.images()? {
            if unused.iter().any(|image| image.digest == record.digest) {
                self.0.forget(&record)?;
            }
        }
        self.0.tidy(true).await;
        Ok(unused)
    }

    /// The program that would be run is there and executable.
    ///
    /// # Errors
    /// It is not, or neither bundle nor image names one.
    pub async fn check_program(&self, image: &ResolvedImage, spec: &BundleSpec) -> Result<(), ImageError> {
        let directory = self.layers().to_owned();
        let (image, spec) = (image.clone(), spec.clone());
        blocking(move || {
            let layers: Vec<PathBuf> =
                image.layers.iter().map(|layer| directory.join(layer_directory(layer))).collect();
            program::check(&image, &spec, &layers)
        })
        .await
    }

    async fn import_layout(
        &self,
        name: ImageReference,
        layout: Layout,
        watcher: Watcher,
    ) -> Result<ResolvedImage, ImageError> {
        let store = self.0.clone();
        let work = async move {
            let done = store.import(&name, layout, watcher).await;
            store.tidy(done.is_err()).await;
            store.resolved_image(&name, &done?)
        };
        tokio::spawn(work).await.map_err(|_| ImageError::CutOff)?
    }
}

impl Inner {
    fn session(&self, reference: &ImageReference) -> Result<Session, RegistryError> {
        let settings = Settings::load(&self.settings)?;
        Ok(self.registry.session(reference.reference(), &settings))
    }

    /// The image of a reference if it is here whole, and the name it goes by.
    fn local(&self, reference: &ImageReference) -> Result<Option<(ImageRecord, Option<NameRecord>)>, ImageError> {
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

    async fn pull(
        self: &Arc<Self>,
        wanted: &ImageReference,
        watcher: Watcher,
    ) -> Result<(ImageRecord, ImageReference), ImageError> {
        let _open = self.gate.read().await;
        let _alone = self.locks.lock(&format!("image {wanted}")).await;
        if let Some((record, _)) = self.local(wanted)? {
            return Ok((record, wanted.clone()));
        }
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

    async fn import(
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

    /// Notes what a name means: on record if the image is here, else until it is.
    fn remember(&self, pinned: &str, reference: &ImageReference, digest: &Digest) -> Result<(), ImageError> {
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

    fn resolved_image(&self, reference: &ImageReference, record: &ImageRecord) -> Result<ResolvedImage, ImageError> {
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

    /// Puts an upload into a file without a name, which is gone with its last user.
    async fn spool(&self, archive: impl AsyncRead + Send) -> Result<File, ImageError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(O_TMPFILE | O_CLOEXEC)
            .open(&self.root)
            .map_err(ImageError::Upload)?;
        let limit = self.limits.bytes;
        let mut archive = Box::pin(archive.take(limit + 1));
        let mut into = tokio::fs::File::from_std(file);
        let copied = tokio::io::copy(&mut archive, &mut into).await.map_err(ImageError::Upload)?;
        if copied > limit {
            return Err(ImageError::UploadTooLarge { limit });
        }
        into.flush().await.map_err(ImageError::Upload)?;
        Ok(into.into_std().await)
    }

    fn forget(&self, record: &ImageRecord) -> Result<(), ImageError> {
        for name in self.records.names()?.iter().filter(|name| name.digest == record.digest) {
            self.records.remove_name(&name.name)?;
        }
        self.records.remove_image(&digest_of(&record.digest)?)
    }

    /// Removes garbage if there may be some and nobody is pulling; whoever finishes last does.
    async fn tidy(self: &Arc<Self>, dirty: bool) {
        if dirty {
            self.dirty.store(true, Ordering::SeqCst);
        }
        let Ok(_closed) = self.gate.try_write() else { return };
        if !self.dirty.swap(false, Ordering::SeqCst) {
            return;
        }
        let store = self.clone();
        if let Err(error) = blocking(move || store.collect()).await {
            self.dirty.store(true, Ordering::SeqCst);
            warn!(error = &error as &dyn std::error::Error, "removing unused layers");
        }
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

fn parse(reference: &str) -> Result<ImageReference, ImageError> {
    ImageReference::try_from(reference).map_err(ImageError::Reference)
}

fn digest_of(text: &str) -> Result<Digest, ImageError> {
    parse_digest(text).map_err(ImageError::Blobs)
}

/// `registry/repository`.
fn repository(reference: &ImageReference) -> String {
    format!("{}/{}", reference.reference().registry(), reference.reference().repository())
}

/// `registry/repository@digest`.
fn pinned(reference: &ImageReference, digest: &str) -> String {
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

#[cfg(test)]
mod tests;
