//! The images, as the bundle domain and the API see them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use berth_model::resource::Revision;
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::revision::ResolvedImage;
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use tracing::warn;

use crate::api::{ByteStream, ImagesPort, PortError};
use crate::bundle::seams::{ImageFailure, Images};
use crate::bundle::view::state_of;
use crate::image::{ImageError, ImageStore, LocalImage, Options};
use crate::operation::Progress;
use crate::store::{Store, StoreError};

/// Opens the image store below the data directory; leftovers of a crash are removed meanwhile.
pub(super) async fn open(data: &Path) -> Result<ImageStore, ImageError> {
    let root = data.join("images");
    let opened = tokio::task::spawn_blocking(move || ImageStore::open(&root, Options::default()));
    opened.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// The images on this machine.
pub(super) struct LocalImages {
    pub(super) images: ImageStore,
    pub(super) store: Store,
}

fn failure(error: ImageError) -> ImageFailure {
    ImageFailure {
        message: error.to_string(),
        suggestion: error.advice(),
        retryable: error.is_transient(),
        source: std::error::Error::source(&error).map(|cause| crate::log::chain(cause).into()),
    }
}

impl Images for LocalImages {
    fn resolve<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<String, ImageFailure>> {
        Box::pin(async move {
            let resolution = self.images.resolve(reference).await.map_err(failure)?;
            if let Some(why) = resolution.offline {
                warn!(
                    reference,
                    "the registry of {reference} does not answer; what is here is used: {}",
                    crate::log::chain(&why)
                );
            }
            Ok(resolution.pinned)
        })
    }

    fn ensure<'a>(&'a self, pinned: &'a str, progress: Progress) -> BoxFuture<'a, Result<ResolvedImage, ImageFailure>> {
        let watcher = move |now: crate::image::Progress| {
            progress.report(now.percent(), format!("{} of {} bytes", now.done, now.total));
        };
        Box::pin(async move { self.images.ensure(pinned, Arc::new(watcher)).await.map_err(failure) })
    }

    fn check_program<'a>(
        &'a self,
        image: &'a ResolvedImage,
        spec: &'a BundleSpec,
    ) -> BoxFuture<'a, Result<(), ImageFailure>> {
        Box::pin(async move { self.images.check_program(image, spec).await.map_err(failure) })
    }
}

impl LocalImages {
    /// Digests that a revision which may run was made from.
    async fn in_use(&self) -> Result<HashSet<String>, StoreError> {
        let revisions = self.store.read(|tx| tx.list::<Revision>(None)).await?;
        let held = revisions.into_iter().filter(|one| state_of(one).holds_allocation());
        Ok(held.map(|one| one.spec.image.digest).collect())
    }

    async fn take_in(&self, reference: String, archive: ByteStream) -> Result<Value, PortError> {
        let reader = StreamReader::new(archive.map_err(std::io::Error::other));
        let imported = self.images.import(&reference, reader, Arc::new(|_| {})).await.map_err(refused)?;
        let shown = json!({ "names": [reference], "digest": imported.digest, "layers": imported.layers.len() });
        Ok(object(&imported.digest, shown))
    }

    async fn all(&self) -> Result<Vec<Value>, PortError> {
        let in_use = self.in_use().await.map_err(|error| PortError::Failed(Box::new(error)))?;
        let images = self.images.list(&in_use).map_err(refused)?;
        images.iter().map(shown).collect()
    }
}

impl ImagesPort for LocalImages {
    fn import(&self, reference: String, archive: ByteStream) -> BoxFuture<'_, Result<Value, PortError>> {
        Box::pin(self.take_in(reference, archive))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, PortError>> {
        Box::pin(self.all())
    }
}

/// An archive that is refused is the sender's to mend; a full disk is not.
fn refused(error: ImageError) -> PortError {
    if error.is_transient() {
        return PortError::Unavailable(format!("{}; {}", crate::log::chain(&error), error.advice()));
    }
    PortError::Request(format!("{}; {}", crate::log::chain(&error), error.advice()))
}

fn shown(image: &LocalImage) -> Result<Value, PortError> {
    let spec = serde_json::to_value(image).map_err(|error| PortError::Failed(Box::new(error)))?;
    Ok(object(&image.digest, spec))
}

fn object(digest: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1",
        "kind": "Image",
        "metadata": { "name": digest.replace(':', "-") },
        "spec": spec,
    })
}
