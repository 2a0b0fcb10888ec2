//! Files that survive a power cut.
//!
//! [`atomic_write`] is the way every small file gets to disk: a reader sees the old content or
//! the new one, also after a crash at any point. The functions block for as long as the disk
//! takes; asynchronous callers with more than a few small files use a blocking thread.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Where the kernel tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What could not be done with which path.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", .path.display())]
pub struct FsError {
    /// What was being done, as a verb: `writing`, `reading`.
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FsError {
    /// What could not be done, as a verb, with which path.
    #[must_use]
    pub fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }

    /// What the kernel said.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    fn at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FsError + use<'a> {
        move |source| FsError { doing, path: path.to_owned(), source }
    }
}

/// Whether something had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was not there before.
    Created,
    /// It was there, and right.
    Unchanged,
}

/// Replaces the file at `path` as a whole, with these permission bits.
///
/// Several writers of one path, in one process or many, wait for each other. A crash may leave
/// `.<name>.tmp` behind; the next write takes it over.
///
/// # Errors
/// The directory is missing, the disk is full, and the like; the old file is untouched then.
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let temporary = temporary_of(path);
    let write = || -> io::Result<()> {
        let mut file = lock_temporary(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(FsError::at("writing", path))?;
    sync_parent(path)
}

/// The content of a file, `None` when there is none.
///
/// # Errors
/// It is there but cannot be read.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    absent_is_none(fs::read(path)).map_err(FsError::at("reading", path))
}

/// Makes a directory with exactly these permission bits; its parents must exist.
///
/// # Errors
/// The parent is missing, or something that is no directory has the name.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<Made, FsError> {
    let failed = FsError::at("making directory", path);
    let made = match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Made::Created,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Made::Unchanged,
        Err(error) => return Err(failed(error)),
    };
    let found = fs::symlink_metadata(path).map_err(&failed)?;
    if !found.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    if found.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(&failed)?;
    }
    if made == Made::Created {
        sync_parent(path)?;
    }
    Ok(made)
}

/// Removes a file; fine when it is gone already.
///
/// # Errors
/// It is there and stays.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    match absent_is_none(fs::remove_file(path)).map_err(FsError::at("removing", path))? {
        Some(()) => sync_parent(path),
        None => Ok(()),
    }
}

/// Removes a directory with all below it; fine when it is gone already.
///
/// # Errors
/// Something of it stays, as with a mount point inside.
pub fn remove_dir_all(path: &Path) -> Result<(), FsError> {
    match absent_is_none(fs::remove_dir_all(path)).map_err(FsError::at("removing", path))? {
        Some(()) => sync_parent(path),
        None => Ok(()),
    }
}

/// Makes the directory entry of `path` itself last.
///
/// # Errors
/// The directory that holds `path` cannot be opened or synced.
pub fn sync_parent(path: &Path) -> Result<(), FsError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(FsError::at("syncing directory", parent))
}

/// The id of this boot: 36 characters, the same until the machine starts again.
///
/// # Errors
/// `/proc` is not there.
pub fn boot_id() -> Result<String, FsError> {
    fs::read_to_string(BOOT_ID).map(|id| id.trim_end().to_owned()).map_err(FsError::at("reading", Path::new(BOOT_ID)))
}

fn temporary_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// The temporary file, held by nobody else. Whoever held it before has renamed it away, so what
/// was opened has to be what the name stands for once the lock is ours.
fn lock_temporary(temporary: &Path) -> io::Result<Flock<File>> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(temporary)?;
        let file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        match absent_is_none(fs::symlink_metadata(temporary))? {
            Some(named) if named.ino() == file.metadata()?.ino() => return Ok(file),
            _ => {}
        }
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_written_file_has_its_content_and_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        atomic_write(&path, b"one, and long", 0o644).unwrap();
        atomic_write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn what_a_crash_left_behind_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join(".a.tmp"), b"half of something much longer").unwrap();
        atomic_write(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn writers_at_once_leave_one_whole_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::thread::scope(|scope| {
            for writer in 0..8u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        atomic_write(path, &[writer; 5000], 0o600).unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert_eq!(content, [content[0]; 5000]);
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn an_absent_file_is_no_error_to_a_reader_who_asked_for_that() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_optional(&dir.path().join("a")).unwrap(), None);
        let error = read_optional(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("reading {}", dir.path().display()));
    }

    #[test]
    fn a_directory_is_made_once_and_its_mode_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        assert_eq!(ensure_dir(&path, 0o755).unwrap(), Made::Created);
        assert_eq!(ensure_dir(&path, 0o700).unwrap(), Made::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        fs::write(&path, b"").unwrap();
        assert_eq!(ensure_dir(&path, 0o700).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), b"").unwrap();
        remove_dir_all(&path).unwrap();
        remove_dir_all(&path).unwrap();
        remove_file(&path).unwrap();
        assert_eq!(names(dir.path()), Vec::<OsString>::new());
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
