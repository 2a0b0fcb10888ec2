//! The images, as the bundle domain and the API see them.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_model::resource::Revision;
use berth_model::resource::bundle::BundleSpec;
use berth_model::resource::operation::Operation;
use berth_model::resource::revision::{ResolvedImage, RevisionState};
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::io::StreamReader;
use tracing::warn;

use crate::api::{ByteStream, ImagesPort, PortError};
use crate::bundle::seams::{ImageFailure, Images};
use crate::bundle::view::{operation_state, state_of};
use crate::image::{ImageError, ImageStore, LocalImage, Options};
use crate::metrics::{Effect, Metrics};
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
    pub(super) metrics: Metrics,
}

fn failure(error: ImageError) -> ImageFailure {
    ImageFailure {
        code: error.code(),
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
        let fetched = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&fetched);
        let watcher = move |now: crate::image::Progress| {
            begun.store(true, Ordering::Relaxed);
            progress.report(now.percent(), format!("{} of {} bytes", now.done, now.total));
        };
        Box::pin(async move {
            let had = self.images.ensure(pinned, Arc::new(watcher)).await;
            if had.is_err() || fetched.load(Ordering::Relaxed) {
                self.metrics.effect(Effect::ImagePull, had.is_ok());
            }
            had.map_err(failure)
        })
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
    /// Digests that have to stay: of revisions that may run, of the one before them of each bundle, and of operations
    /// that have begun.
    pub(super) async fn in_use(&self) -> Result<HashSet<String>, StoreError> {
        let (revisions, operations) =
            self.store.read(|tx| Ok((tx.list::<Revision>(None)?, tx.list_lasting::<Operation>()?))).await?;
        Ok(digests_to_keep(&revisions, &operations))
    }

    async fn cleared(&self, dry_run: bool) -> Result<Vec<Value>, PortError> {
        let still = self.images.still().map_err(refused)?;
        let in_use = self.in_use().await.map_err(|error| PortError::Failed(Box::new(error)))?;
        let unused = if dry_run { still.unused(&in_use) } else { still.prune(&in_use).await };
        unused.map_err(refused)?.iter().map(shown).collect()
    }

    async fn taken_out(&self, reference: &str) -> Result<(), PortError> {
        let still = self.images.still().map_err(refused)?;
        let in_use = self.in_use().await.map_err(|error| PortError::Failed(Box::new(error)))?;
        still.remove(reference, &in_use).await.map_err(refused)
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

    fn check(&self, pinned: String) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.images.resolve(&pinned).await.map(drop).map_err(refused) })
    }

    fn prune(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Value>, PortError>> {
        Box::pin(self.cleared(dry_run))
    }

    fn remove(&self, reference: String) -> BoxFuture<'_, Result<(), PortError>> {
        Box::pin(async move { self.taken_out(&reference).await })
    }
}

fn digests_to_keep(revisions: &[Revision], operations: &[Operation]) -> HashSet<String> {
    let held = revisions.iter().filter(|one| state_of(one).holds_allocation());
    let mut kept: HashSet<String> = held.map(|one| one.spec.image.digest.clone()).collect();
    let mut before: BTreeMap<(Option<&str>, &str), &Revision> = BTreeMap::new();
    for one in revisions.iter().filter(|one| state_of(one) == RevisionState::Superseded) {
        let of = before.entry((one.metadata.namespace.as_deref(), &one.spec.bundle)).or_insert(one);
        if of.spec.number < one.spec.number {
            *of = one;
        }
    }
    kept.extend(before.values().map(|one| one.spec.image.digest.clone()));
    let begun = operations.iter().filter(|one| !operation_state(one).finished());
    let resolved = begun.filter_map(|one| one.status.as_ref()?.result["image"].as_str()?.split_once('@'));
    kept.extend(resolved.map(|(_, digest)| digest.to_owned()));
    kept
}

/// An archive that is refused is the sender's to mend; a full disk is not.
fn refused(error: ImageError) -> PortError {
    match error {
        ImageError::Unknown { .. } => return PortError::Absent(format!("{error}; {}", error.advice())),
        ImageError::InUse { .. } | ImageError::Busy => {
            return PortError::Conflict(format!("{error}; {}", error.advice()));
        }
        _ => {}
    }
    if error.is_transient() || error.code() == "NoRoom" {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(bundle: &str, number: u64, state: &str) -> Revision {
        let image = ResolvedImage { digest: format!("sha256:{bundle}{number}"), ..ResolvedImage::default() };
        let spec = json!({
            "bundle": bundle, "number": number, "generation": 1, "operation": "", "bundleSpec": { "image": "" },
            "image": image, "allocation": { "address": "", "idBase": 0, "hostLink": "" },
        });
        serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": { "state": state } })).unwrap()
    }

    fn operation(state: &str, image: &str) -> Operation {
        let target = json!({ "kind": "Bundle", "namespace": "default", "name": "web" });
        let actor = json!({ "identity": "root", "source": "api" });
        let result = json!({ "image": format!("registry/web@{image}") });
        serde_json::from_value(json!({
            "metadata": {}, "spec": { "kind": "Install", "target": target, "actor": actor },
            "status": { "state": state, "steps": [], "result": result },
        }))
        .unwrap()
    }

    #[test]
    fn what_serves_the_revision_before_it_and_what_is_being_installed_stay() {
        let states = ["Superseded", "Superseded", "Failed", "Active"];
        let revisions: Vec<Revision> =
            (1..).zip(states).map(|(number, state)| revision("web", number, state)).collect();
        let operations = [operation("Running", "sha256:new"), operation("Failed", "sha256:gone")];
        let mut kept: Vec<String> = digests_to_keep(&revisions, &operations).into_iter().collect();
        kept.sort();
        assert_eq!(kept, ["sha256:new", "sha256:web2", "sha256:web4"]);
    }
}
