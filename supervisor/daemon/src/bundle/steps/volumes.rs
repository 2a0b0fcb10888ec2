//! The disks of a bundle, from the bundle's side.
//!
//! Two revisions never have one volume mounted: an update of a bundle with volumes stops the revision
//! in service before the new one starts, and starts it again if the new one does not come up.

use std::path::PathBuf;

use berth_model::condition::Reason;
use berth_model::resource::Volume;
use berth_model::resource::bundle::{Bundle, RENAMED_FROM, VolumeWish};
use berth_model::resource::operation::OperationKind;
use berth_model::resource::revision::{Revision, RevisionState};
use berth_model::resource::volume::{device_path, volume_name};

use super::{Done, Steps, store_failed};
use crate::bundle::BundleKey;
use crate::bundle::fetch::revisions_of;
use crate::bundle::unit::Device;
use crate::bundle::view::{container_id, state_of, uid_of};
use crate::operation::{StepDone, StepError, Task};
use crate::store::{ReadTx, StoreError};

impl Steps {
    pub(super) async fn allocate_volumes(&self, task: &Task) -> Done {
        let Some(wishes) = self.wishes_of_candidate(task).await? else { return Ok(StepDone::said(NONE)) };
        let made = self.volumes.allocate(&key_of(task), &wishes).await?;
        Ok(StepDone::said(format!("volumes allocated: {made}")))
    }

    pub(super) async fn format_volumes(&self, task: &Task) -> Done {
        if self.wishes_of_candidate(task).await?.is_none() {
            return Ok(StepDone::said(NONE));
        }
        let made = self.volumes.format(&key_of(task)).await?;
        Ok(StepDone::said(format!("volumes formatted: {made}")))
    }

    pub(super) async fn discard_volumes(&self, task: &Task) -> Result<(), StepError> {
        self.volumes.discard_unfinished(&key_of(task)).await
    }

    /// What this operation's own revision wants; nothing if it made none.
    async fn wishes_of_candidate(&self, task: &Task) -> Result<Option<Vec<VolumeWish>>, StepError> {
        let wishes = self.candidate(task).await?.map(|revision| revision.spec.bundle_spec.volumes);
        Ok(wishes.filter(|wishes| !wishes.is_empty()))
    }

    /// The revision in service lets go of volumes that the new one will mount. Its plan and the record
    /// of its ending go too: should all stop here, it is started again as if it had never been up.
    pub(super) async fn stop_old(&self, task: &Task) -> Done {
        let Some(wishes) = self.wishes_of_candidate(task).await? else { return Ok(StepDone::said(NONE)) };
        let mut stopped = 0;
        for old in self.in_service(task).await? {
            let shares = old.spec.bundle_spec.volumes.iter().any(|own| wishes.iter().any(|wish| wish.name == own.name));
            if shares {
                self.stop_one(&old).await?;
                self.forget(&old).await?;
                stopped += 1;
            }
        }
        Ok(StepDone::said(format!("revisions stopped that use the same volumes: {stopped}")))
    }

    /// The way back.
    pub(super) async fn start_old(&self, task: &Task) -> Result<(), StepError> {
        let wanted = self.bundle(task).await?.spec.start;
        if !wanted || self.wishes_of_candidate(task).await?.is_none() {
            return Ok(());
        }
        for old in self.in_service(task).await? {
            self.volumes.open(&key_of(task), &old.spec.bundle_spec.volumes).await?;
            self.start_one(task, &old).await?;
        }
        Ok(())
    }

    async fn in_service(&self, task: &Task) -> Result<Vec<Revision>, StepError> {
        let mut all = self.revisions(task).await?;
        all.retain(|one| one.spec.operation != task.name && state_of(one) == RevisionState::Active);
        Ok(all)
    }

    pub(super) async fn open_volumes(&self, task: &Task) -> Done {
        let revision = self.subject(task).await?;
        let wishes = &revision.spec.bundle_spec.volumes;
        if wishes.is_empty() {
            return Ok(StepDone::said(NONE));
        }
        if !self.bundle(task).await?.spec.start {
            return Ok(StepDone::said("left closed, as the service stays stopped"));
        }
        self.volumes.open(&key_of(task), wishes).await?;
        Ok(StepDone::said(format!("volumes open: {}", wishes.len())))
    }

    pub(super) async fn close_volumes(&self, task: &Task) -> Done {
        self.volumes.close(&key_of(task), &[]).await?;
        // A bundle that gets another name has handed its volumes over already.
        if let Some(heir) = self.heir(task).await? {
            self.volumes.close(&heir, &[]).await?;
        }
        Ok(StepDone::said("no volume is open"))
    }

    /// The bundle that a removed one is from now on, as long as it has never run.
    async fn heir(&self, task: &Task) -> Result<Option<BundleKey>, StepError> {
        if task.spec.kind != OperationKind::Uninstall {
            return Ok(None);
        }
        let (namespace, old) = (task.spec.target.namespace.clone(), task.spec.target.name.clone());
        let read = move |tx: &ReadTx<'_>| -> Result<Option<BundleKey>, StoreError> {
            for heir in tx.list::<Bundle>(Some(&namespace))? {
                let before = heir.metadata.annotations.as_ref().and_then(|all| all.get(RENAMED_FROM));
                let key = crate::bundle::key_of(&heir);
                if before == Some(&old) && revisions_of(tx, &key.namespace, &key.name)?.is_empty() {
                    return Ok(Some(key));
                }
            }
            Ok(None)
        };
        self.store.read(read).await.map_err(|error| store_failed(error, "looking for who has its volumes now"))
    }

    /// Closes what the revisions before had and the one in service has not.
    pub(super) async fn close_unused(&self, task: &Task) -> Result<(), StepError> {
        let all = self.revisions(task).await?;
        let used: Vec<VolumeWish> = all
            .into_iter()
            .filter(|one| state_of(one).holds_allocation())
            .flat_map(|one| one.spec.bundle_spec.volumes)
            .collect();
        self.volumes.close(&key_of(task), &used).await
    }

    pub(super) async fn grow_images(&self, task: &Task) -> Done {
        let wishes = self.bundle(task).await?.spec.volumes;
        let grown = self.volumes.grow_images(&key_of(task), &wishes).await?;
        Ok(StepDone::said(format!("volumes that get more room: {grown}")))
    }

    pub(super) async fn grow_filesystems(&self, task: &Task) -> Done {
        self.volumes.grow_filesystems(&key_of(task)).await?;
        Ok(StepDone::said("their filesystems have taken it"))
    }

    pub(super) async fn stop_growing(&self, task: &Task) -> Result<(), StepError> {
        self.volumes.stop_growing(&key_of(task)).await
    }

    /// What the container writes outside its volumes, where it asked for more than memory has.
    pub(super) async fn make_scratch(&self, revision: &Revision) -> Result<(), StepError> {
        match revision.spec.bundle_spec.resources.ephemeral_bytes() {
            Some(size) => self.volumes.make_scratch(&owner_of(revision), uid_of(revision), size).await,
            None => Ok(()),
        }
    }

    pub(super) async fn remove_scratch(&self, revision: &Revision) -> Result<(), StepError> {
        match revision.spec.bundle_spec.resources.ephemeral_bytes() {
            Some(_) => self.volumes.remove_scratch(&owner_of(revision), uid_of(revision)).await,
            None => Ok(()),
        }
    }

    /// The devices that a revision's unit needs.
    pub(super) async fn devices(&self, task: &Task, revision: &Revision) -> Result<Vec<Device>, StepError> {
        let target = task.spec.target.clone();
        let all = self.store.read(move |tx| tx.list_about::<Volume>(&target.namespace, &target.name)).await;
        let all = all.map_err(|error| store_failed(error, "reading the volumes"))?;
        let device = |wish: &VolumeWish| {
            let name = volume_name(&task.spec.target.name, &wish.name);
            let found = all.iter().find(|volume| volume.metadata.name.as_ref() == Some(&name));
            let uid = found.and_then(|volume| volume.metadata.uid.as_deref()).ok_or_else(|| gone(&name, revision))?;
            Ok(Device { path: PathBuf::from(device_path(uid)), mount_path: PathBuf::from(&wish.mount_path) })
        };
        revision.spec.bundle_spec.volumes.iter().map(device).collect()
    }
}

const NONE: &str = "there is nothing to do with volumes";

fn key_of(task: &Task) -> BundleKey {
    BundleKey { namespace: task.spec.target.namespace.clone(), name: task.spec.target.name.clone() }
}

fn owner_of(revision: &Revision) -> BundleKey {
    BundleKey { namespace: revision.metadata.namespace.clone().unwrap_or_default(), name: revision.spec.bundle.clone() }
}

fn gone(name: &str, revision: &Revision) -> StepError {
    let message = format!("volume {name} of {} is not there", container_id(revision));
    StepError::new(Reason::WorkloadFailed, message)
        .suggest("run `berth update` on the bundle: that makes the volume anew")
}
