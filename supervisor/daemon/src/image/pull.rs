//! Brings one image here, whole: manifest, configuration, every layer unpacked, then its record.
//!
//! ```text
//! Source (registry or archive)
//!    manifest -> configuration -> diff ids
//!        layer: lock(diff id) -> there already? -> fetch, check digest -> unpack, check diff id
//!        layer: ...                                                       (a few at once)
//!    all there -> blobs of manifest and configuration -> record
//! ```
//!
//! A layer is locked by its diff id for as long as it takes, so two images that share it unpack it
//! once. The first failure stops the transfers of the other layers; what is being unpacked is
//! finished, so that nothing goes on behind the caller's back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_host::blob::{Digest, file_name, parse_digest};
use berth_host::layer::Limits;
use berth_host::manifest::{self, Resolved};
use berth_host::oci_layout::{Layout, LayoutImage};
use berth_host::registry::Session;
use berth_model::id::ImageReference;
use futures_util::{StreamExt, stream};
use oci_spec::image::Descriptor;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::ImageError;
use super::inner::{Inner, repository};
use super::progress::{Sum, Watcher};
use super::record::ImageRecord;

/// Layers of one image that are fetched and unpacked at once.
const LAYERS_AT_ONCE: usize = 3;

/// Where an image comes from.
#[derive(Clone)]
pub enum Source {
    /// A registry.
    Registry(Box<Session>),
    /// An archive or a directory.
    Layout(Arc<(Layout, LayoutImage)>),
}

/// One image on its way.
pub struct Pull {
    pub store: Arc<Inner>,
    pub reference: ImageReference,
    pub source: Source,
    pub resolved: Resolved,
}

/// A layer as the manifest lists it, and as the configuration names its content.
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
}

impl Pull {
    /// Until the image is here and on record.
    pub async fn run(self, watcher: Watcher) -> Result<ImageRecord, ImageError> {
        let descriptors = manifest::layers(&self.resolved.manifest).map_err(|e| self.unusable(e))?.to_vec();
        let config = self.configuration().await?;
        let layers = self.layers(&descriptors, &config)?;
        let sizes: BTreeMap<&str, u64> =
            descriptors.iter().map(|layer| (layer.digest().as_ref(), layer.size())).collect();
        let sum = Sum::new(sizes.values().sum(), watcher);
        let new = layers.iter().filter(|layer| !self.store.layers.contains(&layer.diff_id));
        let packed = new.map(|layer| layer.descriptor.size()).sum();
        let free = self.store.room()?.for_images();
        let no_room = ImageError::NoRoom { reference: self.reference.to_string(), packed, free };
        if packed > free {
            return Err(no_room);
        }
        let kept = match self.fetch(&layers, &sum).await {
            Ok(()) => self.keep(layers, config).await,
            Err(error) => Err(error),
        };
        kept.map_err(|error| if error.is_full() { no_room } else { error })
    }

    fn layers(&self, descriptors: &[Descriptor], config: &[u8]) -> Result<Vec<Layer>, ImageError> {
        let configuration = manifest::configuration(config, &self.resolved.manifest, &self.store.platform)
            .map_err(|error| self.unusable(error))?;
        let diff_ids = configuration.rootfs().diff_ids();
        let layers = descriptors.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            let diff_id = parse_digest(diff_id)
                .map_err(|source| ImageError::Digest { reference: self.reference.to_string(), source })?;
            Ok(Layer { descriptor: descriptor.clone(), diff_id })
        });
        layers.collect()
    }

    async fn fetch(&self, layers: &[Layer], sum: &Sum) -> Result<(), ImageError> {
        let stop = CancellationToken::new();
        let work: Vec<_> = layers.iter().map(|layer| self.layer_or_stop(layer, sum, &stop)).collect();
        let results: Vec<Result<(), ImageError>> = stream::iter(work).buffer_unordered(LAYERS_AT_ONCE).collect().await;
        let mut cut_off = false;
        for result in results {
            match result {
                Ok(()) => {}
                Err(ImageError::CutOff) => cut_off = true,
                Err(error) => return Err(error),
            }
        }
        if cut_off { Err(ImageError::CutOff) } else { Ok(()) }
    }

    async fn layer_or_stop(&self, layer: &Layer, sum: &Sum, stop: &CancellationToken) -> Result<(), ImageError> {
        let done = self.layer(layer, sum, stop).await;
        if done.is_err() {
            stop.cancel();
        }
        done
    }

    async fn layer(&self, layer: &Layer, sum: &Sum, stop: &CancellationToken) -> Result<(), ImageError> {
        let digest = parse_digest(layer.descriptor.digest().as_ref())
            .map_err(|source| ImageError::Digest { reference: self.reference.to_string(), source })?;
        let lock = self.store.locks.lock(&file_name(&layer.diff_id)).await;
        if self.store.layers.contains(&layer.diff_id) {
            sum.arrived(&digest, layer.descriptor.size());
            return Ok(());
        }
        let unpack = Unpack { pull: self, layer, digest };
        match &self.source {
            Source::Registry(session) => unpack.by_registry(session, lock, sum, stop).await,
            Source::Layout(layout) => unpack.by_archive(layout.clone(), lock, sum, stop).await,
        }
    }

    async fn configuration(&self) -> Result<Vec<u8>, ImageError> {
        let descriptor = self.resolved.manifest.config().clone();
        match &self.source {
            Source::Registry(session) => session.document(&descriptor).await.map_err(|source| self.not_fetched(source)),
            Source::Layout(layout) => {
                let reference = self.reference.to_string();
                let layout = layout.clone();
                blocking(move || {
                    layout
                        .0
                        .document(&layout.1, &descriptor)
                        .map_err(|source| ImageError::Archive { reference, source })
                })
                .await
            }
        }
    }

    async fn keep(self, layers: Vec<Layer>, config: Vec<u8>) -> Result<ImageRecord, ImageError> {
        let Self { store, reference, resolved, .. } = self;
        let repository = repository(&reference);
        let config_digest = parse_digest(resolved.manifest.config().digest().as_ref()).map_err(ImageError::Blobs)?;
        blocking(move || {
            store.blobs.put(&config_digest, &config).map_err(ImageError::Blobs)?;
            store.blobs.put(&resolved.digest, &resolved.bytes).map_err(ImageError::Blobs)?;
            let record = ImageRecord {
                digest: resolved.digest.to_string(),
                config: config_digest.to_string(),
                repositories: BTreeSet::from([repository]),
                layers: layers.iter().rev().map(|layer| layer.diff_id.to_string()).collect(),
                size: layers.iter().map(|layer| layer.descriptor.size()).sum(),
                unused_since: None,
            };
            store.records.put_image(&resolved.digest, record)
        })
        .await
    }

    fn unusable(&self, source: manifest::ManifestError) -> ImageError {
        ImageError::Manifest { reference: self.reference.to_string(), source }
    }

    fn not_fetched(&self, source: berth_host::registry::RegistryError) -> ImageError {
        ImageError::Registry { reference: self.reference.to_string(), source }
    }
}

/// One layer that is not here yet.
struct Unpack<'p> {
    pull: &'p Pull,
    layer: &'p Layer,
    digest: Digest,
}

impl Unpack<'_> {
    async fn by_registry(
        &self,
        session: &Session,
        lock: OwnedMutexGuard<()>,
        sum: &Sum,
        stop: &CancellationToken,
    ) -> Result<(), ImageError> {
        let store = &self.pull.store;
        // Two layers may be made of one blob, if only by an image that lies.
        let _alone = store.locks.lock(&format!("blob {}", self.digest)).await;
        let arrived = |digest: &Digest, bytes| sum.arrived(digest, bytes);
        let transfer = session.download(&self.layer.descriptor, &store.blobs, &arrived);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(ImageError::CutOff),
            done = transfer => done.map_err(|source| self.pull.not_fetched(source))?,
        }
        let (inner, digest) = (store.clone(), self.digest.clone());
        let unpacked = self.unpack(lock, move || inner.blobs.reader(&digest).map_err(ImageError::Blobs)).await;
        let removed = store.blobs.remove(&self.digest).map_err(ImageError::Blobs);
        unpacked.and(removed)
    }

    async fn by_archive(
        &self,
        layout: Arc<(Layout, LayoutImage)>,
        lock: OwnedMutexGuard<()>,
        sum: &Sum,
        stop: &CancellationToken,
    ) -> Result<(), ImageError> {
        if stop.is_cancelled() {
            return Err(ImageError::CutOff);
        }
        let reference = self.pull.reference.to_string();
        let descriptor = self.layer.descriptor.clone();
        self.unpack(lock, move || {
            layout.0.layer(&layout.1, &descriptor).map_err(|source| ImageError::Archive { reference, source })
        })
        .await?;
        sum.arrived(&self.digest, self.layer.descriptor.size());
        Ok(())
    }

    /// On a thread that may block; the layer stays locked until it is done, whoever still waits.
    async fn unpack<R: std::io::Read>(
        &self,
        lock: OwnedMutexGuard<()>,
        open: impl FnOnce() -> Result<R, ImageError> + Send + 'static,
    ) -> Result<(), ImageError> {
        let store = self.pull.store.clone();
        let diff_id = self.layer.diff_id.clone();
        let (reference, layer) = (self.pull.reference.to_string(), self.digest.to_string());
        blocking(move || {
            let _held = lock;
            let limits = Limits { spare: store.room()?.kept(), ..store.limits };
            store.layers.unpack(open()?, &diff_id, &limits).map(drop).map_err(|source| ImageError::Layer {
                reference,
                layer,
                source,
            })
        })
        .await
    }
}

/// Runs what blocks on a thread that may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::CutOff)?
}
