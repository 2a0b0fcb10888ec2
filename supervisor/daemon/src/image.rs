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
//! A record also says since when nothing has needed its image: whoever keeps house looks at what is in use and notes it
//! ([`Still::mark_unused`]), and `ensure` takes the note back.
//!
//! Layers and blobs that no record speaks of are removed: at the start, after a failure, and after
//! a removal, whenever no pull is at work. A record is written after everything it speaks of and
//! removed before, so a crash leaves garbage at worst, which the next start removes.

pub mod error;
mod inner;
mod locks;
pub mod program;
pub mod progress;
mod pull;
mod record;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_host::layer::Limits;
use berth_host::manifest::Platform;
use berth_host::oci_layout::Layout;
use berth_host::registry::{Patience, RegistryError};
use berth_model::id::ImageReference;
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::revision::ResolvedImage;
use jiff::Timestamp;
use serde::Serialize;
use tokio::io::AsyncRead;

pub use error::ImageError;
use inner::{Inner, parse, pinned};
pub use progress::{Progress, Watcher};
use pull::blocking;
use record::ImageRecord;

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
    /// Since when nothing has needed it, as far as somebody has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Timestamp>,
}

/// How full the data disk is, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fullness {
    /// What is used.
    pub used: u64,
    /// From where on no image is taken in.
    pub limit: u8,
}

/// The images. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore(Arc<Inner>);

impl ImageStore {
    /// Opens the store, made if it is not there, and removes what a crash left. Blocks.
    ///
    /// # Errors
    /// The directory cannot be used, or another process has it.
    pub fn open(root: &Path, options: Options) -> Result<Self, ImageError> {
        Ok(Self(Arc::new(Inner::open(root, options)?)))
    }

    /// The client that talks to registries, for what is fetched from elsewhere with the same patience.
    #[must_use]
    pub fn http(&self) -> reqwest::Client {
        self.0.registry.http()
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
            self.0.mark(&record, None)?;
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
        self.0.open_to(&name.to_string())?;
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

    /// The images on this machine, by name, those that have none last. `in_use` holds digests of manifests.
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
            unused_since: record.unused_since,
            digest: record.digest,
        };
        let mut images: Vec<LocalImage> = self.0.records.images()?.into_iter().map(local).collect();
        images.sort_by_cached_key(|image| {
            let called = image.names.iter().chain(&image.references).min().cloned();
            (image.names.is_empty(), called, image.digest.clone())
        });
        Ok(images)
    }

    /// Takes no image in from now on, because the disk is so full; `None` ends that. What is here is used as ever.
    pub fn pause(&self, why: Option<Fullness>) {
        self.0.pause(why);
    }

    /// Keeps images from arriving, so that what is not needed can be told and removed.
    ///
    /// # Errors
    /// One is arriving now.
    pub fn still(&self) -> Result<Still<'_>, ImageError> {
        Ok(Still { images: self, _closed: self.0.close()? })
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

/// The store while nothing arrives in it. What is in use has to be asked for *after* this was had: whoever comes later
/// finds the store without what was removed, and fetches it.
pub struct Still<'a> {
    images: &'a ImageStore,
    _closed: tokio::sync::RwLockWriteGuard<'a, ()>,
}

impl Still<'_> {
    /// Removes a name, and the image with its last name; a digest removes the image with all of its
    /// names. `in_use` holds digests of manifests that have to stay, also those of operations at
    /// work.
    ///
    /// # Errors
    /// There is no such image, or it is in use.
    pub async fn remove(&self, reference: &str, in_use: &HashSet<String>) -> Result<(), ImageError> {
        let store = &self.images.0;
        let reference = parse(reference)?;
        let unknown = || ImageError::Unknown { reference: reference.to_string() };
        let (record, name) = store.local(&reference)?.ok_or_else(unknown)?;
        if in_use.contains(&record.digest) {
            return Err(ImageError::InUse { reference: reference.to_string() });
        }
        if let Some(name) = name {
            store.records.remove_name(&name.name)?;
        }
        let named = store.records.names()?.iter().any(|name| name.digest == record.digest);
        if reference.reference().digest().is_some() || !named {
            store.forget(&record)?;
        }
        store.clear().await
    }

    /// What [`Still::prune`] would remove.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn unused(&self, in_use: &HashSet<String>) -> Result<Vec<LocalImage>, ImageError> {
        Ok(self.images.list(in_use)?.into_iter().filter(|image| !image.in_use).collect())
    }

    /// Notes of every image that nothing needs any more that this is so since `now`, unless it was so before.
    ///
    /// # Errors
    /// A record cannot be read or written.
    pub fn mark_unused(&self, in_use: &HashSet<String>, now: Timestamp) -> Result<(), ImageError> {
        let store = &self.images.0;
        for record in store.records.images()? {
            let since = if in_use.contains(&record.digest) { None } else { record.unused_since.or(Some(now)) };
            store.mark(&record, since)?;
        }
        Ok(())
    }

    /// Removes images with all of their names, by digest; those in `in_use` stay, and those that are not here are no
    /// error. Tells how many went.
    ///
    /// # Errors
    /// A record or a layer cannot be removed; the next look removes what is left.
    pub async fn discard(&self, digests: &[String], in_use: &HashSet<String>) -> Result<usize, ImageError> {
        let store = &self.images.0;
        let mut gone = 0;
        for record in store.records.images()? {
            if digests.contains(&record.digest) && !in_use.contains(&record.digest) {
                store.forget(&record)?;
                gone += 1;
            }
        }
        store.clear().await?;
        Ok(gone)
    }

    /// Removes every image whose digest is not in `in_use`, and tells which.
    ///
    /// # Errors
    /// A record or a layer cannot be removed; the next look removes what is left.
    pub async fn prune(&self, in_use: &HashSet<String>) -> Result<Vec<LocalImage>, ImageError> {
        let unused = self.unused(in_use)?;
        let digests: Vec<String> = unused.iter().map(|image| image.digest.clone()).collect();
        self.discard(&digests, in_use).await?;
        Ok(unused)
    }
}

/// The directory of a layer below [`ImageStore::layers`], by its diff id.
#[must_use]
pub fn layer_directory(diff_id: &str) -> String {
    diff_id.replacen(':', "-", 1)
}

#[cfg(test)]
mod tests;
