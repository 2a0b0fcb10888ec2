//! The container's root: an overlay of id-mapped layers below a writable layer, in memory or on an encrypted disk.
//!
//! Everything is mounted by the host's root inside the unit's own mount namespace, so that it is
//! gone when the unit is. Three mounts, in this order:
//!
//! ```text
//! <dir>/layers   one clone of the whole layer store, id-mapped, read-only; a layer is a directory in it
//! <dir>/scratch  tmpfs that is never swapped, or ext4 on a device that the daemon has made; id-mapped: upper/ work/ tmp/
//! <dir>/rootfs   overlay: layers/<topmost> ... layers/<lowest> below scratch/upper
//! ```
//!
//! overlayfs acts with the credentials of whoever mounted it. Upper and work lie on an id-mapped
//! mount, where the host's root has no id at all; therefore the overlay is mounted, and everything
//! in scratch made, with the filesystem ids of the *container's* root ([`as_container_root`]).

use std::ffi::CString;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_model::plan::{IdRange, Root};
use libcontainer::capabilities::reset_effective;
use libcontainer::syscall::SyscallError;
use libcontainer::syscall::syscall::create_syscall;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::paths::{ContainerDir, LAYERS, ROOTFS, SCRATCH};
use crate::{confined, sys};

/// What lies in the writable layer, with modes.
const FOLDERS: [(&str, u32); 3] = [("upper", 0o755), ("work", 0o700), ("tmp", 0o1777)];
/// The kernel takes at most this many characters of a mount parameter.
const LONGEST_PARAMETER: usize = 255;

/// What went wrong while the root was put together.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A layer's name is not one plain file name, or there is none at all.
    #[error("layer {0:?} is no directory name")]
    LayerName(String),
    /// A plan without layers.
    #[error("the plan names no layer")]
    NoLayer,
    /// A layer is not in the store; an import or pull of the image brings it back.
    #[error("layer {name} is missing in the image store")]
    LayerMissing {
        /// The layer.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A mount point or a directory of the writable layer.
    #[error("making {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// One of the steps of a mount.
    #[error("{doing}{said}")]
    Mount {
        /// The step.
        doing: &'static str,
        /// What the file system itself had to say, in brackets, or nothing.
        said: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Host name, hosts, resolv.conf.
    #[error("writing the container's own files in /etc")]
    Files(#[source] io::Error),
    /// The filesystem ids did not change.
    #[error("acting as the container's root {0}")]
    Ids(u32),
    /// The capabilities could not be taken again after the change of ids.
    #[error("keeping the capabilities while acting as the container's root")]
    Capabilities(#[source] SyscallError),
}

/// Mounts the root of a container at `dir`, and writes `files` (name, content) into its `/etc`.
pub fn assemble(
    root: &Root,
    ids: IdRange,
    map: BorrowedFd<'_>,
    dir: &ContainerDir,
    files: &[(&'static str, String)],
) -> Result<(), RootError> {
    check_layers(root)?;
    for path in [dir.layers(), dir.scratch(), dir.rootfs()] {
        make_directory(&path, 0o755)?;
    }
    mount_layers(root, map, dir)?;
    mount_scratch(root, map, dir)?;
    as_container_root(ids.base, || {
        fill_scratch(dir)?;
        mount_overlay(root, dir)?;
        confined::write(&dir.rootfs(), Path::new("etc"), files).map_err(RootError::Files)
    })
}

fn check_layers(root: &Root) -> Result<(), RootError> {
    if root.layers.is_empty() {
        return Err(RootError::NoLayer);
    }
    for name in &root.layers {
        if name.contains('/') || matches!(name.as_str(), "" | "." | "..") {
            return Err(RootError::LayerName(name.clone()));
        }
        std::fs::metadata(root.store.join(name))
            .map_err(|source| RootError::LayerMissing { name: name.clone(), source })?;
    }
    Ok(())
}

/// Makes a directory with exactly this mode; one that is there already is fine.
pub fn make_directory(path: &Path, mode: u32) -> Result<(), RootError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|source| RootError::Directory { path: path.to_owned(), source })
}

/// Turns an error of a mount's step into ours.
pub(crate) fn at(doing: &'static str) -> impl Fn(io::Error) -> RootError {
    move |source| RootError::Mount { doing, said: String::new(), source }
}

fn mount_layers(root: &Root, map: BorrowedFd<'_>, dir: &ContainerDir) -> Result<(), RootError> {
    let layers = sys::open_tree_clone(&root.store).map_err(at("cloning the layer store"))?;
    sys::mount_setattr(layers.as_fd(), sys::NOSUID_NODEV_READ_ONLY, Some(map))
        .map_err(at("mapping the ids of the layer store"))?;
    sys::move_mount(layers.as_fd(), &dir.layers()).map_err(at("attaching the layer store"))
}

fn mount_scratch(root: &Root, map: BorrowedFd<'_>, dir: &ContainerDir) -> Result<(), RootError> {
    let scratch = match &root.writable_device {
        Some(device) => emptied_disk(device)?,
        None => memory(root.writable_bytes, sys::NOSUID_NODEV, "making the writable layer")?,
    };
    sys::mount_setattr(scratch.as_fd(), sys::NOSUID_NODEV, Some(map))
        .map_err(at("mapping the ids of the writable layer"))?;
    sys::move_mount(scratch.as_fd(), &dir.scratch()).map_err(at("attaching the writable layer"))
}

/// The file system on a device, without what an earlier run of this unit has left in it; not attached yet.
fn emptied_disk(device: &Path) -> Result<OwnedFd, RootError> {
    let disk = ext4(device, "mounting the disk of the writable layer")?;
    for name in FOLDERS.map(|(name, _)| name) {
        let folder = PathBuf::from(format!("/proc/self/fd/{}/{name}", disk.as_raw_fd()));
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(at("emptying the writable layer"))?,
        }
    }
    Ok(disk)
}

/// An ext4 on a device, not attached yet; anything else there is an error, and is left as it is.
pub(crate) fn ext4(device: &Path, doing: &'static str) -> Result<OwnedFd, RootError> {
    let context = sys::fsopen(c"ext4").map_err(at("opening an ext4 filesystem"))?;
    set(&context, doing, c"source", &device.display().to_string())?;
    set(&context, doing, c"errors", "remount-ro")?;
    create(&context, sys::NOSUID_NODEV, doing)
}

/// A file system in memory of at most so many bytes, not attached yet. Swap may be a disk in clear;
/// nothing of this gets there.
pub fn memory(bytes: u64, attributes: u64, doing: &'static str) -> Result<OwnedFd, RootError> {
    let context = sys::fsopen(c"tmpfs").map_err(at("opening a tmpfs"))?;
    for (key, value) in [(c"size", bytes.to_string()), (c"mode", "0755".to_owned())] {
        set(&context, doing, key, &value)?;
    }
    sys::fsconfig_flag(context.as_fd(), c"noswap").map_err(at("keeping a tmpfs out of swap"))?;
    create(&context, attributes, doing)
}

fn fill_scratch(dir: &ContainerDir) -> Result<(), RootError> {
    for (name, mode) in FOLDERS {
        make_directory(&dir.scratch().join(name), mode)?;
    }
    Ok(())
}

/// Mounts the overlay. Its parameters are relative paths, so that a long id cannot make one too
/// long for the kernel; hence the working directory.
fn mount_overlay(root: &Root, dir: &ContainerDir) -> Result<(), RootError> {
    let doing = "stacking the layers";
    nix::unistd::chdir(dir.path()).map_err(|errno| at(doing)(errno.into()))?;
    let context = sys::fsopen(c"overlay").map_err(at(doing))?;
    for layer in &root.layers {
        set(&context, doing, c"lowerdir+", &format!("{LAYERS}/{layer}"))?;
    }
    let parameters = [
        (c"upperdir", format!("{SCRATCH}/upper")),
        (c"workdir", format!("{SCRATCH}/work")),
        // A layer that came from outside must not redirect a path or a file's data elsewhere.
        (c"redirect_dir", "nofollow".to_owned()),
        (c"metacopy", "off".to_owned()),
    ];
    for (key, value) in parameters {
        set(&context, doing, key, &value)?;
    }
    let overlay = create(&context, sys::NOSUID_NODEV, doing)?;
    sys::move_mount(overlay.as_fd(), Path::new(ROOTFS)).map_err(at("attaching the root"))?;
    nix::unistd::chdir("/").map_err(|errno| at(doing)(errno.into()))
}

/// Sets one parameter of a filesystem that is being mounted.
pub(crate) fn set(context: &OwnedFd, doing: &'static str, key: &std::ffi::CStr, value: &str) -> Result<(), RootError> {
    let parameter = CString::new(value)
        .ok()
        .filter(|_| value.len() <= LONGEST_PARAMETER)
        .ok_or_else(|| at(doing)(io::Error::from(io::ErrorKind::InvalidInput)))?;
    sys::fsconfig_string(context.as_fd(), key, &parameter).map_err(|source| RootError::Mount {
        doing,
        said: said(context),
        source,
    })
}

/// Mounts it where nobody sees it yet.
pub(crate) fn create(context: &OwnedFd, attributes: u64, doing: &'static str) -> Result<OwnedFd, RootError> {
    sys::fsconfig_create(context.as_fd())
        .and_then(|()| sys::fsmount(context.as_fd(), attributes))
        .map_err(|source| RootError::Mount { doing, said: said(context), source })
}

/// What the file system has written into its context's log: far more than an errno tells.
fn said(context: &OwnedFd) -> String {
    let Ok(copy) = context.try_clone() else {
        return String::new();
    };
    let mut log = std::fs::File::from(copy);
    let mut messages = Vec::new();
    let mut line = [0; 1024];
    while let Ok(length @ 1..) = log.read(&mut line) {
        messages.push(String::from_utf8_lossy(&line[..length]).trim().to_owned());
    }
    match messages.is_empty() {
        true => String::new(),
        false => format!(" [{}]", messages.join("; ")),
    }
}

/// Runs `work` with the filesystem ids of the container's root and all capabilities.
pub(crate) fn as_container_root<T>(base: u32, work: impl FnOnce() -> Result<T, RootError>) -> Result<T, RootError> {
    switch_ids(base)?;
    // Leaving filesystem id 0 takes the capabilities that have to do with files.
    reset_effective(create_syscall().as_ref()).map_err(RootError::Capabilities)?;
    let outcome = work();
    switch_ids(0)?;
    outcome
}

fn switch_ids(id: u32) -> Result<(), RootError> {
    // Both calls give the previous id and never an error: asking twice shows what is in force.
    setfsgid(Gid::from_raw(id));
    setfsuid(Uid::from_raw(id));
    let in_force = (setfsgid(Gid::from_raw(id)).as_raw(), setfsuid(Uid::from_raw(id)).as_raw());
    match in_force == (id, id) {
        true => Ok(()),
        false => Err(RootError::Ids(id)),
    }
}
