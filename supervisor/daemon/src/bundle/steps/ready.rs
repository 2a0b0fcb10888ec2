//! Waiting until a started unit serves.

use std::time::Duration;

use berth_model::condition::Reason;
use berth_model::readiness::{Course, Rules, Verdict};
use berth_model::redact::LAST_OUTPUT;
use berth_model::resource::Bundle;
use berth_model::resource::bundle::{Health, Protocol};
use berth_model::resource::revision::{Failure, KEPT_LINES, Revision, RevisionState, kept_output};
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::warn;

use super::{Done, Steps, machine_failed, store_failed};
use crate::bundle::fetch::tell;
use crate::bundle::health::look;
use crate::bundle::seams::{Observed, UnitState};
use crate::bundle::status::{describe, termination};
use crate::bundle::view::{container_id, state_of};
use crate::operation::{StepDone, StepError, Task};
use crate::store::{StoreError, Tx};

/// How often a starting service is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a service without TCP ports has to stay up to be called ready.
const STABLE: Duration = Duration::from_secs(2);
/// How long a service may take to answer on its ports.
const PATIENCE: Duration = Duration::from_secs(180);
/// Restarts by systemd while it starts after which it is given up.
const CRASHES: u64 = 3;
/// Lines of output that an error quotes.
const QUOTED: usize = 10;

impl Steps {
    /// Ready: the unit is active and its health check has been good for its stable window. Without a
    /// health check: every declared TCP port accepts; without ports, it has been up for [`STABLE`]
    /// with the same main process.
    pub(super) async fn await_ready(&self, task: &Task) -> Done {
        let bundle = self.bundle(task).await?;
        if !bundle.spec.start {
            return Ok(StepDone::said("left stopped, as asked"));
        }
        let revision = self.subject(task).await?;
        let id = container_id(&revision);
        // The record that it was started outlives a power cut, and the unit does not.
        let seen = self.machine.observe(&id).await;
        if !seen.map_err(machine_failed(Reason::StartFailed, "looking at the unit failed"))?.was_started() {
            self.start_unit(task).await?;
        }
        if let Some(health) = revision.spec.bundle_spec.health.clone() {
            let healthy = self.until_healthy(task, &revision, &id, &health).await;
            return healthy.map(|()| StepDone::said("the service is up and healthy"));
        }
        match timeout(PATIENCE, self.until_ready(task, &revision, &id)).await {
            Ok(outcome) => outcome.map(|()| StepDone::said("the service is up")),
            Err(_) => {
                let message = format!("the service did not answer on its ports within {} s", PATIENCE.as_secs());
                Err(self.failed(task, &id, message).await.suggest("check spec.ports and what the service listens on"))
            }
        }
    }

    /// Looks in the way and as often as the bundle says, until the looks have come to a verdict. That
    /// they do is certain: bad ones fail it, good ones promote it, and too much of both is too long.
    async fn until_healthy(
        &self,
        task: &Task,
        revision: &Revision,
        id: &str,
        health: &Health,
    ) -> Result<(), StepError> {
        let rules = health.rules();
        let mut run: Option<(u32, Instant, Course)> = None;
        let began = Instant::now();
        loop {
            let seen = self.look(task, id).await?;
            if seen.state != UnitState::Active {
                run = None;
                sleep(LOOK_EVERY).await;
                continue;
            }
            // Another main process is another run: its looks count from its own start.
            let fresh = || (seen.main_pid, Instant::now(), Course::default());
            let (pid, up, mut course) = run.take().filter(|(pid, ..)| *pid == seen.main_pid).unwrap_or_else(fresh);
            let found = look(&*self.machine, id, &revision.spec.allocation.address, health, &rules).await;
            course.look(found, &rules, up.elapsed());
            let late = began.elapsed() > longest(&rules);
            match course.verdict(&rules, up.elapsed()) {
                Verdict::Promote => return Ok(()),
                Verdict::Fail(word) => return Err(self.unhealthy(task, id, &word).await),
                Verdict::Wait if late => {
                    let word = course.last_word().unwrap_or("it is good and bad by turns").to_owned();
                    return Err(self.unhealthy(task, id, &word).await);
                }
                Verdict::Wait => {}
            }
            let pause = course.pause(&rules).min(rules.stable_window.max(LOOK_EVERY));
            run = Some((pid, up, course));
            sleep(pause).await;
        }
    }

    async fn unhealthy(&self, task: &Task, id: &str, word: &str) -> StepError {
        let message = format!("the service did not become healthy: {word}");
        self.failed(task, id, message).await.suggest("check spec.health and what the service says")
    }

    /// What is seen of the unit; an error if waiting longer is of no use.
    async fn look(&self, task: &Task, id: &str) -> Result<Observed, StepError> {
        let observed = self.machine.observe(id).await;
        let seen = observed.map_err(machine_failed(Reason::StartFailed, "looking at the unit failed"))?;
        match hopeless(&seen) {
            Some(message) => {
                self.note_end(task, &seen).await?;
                Err(self.failed(task, id, message).await)
            }
            None => Ok(seen),
        }
    }

    async fn until_ready(&self, task: &Task, revision: &Revision, id: &str) -> Result<(), StepError> {
        let mut looks = interval(LOOK_EVERY);
        let mut steady: Option<(u32, Instant)> = None;
        loop {
            looks.tick().await;
            let seen = self.look(task, id).await?;
            if seen.state != UnitState::Active {
                steady = None;
                continue;
            }
            let since = steady.filter(|(pid, _)| *pid == seen.main_pid).map_or_else(Instant::now, |(_, since)| since);
            steady = Some((seen.main_pid, since));
            if self.serves(revision, since).await {
                return Ok(());
            }
        }
    }

    async fn serves(&self, revision: &Revision, up_since: Instant) -> bool {
        let ports = revision.spec.bundle_spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        let ports: Vec<u16> = ports.map(|port| port.container_port).collect();
        if ports.is_empty() {
            return up_since.elapsed() >= STABLE;
        }
        for port in ports {
            if !self.machine.accepts(&revision.spec.allocation.address, port).await {
                return false;
            }
        }
        true
    }

    /// How a candidate ended is shown on the bundle: its unit will soon be gone.
    async fn note_end(&self, task: &Task, seen: &Observed) -> Result<(), StepError> {
        let Some(end) = seen.ending.as_ref().and_then(termination) else { return Ok(()) };
        let target = task.spec.target.clone();
        let write = move |tx: &mut Tx<'_>| {
            let Some(mut bundle) = tx.get::<Bundle>(&target.namespace, &target.name)? else { return Ok(()) };
            let mut status = bundle.status.clone().unwrap_or_default();
            status.last_termination = Some(end);
            tell(tx, &bundle, &status)?;
            bundle.status = Some(status);
            tx.write_status(&bundle)
        };
        let written: Result<(), StoreError> = self.record(write).await;
        written.map_err(|error| store_failed(error, "recording how the service ended"))
    }

    /// An error with the last lines of the service's own output, of which the candidate keeps more.
    pub(super) async fn failed(&self, task: &Task, id: &str, message: String) -> StepError {
        let lines = match self.machine.last_lines(id, KEPT_LINES).await {
            Ok(lines) => lines,
            Err(error) => vec![format!("(its output cannot be read: {error})")],
        };
        if let Err(error) = self.note_last_words(task, id, &lines).await {
            warn!(id, "recording how {id} failed was not possible: {}", crate::log::chain(&error));
        }
        let error = StepError::new(Reason::StartFailed, message)
            .suggest(format!("`journalctl -u berth.{id}` shows all of its output"));
        let quoted = &lines[lines.len().saturating_sub(QUOTED)..];
        if quoted.is_empty() { error } else { error.caused_by(Output(quoted.join("\n"))) }
    }

    /// What the candidate said and how it ended stays with its record: its unit will soon be gone.
    async fn note_last_words(&self, task: &Task, id: &str, lines: &[String]) -> Result<(), StepError> {
        let Some(mut candidate) = self.candidate(task).await? else { return Ok(()) };
        if container_id(&candidate) != id || state_of(&candidate) != RevisionState::Candidate {
            return Ok(());
        }
        let seen = self.machine.observe(id).await;
        let seen = seen.map_err(machine_failed(Reason::StartFailed, "looking at the unit failed"))?;
        let failure = Failure {
            termination: seen.ending.as_ref().and_then(termination),
            output: kept_output(lines),
            ..Failure::default()
        };
        candidate.status.get_or_insert_default().failure = Some(failure);
        let written: Result<(), StoreError> = self.record(move |tx| tx.write_status(&candidate)).await;
        written.map_err(|error| store_failed(error, "recording how the service ended"))
    }
}

/// What a service said before it failed.
#[derive(Debug, thiserror::Error)]
#[error("{LAST_OUTPUT}\n{0}")]
struct Output(String);

/// After this long even a service that is healthy now and then is given up.
fn longest(rules: &Rules) -> Duration {
    let failing = (rules.interval + rules.timeout).saturating_mul(rules.fail_after);
    PATIENCE + rules.start_period + rules.stable_window.saturating_mul(3) + failing
}

/// Why waiting longer is of no use, if it is not.
fn hopeless(seen: &Observed) -> Option<String> {
    let how = seen.ending.as_ref().map(describe).unwrap_or_default();
    match seen.state {
        UnitState::Failed => Some(format!("the service failed to start. {how}")),
        UnitState::Absent | UnitState::Inactive => Some(format!("the service ended while it was starting. {how}")),
        _ if seen.restarts >= CRASHES => Some(format!("the service crashed {} times in a row. {how}", seen.restarts)),
        _ => None,
    }
}
