//! Reading and replacing files of an image, which nobody trusts: no symbolic link leads out of its
//! root, and nothing but a regular file of a sane size is ever opened for reading.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Larger files are refused; what is read here has a few kilobytes.
pub const LARGEST_FILE: u64 = 1 << 20;

/// What a path of an image leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file of at most [`LARGEST_FILE`] bytes, with what it says.
    File(String),
    /// A directory.
    Directory,
    /// A device, a pipe, a file that is too large.
    Unfit,
}

/// Owner, mode and the like of the directory that `path` leads to inside the directory `root`, if it is one.
pub fn directory(root: &Path, path: &Path) -> io::Result<Option<Metadata>> {
    let Some(found) = find(root, path)? else { return Ok(None) };
    Ok(Some(File::from(found).metadata()?).filter(Metadata::is_dir))
}

fn find(root: &Path, path: &Path) -> io::Result<Option<OwnedFd>> {
    let root = File::open(root)?;
    // Finding is not opening: to open a pipe would hang, to open a device may do anything.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match nix::fcntl::openat2(&root, path, how) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => Ok(Some(other?)),
    }
}

/// Follows `path` inside the directory `root`.
pub fn look(root: &Path, path: &Path) -> io::Result<Found> {
    let Some(found) = find(root, path)? else { return Ok(Found::Nothing) };
    let status = fstat(&found)?;
    match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Ok(Found::Directory),
        SFlag::S_IFREG if u64::try_from(status.st_size).is_ok_and(|size| size <= LARGEST_FILE) => {
            read(&found).map(Found::File)
        }
        _ => Ok(Found::Unfit),
    }
}

/// Writes `files` (name, content) into the directory `parent` inside `root`. Whatever has the name,
/// a link that leads nowhere included, is replaced and never followed.
pub fn write(root: &Path, parent: &Path, files: &[(&str, String)]) -> io::Result<()> {
    let parent = open_directory(&File::open(root)?, parent)?;
    for (name, content) in files {
        let new = format!(".{name}.new");
        match unlinkat(&parent, new.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
        let file = nix::fcntl::openat(&parent, new.as_str(), flags, mode)?;
        File::from(file).write_all(content.as_bytes())?;
        nix::fcntl::renameat(&parent, new.as_str(), &parent, *name)?;
    }
    Ok(())
}

/// Opens a directory, which is made if the image has none.
fn open_directory(root: &File, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match nix::fcntl::openat2(root, path, how) {
        Err(Errno::ENOENT) => {}
        other => return Ok(other?),
    }
    nix::sys::stat::mkdirat(root, path, Mode::from_bits_truncate(0o755))?;
    Ok(nix::fcntl::openat2(root, path, how)?)
}

fn read(found: &OwnedFd) -> io::Result<String> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open(path.as_str(), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(opened).take(LARGEST_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        root
    }

    fn passwd(root: &tempfile::TempDir) -> Found {
        look(root.path(), Path::new("/etc/passwd")).unwrap()
    }

    #[test]
    fn a_link_out_of_the_root_ends_inside_of_it() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("passwd"), "evil").unwrap();
        let root = root();
        let link = root.path().join("etc/passwd");
        symlink(outside.path().join("passwd"), &link).unwrap();
        assert_eq!(passwd(&root), Found::Nothing);
        fs::remove_file(&link).unwrap();
        symlink("../../../../../../../../../../etc/hostname", &link).unwrap();
        assert_eq!(passwd(&root), Found::Nothing);
    }

    #[test]
    fn a_link_within_the_root_is_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/etc")).unwrap();
        symlink("/usr/etc", root.path().join("etc")).unwrap();
        fs::write(root.path().join("usr/etc/passwd"), "text").unwrap();
        assert_eq!(passwd(&root), Found::File("text".to_owned()));
    }

    #[test]
    fn a_link_into_proc_is_not_followed_as_a_magic_one() {
        let root = root();
        symlink("/proc/self/exe", root.path().join("etc/passwd")).unwrap();
        assert_eq!(passwd(&root), Found::Nothing);
    }

    #[test]
    fn a_pipe_is_unfit_and_never_opened() {
        let root = root();
        nix::unistd::mkfifo(&root.path().join("etc/passwd"), Mode::S_IRUSR).unwrap();
        assert_eq!(passwd(&root), Found::Unfit);
    }

    #[test]
    fn only_a_directory_has_what_a_directory_is_asked_for() {
        let root = root();
        fs::write(root.path().join("etc/passwd"), "text").unwrap();
        let is_one = |path| directory(root.path(), Path::new(path)).unwrap().is_some();
        assert_eq!(["/etc", "/etc/passwd", "/none"].map(is_one), [true, false, false]);
    }

    #[test]
    fn a_directory_is_one() {
        assert_eq!(look(root().path(), Path::new("etc")).unwrap(), Found::Directory);
    }

    #[test]
    fn a_file_that_is_too_large_is_unfit() {
        let root = root();
        let file = File::create(root.path().join("etc/passwd")).unwrap();
        file.set_len(LARGEST_FILE + 1).unwrap();
        assert_eq!(passwd(&root), Found::Unfit);
    }

    #[test]
    fn a_written_file_takes_the_place_of_a_link_and_never_goes_through_it() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("hosts");
        fs::write(&victim, "untouched").unwrap();
        let root = root();
        symlink(&victim, root.path().join("etc/hosts")).unwrap();
        symlink(&victim, root.path().join("etc/.hosts.new")).unwrap();
        symlink("../run/nowhere", root.path().join("etc/resolv.conf")).unwrap();
        let files = ["hosts", "resolv.conf"].map(|name| (name, "new".to_owned()));
        write(root.path(), Path::new("etc"), &files).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        for name in ["hosts", "resolv.conf"] {
            let path = root.path().join("etc").join(name);
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        }
    }

    #[test]
    fn a_directory_that_is_a_link_out_of_the_root_is_made_inside_or_refused() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("etc")).unwrap();
        assert!(write(root.path(), Path::new("etc"), &[("hosts", String::new())]).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_missing_is_made() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), Path::new("etc"), &[("hosts", "x".to_owned())]).unwrap();
        assert_eq!(passwd(&root), Found::Nothing);
        assert!(root.path().join("etc/hosts").is_file());
    }
}
