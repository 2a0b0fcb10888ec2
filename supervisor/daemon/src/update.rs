//! A new version of the machine's own system.
//!
//! ```text
//! FindRelease ----- list of sums and its signature -> which version, and that it is newer
//! DownloadRelease - each file, from where it broke off, held against its sum
//! WriteSlot ------- systemd-sysupdate writes the slot that is not in use; last the entry, which is tried three times
//! RestartMachine -- when nothing else is at work, or when somebody does it
//! ConfirmVersion -- the version that runs is the new one and was found good; else it is the one before, and why
//! ```
//!
//! The operation outlives the restart: its record says how far it was, whichever version reads it. Whether a version is
//! good is not decided here but by `berth-health.service` and systemd's boot counting, which work when this daemon does
//! not. What fails is undone: files and entry of the new version are removed.

pub mod seams;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_host::fs as host_fs;
use berth_model::condition::Reason;
use berth_model::health::waited_for;
use berth_model::release::{self, Backwards, Part, Release, may_follow};
use berth_model::resource::Bundle;
use berth_model::resource::operation::{Operation, OperationKind, OperationState, StepName};
use berth_model::resource::settings::{self, Settings, UpdateSettings};
use futures_util::future::BoxFuture;
use minisign_verify::{PublicKey, Signature};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::operation::{Executor, StepDone, StepError, Task};
use crate::store::{ReadTx, Store, StoreError};
use seams::Slots;
use source::Source;
pub(crate) use source::sum;

/// Between two looks at whether the new version was found good.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest signature that is read, in bytes.
const LONGEST_SIGNATURE: usize = 4 << 10;

/// Carries updates out.
pub struct Updates {
    /// Where settings and other operations are.
    pub store: Store,
    /// The machine's versions.
    pub slots: Arc<dyn Slots>,
    /// What fetches files.
    pub http: reqwest::Client,
    /// Where files wait to be written; systemd-sysupdate looks there.
    pub folder: PathBuf,
    /// Whose signatures are good: the `.pub` files there.
    pub keys: PathBuf,
}

/// What the steps after the first one go by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    version: Version,
    /// The version that ran when it was asked for, and the kernel's id of that start.
    from: Version,
    boot_id: String,
    source: String,
    /// Name and sum of each file, in the order in which they are written.
    parts: Vec<(String, String)>,
}

impl Found {
    /// None where there was nothing newer.
    fn of(task: &Task) -> Result<Option<Self>, StepError> {
        let Some(found) = task.results.get("release") else { return Ok(None) };
        let found = serde_json::from_value(found.clone());
        found.map(Some).map_err(|error| failed("reading what the update had found").caused_by(error).permanent())
    }
}

impl Executor for Updates {
    fn apply<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<StepDone, StepError>> {
        Box::pin(async move {
            if step == StepName::FindRelease {
                return self.find(task).await;
            }
            let Some(found) = Found::of(task)? else { return Ok(StepDone::said("there is nothing newer")) };
            match step {
                StepName::DownloadRelease => self.download(task, &found).await,
                StepName::WriteSlot => self.write(&found).await,
                StepName::RestartMachine => self.restart(task, &found).await,
                StepName::ConfirmVersion => self.confirm(&found).await,
                _ => Err(failed(format!("{step:?} is no step of an update")).permanent()),
            }
        })
    }

    fn compensate<'a>(&'a self, task: &'a Task, step: StepName) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            let Some(found) = Found::of(task)? else { return Ok(()) };
            match step {
                StepName::DownloadRelease => self.clear(),
                StepName::WriteSlot if self.running()? != found.version => {
                    let discarded = self.slots.discard(&found.version.to_string());
                    discarded.map_err(|error| failed("removing the entry of the new version").caused_by(error))
                }
                _ => Ok(()),
            }
        })
    }
}

impl Updates {
    async fn find(&self, task: &Task) -> Result<StepDone, StepError> {
        let from = self.running()?;
        if self.others(task, Some(OperationKind::UpdateSystem)).await? > 0 {
            return Err(failed("another update is at work").coded("UpdateConflict"));
        }
        let (source, channel) = self.source(task).await?;
        let release = self.release(&source, &channel).await?;
        match may_follow(&from, &release.version) {
            Ok(()) => {}
            Err(_) if task.spec.actor.source == "schedule" => {
                return Ok(StepDone::said(format!("{channel} is at {}, and {from} runs", release.version)));
            }
            Err(why) => return Err(backwards(why, &from, &release.version)),
        }
        let said = format!("{} is to follow {from}", release.version);
        let parts = release.parts.iter().map(|part| (part.name.clone(), part.sha256.clone())).collect();
        let boot_id = self.slots.boot_id().map_err(unknown)?;
        let found = Found { version: release.version, from, boot_id, source: source.told(), parts };
        Ok(StepDone::said(said).keeping("release", json!(found)).keeping("version", json!(found.version)))
    }

    /// Where the version comes from, and of which channel it is.
    async fn source(&self, task: &Task) -> Result<(Source, String), StepError> {
        let wish = task.spec.system.clone().unwrap_or_default();
        let set = self.settings().await?;
        let channel = wish.channel.unwrap_or(set.channel);
        let place = wish.source.unwrap_or(set.source);
        let source = Source::of(&place, &channel, &self.http).ok_or_else(|| {
            failed("it is not said where updates come from")
                .coded("NoSource")
                .suggest(
                    "set spec.updates.source of the Settings berth, or name a source: berth system update --source URL",
                )
                .permanent()
        })?;
        Ok((source, channel))
    }

    async fn settings(&self) -> Result<UpdateSettings, StepError> {
        let settings = self.store.read(|tx| tx.get::<Settings>("", settings::NAME)).await.map_err(store)?;
        Ok(settings.map(|settings| settings.spec.updates).unwrap_or_default())
    }

    /// What is published there, if it is signed.
    async fn release(&self, source: &Source, channel: &str) -> Result<Release, StepError> {
        let sums = source.document("SHA256SUMS", release::LONGEST).await?;
        let signature = source.document("SHA256SUMS.minisig", LONGEST_SIGNATURE).await?;
        let said = self.signed(&sums, &signature)?;
        let parsed = Release::parse(&String::from_utf8_lossy(&sums));
        let release = parsed.map_err(|error| {
            failed(format!("{} is no list of a version", source.told())).caused_by(error).permanent()
        })?;
        let wanted = release.comment(channel);
        if said != wanted {
            let message = format!("what is at {} is signed as {said:?} and not as {wanted:?}", source.told());
            return Err(failed(message).coded("BadSignature").permanent());
        }
        Ok(release)
    }

    /// What one of the keys that count has signed beside these sums.
    fn signed(&self, sums: &[u8], signature: &[u8]) -> Result<String, StepError> {
        let bad = |message: &str| {
            failed(message)
                .coded("BadSignature")
                .suggest("do not install it; ask whoever publishes it, or look whether the source is the right one")
                .permanent()
        };
        let text = String::from_utf8_lossy(signature);
        let signature =
            Signature::decode(&text).map_err(|error| bad("the signature cannot be read").caused_by(error))?;
        let keys = self.keys()?;
        let good = keys.iter().any(|key| key.verify(sums, &signature, false).is_ok());
        match good {
            true => Ok(signature.trusted_comment().to_owned()),
            false => Err(bad("the list of sums is not signed by a key that counts on this machine")),
        }
    }

    fn keys(&self) -> Result<Vec<PublicKey>, StepError> {
        let read = || -> std::io::Result<Vec<PublicKey>> {
            let mut keys = Vec::new();
            for entry in std::fs::read_dir(&self.keys)? {
                let path = entry?.path();
                if path.extension().is_some_and(|ending| ending == "pub") {
                    keys.push(PublicKey::from_file(&path).map_err(std::io::Error::other)?);
                }
            }
            Ok(keys)
        };
        read().map_err(|error| failed(format!("reading the keys in {}", self.keys.display())).caused_by(error))
    }

    async fn download(&self, task: &Task, found: &Found) -> Result<StepDone, StepError> {
        let source = Source::found(&found.source, &self.http);
        host_fs::ensure_dir(&self.folder, 0o700)
            .map_err(|error| failed("making room for the update").caused_by(error))?;
        let count = found.parts.len();
        for (at, (name, sha256)) in found.parts.iter().enumerate() {
            let part = Part { name: name.clone(), sha256: sha256.clone() };
            let percent = move |of_it: u64| u8::try_from((at as u64 * 100 + of_it) / count as u64).unwrap_or(99);
            let tell = |of_it: u64, said: String| task.progress.report(percent(of_it), said);
            source.fetch(&part, &self.folder, &tell).await?;
        }
        Ok(StepDone::said(format!("{count} files of {}", found.version)))
    }

    async fn write(&self, found: &Found) -> Result<StepDone, StepError> {
        let version = found.version.to_string();
        let writing = |error| {
            failed(format!("writing version {version} beside the present one"))
                .caused_by(error)
                .suggest("see `journalctl -u berth-sysupdate`")
        };
        self.slots.write().await.map_err(writing)?;
        let sum = found.parts.last().map(|(_, sum)| sum.as_str()).unwrap_or_default();
        if !self.slots.holds(&version, sum).map_err(writing)? {
            self.slots.discard(&version).map_err(writing)?;
            return Err(failed(format!("what was written of version {version} is not what was fetched")));
        }
        self.clear()?;
        let excused =
            self.store.read(|tx| Ok(waited_for(&tx.list::<Bundle>(None)?, &[].into()))).await.map_err(store)?;
        let excused: BTreeSet<String> = excused.into_iter().map(|one| one.what).collect();
        let judged = Trial { excused, reached: self.slots.is_reached().map_err(unknown)? };
        Ok(StepDone::said(format!("{version} is tried at the next start")).keeping(TRIAL, json!(judged)))
    }

    /// Done once the machine has started anew.
    async fn restart(&self, task: &Task, found: &Found) -> Result<StepDone, StepError> {
        if self.slots.boot_id().map_err(unknown)? != found.boot_id {
            return Ok(StepDone::said("the machine has started anew"));
        }
        let wish = task.spec.system.clone().unwrap_or_default();
        if !wish.restart && task.spec.actor.source != "schedule" {
            task.progress.report(0, "waits for a restart of the machine, as by `berth system reboot`");
            return std::future::pending().await;
        }
        let mut news = self.store.revision();
        while self.others(task, None).await? > 0 {
            task.progress.report(0, "waits until nothing else is at work");
            news.changed().await.map_err(|error| failed("following the store").caused_by(error))?;
        }
        self.slots.restart().await.map_err(|error| failed("restarting the machine").caused_by(error))?;
        task.progress.report(50, "the machine starts anew");
        std::future::pending().await
    }

    /// Done once the version that runs was found good.
    async fn confirm(&self, found: &Found) -> Result<StepDone, StepError> {
        let running = self.running()?;
        if running != found.version {
            return Err(self.went_back(found, &running)?);
        }
        let boot_id = self.slots.boot_id().map_err(unknown)?;
        loop {
            let report = self.slots.report().map_err(unknown)?;
            let healthy = report.is_some_and(|report| report.boot_id == boot_id && report.healthy);
            if healthy && self.is_kept(&running)? {
                return Ok(StepDone::said(format!("{running} runs, and everything serves that should")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it is no longer on trial.
    fn is_kept(&self, version: &Version) -> Result<bool, StepError> {
        let entries = self.slots.entries().map_err(unknown)?;
        let version = version.to_string();
        Ok(entries.iter().any(|entry| entry.version == version && entry.tries_left.is_none()))
    }

    fn went_back(&self, found: &Found, running: &Version) -> Result<StepError, StepError> {
        let wanted = found.version.to_string();
        let report = self.slots.report().map_err(unknown)?.filter(|report| report.version == wanted && !report.healthy);
        let why = report.map_or_else(
            || {
                "it did not come as far as to say why; what it wrote is in the journal of the starts before, if any"
                    .to_owned()
            },
            |report| report.why,
        );
        Ok(failed(format!("version {wanted} did not come up well, and {running} runs again: {why}"))
            .coded("WentBack")
            .suggest("data are untouched; install a later version, or ask whoever publishes this one")
            .permanent())
    }

    fn running(&self) -> Result<Version, StepError> {
        let running = self.slots.running().map_err(unknown)?;
        running.ok_or_else(|| {
            failed("this machine's system is not an image of Berth")
                .coded("NotAnAppliance")
                .suggest("update the package berth by the machine's package manager")
                .permanent()
        })
    }

    /// How many other operations are at work, or of one kind.
    async fn others(&self, task: &Task, kind: Option<OperationKind>) -> Result<usize, StepError> {
        let name = task.name.clone();
        let look = move |tx: &ReadTx<'_>| -> Result<usize, StoreError> {
            let all = tx.list_lasting::<Operation>()?;
            let at_work = all.iter().filter(|one| one.metadata.name.as_ref() != Some(&name)).filter(|one| {
                let running = one.status.as_ref().is_some_and(|status| status.state == OperationState::Running);
                running && kind.is_none_or(|kind| one.spec.kind == kind)
            });
            Ok(at_work.count())
        };
        self.store.read(look).await.map_err(store)
    }

    /// Removes what was fetched.
    fn clear(&self) -> Result<(), StepError> {
        host_fs::remove_dir_all(&self.folder).map_err(|error| failed("removing what was fetched").caused_by(error))
    }
}

/// Under what it is kept how the machine was when a version was written.
const TRIAL: &str = "trial";

/// How the machine was before a version is tried: what did not work then need not after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// `namespace/name` of the bundles that did not serve.
    pub excused: BTreeSet<String>,
    /// It had an address that others could reach it by.
    pub reached: bool,
}

/// How the machine was before the version that is on trial; nothing is excused where none is.
///
/// # Errors
/// The store.
pub fn trial(tx: &ReadTx<'_>) -> Result<Trial, StoreError> {
    let at_work = |one: &&Operation| {
        let running = one.status.as_ref().is_some_and(|status| status.state == OperationState::Running);
        one.spec.kind == OperationKind::UpdateSystem && running
    };
    let all: Vec<Operation> = tx.list_lasting()?;
    let kept = all.iter().find(at_work).and_then(|one| one.status.as_ref()?.result.get(TRIAL));
    Ok(kept.and_then(|kept| Trial::deserialize(kept).ok()).unwrap_or_default())
}

fn backwards(why: Backwards, from: &Version, to: &Version) -> StepError {
    let message = match why {
        Backwards::Same => format!("{from} runs already"),
        Backwards::Older => format!("{to} is older than {from}, which runs"),
    };
    failed(message)
        .coded("NotNewer")
        .suggest("nothing to do; `berth system status` shows which versions are there")
        .permanent()
}

fn failed(message: impl Into<String>) -> StepError {
    StepError::new(Reason::WorkloadFailed, message)
}

fn unknown(error: seams::Fault) -> StepError {
    failed("asking for the machine's versions").caused_by(error)
}

fn store(error: StoreError) -> StepError {
    failed("reading the store").caused_by(error)
}
