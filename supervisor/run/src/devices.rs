//! Devices of the machine that a container was given.
//!
//! ```text
//! <dir>/devices      tmpfs of the host's root, nosuid, noexec
//! <dir>/devices/<n>  a node like the machine's, for every user of the container
//! ```
//!
//! The machine's own node would be of no use: its owner and group have no ids in the container. A new node can be used
//! because the unit's control group lets it (`DeviceAllow`), and the container cannot make nodes itself. Disks are
//! never given: they would lead around volumes.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::paths::ContainerDir;
use crate::rootfs::{self, RootError, at, make_directory};
use crate::sys;

/// Bytes of the filesystem of nodes, which take none of it.
const ROOM: u64 = 64 << 10;

/// A device is not there, or is none.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Where the nodes lie.
    #[error("making a place for devices")]
    Place(#[source] RootError),
    /// The machine's device.
    #[error("looking for the device {} on this machine", path.display())]
    Look {
        /// As the plan has it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file, a disk or something else.
    #[error("{} is no character device, and only such can be given to a service", .0.display())]
    NotCharacter(PathBuf),
    /// The node.
    #[error("making a node for {}", path.display())]
    Node {
        /// As the plan has it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Makes the nodes of a container.
pub fn make(devices: &[PathBuf], dir: &ContainerDir) -> Result<(), DeviceError> {
    if devices.is_empty() {
        return Ok(());
    }
    make_place(dir).map_err(DeviceError::Place)?;
    devices.iter().enumerate().try_for_each(|(number, device)| make_node(device, &node(dir, number)))
}

/// The node of the device of that number.
pub fn node(dir: &ContainerDir, number: usize) -> PathBuf {
    dir.devices().join(number.to_string())
}

fn make_place(dir: &ContainerDir) -> Result<(), RootError> {
    make_directory(&dir.devices(), 0o711)?;
    let nodes = rootfs::memory(ROOM, sys::NOSUID_NOEXEC, "making a filesystem for devices")?;
    sys::move_mount(nodes.as_fd(), &dir.devices()).map_err(at("attaching the filesystem of devices"))
}

fn make_node(device: &Path, place: &Path) -> Result<(), DeviceError> {
    let look = |source| DeviceError::Look { path: device.to_owned(), source };
    let found = std::fs::metadata(device).map_err(look)?;
    if !found.file_type().is_char_device() {
        return Err(DeviceError::NotCharacter(device.to_owned()));
    }
    let failed = |source| DeviceError::Node { path: device.to_owned(), source };
    mknod(place, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), found.rdev())
        .map_err(|errno| failed(errno.into()))?;
    // The process' file mode mask has taken some of it away.
    std::fs::set_permissions(place, PermissionsExt::from_mode(0o666)).map_err(failed)
}
