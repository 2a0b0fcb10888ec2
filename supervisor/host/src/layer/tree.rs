//! Writes entries below one directory and never outside of it.
//!
//! Every path is resolved from the root's descriptor with `RESOLVE_BENEATH`: a symbolic link that
//! leads out, absolute ones included, is an error and is not followed. What is made or replaced is
//! then named by the descriptor of its directory and one name, without following a link at the
//! end. Nobody else knows the directory while it is written.
//!
//! Times of directories and the access lists their files would inherit are set at the end, so that
//! they do not depend on the order of the entries.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use xattr::FileExt;

use super::archive::{Archive, Entry, Kind, Time, shown};
use super::name::{self, Target};
use super::refusal::{LONGEST_PATH, Refusal};
use super::{LayerError, OPAQUE_XATTR};

/// Mode of a directory that an entry lies in but that has no entry of its own.
const IMPLICIT_MODE: u32 = 0o755;
/// What the paths of all directories of a layer may add up to; they are kept in memory.
const MOST_PATH_BYTES: usize = 256 << 20;
/// Inherited by what is made in a directory.
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// A rename anywhere on the machine may disturb the resolution of a path, which is then tried again.
const RESOLVE_TRIES: u32 = 128;

/// A layer being written.
pub struct Tree {
    root: OwnedFd,
    /// What is set on directories at the end.
    late: BTreeMap<PathBuf, Late>,
    path_bytes: usize,
    /// Directories made although they have no entry, or not yet.
    implied: u64,
    buffer: Vec<u8>,
}

/// What is set on a directory when everything is in it.
#[derive(Default)]
struct Late {
    time: Time,
    default_acl: Option<Vec<u8>>,
}

/// Why an entry could not be written, before it is known which.
enum Trouble {
    Refused(Refusal),
    Read(io::Error),
    Write(&'static str, io::Error),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Maps what the kernel said while doing something.
fn doing<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Trouble {
    move |error| Trouble::Write(what, error.into())
}

impl Tree {
    /// In an empty directory.
    pub fn new(root: &Path) -> Result<Self, LayerError> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())
            .map_err(|errno| LayerError::Store { doing: "opening the new layer", source: errno.into() })?;
        let late = BTreeMap::from([(PathBuf::new(), Late::default())]);
        Ok(Self { root, late, path_bytes: 0, implied: 0, buffer: vec![0; 1 << 17] })
    }

    /// Directories made so far on the way to entries.
    pub fn implied(&self) -> u64 {
        self.implied
    }

    /// Writes one entry, its bytes taken from the archive it came from.
    pub fn apply<R: Read>(&mut self, entry: &Entry, body: &mut Archive<R>) -> Result<(), LayerError> {
        self.write(entry, body).map_err(|trouble| match trouble {
            Trouble::Refused(why) => LayerError::Refused { entry: entry.shown(), why },
            Trouble::Read(source) => super::read_error(source),
            Trouble::Write(doing, source) => LayerError::Write { doing, entry: entry.shown(), source },
        })
    }

    /// Sets what is set late and makes all of it last.
    pub fn finish(self) -> Result<(), LayerError> {
        for (path, late) in &self.late {
            self.finish_directory(path, late)
                .map_err(|source| LayerError::Store { doing: "finishing a directory of the new layer", source })?;
        }
        nix::unistd::syncfs(&self.root)
            .map_err(|errno| LayerError::Store { doing: "syncing the new layer", source: errno.into() })
    }

    fn finish_directory(&self, path: &Path, late: &Late) -> io::Result<()> {
        let directory = match self.open_directory(path) {
            Ok(directory) => File::from(directory),
            // It was replaced by a later entry.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        if let Some(acl) = &late.default_acl {
            directory.set_xattr(DEFAULT_ACL, acl)?;
        }
        Ok(set_times(&directory, late.time)?)
    }

    fn set_late(&mut self, path: &Path, late: Late) -> Result<(), Refusal> {
        self.path_bytes += path.as_os_str().len();
        if self.path_bytes > MOST_PATH_BYTES {
            return Err(Refusal::Crowded);
        }
        self.late.insert(path.to_owned(), late);
        Ok(())
    }

    fn write<R: Read>(&mut self, entry: &Entry, body: &mut Archive<R>) -> Result<(), Trouble> {
        match name::target(&entry.path)? {
            Target::Ignored => Ok(()),
            Target::Root if entry.kind == Kind::Directory => self.directory(Path::new(""), entry),
            Target::Root => Err(Refusal::Root.into()),
            Target::Whiteout(_) | Target::Opaque(_) if entry.kind != Kind::File => Err(Refusal::Whiteout.into()),
            Target::Whiteout(path) => self.whiteout(&path),
            Target::Opaque(path) => {
                let directory = self.ensure_directory(&path)?;
                make_opaque(&directory)
            }
            Target::Path(path) => match entry.kind {
                Kind::Directory => self.directory(&path, entry),
                Kind::File => self.file(&path, entry, body),
                Kind::Symlink => self.symlink(&path, entry),
                Kind::HardLink => self.hard_link(&path, entry),
                Kind::Fifo => self.fifo(&path, entry),
                Kind::CharDevice | Kind::BlockDevice => Err(Refusal::Device.into()),
                Kind::Other(byte) => Err(Refusal::Type(byte).into()),
            },
        }
    }

    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<(), Trouble> {
        let directory = self.place_directory(path, true)?;
        owned(&directory, entry)?;
        let acl = entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL);
        let default_acl = acl.map(|(_, value)| value.clone());
        Ok(self.set_late(path, Late { time: entry.mtime, default_acl })?)
    }

    fn file<R: Read>(&mut self, path: &Path, entry: &Entry, body: &mut Archive<R>) -> Result<(), Trouble> {
        let (parent, name) = self.clear(path)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let made = openat(&parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(doing("making the file"))?;
        let mut file = File::from(made);
        self.fill(&mut file, entry, body)?;
        owned(&file, entry)?;
        set_times(&file, entry.mtime).map_err(doing("setting the time"))
    }

    fn fill<R: Read>(&mut self, file: &mut File, entry: &Entry, body: &mut Archive<R>) -> Result<(), Trouble> {
        let Some(map) = &entry.sparse else {
            return self.copy(file, entry.stored, body);
        };
        for segment in &map.segments {
            file.seek(SeekFrom::Start(segment.offset)).map_err(doing("writing the file"))?;
            self.copy(file, segment.length, body)?;
        }
        file.set_len(map.real).map_err(doing("writing the file"))
    }

    fn copy<R: Read>(&mut self, file: &mut File, mut length: u64, body: &mut Archive<R>) -> Result<(), Trouble> {
        while length > 0 {
            let most = self.buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let taken = body.read(&mut self.buffer[..most]).map_err(Trouble::Read)?;
            if taken == 0 {
                return Err(Trouble::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(&self.buffer[..taken]).map_err(doing("writing the file"))?;
            length -= taken as u64;
        }
        Ok(())
    }

    fn symlink(&mut self, path: &Path, entry: &Entry) -> Result<(), Trouble> {
        match &entry.link {
            link if link.is_empty() => return Err(Refusal::LinkEmpty.into()),
            link if link.contains(&0) => return Err(Refusal::Zero.into()),
            link if link.len() > LONGEST_PATH => return Err(Refusal::TooLong.into()),
            _ => {}
        }
        let (parent, name) = self.clear(path)?;
        symlinkat(entry.link.as_slice(), &parent, name).map_err(doing("making the symbolic link"))?;
        owned_by_name(&parent, name, entry)
    }

    fn hard_link(&mut self, path: &Path, entry: &Entry) -> Result<(), Trouble> {
        let target = || shown(&entry.link);
        let to = match name::relative(&entry.link) {
            Err(Refusal::Parent) => return Err(Refusal::LinkEscape { target: target() }.into()),
            other => other?,
        };
        let Some(to_name) = to.file_name() else {
            return Err(Refusal::LinkToDirectory { target: target() }.into());
        };
        let to_parent = self.open_directory(to.parent().unwrap_or(Path::new(""))).map_err(|errno| match errno {
            Errno::EXDEV => Trouble::from(Refusal::LinkEscape { target: target() }),
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => Refusal::LinkMissing { target: target() }.into(),
            errno => doing("finding the target of the hard link")(errno),
        })?;
        let found = match status(&to_parent, to_name)? {
            None => return Err(Refusal::LinkMissing { target: target() }.into()),
            Some(found) if is_whiteout(&found) => return Err(Refusal::LinkMissing { target: target() }.into()),
            Some(found) if is_directory(&found) => return Err(Refusal::LinkToDirectory { target: target() }.into()),
            Some(found) => found,
        };
        let (parent, name) = self.parent(path)?;
        if let Some(old) = status(&parent, name)? {
            if (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino) {
                return Ok(());
            }
            // A target inside of what is replaced would go with it.
            if is_directory(&old) && to.starts_with(path) {
                return Err(Refusal::LinkMissing { target: target() }.into());
            }
            remove(&parent, name, &old)?;
        }
        linkat(&to_parent, to_name, &parent, name, AtFlags::empty()).map_err(doing("making the hard link"))
    }

    fn fifo(&mut self, path: &Path, entry: &Entry) -> Result<(), Trouble> {
        let (parent, name) = self.clear(path)?;
        mkfifoat(&parent, name, Mode::S_IRUSR).map_err(doing("making the named pipe"))?;
        owned_by_name(&parent, name, entry)?;
        // The name is the pipe just made, so there is no link to follow.
        fchmodat(&parent, name, mode(entry.mode), FchmodatFlags::FollowSymlink).map_err(doing("setting the mode"))?;
        set_times_by_name(&parent, name, entry.mtime)
    }

    /// Hides what lower layers have. What this very layer has at the path stays: a file covers what
    /// is below anyway, a directory must not be merged with it.
    fn whiteout(&mut self, path: &Path) -> Result<(), Trouble> {
        let (parent, name) = self.parent(path)?;
        match status(&parent, name)? {
            Some(found) if is_directory(&found) => make_opaque(&open_child(&parent, name)?),
            Some(_) => Ok(()),
            None => mknodat(&parent, name, SFlag::S_IFCHR, Mode::empty(), 0).map_err(doing("making the whiteout")),
        }
    }

    /// The directory that holds `path`, made if it is not there, and the name in it.
    fn parent<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Trouble> {
        let name = path.file_name().ok_or(Refusal::Empty)?;
        Ok((self.ensure_directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// The same with nothing of that name left in it.
    fn clear<'p>(&mut self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Trouble> {
        let (parent, name) = self.parent(path)?;
        if let Some(old) = status(&parent, name)? {
            remove(&parent, name, &old)?;
        }
        Ok((parent, name))
    }

    fn ensure_directory(&mut self, path: &Path) -> Result<OwnedFd, Trouble> {
        match self.open_directory(path) {
            Ok(directory) => Ok(directory),
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.place_directory(path, false),
            Err(errno) => Err(on_the_way(errno)),
        }
    }

    /// Makes a directory, or takes the one that is there. In the place of a whiteout it is opaque:
    /// what lower layers had was removed. Anything else is replaced only by an entry of its own.
    fn place_directory(&mut self, path: &Path, replace: bool) -> Result<OwnedFd, Trouble> {
        if path.as_os_str().is_empty() {
            return self.open_directory(path).map_err(on_the_way);
        }
        let (parent, name) = self.parent(path)?;
        let old = status(&parent, name)?;
        let hidden = old.as_ref().is_some_and(is_whiteout);
        match old {
            Some(old) if is_directory(&old) => return open_child(&parent, name),
            Some(old) if replace || hidden => remove(&parent, name, &old)?,
            Some(old) if is_symlink(&old) => return Err(Refusal::SymlinkLoop.into()),
            Some(_) => return Err(Refusal::ThroughFile.into()),
            None => {}
        }
        mkdirat(&parent, name, Mode::S_IRWXU).map_err(doing("making a directory"))?;
        let directory = open_child(&parent, name)?;
        // The group may have come from a setgid directory above.
        fchown(&directory, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).map_err(doing("making a directory"))?;
        fchmod(&directory, mode(IMPLICIT_MODE)).map_err(doing("making a directory"))?;
        self.implied += 1;
        if hidden {
            make_opaque(&directory)?;
        }
        self.set_late(path, Late::default())?;
        Ok(directory)
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        for _ in 1..RESOLVE_TRIES {
            match openat2(&self.root, path, how) {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
        openat2(&self.root, path, how)
    }
}

fn remove(parent: &OwnedFd, name: &OsStr, old: &FileStat) -> Result<(), Trouble> {
    if !is_directory(old) {
        return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).map_err(doing("replacing an earlier entry"));
    }
    let held = parent.try_clone().map_err(doing("replacing an earlier entry"))?;
    pathrs::Root::from_fd(held)
        .remove_all(name)
        .map_err(|error| Trouble::Write("replacing an earlier directory", io::Error::other(error)))
}

/// What it means that a directory on the way cannot be opened.
fn on_the_way(errno: Errno) -> Trouble {
    match errno {
        Errno::EXDEV => Refusal::SymlinkEscape.into(),
        Errno::ELOOP => Refusal::SymlinkLoop.into(),
        Errno::ENAMETOOLONG => Refusal::TooLong.into(),
        errno => doing("opening a directory")(errno),
    }
}

fn open_child(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Trouble> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map_err(doing("opening a directory"))
}

fn status(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>, Trouble> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(doing("looking for an earlier entry")(errno)),
    }
}

fn format_of(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

fn is_directory(found: &FileStat) -> bool {
    format_of(found) == SFlag::S_IFDIR
}

fn is_symlink(found: &FileStat) -> bool {
    format_of(found) == SFlag::S_IFLNK
}

fn is_whiteout(found: &FileStat) -> bool {
    format_of(found) == SFlag::S_IFCHR && found.st_rdev == 0
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

fn make_opaque(directory: &OwnedFd) -> Result<(), Trouble> {
    let directory = File::from(directory.try_clone().map_err(doing("hiding lower layers"))?);
    directory.set_xattr(OPAQUE_XATTR, b"y").map_err(doing("hiding lower layers"))
}

/// Owner, mode and attributes, in this order: a change of owner clears setuid and capabilities.
fn owned<F: AsFd>(file: &F, entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = owner(entry)?;
    fchown(file, Some(uid), Some(gid)).map_err(doing("setting the owner"))?;
    fchmod(file, mode(entry.mode)).map_err(doing("setting the mode"))?;
    let kept = kept_xattrs(entry)?;
    if kept.is_empty() {
        return Ok(());
    }
    let file = File::from(file.as_fd().try_clone_to_owned().map_err(doing("setting an extended attribute"))?);
    for (name, value) in kept {
        file.set_xattr(name, value).map_err(doing("setting an extended attribute"))?;
    }
    Ok(())
}

/// Owner and time of what cannot be opened. It cannot have attributes either.
fn owned_by_name(parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Trouble> {
    if let Some((name, _)) = kept_xattrs(entry)?.first() {
        return Err(Refusal::Xattr((*name).to_owned()).into());
    }
    let (uid, gid) = owner(entry)?;
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(doing("setting the owner"))?;
    set_times_by_name(parent, name, entry.mtime)
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), Refusal> {
    // The highest number stands for "leave it".
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Refusal::Owner);
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

/// File capabilities, ACLs and the user's own attributes are part of an image. Labels of the
/// machine that built it mean nothing here. The rest would change what the overlay shows.
fn kept_xattrs(entry: &Entry) -> Result<Vec<(&str, &[u8])>, Refusal> {
    let mut kept = Vec::new();
    for (name, value) in &entry.xattrs {
        match name.as_str() {
            "security.capability" | "system.posix_acl_access" => kept.push((name.as_str(), value.as_slice())),
            DEFAULT_ACL if entry.kind == Kind::Directory => {}
            name if name.starts_with("security.") => {}
            name if name.starts_with("user.") && !name.starts_with("user.overlay.") && !name.contains('\0') => {
                kept.push((name, value.as_slice()));
            }
            name => return Err(Refusal::Xattr(name.escape_debug().to_string())),
        }
    }
    Ok(kept)
}

fn time_spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds))
}

fn set_times<F: AsFd>(file: &F, time: Time) -> Result<(), Errno> {
    futimens(file, &time_spec(time), &time_spec(time))
}

fn set_times_by_name(parent: &OwnedFd, name: &OsStr, time: Time) -> Result<(), Trouble> {
    let time = time_spec(time);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(doing("setting the time"))
}
