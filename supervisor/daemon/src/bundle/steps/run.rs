//! Starting, promoting, stopping and removing what was prepared.

use berth_model::condition::Reason;
use berth_model::plan::Plan;
use berth_model::resource::operation::StepName;
use berth_model::resource::revision::{Revision, RevisionState};

use super::{Done, Steps, machine_failed, store_failed};
use crate::bundle::seams::{Started, UnitState};
use crate::bundle::view::{container_id, state_of};
use crate::bundle::{fetch, unit};
use crate::operation::{StepDone, StepError, Task};

impl Steps {
    pub(super) async fn configure_network(&self, step: StepName) -> Done {
        let configured = self.net.configure().await;
        configured
            .map_err(machine_failed(Reason::WorkloadFailed, format!("{step:?}: setting up bridge and rules failed")))?;
        Ok(StepDone::said("bridge and rules are in place"))
    }

    pub(super) async fn start_unit(&self, task: &Task) -> Done {
        if !self.bundle(task).await?.spec.start {
            return Ok(StepDone::said("left stopped, as asked"));
        }
        let revision = self.subject(task).await?;
        self.await_turn(task).await?;
        // The record that they were opened outlives a power cut, and the devices do not.
        self.open_volumes(task).await?;
        self.start_one(task, &revision).await
    }

    pub(super) async fn start_one(&self, task: &Task, revision: &Revision) -> Done {
        let unreadable = |error| {
            StepError::new(Reason::WorkloadFailed, "the revision cannot be started").permanent().caused_by(error)
        };
        let devices = self.devices(task, revision).await?;
        self.make_scratch(revision).await?;
        let request = unit::request(revision, &devices).map_err(unreadable)?;
        let mut plan = unit::plan(revision, &self.layers, &devices).map_err(unreadable)?;
        plan.security.system_calls = self.system_calls(&revision.spec.bundle_spec, Reason::WorkloadFailed).await?;
        let provided = self.provide(task, &revision.spec.bundle_spec).await?;
        let plan = Plan { provided: !provided.is_empty(), ..plan };
        let (id, name) = (request.id.clone(), request.name.clone());
        let started = self.machine.start(request, plan, provided).await;
        match started.map_err(machine_failed(Reason::WorkloadFailed, format!("starting {name} failed")))? {
            Started::Done => Ok(StepDone::said(format!("{name} is started"))),
            Started::AlreadyRunning => Ok(StepDone::said(format!("{name} runs"))),
            Started::Failed => Err(self.failed(task, &id, format!("{name} did not start")).await),
        }
    }

    /// From now on traffic goes to the candidate, and the revision before it is on its way out.
    pub(super) async fn promote(&self, task: &Task) -> Done {
        let revisions = self.revisions(task).await?;
        let own = |revision: &&Revision| revision.spec.operation == task.name;
        let Some(candidate) = revisions.iter().find(own) else {
            let kept = task.results.get("revision").and_then(serde_json::Value::as_u64);
            if revisions.iter().any(|one| Some(one.spec.number) == kept && state_of(one) == RevisionState::Active) {
                return Ok(StepDone::said("the revision in service stays"));
            }
            return Err(StepError::new(Reason::StartFailed, "the revision to promote is gone").permanent());
        };
        let mut changes = vec![(candidate.clone(), RevisionState::Active)];
        let others = revisions.iter().filter(|one| !own(one) && state_of(one) == RevisionState::Active);
        changes.extend(others.map(|old| (old.clone(), RevisionState::Retiring)));
        self.set_states(changes).await?;
        self.configure_network(StepName::Promote).await?;
        Ok(StepDone::said(format!("revision {} serves", candidate.spec.number)))
    }

    /// Undoes a promotion while the revision before it still runs; afterwards there is no way back.
    pub(super) async fn demote(&self, task: &Task) -> Result<(), StepError> {
        let revisions = self.revisions(task).await?;
        let Some(old) = revisions.iter().find(|one| state_of(one) == RevisionState::Retiring) else { return Ok(()) };
        let seen = self.machine.observe(&container_id(old)).await;
        let seen = seen.map_err(machine_failed(Reason::WorkloadFailed, "looking at the earlier revision failed"))?;
        if seen.state != UnitState::Active {
            return Ok(());
        }
        let own = revisions.iter().find(|one| one.spec.operation == task.name);
        let mut changes = vec![(old.clone(), RevisionState::Active)];
        changes.extend(own.map(|one| (one.clone(), RevisionState::Candidate)));
        self.set_states(changes).await?;
        self.configure_network(StepName::Promote).await.map(drop)
    }

    pub(super) async fn retire_old(&self, task: &Task) -> Done {
        let (mut retired, mut cut) = (Vec::new(), 0);
        for revision in self.revisions(task).await?.into_iter().filter(|one| state_of(one) == RevisionState::Retiring) {
            cut += self.drain(task, &revision).await?;
            self.stop_one(&revision).await?;
            self.forget_connections(&revision).await?;
            self.forget(&revision).await?;
            retired.push((revision, RevisionState::Superseded));
        }
        let count = retired.len();
        self.set_states(retired).await?;
        self.close_unused(task).await?;
        self.remove_surplus(task).await?;
        let cut = if cut > 0 { format!(", with connections that were still open: {cut}") } else { String::new() };
        Ok(StepDone::said(format!("earlier revisions stopped: {count}{cut}")))
    }

    /// Records of the oldest revisions go, so that there are no more than are kept.
    async fn remove_surplus(&self, task: &Task) -> Result<(), StepError> {
        let (target, own) = (task.spec.target.clone(), task.name.clone());
        let removed = self.record(move |tx| fetch::remove_surplus(tx, &target.namespace, &target.name, &own));
        removed.await.map_err(|error| store_failed(error, "removing the records of the oldest revisions"))
    }

    /// A stop that Berth was asked for leaves no record of an ending: the wish itself says it all.
    pub(super) async fn stop_units(&self, task: &Task) -> Done {
        let mut stopped = 0;
        for revision in self.revisions(task).await?.iter().filter(|one| state_of(one).holds_allocation()) {
            self.stop_one(revision).await?;
            self.forget(revision).await?;
            stopped += 1;
        }
        Ok(StepDone::said(format!("units stopped: {stopped}")))
    }

    pub(super) async fn release_network(&self, task: &Task) -> Done {
        let held = self.revisions(task).await?.into_iter().filter(|one| state_of(one).holds_allocation());
        self.set_states(held.map(|one| (one, RevisionState::Superseded)).collect()).await?;
        self.configure_network(StepName::ReleaseNetwork).await?;
        Ok(StepDone::said("ports and addresses are given back"))
    }

    pub(super) async fn remove_files(&self, task: &Task) -> Done {
        for revision in self.revisions(task).await? {
            self.forget(&revision).await?;
        }
        Ok(StepDone::said("plans and records of endings are removed"))
    }

    pub(super) async fn remove_records(&self, task: &Task) -> Done {
        let target = task.spec.target.clone();
        let removed = self.record(move |tx| fetch::release(tx, &target.namespace, &target.name));
        removed.await.map_err(|error| store_failed(error, "removing the bundle's records"))?;
        Ok(StepDone::said("the bundle is gone"))
    }

    /// Undoes a start: of the candidate's unit if the operation made one, never of a revision that
    /// served before. A start of the present revision that failed leaves the unit to systemd.
    pub(super) async fn stop_candidate(&self, task: &Task) -> Result<(), StepError> {
        if !task.spec.kind.makes_revision() {
            return Ok(());
        }
        match self.candidate(task).await? {
            Some(candidate) if state_of(&candidate) == RevisionState::Candidate => self.stop_one(&candidate).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn stop_one(&self, revision: &Revision) -> Result<(), StepError> {
        let id = container_id(revision);
        let stopped = self.machine.stop(&id).await;
        stopped.map_err(machine_failed(Reason::WorkloadFailed, format!("stopping berth.{id} failed")))?;
        self.remove_scratch(revision).await
    }

    pub(super) async fn forget(&self, revision: &Revision) -> Result<(), StepError> {
        let id = container_id(revision);
        self.machine
            .forget(&id)
            .await
            .map_err(machine_failed(Reason::WorkloadFailed, format!("removing the files of berth.{id} failed")))
    }
}
