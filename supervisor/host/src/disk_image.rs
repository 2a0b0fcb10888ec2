//! Files that hold block devices: allocated in full, on a filesystem that can share blocks.
//!
//! A file is allocated when it is made, so that a full filesystem refuses a new one instead of
//! failing a write below a mounted one. On XFS the extent size hint for copied blocks is one block:
//! the default of 32 makes every small write after a clone take 32 times its room.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// Bytes that one copied extent takes at least (XFS, `cowextsize`).
const COPIED_EXTENT: u32 = 4096;
/// `FS_XFLAG_COWEXTSIZE` of `linux/fs.h`.
const HAS_COPIED_EXTENT: u32 = 0x0001_0000;

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", .path.display())]
pub struct ImageError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ImageError {
    fn at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ImageError + use<'a> {
        move |source| ImageError { doing, path: path.to_owned(), source }
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent: u32,
    extents: u32,
    project: u32,
    copied_extent: u32,
    padding: [u8; 8],
}

mod requests {
    //! `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` of `linux/fs.h`.
    #![allow(missing_docs, reason = "the macros take no documentation")]

    nix::ioctl_read!(get_attributes, b'X', 31, super::Attributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, super::Attributes);
}

/// Makes a new file of so many bytes, for root alone, and has it on disk.
///
/// # Errors
/// It is there already, or there is no room ([`ImageError::is_full`]).
pub fn create(path: &Path, size: u64) -> Result<(), ImageError> {
    let failed = ImageError::at("making", path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
    copy_by_the_block(&file).map_err(&failed)?;
    extend(&file, size).map_err(&failed)
}

/// Makes a file longer; fine when it is as long already. Never shorter.
///
/// # Errors
/// There is no room; the file is as it was.
pub fn grow(path: &Path, size: u64) -> Result<(), ImageError> {
    let failed = ImageError::at("growing", path);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(&failed)?;
    let present = file.metadata().map_err(&failed)?.len();
    if present < size { extend(&file, size).map_err(&failed) } else { Ok(()) }
}

/// Gives a finished file its name, for good: what was written to it is on disk before.
///
/// # Errors
/// It is not there, or the directory cannot be written.
pub fn publish(unfinished: &Path, name: &Path) -> Result<(), ImageError> {
    let failed = ImageError::at("naming", name);
    File::open(unfinished).and_then(|file| file.sync_all()).map_err(&failed)?;
    std::fs::rename(unfinished, name).map_err(&failed)?;
    let folder = name.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)
}

/// How long the file is, in bytes.
///
/// # Errors
/// It is not there.
pub fn length(path: &Path) -> Result<u64, ImageError> {
    std::fs::metadata(path).map(|found| found.len()).map_err(ImageError::at("looking at", path))
}

/// A filesystem's room in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All there is.
    pub total: u64,
    /// What can still be taken.
    pub free: u64,
}

/// The room of the filesystem that holds `path`.
///
/// # Errors
/// The path is not there.
pub fn room(path: &Path) -> Result<Room, ImageError> {
    let found = statvfs(path).map_err(|errno| ImageError::at("asking for the room of", path)(errno.into()))?;
    let unit = found.fragment_size();
    Ok(Room { total: found.blocks() * unit, free: found.blocks_available() * unit })
}

fn extend(file: &File, size: u64) -> io::Result<()> {
    let length = i64::try_from(size).map_err(io::Error::other)?;
    fallocate(file.as_fd(), FallocateFlags::empty(), 0, length)?;
    file.sync_all()
}

/// Filesystems that know no such hint share no blocks either.
#[allow(unsafe_code, reason = "extent size hints have no other interface")]
fn copy_by_the_block(file: &File) -> io::Result<()> {
    let mut attributes = Attributes::default();
    let unknown = |errno| matches!(errno, nix::errno::Errno::ENOTTY | nix::errno::Errno::EOPNOTSUPP);
    // SAFETY: the descriptor is open and the structure, of the kernel's layout, lives through the call.
    match unsafe { requests::get_attributes(file.as_raw_fd(), &raw mut attributes) } {
        Err(errno) if unknown(errno) => return Ok(()),
        other => other?,
    };
    attributes.flags |= HAS_COPIED_EXTENT;
    attributes.copied_extent = COPIED_EXTENT;
    // SAFETY: as above; the kernel only reads the structure.
    match unsafe { requests::set_attributes(file.as_raw_fd(), &raw const attributes) } {
        // ext4 has the call, but not this hint.
        Err(errno) if unknown(errno) || errno == nix::errno::Errno::EINVAL => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_new_file_has_all_its_blocks_and_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        create(&path, 1 << 20).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.permissions().mode() & 0o777), (1 << 20, 0o600));
        assert!(found.blocks() * 512 >= 1 << 20);
        assert!(create(&path, 1 << 20).is_err(), "an existing file was taken over");
    }

    #[test]
    fn a_file_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        create(&path, 1 << 20).unwrap();
        grow(&path, 2 << 20).unwrap();
        grow(&path, 1 << 20).unwrap();
        assert_eq!(length(&path).unwrap(), 2 << 20);
    }

    #[test]
    fn a_finished_file_is_there_under_its_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (unfinished, name) = (dir.path().join("image.tmp"), dir.path().join("image"));
        create(&unfinished, 1 << 20).unwrap();
        publish(&unfinished, &name).unwrap();
        assert_eq!((unfinished.exists(), length(&name).unwrap()), (false, 1 << 20));
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_as_full() {
        let dir = tempfile::tempdir().unwrap();
        let room = room(dir.path()).unwrap();
        let error = create(&dir.path().join("image"), room.total * 2).unwrap_err();
        assert!(error.is_full(), "{error:?}");
    }
}
