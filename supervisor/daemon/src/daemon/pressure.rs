//! Watches how full the data disk is: warns, has unused images removed, and keeps images from coming in.
//!
//! The levels and their thresholds are [`berth_model::pressure`]'s. The disk is looked at now and then, and whenever
//! something was written to the store, as a pull is: it cannot fill the disk unseen.

use std::sync::Arc;
use std::time::Duration;

use berth_model::pressure::{Disk, Level, Thresholds};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::Parts;
use super::cleanup::{Cleaner, CleanupError};
use crate::image::Fullness;
use crate::store::EventType;

/// How often the disk is looked at if nothing happens, and at most.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// How long a cleanup that did not make enough room is not repeated.
const REST: Duration = Duration::from_secs(60);

/// Begins to watch.
pub(super) fn spawn(cleaner: Arc<Cleaner>, parts: &Parts, tasks: &TaskTracker) {
    let newest = parts.store.revision();
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(watch(cleaner, newest)));
}

async fn watch(cleaner: Arc<Cleaner>, mut newest: watch::Receiver<u64>) {
    let mut cleaned = None;
    loop {
        newest.mark_unchanged();
        match look(&cleaner, &mut cleaned).await {
            Ok(()) => {}
            Err(busy) if busy.is_busy() => cleaned = None,
            Err(error) => error!("watching the data disk failed: {}", crate::log::chain(&error)),
        }
        tokio::time::sleep(INTERVAL.1).await;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL.0) => {}
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}

/// One look, and what follows from it. `cleaned` is when the last cleanup was begun for want of room.
pub(super) async fn look(cleaner: &Cleaner, cleaned: &mut Option<Instant>) -> Result<(), CleanupError> {
    let thresholds = cleaner.settings().await?.disk;
    let disk = cleaner.disk()?;
    let (before, level) = cleaner.stands(thresholds, disk);
    cleaner.local.metrics.data_disk(disk.total, disk.free, level.number());
    let fullness = Fullness { used: disk.percent(), limit: thresholds.pause_percent };
    cleaner.local.images.pause((level == Level::Paused).then_some(fullness));
    if level != before {
        let (kind, reason, message) = told(before, level, thresholds);
        info!("{message} ({} % now)", disk.percent());
        cleaner.event(kind, reason, message).await?;
    }
    if disk.reaches(thresholds.clean_percent) && cleaned.is_none_or(|last| last.elapsed() >= REST) {
        *cleaned = Some(Instant::now());
        make_room(cleaner, thresholds).await?;
    }
    Ok(())
}

/// First what is old enough anyhow, then unused images of any age.
async fn make_room(cleaner: &Cleaner, thresholds: Thresholds) -> Result<(), CleanupError> {
    cleaner.run(false).await?;
    let disk: Disk = cleaner.disk()?;
    if disk.reaches(thresholds.clean_percent) {
        cleaner.relieve(thresholds.clean_percent).await?;
    }
    Ok(())
}

/// What is told of a change of level: always the same words for the same change, so that it is counted.
fn told(before: Level, level: Level, thresholds: Thresholds) -> (EventType, &'static str, String) {
    let Thresholds { warn_percent, clean_percent, pause_percent } = thresholds;
    let todo = "make room: `berth system cleanup`, `berth image prune`, `berth volume list`";
    match level {
        Level::Paused => {
            let message = format!(
                "the data disk is {pause_percent} % full: no image is pulled or imported until it is not; {todo}"
            );
            (EventType::Warning, "PullsPaused", message)
        }
        Level::Cleaning if before < level => {
            let message =
                format!("the data disk is {clean_percent} % full: images that nothing needs are removed; {todo}");
            (EventType::Warning, "DiskFilling", message)
        }
        Level::Warning if before < level => {
            let message = format!("the data disk is {warn_percent} % full; {todo}");
            (EventType::Warning, "DiskFilling", message)
        }
        _ if before == Level::Paused => {
            let message = "the data disk has room again: images are pulled and imported".to_owned();
            (EventType::Normal, "PullsResumed", message)
        }
        _ => {
            let message = "the data disk is less full than before".to_owned();
            (EventType::Normal, "DiskRecovering", message)
        }
    }
}
