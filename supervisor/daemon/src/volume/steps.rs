//! The steps of operations on a volume itself: lock, unlock, erase.

use berth_model::condition::Reason;
use berth_model::resource::operation::StepName;
use berth_model::resource::volume::VolumeState;
use berth_model::resource::{Bundle, Volume};
use futures_util::future::BoxFuture;

use super::Volumes;
use super::failure::{disk_failed, not_erased, not_usable, store_failed};
use super::records::{name_of, uid_of};
use crate::operation::{Executor, StepDone, StepError, Task};

type Done = Result<StepDone, StepError>;

impl Executor for Volumes {
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Done> {
        match step {
            StepName::LockVolume => Box::pin(self.lock(task)),
            StepName::UnlockVolume => Box::pin(self.unlock(task)),
            StepName::CloseVolume => Box::pin(self.begin_erasure(task)),
            StepName::DestroyKey => Box::pin(self.destroy_key(task)),
            StepName::RemoveImage => Box::pin(self.remove_image(task)),
            StepName::ForgetVolume => Box::pin(self.remove_record(task)),
            _ => Box::pin(async move { Err(not_ours(step)) }),
        }
    }

    /// Nothing is undone: a volume whose key may be gone must not look usable again, and a lock or an
    /// unlock that failed has put its own record right.
    fn compensate<'a>(&'a self, _: &'a Task, _: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Volumes {
    /// From the moment it is noted nobody opens it, so that what is closed stays closed.
    async fn lock(&self, task: &Task) -> Done {
        let volume = self.subject(task).await?;
        let state = state_of(&volume);
        if !matches!(state, VolumeState::Ready | VolumeState::Damaged | VolumeState::Locked) {
            return Err(not_usable(&name_of(&volume), Some(state)).permanent());
        }
        self.refuse_running(task, &volume).await?;
        self.note(&volume, |status| status.state = VolumeState::Locked).await?;
        if let Err(error) = self.disks.close(&uid_of(&volume)).await {
            self.note(&volume, move |status| status.state = state).await?;
            return Err(disk_failed(&name_of(&volume), "closing the volume", error).permanent());
        }
        Ok(StepDone::said("the volume is closed, and stays so until it is unlocked"))
    }

    async fn unlock(&self, task: &Task) -> Done {
        let volume = self.subject(task).await?;
        let (name, uid) = (name_of(&volume), uid_of(&volume));
        match state_of(&volume) {
            VolumeState::Locked => {}
            VolumeState::Ready => return Ok(StepDone::said("the volume is not locked")),
            state => return Err(not_usable(&name, Some(state)).permanent()),
        }
        let key = self.keys.get(&uid).map_err(|failure| failure.locked(&name).permanent())?;
        let tried = self.disks.try_key(&uid, key).await;
        tried.map_err(|error| disk_failed(&name, "trying its key", error).permanent())?;
        self.note(&volume, |status| {
            status.state = VolumeState::Ready;
            status.message = String::new();
        })
        .await?;
        Ok(StepDone::said("the volume's key opens it; a start of its service will use it"))
    }

    async fn begin_erasure(&self, task: &Task) -> Done {
        let volume = self.subject(task).await?;
        let name = name_of(&volume);
        if let Some(bundle) = self.wanted_by(task, &volume).await? {
            let message = format!("volume {name} belongs to bundle {bundle}, which wants it");
            let error = StepError::new(Reason::WorkloadFailed, message).coded("VolumeInUse").permanent();
            return Err(error.suggest(format!("berth uninstall {bundle}, or take the volume out of its spec")));
        }
        self.keys.may_erase(&uid_of(&volume)).map_err(|failure| not_erased(&name, failure))?;
        let closed = self.disks.close(&uid_of(&volume)).await;
        closed.map_err(|error| disk_failed(&name, "closing the volume", error).permanent())?;
        self.note(&volume, |status| {
            status.state = VolumeState::Erasing;
            status.step = Some("DestroyKey".into());
        })
        .await?;
        Ok(StepDone::said("the volume is closed"))
    }

    async fn destroy_key(&self, task: &Task) -> Done {
        let volume = self.subject(task).await?;
        self.keys.erase(&uid_of(&volume)).await.map_err(|failure| failure.locked(&name_of(&volume)))?;
        self.note_step(&volume, "RemoveImage").await?;
        Ok(StepDone::said("its key is destroyed, and the master key it was sealed with: no copy can be opened"))
    }

    async fn remove_image(&self, task: &Task) -> Done {
        let Some(volume) = self.present(task).await? else { return Ok(StepDone::said("it is gone")) };
        let removed = self.disks.remove(&uid_of(&volume)).await;
        removed.map_err(|error| disk_failed(&name_of(&volume), "removing its file", error))?;
        Ok(StepDone::said("its room is free again"))
    }

    async fn remove_record(&self, task: &Task) -> Done {
        if let Some(volume) = self.present(task).await? {
            self.forget(&volume).await?;
        }
        Ok(StepDone::said("the volume is gone"))
    }

    async fn present(&self, task: &Task) -> Result<Option<Volume>, StepError> {
        let target = &task.spec.target;
        let found = self.find(&target.namespace, &target.name).await?;
        Ok(found.filter(|volume| uid_of(volume) == target.uid))
    }

    async fn subject(&self, task: &Task) -> Result<Volume, StepError> {
        let name = &task.spec.target.name;
        self.present(task).await?.ok_or_else(|| {
            StepError::new(Reason::WorkloadFailed, format!("volume {name} is gone")).coded("NotFound").permanent()
        })
    }

    async fn owner(&self, task: &Task, volume: &Volume) -> Result<Option<Bundle>, StepError> {
        let (namespace, bundle) = (task.spec.target.namespace.clone(), volume.spec.bundle.clone());
        let found = self.store.read(move |tx| tx.get::<Bundle>(&namespace, &bundle)).await.map_err(store_failed)?;
        Ok(found.filter(|bundle| bundle.spec.volumes.iter().any(|wish| wish.name == volume.spec.volume)))
    }

    async fn wanted_by(&self, task: &Task, volume: &Volume) -> Result<Option<String>, StepError> {
        Ok(self.owner(task, volume).await?.and_then(|bundle| bundle.metadata.name))
    }

    async fn refuse_running(&self, task: &Task, volume: &Volume) -> Result<(), StepError> {
        let Some(bundle) = self.owner(task, volume).await?.filter(|bundle| bundle.spec.start) else { return Ok(()) };
        let bundle = bundle.metadata.name.unwrap_or_default();
        let message = format!("volume {} is in use by bundle {bundle}", name_of(volume));
        let error = StepError::new(Reason::WorkloadFailed, message).coded("VolumeInUse").permanent();
        Err(error.suggest(format!("stop it first: berth stop {bundle}")))
    }
}

fn state_of(volume: &Volume) -> VolumeState {
    volume.status.as_ref().map(|status| status.state).unwrap_or_default()
}

fn not_ours(step: StepName) -> StepError {
    StepError::new(Reason::WorkloadFailed, format!("{step:?} is no step of a volume's")).permanent()
}
