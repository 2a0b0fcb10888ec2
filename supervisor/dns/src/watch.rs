//! The zone file, and when it is another one. The daemon replaces it by renaming, so its directory
//! is watched, and every read finds a whole file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_model::network::Zone;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::sync::mpsc;

/// The zone cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZoneError {
    /// The directory cannot be watched.
    #[error("watching {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The directory is gone.
    #[error("{} is gone", .0.display())]
    Gone(PathBuf),
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what this version writes.
    #[error("understanding {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// A file that others replace.
pub(crate) struct ZoneFile {
    path: PathBuf,
    changes: mpsc::Receiver<Result<(), ZoneError>>,
}

impl ZoneFile {
    /// Begins to watch, before anything is read: no change is missed.
    pub(crate) fn open(path: &Path) -> Result<Self, ZoneError> {
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let failed = |errno: nix::Error| ZoneError::Watch { path: directory.clone(), source: errno.into() };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(failed)?;
        let wanted = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(&directory, wanted).map_err(failed)?;
        // One that waits to be taken stands for all after it.
        let (tell, changes) = mpsc::channel(1);
        std::thread::spawn(move || follow(&inotify, &directory, &tell));
        Ok(Self { path: path.to_owned(), changes })
    }

    /// The zone as it is now; an empty one before the daemon has written any.
    pub(crate) fn read(&self) -> Result<Zone, ZoneError> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Zone::default()),
            Err(source) => return Err(ZoneError::Read { path: self.path.clone(), source }),
            Ok(bytes) => bytes,
        };
        serde_json::from_slice(&bytes).map_err(|source| ZoneError::Format { path: self.path.clone(), source })
    }

    /// Waits until something was renamed into the directory.
    pub(crate) async fn changed(&mut self) -> Result<(), ZoneError> {
        let gone = || Err(ZoneError::Gone(self.path.clone()));
        self.changes.recv().await.unwrap_or_else(gone)
    }
}

/// Waits for the kernel on a thread of its own, until nobody listens or there is nothing to watch.
fn follow(inotify: &Inotify, directory: &Path, tell: &mpsc::Sender<Result<(), ZoneError>>) {
    loop {
        let news = match inotify.read_events() {
            Ok(events) if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_DELETE_SELF)) => {
                Err(ZoneError::Gone(directory.to_owned()))
            }
            Ok(_) => Ok(()),
            Err(errno) => Err(ZoneError::Watch { path: directory.to_owned(), source: errno.into() }),
        };
        let last = news.is_err();
        if tell.blocking_send(news).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_zone_is_read_when_it_appears_and_again_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let mut file = ZoneFile::open(&path).unwrap();
        assert_eq!(file.read().unwrap(), Zone::default());
        for last in 1..=2 {
            let zone = Zone { listen: vec![[10, 213, 0, last].into()], ..Zone::default() };
            let beside = directory.path().join("new");
            fs::write(&beside, serde_json::to_vec(&zone).unwrap()).unwrap();
            fs::rename(&beside, &path).unwrap();
            file.changed().await.unwrap();
            assert_eq!(file.read().unwrap(), zone);
        }
    }

    #[tokio::test]
    async fn a_zone_of_another_version_is_an_error_and_so_is_a_directory_that_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let mut file = ZoneFile::open(&path).unwrap();
        fs::write(&path, r#"{"listen": [], "hosts": [], "more": 1}"#).unwrap();
        assert!(matches!(file.read(), Err(ZoneError::Format { .. })));
        directory.close().unwrap();
        assert!(matches!(file.changed().await, Err(ZoneError::Gone(_))));
    }
}
