//! Volumes: encrypted disks that the daemon has opened, mounted inside the unit.
//!
//! ```text
//! <dir>/volumes/<n>        the disk's filesystem, id-mapped, nosuid, nodev
//! <dir>/volumes/<n>/data   what the container finds at the volume's mount path
//! ```
//!
//! The mapping is laid on the filesystem before anybody can see it, so that ids on disk are the
//! container's own, unshifted, whatever range this start was given. The folder `data` keeps
//! `lost+found` from services that want an empty directory. It is made at the first start, owned as
//! the image's directory of that place, or by the service's user.
//!
//! Only ext4 is mounted: a device that holds anything else is an error, and is left as it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use berth_model::plan::{IdRange, Volume};

use crate::confined;
use crate::paths::ContainerDir;
use crate::rootfs::{self, RootError, as_container_root, at, make_directory};
use crate::sys;
use crate::user::Identity;

/// Folder of a volume's filesystem that the container sees.
const DATA: &str = "data";

/// A volume is not what it should be, or not there.
#[derive(Debug, thiserror::Error)]
#[error("mounting the volume for {} ({})", mount_path.display(), device.display())]
pub struct VolumeError {
    mount_path: PathBuf,
    device: PathBuf,
    #[source]
    source: RootError,
}

/// Mounts the volumes of a container whose root is in place.
pub fn attach(
    volumes: &[Volume],
    ids: IdRange,
    identity: &Identity,
    map: BorrowedFd<'_>,
    dir: &ContainerDir,
) -> Result<(), VolumeError> {
    for (number, volume) in volumes.iter().enumerate() {
        let failed =
            |source| VolumeError { mount_path: volume.mount_path.clone(), device: volume.device.clone(), source };
        mount(volume, map, &dir.volume(number)).map_err(failed)?;
        as_container_root(ids.base, || make_data(volume, ids, identity, dir, number)).map_err(failed)?;
    }
    Ok(())
}

/// The host's path of what the container finds at a volume's mount path.
pub fn data(dir: &ContainerDir, number: usize) -> PathBuf {
    dir.volume(number).join(DATA)
}

fn mount(volume: &Volume, map: BorrowedFd<'_>, place: &Path) -> Result<(), RootError> {
    make_directory(place, 0o711)?;
    let mounted = rootfs::ext4(&volume.device, "mounting the device as ext4")?;
    sys::mount_setattr(mounted.as_fd(), sys::NOSUID_NODEV, Some(map)).map_err(at("mapping the ids of the volume"))?;
    sys::move_mount(mounted.as_fd(), place).map_err(at("attaching the volume"))
}

/// Makes the folder at the first start; later ones leave it as the service has made it.
fn make_data(
    volume: &Volume,
    ids: IdRange,
    identity: &Identity,
    dir: &ContainerDir,
    number: usize,
) -> Result<(), RootError> {
    let path = data(dir, number);
    if path.is_dir() {
        return Ok(());
    }
    // Made under another name: a start that is cut short leaves no folder with the wrong owner.
    let fresh = dir.volume(number).join(".data.new");
    let owner =
        like_the_image(volume, ids, dir)?.unwrap_or(Owner { uid: identity.uid, gid: identity.gid, mode: 0o755 });
    let failed = |source| RootError::Directory { path: path.clone(), source };
    make_directory(&fresh, owner.mode)?;
    let folder = std::fs::File::open(&fresh).map_err(failed)?;
    fchown(&folder, Some(ids.base + owner.uid), Some(ids.base + owner.gid)).map_err(failed)?;
    std::fs::rename(&fresh, &path).and_then(|()| folder.sync_all()).map_err(failed)
}

/// Whose a directory is, as the container counts, and its mode.
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Owner and mode of the image's directory at the mount path, if it has one
/// that is not simply root's.
fn like_the_image(volume: &Volume, ids: IdRange, dir: &ContainerDir) -> Result<Option<Owner>, RootError> {
    let at = |source: io::Error| RootError::Directory { path: volume.mount_path.clone(), source };
    let Some(found) = confined::directory(&dir.rootfs(), &volume.mount_path).map_err(at)? else { return Ok(None) };
    let inside = |id: u32| id.checked_sub(ids.base).filter(|id| *id < ids.size);
    let owner = inside(found.uid()).zip(inside(found.gid())).filter(|(uid, _)| *uid != 0);
    Ok(owner.map(|(uid, gid)| Owner { uid, gid, mode: found.permissions().mode() & 0o7777 }))
}
