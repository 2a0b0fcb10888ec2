//! The one call that makes a mounted ext4 larger, on a mount of our own.

#![allow(unsafe_code, reason = "the mount API and ext4's growth have no other interface")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

mod requests {
    //! `EXT4_IOC_RESIZE_FS` of the kernel's `ext4.h`.
    #![allow(missing_docs, reason = "the macros take no documentation")]

    nix::ioctl_write_ptr!(resize, b'f', 16, u64);
}

/// Grows the filesystem on `device` to so many blocks.
pub(super) fn to(device: &Path, blocks: u64) -> io::Result<()> {
    let mount = mount_unseen(device)?;
    let root = openat(&mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: the descriptor is open, and the kernel only reads the number, which lives through the call.
    unsafe { requests::resize(root.as_raw_fd(), &raw const blocks) }?;
    nix::unistd::fsync(&root)?;
    Ok(())
}

/// A mount of the device's ext4 that is attached nowhere and goes with its descriptor.
fn mount_unseen(device: &Path) -> io::Result<OwnedFd> {
    let source = CString::new(device.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: the name is a terminated string that lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"ext4".as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    configure(&context, libc::FSCONFIG_SET_STRING, Some((c"source", &source)))?;
    configure(&context, libc::FSCONFIG_CMD_CREATE, None)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: plain numbers and an open descriptor.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes) })
}

fn configure(context: &OwnedFd, command: libc::c_uint, pair: Option<(&CStr, &CStr)>) -> io::Result<()> {
    let (key, value) = pair.map_or((ptr::null(), ptr::null()), |(key, value)| (key.as_ptr(), value.as_ptr()));
    // SAFETY: both pointers are null or terminated strings that live through the call.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    nix::errno::Errno::result(done).map(drop).map_err(io::Error::from)
}

fn owned(value: libc::c_long) -> io::Result<OwnedFd> {
    let value = nix::errno::Errno::result(value)?;
    let raw = RawFd::try_from(value).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
