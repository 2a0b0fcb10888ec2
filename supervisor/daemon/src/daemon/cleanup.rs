//! Cleanup: what nothing needs any more is removed after a while, and unused images at once when the disk fills up.
//!
//! ```text
//! schedule, by default daily +-> run: hold images still -> what is in use -> candidates -> Rules::plan -> remove, tell
//! POST system/cleanup -------+                                                                  `-- dry run: only tell
//! pressure, at its threshold -> run, then relieve: unused images of any age, the oldest first, until there is room
//! ```
//!
//! Plan and removal happen while no image can arrive, so a real run removes what a dry run tells at the same moment.
//! A kind of thing joins by its candidates in [`Cleaner::candidates`] and its removal in [`Cleaner::remove`]. Killed at
//! any point, the next run finds what is left: nothing of it is in use.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_host::disk_image;
use berth_model::cleanup::{Candidate, Item, ItemKind, Plan, Report, Rules};
use berth_model::kinds::{EVENT, EVENT_LIFE, OPERATION, OPERATION_LIFE, Registration};
use berth_model::meta;
use berth_model::pressure::{Disk, Level, Thresholds};
use berth_model::quantity::about_bytes;
use berth_model::resource::operation::{Operation, Target};
use berth_model::resource::settings::{self, CleanupSettings, Settings};
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tracing::info;

use super::ballast::BALLAST;
use super::images::LocalImages;
use crate::api::{CleanupPort, PortError};
use crate::image::{ImageError, Still};
use crate::operation::order;
use crate::store::{Clock, EventType, Expired, ReadTx, StoreError, Tx, house_keeping};

/// Records removed in one transaction.
const BATCH: usize = 200;

/// A cleanup did not come to its end; what it had removed stays removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CleanupError {
    /// Images.
    #[error("cleaning up among the images")]
    Images(#[from] ImageError),
    /// Records.
    #[error("cleaning up among the records")]
    Store(#[from] StoreError),
    /// Room.
    #[error("measuring the data disk")]
    Disk(#[from] disk_image::ImageError),
}

impl CleanupError {
    /// An image is on its way, so nothing was done; later there will be none.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Images(ImageError::Busy))
    }
}

/// Whoever cleans up; one run at a time.
pub(super) struct Cleaner {
    pub(super) local: LocalImages,
    clock: Clock,
    data: PathBuf,
    level: Mutex<Level>,
    turn: tokio::sync::Mutex<()>,
}

impl Cleaner {
    pub(super) fn new(local: LocalImages, data: &Path, clock: Clock) -> Self {
        let data = data.to_owned();
        Self { local, clock, data, level: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Notes since when images are unused.
    pub(super) async fn look(&self) -> Result<(), CleanupError> {
        let _turn = self.turn.lock().await;
        let still = self.local.images.still()?;
        let in_use = self.local.in_use().await?;
        Ok(still.mark_unused(&in_use, (self.clock)())?)
    }

    /// Removes what is old enough, or only tells what that is.
    pub(super) async fn run(&self, dry_run: bool) -> Result<Report, CleanupError> {
        let _turn = self.turn.lock().await;
        let still = self.local.images.still()?;
        let in_use = self.local.in_use().await?;
        let (now, rules) = ((self.clock)(), self.settings().await?.rules());
        let plan = rules.plan(self.candidates(&still, &in_use, rules, now).await?, now);
        if dry_run {
            return Ok(Report::new(plan, None, self.disk()?, self.level()));
        }
        still.mark_unused(&in_use, now)?;
        let before = self.disk()?;
        let removed = self.remove(plan, &still, &in_use).await?;
        self.tell(removed, before, "CleanedUp").await
    }

    /// Removes unused images, the oldest first, until the disk is below a percentage.
    pub(super) async fn relieve(&self, percent: u8) -> Result<Report, CleanupError> {
        let _turn = self.turn.lock().await;
        let still = self.local.images.still()?;
        let in_use = self.local.in_use().await?;
        let now = (self.clock)();
        let any = Rules { images: SignedDuration::ZERO, operations: SignedDuration::MAX, events: SignedDuration::MAX };
        let plan = any.plan(images(&still, &in_use, now)?, now);
        let (before, mut removed) = (self.disk()?, Plan::default());
        for item in plan.items {
            if !self.disk()?.reaches(percent) {
                break;
            }
            if still.discard(std::slice::from_ref(&item.id), &in_use).await? > 0 {
                removed.items.push(item);
            }
        }
        self.tell(removed, before, "DiskRelieved").await
    }

    pub(super) async fn settings(&self) -> Result<CleanupSettings, StoreError> {
        let settings = self.local.store.read(|tx| tx.get::<Settings>("", settings::NAME)).await?;
        Ok(settings.map(|settings| settings.spec.cleanup).unwrap_or_default())
    }

    /// The data disk. The ballast counts as used, there or not: the room it gave up is not for images.
    pub(super) fn disk(&self) -> Result<Disk, disk_image::ImageError> {
        let room = disk_image::room(&self.data)?;
        let disk = Disk { total: room.total, free: room.free };
        Ok(if self.data.join("ballast").exists() { disk } else { disk.without(BALLAST) })
    }

    pub(super) fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the disk's present level down; answers the one before and the new one.
    pub(super) fn stands(&self, thresholds: Thresholds, disk: Disk) -> (Level, Level) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *level;
        *level = thresholds.level(before, disk);
        (before, *level)
    }

    /// Everything that nothing needs, of whatever age that may matter.
    async fn candidates(
        &self,
        still: &Still<'_>,
        in_use: &HashSet<String>,
        rules: Rules,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, CleanupError> {
        let mut found = images(still, in_use, now)?;
        found.extend(self.local.store.read(move |tx| records(tx, rules, now)).await?);
        Ok(found)
    }

    /// Carries a plan out; answers what of it was removed. What somebody has told of again meanwhile lives on.
    async fn remove(&self, plan: Plan, still: &Still<'_>, in_use: &HashSet<String>) -> Result<Plan, CleanupError> {
        let (pictures, records): (Vec<Item>, Vec<Item>) =
            plan.items.into_iter().partition(|item| item.kind == ItemKind::Image);
        let (rules, mut removed) = (self.settings().await?.rules(), Plan::default());
        for batch in records.chunks(BATCH) {
            let batch = batch.to_vec();
            let gone = self.local.store.write(&house_keeping(), move |tx| expire(tx, batch, rules)).await?;
            removed.items.extend(gone);
        }
        let digests: Vec<String> = pictures.iter().map(|item| item.id.clone()).collect();
        if !digests.is_empty() {
            still.discard(&digests, in_use).await?;
        }
        removed.items.extend(pictures);
        Ok(removed)
    }

    async fn tell(&self, removed: Plan, before: Disk, reason: &'static str) -> Result<Report, CleanupError> {
        let disk = self.disk()?;
        let freed = disk.free.saturating_sub(before.free);
        if !removed.items.is_empty() {
            let message = format!("removed {}; the data disk has {} more room", removed.counts(), about_bytes(freed));
            info!("{message}");
            for kind in ItemKind::ALL {
                self.local.metrics.removed(kind.word(), removed.of(kind).count());
            }
            self.event(EventType::Normal, reason, message).await?;
        }
        Ok(Report::new(removed, Some(freed), disk, self.level()))
    }

    /// Records that something happened to the machine; its Settings stand for it.
    pub(super) async fn event(&self, kind: EventType, reason: &'static str, message: String) -> Result<(), StoreError> {
        let write = move |tx: &mut Tx<'_>| match tx.get::<Settings>("", settings::NAME)? {
            Some(settings) => tx.emit_event(&settings, kind, reason, &message),
            None => Ok(()),
        };
        self.local.store.write(&house_keeping(), write).await
    }
}

impl CleanupPort for Cleaner {
    fn run(&self, dry_run: bool) -> BoxFuture<'_, Result<Report, PortError>> {
        Box::pin(async move { Cleaner::run(self, dry_run).await.map_err(refused) })
    }
}

fn refused(error: CleanupError) -> PortError {
    match error {
        CleanupError::Images(busy @ ImageError::Busy) => PortError::Conflict(format!("{busy}; {}", busy.advice())),
        other => PortError::Failed(Box::new(other)),
    }
}

fn images(still: &Still<'_>, in_use: &HashSet<String>, now: Timestamp) -> Result<Vec<Candidate>, ImageError> {
    let candidate = |image: crate::image::LocalImage| Candidate {
        kind: ItemKind::Image,
        namespace: String::new(),
        name: image.names.first().or(image.references.first()).unwrap_or(&image.digest).clone(),
        // A clock that went back is no reason to keep it.
        since: image.unused_since.map_or(now, |since| since.min(now)),
        size: image.size,
        id: image.digest,
    };
    Ok(still.unused(in_use)?.into_iter().map(candidate).collect())
}

/// Operations and events that are past their age. The last operation on something that is still there stays: it says
/// how that stands, and keeps what failed for good from being tried again.
fn records(tx: &ReadTx<'_>, rules: Rules, now: Timestamp) -> Result<Vec<Candidate>, StoreError> {
    let mut found = Vec::new();
    for kind in [ItemKind::Operation, ItemKind::Event] {
        let (registration, life) = kept(kind);
        let over = tx.expired(registration, moved(now, life, rules.age(kind)))?;
        found.extend(over.iter().map(|one| record(kind, one, life)));
    }
    if found.iter().any(|one| one.kind == ItemKind::Operation) {
        let last = last_words(tx)?;
        found.retain(|one| !last.contains(&one.id));
    }
    Ok(found)
}

/// The kind in the store, and how long that keeps it if nothing else is said.
fn kept(kind: ItemKind) -> (&'static Registration, SignedDuration) {
    match kind {
        ItemKind::Event => (&EVENT, EVENT_LIFE),
        ItemKind::Operation | ItemKind::Image => (&OPERATION, OPERATION_LIFE),
    }
}

/// The time at which the store has to be asked, as it counts with another age.
fn moved(now: Timestamp, life: SignedDuration, age: SignedDuration) -> Timestamp {
    now.saturating_add(life).and_then(|later| later.saturating_sub(age)).unwrap_or(now)
}

fn record(kind: ItemKind, one: &Expired, life: SignedDuration) -> Candidate {
    Candidate {
        kind,
        namespace: meta::namespace(&one.object).to_owned(),
        name: meta::name(&one.object).to_owned(),
        id: meta::uid(&one.object).to_owned(),
        since: one.at.checked_sub(life).unwrap_or(one.at),
        size: one.size,
    }
}

/// Uids of the newest operation on each thing that is still there.
fn last_words(tx: &ReadTx<'_>) -> Result<HashSet<String>, StoreError> {
    let mut newest: BTreeMap<Target, Operation> = BTreeMap::new();
    for operation in tx.list::<Operation>(None)? {
        match newest.get(&operation.spec.target) {
            Some(known) if order(known) > order(&operation) => {}
            _ => drop(newest.insert(operation.spec.target.clone(), operation)),
        }
    }
    let mut words = HashSet::new();
    for (target, operation) in newest {
        if target.uid.is_empty() || tx.by_uid(&target.uid)?.is_some() {
            words.extend(operation.metadata.uid);
        }
    }
    Ok(words)
}

fn expire(tx: &mut Tx<'_>, items: Vec<Item>, rules: Rules) -> Result<Vec<Item>, StoreError> {
    let mut gone = Vec::new();
    for item in items {
        let at = moved(tx.now(), kept(item.kind).1, rules.age(item.kind));
        if tx.expire(&item.id, at)? {
            gone.push(item);
        }
    }
    Ok(gone)
}

mod step;
#[cfg(test)]
mod tests;
