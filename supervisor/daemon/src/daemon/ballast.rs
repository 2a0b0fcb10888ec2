//! A file that is thrown overboard when the data disk is full.
//!
//! Volumes have their room from the beginning and leave a reserve alone, but images, the database and
//! whatever else lies on the same disk can still fill it. Then this file goes, and the room it had
//! lets the supervisor record, answer and remove things until somebody has made more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_host::disk_image::{self, ImageError};
use berth_host::fs::{self, FsError};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::Parts;
use crate::volume::admission::{Room, reserve};

/// Bytes of the file.
pub(super) const BALLAST: u64 = 64 << 20;
/// It goes when less than this is free.
const DIRE: u64 = 16 << 20;
/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// What to do about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Throw,
    Take,
    Nothing,
}

fn decide(room: Room, present: bool) -> Step {
    if present && room.free < DIRE {
        Step::Throw
    } else if !present && room.free > reserve(room.total) + BALLAST {
        Step::Take
    } else {
        Step::Nothing
    }
}

#[derive(Debug, thiserror::Error)]
enum BallastError {
    #[error("looking after the ballast file")]
    Image(#[from] ImageError),
    #[error("looking after the ballast file")]
    File(#[from] FsError),
}

/// Looks at the disk now and then.
pub(super) fn spawn(data: &Path, parts: &Parts, tasks: &TaskTracker) {
    let path = data.join("ballast");
    let rounds = async move {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let path = path.clone();
            match tokio::task::spawn_blocking(move || look(path)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => error!("{}", crate::log::chain(&why)),
                Err(why) => error!("looking after the ballast file ended in a defect: {why}"),
            }
        }
    };
    tasks.spawn(parts.stop.clone().run_until_cancelled_owned(rounds));
}

fn look(path: PathBuf) -> Result<(), BallastError> {
    let room = disk_image::room(path.parent().unwrap_or(Path::new("/")))?;
    match decide(Room { total: room.total, free: room.free }, path.exists()) {
        Step::Nothing => {}
        Step::Throw => {
            fs::remove_file(&path)?;
            error!(
                "the data disk is full: the ballast file is given up so that work can go on; make room: \
                 `berth image prune`, `berth volume list`, `journalctl --vacuum-size=100M`, and see what else lies in {}",
                path.parent().unwrap_or(Path::new("/")).display()
            );
        }
        Step::Take => {
            let unfinished = path.with_extension("tmp");
            fs::remove_file(&unfinished)?;
            disk_image::create(&unfinished, BALLAST)?;
            disk_image::publish(&unfinished, &path)?;
            info!("a ballast file keeps {} MiB of the data disk for hard times", BALLAST >> 20);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ballast_is_thrown_when_nothing_is_left_and_taken_again_when_there_is_plenty() {
        let at = |free, present| decide(Room { total: 20 * GIB, free }, present);
        assert_eq!(at(8 << 20, true), Step::Throw);
        assert_eq!(at(8 << 20, false), Step::Nothing);
        assert_eq!(at(GIB, false), Step::Nothing, "the reserve alone is not plenty");
        assert_eq!(at(2 * GIB, false), Step::Take);
        assert_eq!(at(2 * GIB, true), Step::Nothing);
    }

    #[test]
    fn the_file_is_made_once() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("ballast");
        let room = disk_image::room(dir.path()).unwrap();
        let plenty = decide(Room { total: room.total, free: room.free }, false) == Step::Take;
        look(path.clone()).unwrap();
        assert_eq!(path.exists(), plenty);
        look(path.clone()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), usize::from(plenty));
    }
}
