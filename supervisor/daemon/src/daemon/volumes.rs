//! Where bundles, volumes and keys meet.

use std::sync::Arc;

use berth_model::kinds::Kind;
use berth_model::resource::bundle::VolumeWish;
use berth_model::resource::operation::{OperationKind, StepName};
use berth_model::resource::{Schedule, Volume};
use futures_util::future::BoxFuture;

use crate::bundle::{BundleKey, seams as bundle};
use crate::operation::{Executor, StepDone, StepError, Task};
use crate::secret::{Sealer, SecretError, SystemdCreds};
use crate::volume::Volumes;
use crate::volume::seams::{Key, KeyFailure, Keys};

/// The disks of bundles.
pub(crate) struct BundleVolumes(pub(crate) Volumes);

type Outcome<'a, T> = BoxFuture<'a, Result<T, StepError>>;

impl bundle::Volumes for BundleVolumes {
    fn allocate<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> Outcome<'a, u32> {
        Box::pin(self.0.allocate(&of.namespace, &of.name, wishes))
    }
    fn format<'a>(&'a self, of: &'a BundleKey) -> Outcome<'a, u32> {
        Box::pin(self.0.format(&of.namespace, &of.name))
    }
    fn discard_unfinished<'a>(&'a self, of: &'a BundleKey) -> Outcome<'a, ()> {
        Box::pin(self.0.discard_unfinished(&of.namespace, &of.name))
    }
    fn open<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> Outcome<'a, ()> {
        Box::pin(self.0.open(&of.namespace, &of.name, wishes))
    }
    fn close<'a>(&'a self, of: &'a BundleKey, but: &'a [VolumeWish]) -> Outcome<'a, ()> {
        Box::pin(self.0.close(&of.namespace, &of.name, but))
    }
    fn grow_images<'a>(&'a self, of: &'a BundleKey, wishes: &'a [VolumeWish]) -> Outcome<'a, u32> {
        Box::pin(self.0.grow_images(&of.namespace, &of.name, wishes))
    }
    fn grow_filesystems<'a>(&'a self, of: &'a BundleKey) -> Outcome<'a, ()> {
        Box::pin(self.0.grow_filesystems(&of.namespace, &of.name))
    }
    fn make_scratch<'a>(&'a self, of: &'a BundleKey, revision: &'a str, size: u64) -> Outcome<'a, ()> {
        Box::pin(self.0.make_scratch(&of.name, revision, size))
    }
    fn remove_scratch<'a>(&'a self, of: &'a BundleKey, revision: &'a str) -> Outcome<'a, ()> {
        Box::pin(self.0.remove_scratch(&of.name, revision))
    }
    fn stop_growing<'a>(&'a self, of: &'a BundleKey) -> Outcome<'a, ()> {
        Box::pin(self.0.stop_growing(&of.namespace, &of.name))
    }
}

/// The keyring that the master key opens.
pub(crate) struct SealedKeys(pub(crate) Sealer);

impl Keys for SealedKeys {
    fn get(&self, uid: &str) -> Result<Key, KeyFailure> {
        self.0.volume_key(uid).map_err(failure)
    }
    fn make(&self, uid: &str) -> Result<Key, KeyFailure> {
        self.0.make_volume_key(uid).map_err(failure)
    }
    fn drop_unused(&self, uid: &str) -> Result<(), KeyFailure> {
        self.0.drop_volume_key(uid).map_err(failure)
    }
    fn may_erase(&self, uid: &str) -> Result<(), KeyFailure> {
        self.0.check_erasure(uid).map_err(failure)
    }
    fn erase<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), KeyFailure>> {
        Box::pin(async move { self.0.erase_volume_key(uid, &SystemdCreds).await.map_err(failure) })
    }
}

fn failure(error: SecretError) -> KeyFailure {
    let damaged = matches!(error, SecretError::NoVolumeKey | SecretError::VolumeKey);
    KeyFailure { damaged, source: error.into() }
}

/// Gives every operation to the domain that its target belongs to.
pub(crate) struct ByTarget {
    pub(crate) bundles: Arc<dyn Executor>,
    pub(crate) volumes: Arc<dyn Executor>,
    /// What a schedule begins that is about the machine itself.
    pub(crate) machine: Arc<dyn Executor>,
    /// New versions of the machine's system.
    pub(crate) updates: Arc<dyn Executor>,
}

impl ByTarget {
    fn executor(&self, task: &Task) -> &dyn Executor {
        match task.spec.target.kind.as_str() {
            _ if task.spec.kind == OperationKind::UpdateSystem => &*self.updates,
            kind if kind == Volume::registration().kind => &*self.volumes,
            kind if kind == Schedule::registration().kind => &*self.machine,
            _ => &*self.bundles,
        }
    }
}

impl Executor for ByTarget {
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>> {
        self.executor(task).apply(task, step)
    }

    fn compensate<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        self.executor(task).compensate(task, step)
    }
}
