//! Loop devices: a file as a block device.
//!
//! A device is taken with one `LOOP_CONFIGURE`, which names the file, the sector size and direct
//! I/O at once, so that no half-configured device is ever seen. Direct I/O keeps a volume's data
//! from being cached twice. Everything here blocks; it is for a blocking thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Sector size of every device made here, in bytes; what dm-crypt and ext4 above it use, too.
pub const SECTOR: u32 = 4096;

/// How often another device is tried when somebody else took the free one first.
const RACES: usize = 32;

/// Requests of loop(4), from `linux/loop.h`.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// What could not be done with which device or file.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", .path.display())]
pub struct LoopError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl LoopError {
    fn at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> LoopError + use<'a> {
        move |source| LoopError { doing, path: path.to_owned(), source }
    }
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Attaches the file to a free device; the device's path.
///
/// # Errors
/// The file cannot be opened, there is no free device, or the file's filesystem has no direct I/O.
pub fn attach(file: &Path) -> Result<PathBuf, LoopError> {
    let failed = LoopError::at("attaching a loop device to", file);
    let backing = OpenOptions::new().read(true).write(true).open(file).map_err(&failed)?;
    for _ in 0..RACES {
        let number = free_device().map_err(&failed)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open_device(&path).map_err(&failed)?;
        match configure(&device, &backing) {
            Ok(()) => return Ok(path),
            // Somebody else was quicker.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::ResourceBusy.into()))
}

/// Gives the device back; fine when it is free already. The kernel waits for whoever has it open.
///
/// # Errors
/// It is no loop device, or there is none of that name.
pub fn detach(device: &Path) -> Result<(), LoopError> {
    let failed = LoopError::at("detaching", device);
    let opened = File::open(device).map_err(&failed)?;
    match ioctl(&opened, LOOP_CLR_FD, 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        other => other.map(drop).map_err(failed),
    }
}

/// Tells the device that its file has grown.
///
/// # Errors
/// The device is not attached.
pub fn take_new_size(device: &Path) -> Result<(), LoopError> {
    let failed = LoopError::at("taking the new size of", device);
    let opened = File::open(device).map_err(&failed)?;
    ioctl(&opened, LOOP_SET_CAPACITY, 0).map(drop).map_err(failed)
}

/// The device that a file is attached to, if any: compared by inode, so that names do not matter.
///
/// # Errors
/// The file is not there.
pub fn device_of(file: &Path) -> Result<Option<PathBuf>, LoopError> {
    let failed = LoopError::at("looking for the loop device of", file);
    let wanted = fs::metadata(file).map_err(&failed)?;
    let same = |found: fs::Metadata| (found.st_dev(), found.st_ino()) == (wanted.st_dev(), wanted.st_ino());
    let all = attached().map_err(failed)?;
    Ok(all.into_iter().find(|(_, backing)| fs::metadata(backing).is_ok_and(same)).map(|(device, _)| device))
}

/// The devices whose files lie in a folder, and these files. A file that was removed meanwhile has
/// ` (deleted)` at the end of its name.
///
/// # Errors
/// `/sys` cannot be read.
pub fn attached_below(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, LoopError> {
    let mut all = attached().map_err(LoopError::at("looking for loop devices on", folder))?;
    all.retain(|(_, backing)| backing.starts_with(folder));
    Ok(all)
}

/// Whether another device, as one of the mapper, stands on it.
#[must_use]
pub fn is_held(device: &Path) -> bool {
    let holders = Path::new("/sys/block").join(device.file_name().unwrap_or_default()).join("holders");
    fs::read_dir(holders).is_ok_and(|mut holders| holders.next().is_some())
}

/// Every device that has a file, with the file.
fn attached() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let shown = fs::read_to_string(Path::new("/sys/block").join(&name).join("loop/backing_file"));
        // Not a loop device, or one without a file.
        let Ok(backing) = shown else { continue };
        found.push((Path::new("/dev").join(name), PathBuf::from(backing.trim_end())));
    }
    Ok(found)
}

fn free_device() -> io::Result<i32> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    ioctl(&control, LOOP_CTL_GET_FREE, 0)
}

/// The node of a device that was made just now may take a moment to be there.
fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn configure(device: &File, backing: &File) -> io::Result<()> {
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_DIRECT_IO,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let file = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let config = Config { file, block_size: SECTOR, info, reserved: [0; 8] };
    ioctl(device, LOOP_CONFIGURE, std::ptr::from_ref(&config).addr()).map(drop)
}

#[allow(unsafe_code, reason = "loop(4) has no other interface")]
fn ioctl(file: &File, request: libc::Ioctl, argument: usize) -> io::Result<i32> {
    // SAFETY: the descriptor is open for the call. The argument is 0 where the request takes none,
    // else the address of a `Config` that lives until the call is over and that the kernel only reads.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    nix::errno::Errno::result(result).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = attach(Path::new("/nonexistent/image")).unwrap_err();
        assert_eq!(error.to_string(), "attaching a loop device to /nonexistent/image");
    }
}
