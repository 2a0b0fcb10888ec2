//! Things that are costly to make, kept in the user's cache folder under a hash of all they are made from.
//!
//! `~/.cache/berth/<kind>/<hash>` is complete or absent: it is made in a folder beside it and renamed. A lock per kind
//! keeps two runs from making the same thing; the newest few of a kind stay, older ones go when another is asked for,
//! unless they were used a short while ago: a run in another clone may still count on them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};

/// How long after its last use nothing is removed: longer than the long tier takes, which looks at some entries twice.
const IN_USE: Duration = Duration::from_secs(2 * 60 * 60);

/// The cache could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("keeping {path} in the cache")]
pub struct CacheError {
    /// What it was about.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Says which path a failed file operation was about.
pub fn at<T>(path: &Path, done: io::Result<T>) -> Result<T, CacheError> {
    done.map_err(|source| CacheError { path: path.to_owned(), source })
}

/// `~/.cache/berth`, made if need be.
pub fn folder() -> Result<PathBuf, CacheError> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let path = base.unwrap_or_else(home).join("berth");
    at(&path, fs::create_dir_all(&path))?;
    Ok(path)
}

/// A hash being filled with what a thing is made from.
pub struct Key(Context);

impl Key {
    /// Starts a key; `format` changes when the way of making changes.
    pub fn new(format: &str) -> Self {
        let mut key = Key(Context::new(&SHA256));
        key.add(format.as_bytes());
        key
    }

    /// A value, kept apart from its neighbours by its length.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(&bytes.len().to_le_bytes());
        self.0.update(bytes);
    }

    /// A file's content, or a folder's: names and contents, in order of names.
    pub fn add_path(&mut self, path: &Path) -> Result<(), CacheError> {
        let kind = at(path, fs::symlink_metadata(path))?;
        self.add(path.file_name().unwrap_or_default().as_encoded_bytes());
        if kind.is_symlink() {
            self.add(at(path, fs::read_link(path))?.as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            self.add(&at(path, fs::read(path))?);
        } else {
            for child in children(path)? {
                self.add_path(&child)?;
            }
        }
        Ok(())
    }

    /// The first 16 hexadecimal digits are plenty for a folder's name.
    pub fn finish(self) -> String {
        self.0.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What lies in a folder, in order of names.
pub fn children(path: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let mut found = Vec::new();
    for entry in at(path, fs::read_dir(path))? {
        found.push(at(path, entry)?.path());
    }
    found.sort();
    Ok(found)
}

/// The folder of that kind and key; `make` fills it if it is not there yet.
pub fn entry<E: From<CacheError>>(
    kind: &str,
    key: &str,
    keep: usize,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<PathBuf, E> {
    let shelf = folder()?.join(kind);
    at(&shelf, fs::create_dir_all(&shelf))?;
    let _lock = lock(&shelf.join(".lock"))?;
    let path = shelf.join(key);
    if !path.exists() {
        let draft = shelf.join(format!(".making-{key}"));
        remove(&draft)?;
        at(&draft, fs::create_dir(&draft))?;
        make(&draft)?;
        at(&path, fs::rename(&draft, &path))?;
    }
    at(&path, File::open(&path).and_then(|folder| folder.set_modified(now())))?;
    thin_out(&shelf, keep, now() - IN_USE)?;
    Ok(path)
}

#[allow(clippy::disallowed_methods, reason = "the age of cache entries is nothing a test decides on")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Waits for the lock; dropping the file gives it up.
pub fn lock(path: &Path) -> Result<File, CacheError> {
    let file = at(path, File::create(path))?;
    at(path, file.lock())?;
    Ok(file)
}

/// Removes a file or folder if it is there.
pub fn remove(path: &Path) -> Result<(), CacheError> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(err) if err.kind() != io::ErrorKind::NotFound => at(path, Err(err)),
        _ => Ok(()),
    }
}

fn thin_out(shelf: &Path, keep: usize, idle_since: SystemTime) -> Result<(), CacheError> {
    let mut entries = Vec::new();
    for path in children(shelf)?.into_iter().filter(|path| path.file_name().is_none_or(|name| name != ".lock")) {
        let used = at(&path, fs::metadata(&path).and_then(|meta| meta.modified()))?;
        entries.push((used, path));
    }
    entries.sort();
    let old = entries.len().saturating_sub(keep);
    entries.into_iter().take(old).filter(|(used, _)| *used < idle_since).try_for_each(|(_, path)| remove(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf_of(ages_in_minutes: &[(&str, u64)]) -> tempfile::TempDir {
        let shelf = tempfile::tempdir().unwrap();
        for (name, minutes) in ages_in_minutes {
            let path = shelf.path().join(name);
            fs::create_dir(&path).unwrap();
            let used = now() - Duration::from_secs(minutes * 60);
            File::open(&path).unwrap().set_modified(used).unwrap();
        }
        shelf
    }

    fn left(shelf: &tempfile::TempDir) -> Vec<String> {
        let paths = children(shelf.path()).unwrap();
        paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_newest_stay_and_older_ones_go() {
        let shelf = shelf_of(&[("a", 190), ("b", 170), ("c", 180)]);
        thin_out(shelf.path(), 2, now() - IN_USE).unwrap();
        assert_eq!(left(&shelf), ["b", "c"]);
    }

    #[test]
    fn what_another_run_has_just_used_stays_however_many_there_are() {
        let shelf = shelf_of(&[("a", 190), ("b", 5), ("c", 4), ("d", 3)]);
        thin_out(shelf.path(), 1, now() - IN_USE).unwrap();
        assert_eq!(left(&shelf), ["b", "c", "d"]);
    }
}
