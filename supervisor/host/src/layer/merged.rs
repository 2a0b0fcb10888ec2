//! Looks a path up in several layers as an overlay of them would show it, without mounting one.
//!
//! Every path that is handed to the kernel ends in one name whose directories have been found to
//! be directories, layer by layer, so that no symbolic link of an image is ever followed by the
//! kernel: links are resolved here, and `..` ends at the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::OPAQUE_XATTR;

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Where it lies outside of the container.
        at: PathBuf,
        /// Somebody may execute it.
        executable: bool,
    },
    /// A pipe or something else that is no file.
    Other,
}

/// The directories that one directory of the overlay is made of, the topmost first.
type Merged = Vec<PathBuf>;

/// Follows `path` from the root of the layers, the topmost first.
///
/// # Errors
/// A layer cannot be read.
pub fn find(layers: &[PathBuf], path: &Path) -> io::Result<Found> {
    let mut above: Vec<Merged> = vec![root(layers)?];
    let mut left: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            if above.len() > 1 {
                above.pop();
            }
            continue;
        }
        let Some(here) = above.last() else { break };
        match step(here, &name)? {
            Step::Absent => return Ok(Found::Absent),
            Step::Directory(merged) => above.push(merged),
            Step::Symlink(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(Found::Absent);
                }
                if target.is_absolute() {
                    above.truncate(1);
                }
                let mut new = names(&target);
                new.append(&mut left);
                left = new;
            }
            Step::Leaf(..) if !left.is_empty() => return Ok(Found::Absent),
            Step::Leaf(at, found) => return Ok(leaf(at, &found)),
        }
    }
    Ok(Found::Directory)
}

/// Follows `path` to an executable file the way a shell does: a name without a slash is looked for
/// in the directories of `search`, a colon between them; a relative one starts in `directory`.
///
/// # Errors
/// A layer cannot be read.
pub fn find_program(layers: &[PathBuf], program: &str, directory: &Path, search: &str) -> io::Result<Program> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![directory.join(program)]
    } else {
        search.split(':').map(|part| directory.join(part).join(program)).collect()
    };
    let mut best = Program::Missing;
    for candidate in candidates {
        match find(layers, &candidate)? {
            Found::File { executable: true, .. } => return Ok(Program::Executable),
            Found::Absent => {}
            _ => best = Program::NotExecutable,
        }
    }
    Ok(best)
}

/// What became of the search for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// It is there.
    Executable,
    /// Something of that name is there, but nobody may execute it.
    NotExecutable,
    /// Nothing of that name is there.
    Missing,
}

/// A directory is marked to hide what lower layers have in it.
///
/// # Errors
/// It cannot be read.
pub fn is_opaque(directory: &Path) -> io::Result<bool> {
    Ok(xattr::get(directory, OPAQUE_XATTR)?.is_some_and(|value| value == b"y"))
}

enum Step {
    Absent,
    Directory(Merged),
    Symlink(PathBuf),
    Leaf(PathBuf, Metadata),
}

fn root(layers: &[PathBuf]) -> io::Result<Merged> {
    let mut merged = Vec::new();
    for layer in layers {
        merged.push(layer.clone());
        if is_opaque(layer)? {
            break;
        }
    }
    Ok(merged)
}

fn step(here: &Merged, name: &OsStr) -> io::Result<Step> {
    let mut merged = Vec::new();
    for directory in here {
        let path = directory.join(name);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if found.is_dir() {
            let last = is_opaque(&path)?;
            merged.push(path);
            if last {
                break;
            }
        } else if !merged.is_empty() || is_whiteout(&found) {
            break;
        } else if found.is_symlink() {
            return fs::read_link(&path).map(Step::Symlink);
        } else {
            return Ok(Step::Leaf(path, found));
        }
    }
    Ok(if merged.is_empty() { Step::Absent } else { Step::Directory(merged) })
}

fn leaf(at: PathBuf, found: &Metadata) -> Found {
    if found.is_file() { Found::File { at, executable: found.mode() & 0o111 != 0 } } else { Found::Other }
}

fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}
