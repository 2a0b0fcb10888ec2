//! The steps that operations on bundles are made of.
//!
//! Every step can be run again: it looks whether its effect is there before it brings it about. What
//! a later step needs of an earlier one lies in the operation's results or in the revision that
//! carries the operation's name.

mod drain;
mod prepare;
mod provision;
mod ready;
mod run;
mod system_calls;
mod turn;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use berth_model::condition::Reason;
use berth_model::resource::bundle::Bundle;
use berth_model::resource::operation::StepName;
use berth_model::resource::revision::{Revision, RevisionState, RevisionStatus};
use futures_util::future::BoxFuture;
use std::path::PathBuf;

use berth_model::allocation::Pool;

use super::berthd;
use super::fetch::revisions_of;
use super::seams::{Cause, Images, Machine, Net, Provider, Volumes};
use super::view::state_of;
use crate::operation::{Executor, StepDone, StepError, Task};
use crate::store::{Store, StoreError, Tx};

/// Carries out the steps of operations on bundles.
pub struct Steps {
    /// The records.
    pub store: Store,
    /// The units.
    pub machine: Arc<dyn Machine>,
    /// The images.
    pub images: Arc<dyn Images>,
    /// What bundles take from ConfigMaps and Secrets.
    pub provider: Arc<dyn Provider>,
    /// The network.
    pub net: Arc<dyn Net>,
    /// The disks.
    pub volumes: Arc<dyn Volumes>,
    /// Where unpacked layers lie.
    pub layers: PathBuf,
    /// Random bits for the IPv6 networks of this machine, should there be none yet.
    pub drawn: [u8; 5],
    /// What IPv4 networks of namespaces are taken from.
    pub pool: Pool,
    /// How long connections to a revision that is replaced may go on.
    pub drain: Duration,
    /// Who waits for others before it starts.
    pub turns: Turns,
}

pub use drain::DRAIN;
pub use provision::sentence;
pub use turn::{PATIENCE, Turns};

type Done = Result<StepDone, StepError>;

impl Executor for Steps {
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Done> {
        match step {
            StepName::ResolveImage => Box::pin(self.resolve_image(task)),
            StepName::PullImage => Box::pin(self.pull_image(task)),
            StepName::ProvisionSecrets => Box::pin(self.provision_secrets(task)),
            StepName::PrepareRevision => Box::pin(self.prepare_revision(task)),
            StepName::AllocateVolumes => Box::pin(self.allocate_volumes(task)),
            StepName::FormatVolumes => Box::pin(self.format_volumes(task)),
            StepName::StopOld => Box::pin(self.stop_old(task)),
            StepName::OpenVolumes => Box::pin(self.open_volumes(task)),
            StepName::CloseVolumes => Box::pin(self.close_volumes(task)),
            StepName::GrowImages => Box::pin(self.grow_images(task)),
            StepName::GrowFilesystems => Box::pin(self.grow_filesystems(task)),
            StepName::ConfigureNetwork => Box::pin(self.configure_network(StepName::ConfigureNetwork)),
            StepName::StartUnit => Box::pin(self.start_unit(task)),
            StepName::AwaitReady => Box::pin(self.await_ready(task)),
            StepName::Promote => Box::pin(self.promote(task)),
            StepName::RetireOld => Box::pin(self.retire_old(task)),
            StepName::StopUnit => Box::pin(self.stop_units(task)),
            StepName::ReleaseNetwork => Box::pin(self.release_network(task)),
            StepName::RemoveFiles => Box::pin(self.remove_files(task)),
            StepName::RemoveRecords => Box::pin(self.remove_records(task)),
            StepName::LockVolume
            | StepName::UnlockVolume
            | StepName::CloseVolume
            | StepName::DestroyKey
            | StepName::RemoveImage
            | StepName::ForgetVolume
            | StepName::ApplyChange
            | StepName::RemoveUnneeded
            | StepName::FindRelease
            | StepName::DownloadRelease
            | StepName::WriteSlot
            | StepName::RestartMachine
            | StepName::ConfirmVersion => Box::pin(async move { Err(not_ours(step)) }),
        }
    }

    fn compensate<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        match step {
            StepName::Promote => Box::pin(self.demote(task)),
            StepName::StartUnit => Box::pin(self.stop_candidate(task)),
            StepName::PrepareRevision => Box::pin(self.fail_candidate(task)),
            StepName::AllocateVolumes => Box::pin(self.discard_volumes(task)),
            StepName::StopOld => Box::pin(self.start_old(task)),
            StepName::GrowImages => Box::pin(self.stop_growing(task)),
            _ => Box::pin(async { Ok(()) }),
        }
    }
}

impl Steps {
    async fn bundle(&self, task: &Task) -> Result<Bundle, StepError> {
        let target = task.spec.target.clone();
        let found = self.store.read(move |tx| tx.get::<Bundle>(&target.namespace, &target.name)).await;
        found
            .map_err(|error| store_failed(error, "reading the bundle"))?
            .ok_or_else(|| StepError::new(Reason::ProfileFailed, "the bundle is gone").permanent())
    }

    async fn revisions(&self, task: &Task) -> Result<Vec<Revision>, StepError> {
        let target = task.spec.target.clone();
        let all = self.store.read(move |tx| revisions_of(tx, &target.namespace, &target.name)).await;
        all.map_err(|error| store_failed(error, "reading the revisions"))
    }

    /// The revision this operation made.
    async fn candidate(&self, task: &Task) -> Result<Option<Revision>, StepError> {
        Ok(self.revisions(task).await?.into_iter().find(|revision| revision.spec.operation == task.name))
    }

    /// The revision that a start is about: the one this operation made, else the one that serves.
    async fn subject(&self, task: &Task) -> Result<Revision, StepError> {
        let revisions = self.revisions(task).await?;
        let own = revisions.iter().find(|revision| revision.spec.operation == task.name);
        let active = || revisions.iter().rev().find(|revision| state_of(revision) == RevisionState::Active);
        own.or_else(active).cloned().ok_or_else(|| {
            StepError::new(Reason::StartFailed, "there is no revision to start")
                .suggest("wait for the installation to end, or see why it failed with `berth status`")
        })
    }

    /// Writes the states of revisions in one transaction.
    async fn set_states(&self, changes: Vec<(Revision, RevisionState)>) -> Result<(), StepError> {
        let write = move |tx: &mut Tx<'_>| {
            for (mut revision, state) in changes {
                // One that came up after all has not failed.
                let failure = revision.status.take().and_then(|status| status.failure);
                let failure = failure.filter(|_| matches!(state, RevisionState::Candidate | RevisionState::Failed));
                revision.status = Some(RevisionStatus { state, failure });
                tx.write_status(&revision)?;
            }
            Ok::<_, StoreError>(())
        };
        self.record(write).await.map_err(|error| store_failed(error, "recording what became of a revision"))
    }

    async fn record<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        write: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.store.write(&berthd(), write).await
    }
}

fn not_ours(step: StepName) -> StepError {
    StepError::new(Reason::WorkloadFailed, format!("{step:?} is no step of a bundle's")).permanent()
}

fn store_failed(error: StoreError, doing: &str) -> StepError {
    StepError::new(Reason::ProfileFailed, format!("{doing} failed"))
        .suggest("look at `journalctl -u berthd` and at the free space of /var/lib/berth")
        .caused_by(error)
}

fn machine_failed(reason: Reason, doing: impl Into<String>) -> impl FnOnce(Cause) -> StepError {
    let message = doing.into();
    move |cause| StepError::new(reason, message).suggest("look at `journalctl -u berthd`").caused_by(cause)
}
