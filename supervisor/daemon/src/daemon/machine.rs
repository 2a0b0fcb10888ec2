//! The bundle domain's machine, for real: units over D-Bus, plans and endings as files, output from
//! the journal.
//!
//! A transient unit goes away when it ends unless somebody refers to it. This adapter takes one
//! reference on every unit it is asked about and gives it back when the unit is stopped for good, so
//! that a unit stopped by hand can still be inspected and started with `systemctl`. References belong
//! to the D-Bus connection: after a reconnect all are taken anew.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use berth_host::fs;
use berth_host::journal::{self, Query, Record};
use berth_host::systemd::{self, ActiveState, JobResult, Known, Outcome, Systemd};
use berth_model::plan::{Ending, Plan};
use berth_model::provided::Provided;
use berth_model::resource::bundle::health::Look;
use futures_util::future::BoxFuture;
use tracing::warn;

use super::health::Health;
use super::references::References;
use super::sightings::Sightings;
use super::{profiles, properties};
use crate::bundle::seams::{Cause, Machine, Observed, ProfileFailure, Started, UnitState};
use crate::bundle::unit::UnitRequest;
use crate::bundle::view::unit_name;
use crate::metrics::{Effect, Metrics};

/// How long a connection attempt to a starting service may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Units, plans and endings of this machine.
pub struct LinuxMachine {
    systemd: Systemd,
    health: Health,
    plans: PathBuf,
    provided: PathBuf,
    endings: PathBuf,
    references: References,
    sightings: Sightings,
    metrics: Metrics,
}

/// A record in `/run` is not one.
#[derive(Debug, thiserror::Error)]
#[error("reading the record of an ending, {}", path.display())]
struct BadEnding {
    path: PathBuf,
    #[source]
    source: serde_json::Error,
}

impl LinuxMachine {
    /// Plans lie in `<runtime>/plan`, what goes with them in `<runtime>/provided`, endings in
    /// `<runtime>/last`; the directories are made.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(systemd: Systemd, runtime: &Path, metrics: Metrics) -> Result<Self, fs::FsError> {
        let [plans, provided, endings] = ["plan", "provided", "last"].map(|name| runtime.join(name));
        for directory in [&plans, &provided, &endings] {
            fs::ensure_dir(directory, 0o700)?;
        }
        let health = Health::new(runtime);
        let (references, sightings) = (References::default(), Sightings::default());
        Ok(Self { systemd, health, plans, provided, endings, references, sightings, metrics })
    }

    /// The connection to systemd is a new one: no reference is held any more.
    pub fn references_are_gone(&self) {
        self.references.clear();
    }

    /// systemd says that something about the unit has changed.
    pub fn news(&self, unit: &str) {
        self.sightings.news(unit);
    }

    /// Anything may have changed since the last look.
    pub fn news_of_all(&self) {
        self.sightings.clear();
    }

    /// What systemd says of a unit, or has said and not taken back.
    async fn state(&self, unit: &str) -> Result<Option<systemd::UnitState>, Cause> {
        if let Some(seen) = self.sightings.last(unit) {
            return Ok(Some(seen));
        }
        let since = self.sightings.now();
        let state = self.systemd.state(unit).await?;
        state.iter().for_each(|state| self.sightings.keep(unit, since, state));
        Ok(state)
    }

    async fn hold(&self, name: &str) -> Result<(), Cause> {
        let Some(asked) = self.references.ask(name) else { return Ok(()) };
        let answer = self.systemd.ref_unit(name).await;
        if asked.answered(matches!(answer, Ok(Known::Loaded))) {
            self.systemd.unref_unit(name).await?;
        }
        answer?;
        Ok(())
    }

    async fn begin(&self, unit: UnitRequest, plan: Plan, provided: Provided) -> Result<Started, Cause> {
        self.references.wanted(&unit.name);
        let state = self.systemd.state(&unit.name).await?;
        if state.as_ref().is_some_and(|state| is_up(&state.active)) {
            self.hold(&unit.name).await?;
            return Ok(Started::AlreadyRunning);
        }
        self.forget_endings(&unit.id)?;
        // A restart by systemd reads both again, so a file stays as long as a unit may want it.
        match provided.is_empty() {
            true => fs::remove_file(&self.provided_file(&unit.id))?,
            false => fs::atomic_write(&self.provided_file(&unit.id), &serde_json::to_vec(&provided)?, 0o600)?,
        }
        fs::atomic_write(&self.plan_file(&unit.id), &serde_json::to_vec_pretty(&plan)?, 0o600)?;
        let outcome = match state {
            Some(_) => self.again(&unit).await?,
            None => self.afresh(&unit).await?,
        };
        self.hold(&unit.name).await?;
        let done = outcome == Outcome::Ended(JobResult::Done);
        self.metrics.effect(Effect::UnitStart, done);
        Ok(if done { Started::Done } else { Started::Failed })
    }

    async fn afresh(&self, unit: &UnitRequest) -> Result<Outcome, Cause> {
        let outcome = self.transient(unit).await?;
        if outcome == Outcome::UnitExists {
            return self.again(unit).await;
        }
        Ok(outcome)
    }

    /// A transient unit is born with a reference of ours; a look at it while it starts takes no second.
    async fn transient(&self, unit: &UnitRequest) -> Result<Outcome, Cause> {
        self.references.born(&unit.name);
        let outcome = self.systemd.start_transient(&unit.name, &properties::of(unit)).await;
        if !matches!(outcome, Ok(Outcome::Ended(_))) {
            self.references.forget(&unit.name);
        }
        Ok(outcome?)
    }

    /// A unit that ended stays loaded while it is referred to, with the properties of its (immutable)
    /// revision.
    async fn again(&self, unit: &UnitRequest) -> Result<Outcome, Cause> {
        self.systemd.reset_failed(&unit.name).await?;
        let outcome = self.systemd.start(&unit.name).await?;
        if outcome == Outcome::NoSuchUnit {
            return self.transient(unit).await;
        }
        Ok(outcome)
    }

    async fn end(&self, name: &str) -> Result<(), Cause> {
        self.references.unwanted(name);
        let Outcome::Ended(_) = self.systemd.stop(name).await? else {
            self.references.forget(name);
            return Ok(());
        };
        self.metrics.effect(Effect::UnitStop, true);
        self.systemd.reset_failed(name).await?;
        self.references.forget(name);
        // Also those whose asker was gone before systemd gave them.
        while self.systemd.unref_unit(name).await? {}
        Ok(())
    }

    async fn look(&self, id: &str) -> Result<Observed, Cause> {
        let name = unit_name(id);
        let state = self.state(&name).await?;
        let (ending, planned) = (self.newest_ending(id)?, self.plan_file(id).exists());
        // Whoever asks for a reference on a unit that is not loaded has it loaded for a moment, which is news of the
        // unit, which is a reason to look again, for ever.
        let Some(state) = state else { return Ok(Observed { ending, planned, ..Observed::default() }) };
        self.hold(&name).await?;
        Ok(Observed {
            state: unit_state(&state.active),
            main_pid: state.main_pid.unwrap_or_default(),
            restarts: state.restarts.into(),
            invocation: state.invocation.unwrap_or_default(),
            ending,
            planned,
            health: None,
        })
    }

    fn provided_file(&self, id: &str) -> PathBuf {
        self.provided.join(format!("{id}.json"))
    }

    fn plan_file(&self, id: &str) -> PathBuf {
        self.plans.join(format!("{id}.json"))
    }

    /// Records of the endings of a container, the newest last.
    fn ending_files(&self, id: &str) -> Result<Vec<PathBuf>, std::io::Error> {
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.endings)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(id)?.strip_prefix('.'));
            if rest.is_some_and(|rest| rest.strip_suffix(".json").is_some_and(|it| !it.contains('.'))) {
                found.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    fn newest_ending(&self, id: &str) -> Result<Option<Ending>, Cause> {
        let Some(path) = self.ending_files(id)?.pop() else { return Ok(None) };
        let Some(bytes) = fs::read_optional(&path)? else { return Ok(None) };
        let ending = serde_json::from_slice(&bytes).map_err(|source| BadEnding { path, source })?;
        Ok(Some(ending))
    }

    fn forget_endings(&self, id: &str) -> Result<(), Cause> {
        for path in self.ending_files(id)? {
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    fn forget_files(&self, id: &str) -> Result<(), Cause> {
        self.forget_endings(id)?;
        fs::remove_file(&self.plan_file(id))?;
        fs::remove_file(&self.provided_file(id))?;
        Ok(())
    }
}

impl Machine for LinuxMachine {
    fn start(&self, unit: UnitRequest, plan: Plan, provided: Provided) -> BoxFuture<'_, Result<Started, Cause>> {
        Box::pin(async move {
            let name = unit.name.clone();
            let begun = self.begin(unit, plan, provided).await;
            // Known from the end of the job, which may come before the news of the unit.
            self.sightings.news(&name);
            begun
        })
    }

    fn stop<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move {
            let ended = self.end(&unit_name(id)).await;
            self.sightings.news(&unit_name(id));
            ended
        })
    }

    fn observe<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Observed, Cause>> {
        Box::pin(self.look(id))
    }

    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), Cause>> {
        Box::pin(async move { self.forget_files(id) })
    }

    fn accepts<'a>(&'a self, address: &'a str, port: u16) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let connect = tokio::net::TcpStream::connect((address, port));
            matches!(tokio::time::timeout(CONNECT, connect).await, Ok(Ok(_)))
        })
    }

    fn look_into<'a>(&'a self, id: &'a str, address: &'a str, look: Look<'a>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.health.look(id, address, look))
    }

    fn profile<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<u64>, ProfileFailure>> {
        Box::pin(profiles::filter(Path::new(profiles::DIRECTORY), name))
    }

    fn last_lines<'a>(&'a self, id: &'a str, count: u32) -> BoxFuture<'a, Result<Vec<String>, Cause>> {
        Box::pin(async move {
            // What is there already is worth more than an error about what may be missing.
            if let Err(error) = journal::caught_up().await {
                warn!("the last words of {id} may be missing: {}", crate::log::chain(&error));
            }
            let mut entries = Query::new().field("_SYSTEMD_UNIT", unit_name(id)).last(count).read()?;
            let mut lines = Vec::new();
            while let Some(record) = entries.next().await? {
                if let Record::Entry(entry) = record {
                    lines.push(String::from_utf8_lossy(&entry.message).into_owned());
                }
            }
            Ok(lines)
        })
    }
}

fn is_up(state: &ActiveState) -> bool {
    matches!(state, ActiveState::Active | ActiveState::Reloading | ActiveState::Activating)
}

fn unit_state(state: &ActiveState) -> UnitState {
    match state {
        ActiveState::Active | ActiveState::Reloading => UnitState::Active,
        ActiveState::Activating | ActiveState::Other(_) => UnitState::Activating,
        ActiveState::Deactivating => UnitState::Deactivating,
        ActiveState::Inactive => UnitState::Inactive,
        ActiveState::Failed => UnitState::Failed,
    }
}
