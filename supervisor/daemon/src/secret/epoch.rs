//! A new master key in the place of the old one, for good.
//!
//! Everything that the master key seals is sealed anew by the next one, in a folder of its own, and
//! that folder is marked complete. Only then is anything replaced. A crash before the mark leaves
//! the old key in use, one after it the new one, and [`finish`] brings either about:
//!
//! ```text
//! keys/next/{namespaces/*.key, volumes.keys, master.check, master.cred}   written, synced
//! keys/next/complete                                                      from here on: forward
//! keys/namespaces/*.key, volumes.keys, master.check                       replaced
//! keys/master.cred                                                        replaced, the old one
//!                                                                         overwritten, then removed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_host::fs::{FsError, atomic_write, ensure_dir, remove_dir_all, remove_file, sync_parent};

/// Where the next epoch is made ready.
const NEXT: &str = "next";
const COMPLETE: &str = "complete";
const SEALED: &str = "master.cred";
/// The last epoch's sealed key, until it is overwritten.
const OLD: &str = "old.cred";

/// A file of the next epoch: its name below `keys`, and what is in it.
pub(super) type Piece = (PathBuf, Vec<u8>);

/// Called before every effect; what it refuses does not happen, nor does anything after it.
pub(super) type Gate<'a> = &'a dyn Fn() -> Result<(), FsError>;

/// Replaces these files of `keys` together.
pub(super) fn replace(keys: &Path, pieces: &[Piece], gate: Gate<'_>) -> Result<(), FsError> {
    let next = keys.join(NEXT);
    gate()?;
    remove_dir_all(&next)?;
    gate()?;
    ensure_dir(&next, 0o700)?;
    ensure_dir(&next.join("namespaces"), 0o700)?;
    for (name, content) in pieces {
        gate()?;
        atomic_write(&next.join(name), content, 0o600)?;
    }
    gate()?;
    atomic_write(&next.join(COMPLETE), b"", 0o600)?;
    go_forward(keys, gate)
}

/// Brings a replacement to its end that was cut short, or undoes it. Whether a new master key came
/// into use by it.
///
/// # Errors
/// A file cannot be replaced or removed; to be called again.
pub fn finish(keys: &Path) -> Result<bool, FsError> {
    let next = keys.join(NEXT);
    if next.join(COMPLETE).exists() {
        go_forward(keys, &|| Ok(())).map(|()| true)
    } else {
        remove_dir_all(&next).map(|()| false)
    }
}

fn go_forward(keys: &Path, gate: Gate<'_>) -> Result<(), FsError> {
    let next = keys.join(NEXT);
    for name in waiting(&next) {
        gate()?;
        take_over(&next.join(&name), &keys.join(&name))?;
    }
    let (sealed, old) = (next.join(SEALED), next.join(OLD));
    if sealed.exists() {
        gate()?;
        keep(&keys.join(SEALED), &old)?;
        gate()?;
        take_over(&sealed, &keys.join(SEALED))?;
    }
    gate()?;
    destroy(&old)?;
    gate()?;
    remove_file(&next.join(COMPLETE))?;
    gate()?;
    remove_dir_all(&next)
}

/// Files that are to replace others, the sealed master key excepted.
fn waiting(next: &Path) -> Vec<PathBuf> {
    let names = |folder: &str| {
        let entries = fs::read_dir(next.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| Path::new(folder).join(entry.file_name())).collect::<Vec<_>>()
    };
    let mut all = names("namespaces");
    all.retain(|name| name.extension().is_some_and(|ending| ending == "key"));
    all.extend(["volumes.keys", "master.check"].map(PathBuf::from).into_iter().filter(|name| next.join(name).exists()));
    all
}

fn take_over(new: &Path, name: &Path) -> Result<(), FsError> {
    fs::rename(new, name).map_err(|source| FsError::new("replacing", name, source))?;
    sync_parent(name)?;
    sync_parent(new)
}

/// A second name for a file that is about to be replaced.
fn keep(name: &Path, second: &Path) -> Result<(), FsError> {
    match fs::hard_link(name, second) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => other.map_err(|source| FsError::new("keeping a second name of", name, source))?,
    }
    sync_parent(second)
}

/// Overwrites a file where it lies, as far as the disk lets anybody do that, and removes it.
fn destroy(path: &Path) -> Result<(), FsError> {
    let overwrite = |mut file: File| {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        file.write_all(&vec![0; length])?;
        file.sync_all()
    };
    match OpenOptions::new().write(true).open(path).and_then(overwrite) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(FsError::new("overwriting", path, source)),
        Ok(()) => remove_file(path),
    }
}
