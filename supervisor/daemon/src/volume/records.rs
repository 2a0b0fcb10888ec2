//! What is on record of volumes, read and written in single transactions.

use berth_model::kinds::DATA_FINALIZER;
use berth_model::resource::bundle::VolumeWish;
use berth_model::resource::volume::{VolumeSpec, VolumeState, VolumeStatus, volume_name};
use berth_model::resource::{Bundle, Revision, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::failure::{Failed, name_taken, not_usable, store_failed};
use super::seams::{Known, Purpose};
use super::{Volumes, berthd};
use crate::operation::StepError;
use crate::store::{Deletion, ReadTx, StoreError, Tx};

/// A volume as a bundle wants it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    namespace: String,
    name: String,
    spec: VolumeSpec,
    /// Bytes.
    pub(super) size: u64,
}

impl Wanted {
    pub(super) fn of(namespace: &str, bundle: &str, wish: &VolumeWish) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: volume_name(bundle, &wish.name),
            spec: VolumeSpec { bundle: bundle.to_owned(), volume: wish.name.clone() },
            size: wish.bytes().unwrap_or_default(),
        }
    }

    fn newborn(&self) -> Volume {
        Volume {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.clone()),
                name: Some(self.name.clone()),
                finalizers: Some(vec![DATA_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: self.spec.clone(),
            status: Some(VolumeStatus { size: self.size, step: Some("Allocate".into()), ..VolumeStatus::default() }),
        }
    }
}

pub(super) fn name_of(volume: &Volume) -> String {
    volume.metadata.name.clone().unwrap_or_default()
}

pub(super) fn uid_of(volume: &Volume) -> String {
    volume.metadata.uid.clone().unwrap_or_default()
}

fn namespace_of(volume: &Volume) -> String {
    volume.metadata.namespace.clone().unwrap_or_default()
}

/// Every disk, as the start needs it.
pub(super) fn known(tx: &ReadTx<'_>) -> Result<Vec<Known>, StoreError> {
    let bundles: Vec<Bundle> = tx.list(None)?;
    let runs = |namespace: Option<&String>, name: &str| {
        let is_it = |bundle: &&Bundle| {
            bundle.metadata.namespace.as_ref() == namespace && bundle.metadata.name.as_deref() == Some(name)
        };
        bundles.iter().find(is_it).is_some_and(|bundle| bundle.spec.start)
    };
    let volumes: Vec<Volume> = tx.list(None)?;
    let volumes = volumes.iter().map(|volume| {
        let unfinished = volume.status.as_ref().is_none_or(|status| status.state == VolumeState::Creating);
        let purpose = match runs(volume.metadata.namespace.as_ref(), &volume.spec.bundle) {
            _ if unfinished => Purpose::Unfinished,
            true => Purpose::Wanted,
            false => Purpose::Idle,
        };
        Known { uid: uid_of(volume), purpose }
    });
    let revisions: Vec<Revision> = tx.list(None)?;
    let layers = revisions.iter().filter(|one| {
        one.spec.bundle_spec.resources.ephemeral_storage.is_some()
            && one.status.as_ref().is_some_and(|status| status.state.holds_allocation())
            && runs(one.metadata.namespace.as_ref(), &one.spec.bundle)
    });
    let layers = layers.filter_map(|one| one.metadata.uid.clone()).map(|uid| Known { uid, purpose: Purpose::Scratch });
    Ok(volumes.chain(layers).collect())
}

impl Volumes {
    pub(super) async fn find(&self, namespace: &str, name: &str) -> Result<Option<Volume>, StepError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.store.read(move |tx| tx.get::<Volume>(&namespace, &name)).await.map_err(store_failed)
    }

    /// All that were made for a bundle of that name, whether it wants them now or not.
    pub(super) async fn of_bundle(&self, namespace: &str, bundle: &str) -> Result<Vec<Volume>, StepError> {
        let (namespace, bundle) = (namespace.to_owned(), bundle.to_owned());
        self.store.read(move |tx| tx.list_about::<Volume>(&namespace, &bundle)).await.map_err(store_failed)
    }

    pub(super) async fn growing(&self, namespace: &str, bundle: &str) -> Result<Vec<Volume>, StepError> {
        let mut all = self.of_bundle(namespace, bundle).await?;
        all.retain(|volume| volume.status.as_ref().is_some_and(|status| status.state == VolumeState::Growing));
        Ok(all)
    }

    /// Finds the record of a volume, or makes it.
    pub(super) async fn note_wanted(&self, wanted: &Wanted) -> Result<Volume, StepError> {
        let wish = wanted.clone();
        let write = move |tx: &mut Tx<'_>| {
            let Some(mut found) = tx.get::<Volume>(&wish.namespace, &wish.name)? else {
                return tx.create(&wish.newborn());
            };
            let status = found.status.get_or_insert_default();
            if status.state == VolumeState::Creating && found.spec == wish.spec && status.size != wish.size {
                status.size = wish.size;
                found = tx.update_status(&found)?.into_inner();
            }
            Ok::<_, StoreError>(found)
        };
        let found = self.store.write(&berthd(), write).await.map_err(store_failed)?;
        let state = found.status.as_ref().map(|status| status.state).unwrap_or_default();
        match state {
            _ if found.spec != wanted.spec => Err(name_taken(&wanted.name, &found.spec.bundle, &found.spec.volume)),
            VolumeState::Erasing => Err(not_usable(&wanted.name, Some(state))),
            _ => Ok(found),
        }
    }

    /// Notes that a volume is getting more room; `None` if it has enough or cannot have it now.
    pub(super) async fn note_growing(&self, wanted: &Wanted) -> Result<Option<Volume>, StepError> {
        let Some(volume) = self.find(&wanted.namespace, &wanted.name).await? else { return Ok(None) };
        let status = volume.status.clone().unwrap_or_default();
        if !matches!(status.state, VolumeState::Ready | VolumeState::Growing) || wanted.size <= status.size {
            return Ok(None);
        }
        let target = wanted.size;
        let noted = self.note(&volume, move |status| {
            status.state = VolumeState::Growing;
            status.target = Some(target);
            status.step = Some("GrowImage".into());
        });
        noted.await?;
        Ok(Some(volume))
    }

    pub(super) async fn note_ready(&self, volume: &Volume, size: u64) -> Result<(), StepError> {
        self.note(volume, move |status| {
            *status = VolumeStatus { state: VolumeState::Ready, size, ..VolumeStatus::default() };
        })
        .await
    }

    pub(super) async fn note_step(&self, volume: &Volume, step: &'static str) -> Result<(), StepError> {
        self.note(volume, move |status| status.step = Some(step.to_owned())).await
    }

    /// Notes what is wrong with a volume, and hands that on.
    pub(super) async fn damaged(&self, volume: &Volume, failed: Failed) -> Result<(), StepError> {
        let message = failed.noted();
        let noted = self.note(volume, move |status| {
            status.state = VolumeState::Damaged;
            status.message = message;
        });
        noted.await?;
        Err(failed.0)
    }

    pub(super) async fn note(
        &self,
        volume: &Volume,
        change: impl FnOnce(&mut VolumeStatus) + Send + 'static,
    ) -> Result<(), StepError> {
        let (namespace, name, uid) = (namespace_of(volume), name_of(volume), uid_of(volume));
        let write = move |tx: &mut Tx<'_>| {
            let Some(mut found) = tx.get::<Volume>(&namespace, &name)?.filter(|found| uid_of(found) == uid) else {
                return Ok(());
            };
            change(found.status.get_or_insert_default());
            tx.write_status(&found)
        };
        self.store.write(&berthd(), write).await.map_err(store_failed)
    }

    /// Removes the record, which nothing on disk belongs to any more.
    pub(super) async fn forget(&self, volume: &Volume) -> Result<(), StepError> {
        let (namespace, name, uid) = (namespace_of(volume), name_of(volume), uid_of(volume));
        let write = move |tx: &mut Tx<'_>| {
            if tx.get::<Volume>(&namespace, &name)?.is_none_or(|found| uid_of(&found) != uid) {
                return Ok::<_, StoreError>(());
            }
            tx.delete::<Volume>(&namespace, &name, &Deletion::default())?;
            tx.remove_finalizer::<Volume>(&namespace, &name, DATA_FINALIZER).map(drop)
        };
        self.store.write(&berthd(), write).await.map_err(store_failed)
    }
}
